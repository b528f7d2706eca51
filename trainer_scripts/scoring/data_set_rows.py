"""Rows that only `datasets` reads: pictures in Parquet or Arrow, folders of pictures, data sets of a Hub."""

import glob
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Image, Value, load_dataset

from dataset_builder.boundaries import patiently
from dataset_builder.errors import BadInputError
from dataset_builder.hub_data import is_saved, load_tables
from dataset_builder.recipes.hub_names import configured
from dataset_builder.recipes.tables import open_table
from dataset_builder.storage.places import fetched, is_url, place
from dataset_builder.storage.stored_sets import stored_shards
from trainer_scripts.data.plain_table import ARROW, KINDS, PICTURES

FILE_NAME, METADATA = "file_name", (".csv", ".jsonl", ".parquet")


def is_arrow(path: Path) -> bool:
    """Whether a path is a folder that `save_to_disk` wrote, or an Arrow file."""
    return (path.suffix.lower() == ARROW and path.is_file()) or is_saved(path)


def metadata_files(path: Path) -> list[Path]:
    """Return the files `metadata.csv`, `.jsonl` or `.parquet` of a folder of pictures, in which rows name their own."""
    return sorted(file for file in path.rglob("metadata.*") if file.suffix in METADATA) if path.is_dir() else []


def metadata_rows(path: Path, files: Sequence[Path], names: Sequence[str]) -> Iterator[dict[Any, Any]]:
    """Yield these columns of the rows of metadata, each picture by its path within the folder.

    `datasets` itself would leave out rows where names such as `test_1.png` look like those of a split.
    """
    for file in files:
        for row in open_table(file).rows(list(names)):
            inside = file.parent.relative_to(path) / row[FILE_NAME] if row[FILE_NAME] else None
            yield {**row, FILE_NAME: None if inside is None else inside.as_posix()}


def lone_pictures(path: Path) -> list[str]:
    """Return the pictures of a folder that holds no table, by their paths within it; nothing of any other place."""
    if not path.is_dir() or any(file.suffix.lower() in KINDS for file in path.rglob("*")):
        return []
    pictures = (file for file in path.rglob("*") if file.suffix.lower() in PICTURES and file.is_file())
    inside = (file.relative_to(path) for file in pictures)
    return sorted(file.as_posix() for file in inside if not any(part.startswith(".") for part in file.parts))


def load_splits(table: str) -> DatasetDict:
    """Return the splits of a data set.

    Raises:
        BadInputError: it cannot be read.
    """

    def load() -> DatasetDict:
        path = fetched(table)
        if is_url(table) and stored_shards(place(table)):
            return load_tables(table)
        if path.is_file():
            cache = {"cache_dir": str(path.parent / "cache")} if is_url(table) else {}
            return load_dataset(KINDS[path.suffix.lower()], data_files=glob.escape(str(path)), **cache)
        return load_tables(table) if path.exists() else load_tables(*configured(table))

    return patiently(f"cannot read data set {table!r}", "give the folder or the Hub id of a data set", load)


def data_set_rows(
    table: str, splits: DatasetDict, others: list[str], image: str | None, split: str | None
) -> Iterator[dict[Any, Any]]:
    """Yield the rows of a data set; a picture that it holds itself is a function that reads it when it is needed.

    Args:
        table: its name.
        splits: of it.
        others: columns that are read, except for that of pictures.
        image: column of pictures, or of their paths; None: none is read.
        split: the one that is read; None: all.

    Raises:
        BadInputError: there is no such split, or the column holds no pictures.
    """
    if split is not None and split not in splits:
        raise BadInputError(f"{table} has no split {split!r}; it has {', '.join(splits)}")
    for rows in splits.values() if split is None else [splits[split]]:
        plain = rows.select_columns(others)
        pictures = None
        if image is not None:
            feature = rows.features[image]
            pictures = rows.select_columns([image])
            if isinstance(feature, Image):
                pictures = pictures.cast_column(image, Image(decode=False))
            elif isinstance(feature, Value) and "string" in feature.dtype:
                paths, pictures = pictures[image][:], None
            elif not (isinstance(feature, dict) or (isinstance(feature, Value) and "binary" in feature.dtype)):
                raise BadInputError(f"{table}, column {image!r} holds no pictures but {feature}")
        for number in range(len(rows)):
            row = dict(plain[number]) if plain.column_names else {}
            if image is not None:
                row[image] = paths[number] if pictures is None else partial(_cell, pictures, number)
            yield row


def _cell(pictures: Dataset, number: int) -> Any:
    return next(iter(pictures[number].values()))
