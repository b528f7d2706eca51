"""The steps to the latent diffusion model: plates, autoencoder, plates with prompts, denoiser, checkpoint and card."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from dataset_builder.building.build import build
from dataset_builder.building.settings import BuildSettings
from dataset_builder.files import write_json
from dataset_builder.messages import echo
from dataset_builder.pictures.pipelines import load_pipeline
from trainer_scripts.demos.all_cores import train_on_all_cores
from trainer_scripts.demos.run import NUMBER, SEED
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.pretraining.autoencoder import STATED, train
from trainer_scripts.pretraining.plates import PlateSettings
from trainer_scripts.pretraining.prompted import MOST_VISIBLE, PROMPT, Prompted, write_prompted

AUTOENCODER, DENOISER = "autoencoder", "denoiser"
# Plates with one ingredient have few different prompts; those of the plates that choose the checkpoint are left out.
PROMPTS = ("--text_column", PROMPT, "--prompt_template", "none", "--shared_rows", "drop")
CONFIGURATION = ["text_to_image_tiny", "--num_train_epochs", "8", *PROMPTS]
CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
tags: [food, text-to-image, stable-diffusion]
---

# {name}

A latent diffusion model of a few million parameters that draws plated dishes of 96 x 96 pixels from prompts such as \
"Spaghetti carbonara: spaghetti, bacon, parmesan". A stock `StableDiffusionPipeline` runs it. It was trained from \
scratch on simulated plates: {train:,} of random sets of ingredients (for the denoiser those with at most {most} \
visible ones), none of which is a dish of the embedded catalogue, and {pictures} of each training dish of the demo's \
data set. No held-out dish and no label of taste took part.

```python
from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{name}")  # the folder of this card
picture = pipeline("plate: tomato, feta, olive", num_inference_steps=25, guidance_scale=3.0).images[0]
```

`flavour-sd build --pipeline FOLDER --steps 25 --guidance 3` draws a data set with it.

| | |
|---|---|
| autoencoder | {autoencoder} |
| denoiser and text encoder | {denoiser} |
| mean absolute error of the autoencoder's pixels, in -1..1, validation plates | {error:.3f} |

Made by `python trainer_scripts/pretrain.py --model {name}`; its configurations are `plates_autoencoder` and \
`text_to_image_tiny`, and the record of both trainings stands in `training.json`.
It knows simulated plates and the names of the catalogue's ingredients only: it draws no photographs, and other words
are read in pieces that mean nothing to it. Weights are stored in half precision.
"""


def run(given: argparse.Namespace) -> None:
    """Draw plates, train autoencoder and denoiser on them, write the pipeline.

    Args:
        given: arguments of `pretrain.py`.

    Raises:
        BadInputError: the work folder holds plates of other settings.
    """
    settings, plates, autoencoder = train(given)
    denoiser = given.work / DENOISER
    length = ["--num_train_epochs", str(given.epochs)] if given.epochs else []
    dishes, prompted = given.work / "flavour-sd", given.work / "prompted"
    build(BuildSettings(number=NUMBER, seed=SEED, rule="votes"), dishes)
    source = Prompted(settings, plates / "data", dishes)
    write_prompted(source, prompted / "data", max(1, torch.get_num_threads()))
    rows = ["--vae", str(autoencoder), "--dataset", str(prompted), "--output_dir", str(denoiser)]
    train_on_all_cores([*CONFIGURATION, *rows, *length])
    out = given.out or Path("outputs") / given.model
    write_pipeline(settings, source, {AUTOENCODER: autoencoder, DENOISER: denoiser}, out)
    echo(f"pipeline: {out}")


def write_pipeline(settings: PlateSettings, source: Prompted, runs: dict[str, Path], out: Path) -> None:
    """Write the pipeline of the last run in half precision, with its card and the record of both runs.

    Args:
        settings: of the plates.
        source: of the plates with prompts.
        runs: name -> folder of a training.
        out: folder of the pipeline.
    """
    pipeline = load_pipeline(str(runs[DENOISER]), dtype="float16")
    pipeline.save_pretrained(out, safe_serialization=True)
    # transformers loads weights in the precision that a config states, and diffusers in single precision: all in that.
    config = out / "text_encoder" / "config.json"
    write_json(config, json.loads(config.read_text(encoding="utf-8")) | {"dtype": "float32"})
    metrics = {name: read_metrics(folder) for name, folder in runs.items()}
    record: dict[str, Any] = {"plates": vars(settings), "pictures_per_dish": source.pictures}
    for name, content in metrics.items():
        record[name] = {key: content[key] for key in STATED} | {"selection": content["selection"]}
    write_json(out / "training.json", record)
    trained = {
        name: f"{content['parameters']:,} parameters, {content['steps']:,} steps, {content['seconds'] / 60:.0f} minutes"
        for name, content in metrics.items()
    }
    error = metrics[AUTOENCODER]["selection"]["reconstruction_l1"]
    card = CARD.format(
        name=out.name, most=MOST_VISIBLE, pictures=source.pictures, error=error, train=settings.train, **trained
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    sheet = runs[DENOISER] / "grid.png"
    if sheet.is_file():
        shutil.copyfile(sheet, out / sheet.name)
