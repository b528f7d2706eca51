"""The steps to the image encoder: plates, training on crops and then on whole ones, checkpoint and card."""

import argparse
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from dataset_builder.files import write_json, write_whole
from dataset_builder.messages import echo
from trainer_scripts.demos.all_cores import train_on_all_cores
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.pretraining.plates import VALIDATION, PlateSettings, plates_of

# Name -> configuration and arguments of each training; each starts from the one before it.
STEPS = {
    "crops": ["plates_resnet18"],
    "whole": ["plates_resnet18_whole"],
    "again": ["plates_resnet18_whole", "--num_train_epochs", "0.4", "--learning_rate", "1e-3"],
    "longer": ["plates_resnet18_whole", "--num_train_epochs", "1.2"],
}
WEIGHTS = "model.safetensors"
# Of the folder of a run, what makes the checkpoint: neither code, nor what belongs to the run alone.
FILES = ("config.json", "processor_config.json", "preprocessor_config.json")
SCORES = ("map", "samples_f1", "macro_f1")
STATED = ("parameters", "steps", "epochs", "seconds", "seed", "precision", "device")
CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-feature-extraction
tags: [food, image-feature-extraction]
---

# {name}

The image encoder that the tiny configurations and the demos start from: a ResNet-18 of a quarter of the usual width, \
with a head that names the ingredient at each place of a plated picture. It was trained from scratch on {train:,} \
plated pictures (simulated, {size} x {size} pixels) of random sets of ingredients. None of them is a dish of the \
embedded catalogue, and no label of taste took part.

```python
import modeling_flavour  # makes the classes of the model known
from transformers import AutoModel

encoder = AutoModel.from_pretrained("{name}").image_encoder
```

| | |
|---|---|
| plates | {train:,} training, {validation:,} validation, seed {seed} |
| training | crops: {crops}; whole plates: {whole}; again at a lower rate: {again}; longer: {longer} |
| mean average precision of the ingredients, validation plates | {map:.3f} |

Made by `python trainer_scripts/pretrain.py`; its configurations are `plates_resnet18` and `plates_resnet18_whole`, and
the record of all trainings stands in `training.json`.
It knows simulated plates only. Weights are stored in half precision and are used in single precision.
"""


def run(given: argparse.Namespace) -> None:
    """Draw plates, train on them, write the checkpoint.

    Args:
        given: arguments of `pretrain.py`.

    Raises:
        BadInputError: the work folder holds plates of other settings.
    """
    settings, plates = plates_of(given)
    common = ["--dataset", str(plates), *(["--num_train_epochs", str(given.epochs)] if given.epochs else [])]
    runs: dict[str, Path] = {}
    for name, words in STEPS.items():
        start = ["--model_name_or_path", str(list(runs.values())[-1])] if runs else []
        runs[name] = given.work / name
        train_on_all_cores([*words, "--output_dir", str(runs[name]), *start, *common])
    out = given.out or Path("outputs") / given.model
    write_checkpoint(settings, runs, out)
    echo(f"checkpoint: {out}")


def write_checkpoint(settings: PlateSettings, runs: dict[str, Path], out: Path) -> None:
    """Write the checkpoint of the last run, in half precision, with its card and the record of all runs.

    Args:
        settings: of the plates.
        runs: name -> folder of a training, in their order.
        out: folder of the checkpoint.
    """
    out.mkdir(parents=True, exist_ok=True)
    last = list(runs.values())[-1]
    for name in FILES:
        if (last / name).is_file():
            shutil.copyfile(last / name, out / name)
    weights = load_file(last / WEIGHTS)
    # Running statistics stay in single precision: small variances would become zero.
    small = {name: value if "running_" in name or not value.is_floating_point() else value.half()
             for name, value in weights.items()}  # fmt: skip
    write_whole(out / WEIGHTS, lambda partial: save_file(small, partial, metadata={"format": "pt"}))
    metrics = {name: read_metrics(folder) for name, folder in runs.items()}
    record: dict[str, Any] = {"plates": vars(settings), VALIDATION: {}}
    for name, content in metrics.items():
        record[name] = {key: content[key] for key in STATED}
        record[VALIDATION][name] = {key: content["selection"][key] for key in SCORES}
    write_json(out / "training.json", record)
    trained = {
        name: f"{content['steps']:,} steps, {content['seconds'] / 60:.0f} minutes" for name, content in metrics.items()
    }
    card = CARD.format(name=out.name, map=metrics[list(runs)[-1]]["selection"]["map"], **vars(settings), **trained)
    (out / "README.md").write_text(card, encoding="utf-8")
