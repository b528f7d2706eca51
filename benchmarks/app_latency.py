"""Seconds until the pages of the app answer, beside the goals: taste .5 s, its explanation, captions and masks 2 s.

A photograph of 1,024 pixels and a title go through the functions that the pages call, after one call that does not
count; what the browser and the loopback add is some 50 ms. The weights of the models are fresh (ResNet-18 and a BiLSTM;
ResNet-18 and a transformer of four layers that writes 40 words with three beams; DeepLabV3 on ResNet-50), or those of
`--models`, folders of your own.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measuring import Row, arguments_of, in_turns, milliseconds, report
from PIL import Image
from transformers import TimmWrapperConfig

from dataset_builder.catalogue.ingredients import catalogue_dishes
from modeling_flavour import (
    FlavourCaptionerConfig,
    FlavourForClassification,
    FlavourForSegmentation,
    FlavourForTransformerCaptioning,
    FlavourProcessor,
    FlavourSegmentationConfig,
)
from trainer_scripts.app_pages import caption, plate, taste
from trainer_scripts.app_pages.models import load_models
from trainer_scripts.data.tokenizer import train_tokenizer
from trainer_scripts.tasks.captioning.text import train_caption_tokenizer

SIDE, TITLE = 1024, "Lemon tart with meringue and candied orange"
CLASSES = 104  # as many as FoodSeg103 has
LONGEST = 40


def fresh_models(folder):
    """Folders of a classifier, a captioner and a segmenter with fresh weights."""
    torch.manual_seed(0)
    titles = [dish.title for dish in catalogue_dishes()]
    small = TimmWrapperConfig(architecture="resnet18")
    words = train_tokenizer(titles, "words", 8000, LONGEST)
    fusion = FlavourForClassification.from_parts(
        image={"model_type": "timm_wrapper", "architecture": "resnet18"},
        word_vocab_size=len(words),
        text_pooling="lstm",
        lstm_hidden_size=300,
        lstm_layers=1,
    )
    tokenizer = train_caption_tokenizer(titles, "words", 8000, LONGEST)
    sizes = {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 2048}
    config = FlavourCaptionerConfig(
        decoder_type="transformer", vision_config=small, vocab_size=len(tokenizer), **sizes,
        max_position_embeddings=LONGEST, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    large = TimmWrapperConfig(architecture="resnet50", model_args={"output_stride": 8})
    names = {number: "background" if number == 0 else f"ingredient {number}" for number in range(CLASSES)}
    masks = FlavourSegmentationConfig(vision_config=large, id2label=names, head="deeplabv3", aspp_rates=[12, 24, 36])
    made = {
        "fusion": (fusion, FlavourProcessor.from_parts(words, small, 224)),
        "captioner": (FlavourForTransformerCaptioning(config), FlavourProcessor.from_parts(tokenizer, small, 224)),
        "segmenter": (FlavourForSegmentation(masks), FlavourProcessor.from_parts(image=large, size=320, whole=True)),
    }
    for name, (model, processor) in made.items():
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return [str(folder / name) for name in made]


def calls_of(served, photograph):
    """What the pages compute for one model: name -> call and the seconds that it may take."""
    task = served.saved.task.name
    if task == "classification":
        return {
            f"{served.name}: taste": (partial(taste.answer_html, served, photograph, TITLE), 0.5),
            f"{served.name}: taste and why": (partial(taste.why_html, served, photograph, TITLE), 2.0),
        }
    if task == "captioning":
        describe = partial(caption.captions, served, photograph, caption.BEAMS, 3, 1, 1.0)
        return {f"{served.name}: caption, three beams": (describe, 2.0)}
    if task == "segmentation":
        return {f"{served.name}: masks and flavour map": (partial(plate.answer_html, served, photograph), 2.0)}
    return {}


def main() -> None:
    given = arguments_of(__doc__, models={"nargs": "+", "default": [], "metavar": "MODEL"})
    noise = np.random.default_rng(0).integers(0, 255, (SIDE // 16, SIDE // 16, 3), dtype=np.uint8)
    photograph = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for served in load_models(given.models or fresh_models(Path(folder)), None, False):
            for name, (call, goal) in calls_of(served, photograph).items():
                seconds = in_turns({name: call}, given.rounds, given.clock)[name]
                against = f"goal: {goal * 1000:.0f} ms"
                rows.append(Row(f"{name}: {milliseconds(seconds)}", against, [goal / one for one in seconds], 1))
    report(rows, given)


if __name__ == "__main__":
    main()
