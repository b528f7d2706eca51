"""Plates with their prompts, from which a text-to-image model learns: random sets of ingredients, and training dishes.

A prompt is made as `flavour-sd build` makes it: the title, which decides the vessel, then what is visible. A random set
has no title, so the name of its vessel stands in its place.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value, load_dataset
from datasets import Image as ImageFeature

from dataset_builder.catalogue.ingredients import find_ingredients
from dataset_builder.columns import DISH_ID, ID, IMAGE, INGREDIENTS, TITLE
from dataset_builder.files import write_whole
from dataset_builder.pictures.prompts import render
from dataset_builder.plating.pipeline import draw_plate
from trainer_scripts.pretraining.plates import (
    TRAIN,
    PlateSettings,
    choose,
    encoded_picture,
    side_by_side,
)

TEMPLATE, PROMPT = "ingredients", "prompt"
# Plates of the catalogue show about three ingredients. Where a plate is crowded, little of each is seen.
MOST_VISIBLE = 5
DISHES = "dishes"
# In place of the number of a split, so that no plate of a dish repeats the choices of a random one.
_OF_DISHES = 2


@dataclass(frozen=True)
class Prompted:
    """Where plates come from and how many pictures of dishes there are.

    Attributes:
        plates: settings of the plates of random sets, which are drawn already.
        drawn: folder of their Parquet files.
        dishes: folder of a data set; titles and ingredients of its training rows are drawn anew.
        pictures: of each of these dishes.
    """

    plates: PlateSettings
    drawn: Path
    dishes: Path
    pictures: int = 4


def features() -> Features:
    """Return the columns of prompted plates."""
    return Features(
        {
            ID: Value("string"),
            DISH_ID: Value("string"),
            IMAGE: ImageFeature(),
            PROMPT: Value("string"),
        }
    )


def random_plates(source: Prompted, name: str) -> Iterator[dict[str, Any]]:
    """Yield the plates of one file that are not crowded."""
    file = str(source.drawn / name)
    rows = load_dataset("parquet", data_files=file, split=TRAIN, columns=[ID, IMAGE, INGREDIENTS])
    for row in rows.cast_column(IMAGE, ImageFeature(decode=False)):
        split, number = row[ID].rsplit("-", 1)
        vessel, names, _ = choose(source.plates, split, int(number))
        assert names == row[INGREDIENTS]
        visible = [item for line in names for item in find_ingredients(line) if item.visible]
        if len(visible) <= MOST_VISIBLE:
            yield {ID: row[ID], DISH_ID: row[ID], IMAGE: row[IMAGE], PROMPT: render(TEMPLATE, vessel, names)}


def dish_plates(source: Prompted, picture: int) -> Iterator[dict[str, Any]]:
    """Yield a new plate of each training dish; it follows from the seed of the plates and from the two numbers."""
    files = str(source.dishes / "data" / f"{TRAIN}-*.parquet")
    rows = load_dataset("parquet", data_files=files, split=TRAIN, columns=[ID, DISH_ID, TITLE, INGREDIENTS])
    for number, row in enumerate(rows):
        rng = np.random.default_rng([source.plates.seed, _OF_DISHES, picture, number])
        prompt, row_id = render(TEMPLATE, row[TITLE], row[INGREDIENTS]), f"{row[ID]}-plate-{picture}"
        drawn, *_ = draw_plate(prompt, source.plates.size, rng)
        yield {ID: row_id, DISH_ID: row[DISH_ID], IMAGE: encoded_picture(drawn), PROMPT: prompt}


def _write(source: Prompted, folder: Path, part: tuple[str, Any]) -> int:
    name, argument = part
    path = folder / name
    if not path.is_file():
        rows = random_plates(source, argument) if isinstance(argument, str) else dish_plates(source, argument)
        table = Dataset.from_list(list(rows), features=features())
        write_whole(path, lambda partial: table.to_parquet(partial))
    return 1


def write_prompted(source: Prompted, folder: Path, processes: int) -> None:
    """Write Parquet files that `load_dataset(folder)` reads; finished files are kept.

    Args:
        source: of the plates.
        folder: new, or that of an interrupted run with the same source.
        processes: that work side by side; the rows do not depend on their number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The dishes take longest, so they come first.
    parts: list[tuple[str, Any]] = [
        (f"{TRAIN}-{DISHES}-{picture:02d}.parquet", picture) for picture in range(source.pictures)
    ]
    parts += [(path.name, path.name) for path in sorted(source.drawn.glob("*.parquet"))]
    work = functools.partial(_write, source, folder)
    side_by_side(work, parts, processes, "plates with prompts", "file", len(parts))
