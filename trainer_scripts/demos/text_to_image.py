"""Steps of `make demo TASK=text_to_image`: a small latent diffusion pipeline from scratch, and what it draws.

Denoiser, text encoder and vocabulary learn around the autoencoder of this package, from latents that are stored once.
"""

from pathlib import Path

import torch
from datasets import Image as ImageFeature
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from dataset_builder.building.build import build
from dataset_builder.building.settings import BuildSettings
from dataset_builder.columns import IMAGE, INGREDIENTS, TITLE
from dataset_builder.files import write_whole
from dataset_builder.messages import echo
from dataset_builder.pictures.illustrator import Illustrator
from dataset_builder.pictures.prompts import render
from dataset_builder.pictures.revisions import pipeline_revision
from dataset_builder.pictures.settings import GenerationSettings, PictureTask
from trainer_scripts.data.splits import open_dataset, split_rows
from trainer_scripts.demos.all_cores import train_on_all_cores
from trainer_scripts.tasks.text_to_image.grid import side_by_side, stacked_rows
from trainer_scripts.tasks.text_to_image.scratch import load_autoencoder

AUTOENCODER = "package:plates-autoencoder"
CONFIGURATION = "text_to_image_tiny"
EPOCHS = 6.0
# Small batches: within minutes many steps teach more than large ones. A machine too slow for them stops in time.
TRAINING = ["--per_device_train_batch_size", "16", "--learning_rate", "1.5e-3", "--ema_decay", "0.995"]
TRAINING += ["--eval_strategy", "epoch", "--save_strategy", "epoch", "--max_minutes", "8"]
DRAWER, DRAWN, SHEET = "drawer", "drawn", "sheet.png"
STEPS, GUIDANCE = 25, 3.0
COLUMNS, SIDE = 8, 96
DRAWN_RECIPES = 24
SEED = 0


def run(data: Path, out: Path, epochs: float | None = None) -> None:
    """Train a denoiser, draw held-out dishes with it, and build a data set with it.

    Args:
        data: folder of a finished build.
        out: folder of the results: `drawer/` the pipeline, with `grid.png` over the time of its training; `drawn/` a
            data set that it drew; `sheet.png` held-out dishes as plates, as what is left of these in latents, and as
            it draws them.
        epochs: of the training; None: `EPOCHS`.
    """
    drawer = out / DRAWER
    length = ["--num_train_epochs", str(epochs or EPOCHS)]
    given = ["--vae", AUTOENCODER, "--dataset", str(data), "--output_dir", str(drawer)]
    train_on_all_cores([CONFIGURATION, *given, *TRAINING, *length])
    if not (out / SHEET).is_file():
        draw_sheet(data, drawer, out / SHEET)
    settings = GenerationSettings(pipeline=str(drawer), steps=STEPS, guidance=GUIDANCE)
    build(BuildSettings(number=DRAWN_RECIPES, generation=settings), out / DRAWN)


def draw_sheet(data: Path, drawer: Path, sheet: Path) -> None:
    """Write a sheet of held-out dishes: their plates, these through the autoencoder, and what the pipeline draws."""
    rows = split_rows(open_dataset(str(data)), "test", str(data))
    # Dishes from all over the split, whose neighbours are alike.
    chosen = rows.select(range(0, len(rows), max(1, len(rows) // COLUMNS))).select(range(min(COLUMNS, len(rows))))
    plates = [
        picture.convert("RGB").resize((SIDE, SIDE)) for picture in chosen.cast_column(IMAGE, ImageFeature())[IMAGE]
    ]
    prompts = [
        render("ingredients", title, lines) for title, lines in zip(chosen[TITLE], chosen[INGREDIENTS], strict=True)
    ]
    for number, prompt in enumerate(prompts, start=1):
        echo(f"{number}: {prompt}")
    drawn = [side_by_side(each) for each in (plates, through_latents(plates), drawings(str(drawer), prompts))]
    write_whole(sheet, lambda partial: stacked_rows(drawn).save(partial, "png"))


def through_latents(pictures: list[Image.Image]) -> list[Image.Image]:
    """Return what the autoencoder keeps of pictures: no drawing around it can be sharper."""
    vae = load_autoencoder(AUTOENCODER, None)
    processor = VaeImageProcessor()
    with torch.no_grad():
        latents = vae.encode(processor.preprocess(pictures)).latent_dist.mean
        return processor.postprocess(vae.decode(latents).sample)


def drawings(pipeline: str, prompts: list[str]) -> list[Image.Image]:
    """Return a picture of each prompt by a pipeline, as a build draws it; a grey one where every attempt failed."""
    settings = GenerationSettings(pipeline=pipeline, steps=STEPS, guidance=GUIDANCE)
    illustrator = Illustrator(settings, pipeline_revision(pipeline, None))
    tasks = [PictureTask(str(row), str(row), prompt, prompt, SEED + row) for row, prompt in enumerate(prompts)]
    blank = Image.new("RGB", (SIDE, SIDE), "grey")
    return [picture.image or blank for picture in illustrator.draw(tasks)]


def places(data: Path, out: Path) -> dict[str, Path]:
    """Return what the demo leaves where."""
    return {
        "pictures over the time of training": out / DRAWER / "grid.png",
        "plates, plates through latents, drawn dishes": out / SHEET,
        "data set that it drew": out / DRAWN,
        "card of the pipeline": out / DRAWER / "README.md",
        "data set": data,
    }
