"""Rows to predict, and the table of their answers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset_builder.files import write_csv
from dataset_builder.messages import shown
from dataset_builder.named_files import OUTSIDE, RefusedFileError, read_regular
from modeling_flavour.processing_flavour import open_picture
from trainer_scripts.data.picture_files import hub_caches, resolve_within

ANSWERS = ("ImageID", "Labels")


@dataclass(frozen=True)
class Item:
    """One row to predict.

    Attributes:
        item_id: its id as given.
        text: its text; None for a model that reads none.
        picture: file of its picture; None where there is none, or where it is no file.
        folder: folder that the file must lie in; None for that of the file, and for a cell the caches of the Hub.
        allow_outside: whether it may lie elsewhere.
        cell: returns the row's cell of a column of pictures (encoded bytes, or a mapping with `bytes` or `path`), for a
            picture that the table holds itself.
    """

    item_id: str
    text: str | None
    picture: Path | None
    folder: Path | None = None
    allow_outside: bool = False
    cell: Callable[[], Any] | None = None

    @property
    def has_picture(self) -> bool:
        """Whether it names a picture, which may still be missing or broken."""
        return self.picture is not None or self.cell is not None

    def read_bytes(self) -> bytes:
        """Return the encoded picture.

        Raises:
            ValueError: it is missing, outside its folder, or no regular file.
        """
        path = self.picture
        if self.cell is not None:
            value = self.cell()
            if isinstance(value, dict):
                value = value["bytes"] if value.get("bytes") is not None else value.get("path")
            if isinstance(value, bytes):
                return value
            if not isinstance(value, str | None):
                raise ValueError(f"the cell of its picture holds no picture but {type(value).__name__}")
            path = (self.folder or Path()) / value if value else None
        if path is None:
            raise ValueError("there is no picture")
        try:
            roots = [self.folder or path.parent] if self.folder or self.cell is None else hub_caches()
            return read_regular(resolve_within(path, roots, self.allow_outside))
        except RefusedFileError as error:
            hint = "; --allow_outside takes it" if str(error) == OUTSIDE else ""
            raise ValueError(f"the picture {shown(path)} is {error}{hint}") from error

    def read_picture(self) -> Image.Image:
        """Return the picture.

        Raises:
            ValueError: it is missing, broken, outside its folder, or no regular file.
        """
        return open_picture(self.read_bytes())


@dataclass(frozen=True)
class PredictionOptions:
    """Options of `predict.py` that decide what is written; see its help texts."""

    batch_size: int
    missing_pictures: str
    threshold: float | None
    thresholds: Path | None
    decision: str | None
    probabilities: bool = False
    abstain: bool = False


def write_answers(
    path: Path,
    ids: Sequence[str],
    labels: Iterable[str],
    names: Sequence[str] = (),
    probabilities: np.ndarray | None = None,
) -> None:
    """Write `ImageID,Labels`, with probabilities also a column per label; the file appears whole or not at all.

    Args:
        path: CSV file.
        ids: of the rows, in their order.
        labels: cell of each row.
        names: of the labels.
        probabilities: `(rows, labels)`, or None.
    """
    if probabilities is None:
        write_csv(path, ANSWERS, zip(ids, labels, strict=True))
        return
    # No two columns of one name, whatever the labels are called.
    header = [*ANSWERS, *(f"{name} (probability)" if name in ANSWERS else name for name in names)]
    cells = ([f"{value:.6g}" for value in row] for row in probabilities)
    rows = ((item_id, label, *row) for item_id, label, row in zip(ids, labels, cells, strict=True))
    write_csv(path, header, rows)
