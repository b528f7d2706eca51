"""Features of frozen backbones: how fast they are made, and what reading them saves each epoch.

Making: from JPEG files to features, against the transformers processor and the eager model in a loop over the files,
with a frozen MobileNetV2 (fresh weights of full size, or those of `--backbone`). Making the graph for ONNX Runtime,
once per run, is reported apart. Reading: epochs of a classifier on frozen MobileNetV2 and a text encoder of MiniLM's
shape, on kept features, against the same epochs with both backbones computed anew.
"""

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from measuring import Row, arguments_of, in_turns, per_second, ratios, report
from photographs import write_rows
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModel,
    MobileNetV2Config,
    MobileNetV2ImageProcessor,
    MobileNetV2Model,
    TrainerCallback,
)

from trainer_scripts.features import frozen as features
from trainer_scripts.features.engines import ImageEngine, cores
from trainer_scripts.features.storage import computed_batches
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training import run as training_run

TEXT = '{"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, '
TEXT += '"intermediate_size": 1536}'


class EpochTimes(TrainerCallback):
    """Seconds of each epoch, evaluation and saving left out."""

    def __init__(self):
        self.started, self.seconds = 0.0, []

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.started = time.perf_counter()

    def on_epoch_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self.started)


def fresh_backbone(folder: Path) -> Path:
    """MobileNetV2 at full size with random weights, as a folder of transformers."""
    torch.manual_seed(0)
    model = MobileNetV2Model(MobileNetV2Config(), add_pooling_layer=True)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):  # else signals fade to denormal numbers, which are slow to compute with
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_in")
    model.save_pretrained(folder)
    MobileNetV2ImageProcessor().save_pretrained(folder)
    return folder


def configuration_of(dataset: Path, backbone: Path, folder: Path, *more: str):
    settings = ["--dataset", str(dataset), "--image_encoder", str(backbone), "--label_column", "flavour"]
    settings += ["--task", "classification", "--text_column", "title", "--metric_for_best_model", "accuracy"]
    settings += ["--text_config", TEXT, "--tokenizer", "words", "--max_length", "40", "--use_cpu", "true"]
    settings += ["--features_dir", str(folder / "features"), "--output_dir", str(folder / "run"), "--seed", "0"]
    settings += ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
    configuration = parse_configuration(["multilabel_mobilenet_minilm", *settings, "--disable_tqdm", "true", *more])
    configuration.model.text_encoder = configuration.training.early_stopping_patience = None
    return configuration


@torch.inference_mode()
def loop(files: list[Path], processor, model) -> None:
    """The straightforward way: one file after the other."""
    for file in files:
        model(**processor(images=Image.open(file).convert("RGB"), return_tensors="pt")).pooler_output.numpy()


def making(dataset: Path, backbone: Path, folder: Path, given) -> Row:
    configuration = configuration_of(dataset, backbone, folder)
    data = training_run.load_training_data(configuration)
    model, text_and_picture = data.task.build(configuration, data)
    model.eval()
    samples = data.task.training_samples(configuration, data, text_and_picture)
    collator = data.task.collator(text_and_picture, len(data.names), configuration)
    engine = ImageEngine(model.image_encoder, configuration.training.bf16, 10**6)
    extractor = features.PictureExtractor(engine, samples, (collator.mean, collator.std))
    started = time.perf_counter()
    extractor.prepare()
    how = "ONNX Runtime" if engine.by_picture else "PyTorch"
    print(f"{how}, {cores()} threads; ready after {time.perf_counter() - started:.1f} s")
    batches = [range(start, min(start + 8, len(samples))) for start in range(0, len(samples), 8)]
    files = sorted((folder / "photographs").iterdir())[: len(samples)]
    own = AutoImageProcessor.from_pretrained(backbone), AutoModel.from_pretrained(backbone).eval()
    ways = {"loop": partial(loop, files, *own), "ours": lambda: list(computed_batches(batches, extractor, "picture"))}
    found = in_turns(ways, given.rounds, given.clock)
    return Row(
        f"features from JPEG files: {per_second(found['ours'], len(files), 'pictures')}",
        f"processor + eager loop: {per_second(found['loop'], len(files), 'pictures')}",
        ratios(found["loop"], found["ours"]),
        5,
    )


def epochs(dataset: Path, backbone: Path, folder: Path, how: str, number: int) -> list[float]:
    """Seconds of the epochs after the first."""
    configuration = configuration_of(
        dataset, backbone, folder, "--frozen_features", how, "--num_train_epochs", str(number + 1)
    )
    data = training_run.load_training_data(configuration)
    model, processor = data.task.build(configuration, data)
    trainer = training_run.make_trainer(configuration, data, model, processor)
    times = EpochTimes()
    trainer.add_callback(times)
    with features.features_once(configuration, trainer):
        trainer.train()
    return times.seconds[1:]


def main() -> None:
    number = {"type": int, "default": 256, "help": "pictures (%(default)s)"}
    backbone = {"type": Path, "default": None, "help": "folder of a pretrained backbone instead of fresh weights"}
    given = arguments_of(__doc__, 3, pictures=number, backbone=backbone)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        dataset = write_rows(folder, given.pictures)
        chosen = given.backbone or fresh_backbone(folder / "mobilenet")
        made = making(dataset, chosen, folder, given)
        plain = epochs(dataset, chosen, folder, "recompute", given.rounds)
        kept = epochs(dataset, chosen, folder, "store", given.rounds)
    read = Row(
        f"later epochs on kept features: {per_second(kept, given.pictures, 'rows')}",
        f"frozen backbones computed anew: {per_second(plain, given.pictures, 'rows')}",
        ratios(plain, kept),
        20,
    )
    report([made, read], given)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
