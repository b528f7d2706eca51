"""Plated pictures of random sets of ingredients: pictures and masks without a dish and without a label of taste."""

import functools
import io
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
from dataset_builder.files import write_whole
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


def draw_row(settings: PlateSettings, split: str, number: int) -> dict[str, Any]:
    """Return one plate in the storage form of the table; it depends on the settings' seed and size and its number."""
    rng = np.random.default_rng([settings.seed, (TRAIN, VALIDATION).index(split), number])
    names = random_names(rng)
    vessel = rng.choice(list(VESSEL_SHARES), p=list(VESSEL_SHARES.values()))
    picture, mask, plate = draw_plate(f"{vessel}: {', '.join(names)}", settings.size, rng)
    encoded = io.BytesIO()
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(encoded, **JPEG)
    row_id = f"{split}-{number:06d}"
    return {
        ID: row_id,
        DISH_ID: row_id,
        IMAGE: {"bytes": encoded.getvalue(), "path": None},
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


def _start_worker() -> None:
    end_with_parent()
    disable_progress_bars()


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
    with (
        multiprocessing.get_context("spawn").Pool(processes, _start_worker) as pool,
        tqdm(total=settings.train + settings.validation, desc="drawing plates", unit="plate") as bar,
    ):
        for plates in pool.imap_unordered(draw, shards):
            bar.update(plates)
