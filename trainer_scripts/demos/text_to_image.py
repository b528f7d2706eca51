"""Steps of `make demo TASK=text_to_image`: a denoiser from scratch in minutes, and what hours of training draw.

It is trained around the autoencoder of the shipped pipeline, from latents that are stored once.
"""

from pathlib import Path

from datasets import Image as ImageFeature
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

SHIPPED = "plates-ldm"
CONFIGURATION = "text_to_image_tiny"
EPOCHS = 12.0  # minutes on two cores
TRAINING = ["--eval_steps", "0.125", "--save_steps", "0.125"]
DRAWER, DRAWN, SHEET = "drawer", "drawn", "sheet.png"
STEPS, GUIDANCE = 25, 3.0
COLUMNS, SIDE = 8, 128
DRAWN_RECIPES = 24
SEED = 0


def run(data: Path, out: Path, epochs: float | None = None) -> None:
    """Train a denoiser, draw held-out dishes with it and with the shipped pipeline, and build a data set with it.

    Args:
        data: folder of a finished build.
        out: folder of the results: `drawer/` the pipeline, with `grid.png` over the time of its training; `drawn/` a
            data set that it drew; `sheet.png` held-out dishes as plates, by it, and by the shipped pipeline.
        epochs: of the training; None: `EPOCHS`.
    """
    drawer = out / DRAWER
    given = ["--vae", SHIPPED, "--dataset", str(data), "--output_dir", str(drawer)]
    train_on_all_cores([CONFIGURATION, *given, *TRAINING, "--num_train_epochs", str(epochs or EPOCHS)])
    if not (out / SHEET).is_file():
        draw_sheet(data, drawer, out / SHEET)
    settings = GenerationSettings(pipeline=str(drawer), steps=STEPS, guidance=GUIDANCE)
    build(BuildSettings(number=DRAWN_RECIPES, generation=settings), out / DRAWN)


def draw_sheet(data: Path, drawer: Path, sheet: Path) -> None:
    """Write a sheet of held-out dishes: their plates, what a pipeline draws of them, and what the shipped one does."""
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
    drawn = [side_by_side(plates), *(side_by_side(drawings(name, prompts)) for name in (str(drawer), SHIPPED))]
    write_whole(sheet, lambda partial: stacked_rows(drawn).save(partial, "png"))


def drawings(pipeline: str, prompts: list[str]) -> list[Image.Image]:
    """Return a picture of each prompt by a pipeline, as a build draws it; a grey one where every attempt failed."""
    settings = GenerationSettings(pipeline=pipeline, steps=STEPS, guidance=GUIDANCE)
    illustrator = Illustrator(settings, pipeline_revision(pipeline, None))
    tasks = [PictureTask(str(row), str(row), prompt, prompt, SEED + row) for row, prompt in enumerate(prompts)]
    blank = Image.new("RGB", (SIDE, SIDE), "grey")
    return [(picture.image or blank).resize((SIDE, SIDE)) for picture in illustrator.draw(tasks)]


def places(data: Path, out: Path) -> dict[str, Path]:
    """Return what the demo leaves where."""
    return {
        "pictures over the time of training": out / DRAWER / "grid.png",
        "plates, its pictures, those of hours of training": out / SHEET,
        "data set that it drew": out / DRAWN,
        "card of the pipeline": out / DRAWER / "README.md",
        "data set": data,
    }
