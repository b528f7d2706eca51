"""A finished training run as `train.py` leaves it: a tiny classifier with its code, its scores and its recipe."""

import json
from pathlib import Path

import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from modeling_flavour.configuration_flavour import FlavourConfig
from modeling_flavour.modeling_flavour import FlavourForClassification
from modeling_flavour.processing_flavour import FlavourProcessor

WORDS = ["[PAD]", "[UNK]", "greek", "salad", "with", "olives", "soup"]
TEXT = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
VISION = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"}
METRICS = {
    "recipe": "tiny",
    "task": "classification",
    "modality": "fusion",
    "dataset": "org/flavour-sd",
    "dataset_revision": "v1.0.0",
    "selection_split": "validation",
    "selection_metric": "accuracy",
    "selection": {"accuracy": 0.75, "macro_f1": 0.7},
    "definitions": {"accuracy": {"definition": "share of rows |whose| label is most probable", "sha256": "0"}},
    "rows": {"train": 100, "selection": 20, "left_out": 0},
    "parameters": 12345,
    "megabytes": 0.05,
    "seconds": 12.5,
    "epochs": 3.0,
    "seed": 17,
    "history": [],
}
CONFIGURATION = {
    "modality": "fusion",
    "learning_rate": 1e-3,
    "text_encoder": "/somewhere/minilm",
    "output_dir": "/somewhere/else",
}
COMPARISON = {
    "dataset": "outputs/flavour-sd",
    "split": "test",
    "rows": 500,
    "groups": 90,
    "main_score": "accuracy",
    "tested": "run",
    "verdicts": ["- run is better than title: +0.050 accuracy [+0.010, +0.090]", "- runner is something else"],
    "entries": {
        "run": {"modality": "fusion", "scores": {"accuracy": {"value": 0.78, "low": 0.74, "high": 0.82, "p": None}}},
        "majority": {"modality": "none", "scores": {"accuracy": {"value": 0.3, "low": 0.28, "high": 0.33}}},
    },
    "ablations": {"run": {"scores": {"as it is": 0.78, "text blanked": 0.5}, "losses": {}, "verdicts": {}}},
    "definitions": METRICS["definitions"],
}


def make_processor():
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    text = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    return FlavourProcessor.from_parts(text, VISION, size=32, max_length=8)


def make_run(folder, metrics=METRICS, recipe=CONFIGURATION, comparison=None):
    """Write a run; None leaves a file out."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    sizes = {"text_dense_sizes": [8], "image_dense_sizes": [8], "head_dense_sizes": [8]}
    model = FlavourForClassification(FlavourConfig(text_config=TEXT, vision_config=VISION, **sizes)).eval()
    model.save_pretrained(folder)
    make_processor().save_pretrained(folder)
    for name, content in (("metrics.json", metrics), ("comparison.json", comparison)):
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    if recipe is not None:
        (folder / "configuration.yaml").write_text(yaml.safe_dump(recipe))
    return folder
