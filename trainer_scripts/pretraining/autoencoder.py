"""The steps to the autoencoder of plates: plates, training, checkpoint and card."""

import argparse
from pathlib import Path

from dataset_builder.files import write_json
from dataset_builder.messages import echo
from trainer_scripts.demos.all_cores import train_on_all_cores
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.pretraining.plates import PlateSettings, plates_of
from trainer_scripts.tasks.text_to_image.autoencoder import ERROR
from trainer_scripts.tasks.text_to_image.scratch import load_autoencoder

CONFIGURATION = ["plates_autoencoder"]
STATED = ("parameters", "steps", "epochs", "seconds", "seed", "precision", "device")
CARD = """---
license: apache-2.0
library_name: diffusers
tags: [food, autoencoder]
---

# {name}

An `AutoencoderKL` that turns plated pictures of {size} x {size} pixels into latents of {side} x {side} x {channels}, \
around which `text_to_image_tiny` makes a small latent diffusion pipeline. It was trained from scratch on plated \
pictures (simulated) of random sets of ingredients; none of them is a dish of the embedded catalogue, and no label of \
taste took part.

```python
from diffusers import AutoencoderKL

vae = AutoencoderKL.from_pretrained("{name}")  # the folder of this card
```

| | |
|---|---|
| plates | {train:,} training, {validation:,} validation, seed {seed} |
| training | {parameters:,} parameters, {steps:,} steps of 16, {minutes:.0f} minutes |
| mean absolute error of the pixels, in -1..1, validation plates | {error:.3f} |

Made by `python trainer_scripts/pretrain.py --model {name}`; its configuration is `plates_autoencoder`, and the record
of the training stands in `training.json`.
It knows simulated plates only, and blurs what is small. Latents of plates have mean 0 and spread 1 in each channel.
Weights are stored in half precision.
"""


def train(given: argparse.Namespace) -> tuple[PlateSettings, Path, Path]:
    """Draw plates and train the autoencoder on them; return settings and folder of the plates, and its folder.

    Args:
        given: arguments of `pretrain.py`.

    Raises:
        BadInputError: the work folder holds plates of other settings.
    """
    settings, plates = plates_of(given)
    folder = given.work / "autoencoder"
    length = ["--num_train_epochs", str(given.epochs)] if given.epochs else []
    train_on_all_cores([*CONFIGURATION, "--dataset", str(plates), "--output_dir", str(folder), *length])
    return settings, plates, folder


def run(given: argparse.Namespace) -> None:
    """Draw plates, train on them, write the autoencoder in half precision, with its card and record.

    Args:
        given: arguments of `pretrain.py`.

    Raises:
        BadInputError: the work folder holds plates of other settings.
    """
    settings, _, folder = train(given)
    out = given.out or Path("outputs") / given.model
    vae = load_autoencoder(str(folder), None).half()
    vae.save_pretrained(out, safe_serialization=True)
    metrics = read_metrics(folder)
    record = {"plates": vars(settings), **{key: metrics[key] for key in STATED}, "selection": metrics["selection"]}
    write_json(out / "training.json", record)
    config = vae.config
    card = CARD.format(
        name=out.name,
        size=config.sample_size,
        side=config.sample_size // 2 ** (len(config.block_out_channels) - 1),
        channels=config.latent_channels,
        train=settings.train,
        validation=settings.validation,
        seed=settings.seed,
        parameters=metrics["parameters"],
        steps=metrics["steps"],
        minutes=metrics["seconds"] / 60,
        error=metrics["selection"][ERROR.name],
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    echo(f"autoencoder: {out}")
