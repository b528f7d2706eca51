"""Plated pictures of random sets of ingredients: pictures and masks without a dish and without a label of taste."""

import argparse
import functools
import io
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, List, Value, disable_progress_bars
from datasets import Image as ImageFeature
from PIL import Image
from tqdm.auto import tqdm

from dataset_builder.building.rows import JPEG, mask_png
from dataset_builder.catalogue.ingredients import (
    VESSELS,
    catalogue_dishes,
    find_ingredients,
    ingredient_id,
    ingredients,
    visible_ingredients,
)
from dataset_builder.columns import BACKGROUND_NAME, DISH_ID, ID, IMAGE, INGREDIENT_LABELS, INGREDIENTS, MASK
from dataset_builder.errors import BadInputError
from dataset_builder.files import read_json, write_json, write_whole
from dataset_builder.plating.pipeline import draw_plate
from dataset_builder.processes import end_with_parent

TRAIN, VALIDATION = "train", "validation"
PLATES_PER_SHARD = 1000
# A plate of the catalogue shows about three ingredients; more of them on one plate teach more per picture.
FEWEST_VISIBLE, MOST_VISIBLE = 1, 8
MOST_HIDDEN = 3
# Shares of the vessels; in a glass most ingredients are not seen.
VESSEL_SHARES = dict(zip(VESSELS, (0.5, 0.3, 0.15, 0.05), strict=True))


@dataclass(frozen=True)
class PlateSettings:
    """What the pictures depend on.

    Attributes:
        train: number of training plates.
        validation: number of plates that choose the checkpoint.
        seed: of every random choice.
        size: height and width in pixels.
    """

    train: int = 100_000
    validation: int = 1000
    seed: int = 0
    size: int = 128

    def shards(self) -> Iterator[tuple[str, int, int]]:
        """Yield split, number of the shard and number of its plates."""
        for split, plates in ((TRAIN, self.train), (VALIDATION, self.validation)):
            for shard, start in enumerate(range(0, plates, PLATES_PER_SHARD)):
                yield split, shard, min(PLATES_PER_SHARD, plates - start)


def encoded_picture(picture: np.ndarray) -> dict[str, Any]:
    """Return a picture `(height, width, 3)` of 0..1 in the storage form of the table."""
    encoded = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(encoded, **JPEG)
    return {"bytes": encoded.getvalue(), "path": None}


@functools.cache
def catalogue_sets() -> frozenset[frozenset[str]]:
    """Return the set of ingredients of each dish of the catalogue."""
    return frozenset(
        frozenset(item.name for line in dish.ingredients for item in find_ingredients(line))
        for dish in catalogue_dishes()
    )


def random_names(rng: np.random.Generator) -> list[str]:
    """Return the names of one random set of ingredients, never that of a dish of the catalogue.

    Visible ingredients are drawn evenly, so that rare ones are seen as often as common ones.
    """
    visible = visible_ingredients()
    hidden = [item.name for item in ingredients() if not item.visible]
    while True:
        count = int(rng.integers(FEWEST_VISIBLE, MOST_VISIBLE + 1))
        names = [visible[place] for place in rng.choice(len(visible), count, replace=False)]
        names += [hidden[place] for place in rng.choice(len(hidden), int(rng.integers(MOST_HIDDEN + 1)), replace=False)]
        if frozenset(names) not in catalogue_sets():
            return names


def choose(settings: PlateSettings, split: str, number: int) -> tuple[str, list[str], np.random.Generator]:
    """Return vessel and ingredients of one plate, and the source of all further choices."""
    rng = np.random.default_rng([settings.seed, (TRAIN, VALIDATION).index(split), number])
    names = random_names(rng)
    return str(rng.choice(list(VESSEL_SHARES), p=list(VESSEL_SHARES.values()))), names, rng


def draw_row(settings: PlateSettings, split: str, number: int) -> dict[str, Any]:
    """Return one plate in the storage form of the table; it depends on the settings' seed and size and its number."""
    vessel, names, rng = choose(settings, split, number)
    picture, mask, plate = draw_plate(f"{vessel}: {', '.join(names)}", settings.size, rng)
    row_id = f"{split}-{number:06d}"
    return {
        ID: row_id,
        DISH_ID: row_id,
        IMAGE: encoded_picture(picture),
        INGREDIENTS: names,
        MASK: {"bytes": mask_png(mask), "path": None},
        INGREDIENT_LABELS: sorted(ingredient_id(item.name) for item in plate.items),
    }


def plate_features() -> Features:
    """Return the columns of the plates; the ids of masks and ingredients are those of `flavour-sd`."""
    names = [BACKGROUND_NAME, *visible_ingredients()]
    return Features(
        {
            ID: Value("string"),
            DISH_ID: Value("string"),
            IMAGE: ImageFeature(),
            INGREDIENTS: List(Value("string")),
            MASK: ImageFeature(),
            INGREDIENT_LABELS: List(ClassLabel(names=names)),
        }
    )


def _draw_shard(settings: PlateSettings, folder: Path, shard: tuple[str, int, int]) -> int:
    split, number, plates = shard
    path = folder / f"{split}-{number:05d}.parquet"
    if not path.is_file():
        start = number * PLATES_PER_SHARD
        rows = [draw_row(settings, split, start + place) for place in range(plates)]
        table = Dataset.from_list(rows, features=plate_features())
        write_whole(path, lambda partial: table.to_parquet(partial))
    return plates


def start_worker() -> None:
    """Prepare a process of the pool."""
    end_with_parent()
    disable_progress_bars()


def side_by_side(
    work: Callable[[Any], int], parts: Sequence[Any], processes: int, name: str, unit: str, total: int
) -> None:
    """Do parts of some work in several processes, with a bar.

    Args:
        work: does one part and returns its number of units; a process of its own can import it.
        parts: in the order in which they start.
        processes: that work at a time.
        name: of the work.
        unit: what the bar counts.
        total: number of units of all parts.
    """
    with (
        multiprocessing.get_context("spawn").Pool(processes, start_worker) as pool,
        tqdm(total=total, desc=name, unit=unit) as bar,
    ):
        for done in pool.imap_unordered(work, parts):
            bar.update(done)


def draw_plates(settings: PlateSettings, folder: Path, processes: int) -> None:
    """Draw the plates into Parquet files that `load_dataset(folder)` reads; finished files are kept.

    Args:
        settings: what to draw.
        folder: new, or that of an interrupted run with the same settings.
        processes: that draw side by side; the pictures do not depend on their number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = list(settings.shards())
    draw = functools.partial(_draw_shard, settings, folder)
    side_by_side(draw, shards, processes, "drawing plates", "plate", settings.train + settings.validation)


def plates_of(given: argparse.Namespace) -> tuple[PlateSettings, Path]:
    """Return the settings and the folder of the plates of a command line, which are drawn where they are not yet.

    Args:
        given: arguments of `pretrain.py`.

    Raises:
        BadInputError: the work folder holds plates of other settings.
    """
    settings, folder = PlateSettings(given.plates, given.validation, given.seed), given.work / "plates"
    check_settings(settings, folder)
    draw_plates(settings, folder / "data", max(1, torch.get_num_threads()))
    return settings, folder


def check_settings(settings: PlateSettings, folder: Path) -> None:
    """Record the settings of the plates beside them, and refuse plates of other settings.

    Raises:
        BadInputError: the folder holds plates of other settings.
    """
    path = folder / "plates.json"
    kept = read_json(path, "remove the folder, or name another --work")
    if kept is not None and kept != vars(settings):
        raise BadInputError(f"{folder} holds plates of other settings ({json.dumps(kept)}); name another --work")
    if kept is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, vars(settings))
