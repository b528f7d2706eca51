"""Rows to measure on: JPEG files of photograph size with random content, titles of the catalogue, and a label."""

from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PilImage

from dataset_builder.catalogue.ingredients import catalogue_dishes

SIZE = (320, 240)
LABELS = ("sweet", "salty", "sour", "bitter", "umami")
# Settings of `train.py` for a small model of title and picture that needs nothing but these rows.
SMALL_MODEL = ["--image_size", "64", "--per_device_train_batch_size", "64", "--use_cpu", "true", "--config"]
SMALL_MODEL += [
    '{"text_pooling": "lstm", "lstm_hidden_size": 64, "lstm_layers": 1, "text_dense_sizes": [128], '
    '"image_dense_sizes": [128], "fusion": "early", "head_dense_sizes": [64], "dropout": 0.3}'
]
FEATURES = {"id": Value("string"), "dish_id": Value("string"), "title": Value("string"), "image": Image()}


def write_photographs(folder: Path, number: int) -> list[Path]:
    """Write JPEG files that take as long to decode as photographs do: detail on several scales."""
    folder.mkdir(parents=True)
    files = []
    for place in range(number):
        generator = np.random.default_rng(place)
        layers = [
            np.asarray(
                PilImage.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize(SIZE, 3), float
            )
            for side in (4, 16, 64)
        ]
        pixels = np.average(layers, axis=0, weights=(4, 2, 1)).astype(np.uint8)
        files.append(folder / f"{place:05d}.jpg")
        PilImage.fromarray(pixels).save(files[-1], quality=85)
    return files


def write_rows(folder: Path, train: int, validation: int = 8) -> Path:
    """Write a data set with the splits train and validation, and return its folder."""
    files = write_photographs(folder / "photographs", train + validation)
    dishes = catalogue_dishes()
    (folder / "rows" / "data").mkdir(parents=True)
    for split, start, stop in (("train", 0, train), ("validation", train, train + validation)):
        rows = [
            {
                "id": f"{place:05d}",
                "dish_id": f"{place:05d}",
                "title": f"{dishes[place % len(dishes)].title} {place}",
                "image": {"bytes": files[place].read_bytes(), "path": None},
                "flavour": place % len(LABELS),
            }
            for place in range(start, stop)
        ]
        features = Features({**FEATURES, "flavour": ClassLabel(names=list(LABELS))})
        target = folder / "rows" / "data" / f"{split}-00000-of-00001.parquet"
        Dataset.from_list(rows, features=features).to_parquet(target)
    return folder / "rows"
