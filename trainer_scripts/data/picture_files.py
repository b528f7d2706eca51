"""Pictures that the rows of a data set name as files: they must lie in the data set itself."""

import os
from collections.abc import Sequence
from pathlib import Path

import datasets
from datasets import Dataset
from huggingface_hub import constants

from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown
from dataset_builder.named_files import MISSING, OUTSIDE, RefusedFileError, resolve


def hub_caches() -> list[Path]:
    """Return the folders that the files of a Hub's data set are kept in."""
    return [Path(constants.HF_HUB_CACHE), Path(datasets.config.HF_DATASETS_CACHE)]


def resolve_within(path: str | Path, roots: Sequence[Path], allow_outside: bool = False) -> Path:
    """Return the path of a file that lies in one of several folders.

    Raises:
        RefusedFileError: there is no such file, or it must not be opened; see `resolve`.
    """
    refused = []
    for root in roots:
        try:
            return resolve(os.path.abspath(path), root, allow_outside)
        except RefusedFileError as error:
            refused.append(error)
    raise next((error for error in refused if str(error) == MISSING), refused[0])


def check_files(rows: Dataset, column: str, dataset: str, allow_outside: bool, where: str) -> None:
    """Refuse rows whose pictures lie as files outside the data set, which may come from a stranger.

    Args:
        rows: with undecoded pictures.
        column: of the pictures.
        dataset: folder or Hub id.
        allow_outside: whether the user allows files outside it.
        where: data set and split, for messages.

    Raises:
        BadInputError: names the first such row.
    """
    # Nearly all data sets hold the bytes themselves; whether all rows do is known without reading them.
    stored = [chunk.field("bytes").null_count for chunk in rows.data.column(column).chunks]
    if not sum(stored):
        return
    place = Path(dataset)
    roots = [place if place.is_dir() else place.parent] if place.exists() else hub_caches()
    for number, cell in enumerate(rows.select_columns([column])):
        path = (cell[column] or {}).get("path")
        if (cell[column] or {}).get("bytes") is not None or not path or "://" in path:
            continue
        try:
            resolve_within(path, roots, allow_outside)
        except RefusedFileError as error:
            reason = str(error)
            if reason == MISSING:  # reported where it is read
                continue
            hint = "; --allow_outside takes it" if reason == OUTSIDE else "; mend or remove the row"
            raise BadInputError(f"{where}, row {number}: the picture {shown(path)} is {reason}{hint}") from error
