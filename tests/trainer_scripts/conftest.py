"""A small synthetic table in which title and picture each tell half of the flavour."""

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from dataset_builder.columns import FLAVOURS, SPLITS
from dataset_builder.schema import table_features

INGREDIENTS = ("tomato", "cucumber", "lemon", "kale", "mushroom")
WORDS = ("cake", "chips", "pickle", "coffee", "broth")
COLOURS = ((230, 90, 120), (220, 200, 90), (120, 220, 90), (70, 50, 40), (150, 100, 60))
ROWS = {"train": 60, "validation": 30, "test": 30}


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def make_row(split: str, index: int, size: int = 32) -> dict:
    generator = np.random.default_rng([SPLITS.index(split), index])
    flavour = index % len(FLAVOURS)
    # Every second title and every third picture is silent about the flavour.
    word = WORDS[flavour] if index % 2 else "dish"
    colour = COLOURS[flavour] if index % 3 else (128, 128, 128)
    pixels = np.clip(np.array(colour) + generator.integers(-25, 25, (size, size, 3)), 0, 255).astype(np.uint8)
    dish = f"{split}-{index:03d}"
    return {
        "id": f"{dish}-00-00",
        "dish_id": dish,
        "image": {"bytes": png(pixels), "path": None},
        "title": f"{word} number {split} {index}",
        "ingredients": [INGREDIENTS[flavour]],
        "instructions": "",
        "captions": [f"a {INGREDIENTS[flavour]}"],
        "flavour": flavour,
        "flavours": sorted({flavour, (flavour + 1) % 5}) if index % 4 == 0 else [flavour],
        "taste": [0.6 if i == flavour else 0.1 for i in range(5)],
        "label_source": "agree",
        "label_votes": {method: {name: [] for name in FLAVOURS} for method in ("ingredients", "title")},
        "mask": {"bytes": png(np.full((size, size), flavour + 1, np.uint8)), "path": None},
        "ingredient_labels": [flavour + 1],
        "generation": None,
    }


def write_dataset(folder: Path, rows: dict[str, list[dict]], cuts: dict[str, Sequence[int]] | None = None) -> Path:
    """Write one file per split, or several: `cuts` holds where they begin and where the last one ends."""
    (folder / "data").mkdir(parents=True)
    for split, members in rows.items():
        places = (cuts or {}).get(split, (0, len(members)))
        for number, (start, end) in enumerate(pairwise(places)):
            table = Dataset.from_list(members[start:end], features=table_features(INGREDIENTS))
            table.to_parquet(folder / "data" / f"{split}-{number:05d}-of-{len(places) - 1:05d}.parquet")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _short_timings():
    """A comparison states the time of a row; measured on a few rows, once, it is stated just as well."""
    from trainer_scripts.comparing import calibration_and_cost

    calibration_and_cost.TIMED_ROWS, calibration_and_cost.REPEATS = 4, 1


@pytest.fixture(scope="session")
def small_rows() -> dict[str, list[dict]]:
    return {split: [make_row(split, index) for index in range(number)] for split, number in ROWS.items()}


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory, small_rows) -> Path:
    return write_dataset(tmp_path_factory.mktemp("small") / "flavour-sd", small_rows)


def refused(capsys, program, *arguments: object) -> str:
    """What a command says on stderr as it refuses its arguments: status 2, no traceback."""
    with pytest.raises(SystemExit) as ended:
        program.main([str(word) for word in arguments])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message
