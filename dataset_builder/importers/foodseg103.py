"""FoodSeg103: photographs of food with a mask of ingredient ids, from the raw folders or the Hub's columns."""

import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Features, List, load_dataset, load_dataset_builder
from datasets import Image as ImageFeature
from PIL import Image

from dataset_builder import columns
from dataset_builder.boundaries import outside
from dataset_builder.errors import BadInputError
from dataset_builder.importers.table import (
    UNREADABLE,
    ImportedTable,
    Row,
    held_out,
    photo_features,
    photo_row,
    read_text,
)
from dataset_builder.messages import shown
from dataset_builder.named_files import NamedFile, check_pixels

CATEGORIES_FILE = "category_id.txt"
VALIDATION_SHARE = 0.1


def read_categories(path: Path) -> list[str]:
    """Return the class names of `id<TAB>name` lines in id order; id 0 is the background.

    Raises:
        BadInputError: no such file, a line of another form, or ids that are not 0, 1, 2, ...
    """
    if not path.is_file():
        raise BadInputError(
            f"{os.path.abspath(path)} is missing; it names the classes, one `id<TAB>name` a line, and lies in the "
            "folder of the set, for a Hub id in the working directory"
        )
    names: list[str] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        identifier, separated, name = line.partition("\t")
        if not line.strip():
            continue
        if not separated or identifier.strip() != str(len(names)):
            raise BadInputError(
                f"{path}, line {number}: `{shown(line)}` where `{len(names)}<TAB>name` is expected; correct it"
            )
        if not name.strip() or name.strip() in names:
            fault = f"{shown(name.strip())} comes twice" if name.strip() else "the name is empty"
            raise BadInputError(f"{path}, line {number}: {fault}; give each class a name of its own")
        names.append(name.strip())
    if not 2 <= len(names) <= columns.UNKNOWN:
        raise BadInputError(f"{path} names {len(names)} classes; 2 to {columns.UNKNOWN} are expected, background first")
    return names


def _features(names: Sequence[str]) -> Features:
    labels = List(ClassLabel(names=list(names)))
    return photo_features({columns.MASK: ImageFeature(), columns.INGREDIENT_LABELS: labels})


def _carve_validation(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Hold out a share of the training rows, stratified by the rarest ingredient of each picture."""
    frequency = Counter(label for row in rows for label in row[columns.INGREDIENT_LABELS])
    return held_out(
        rows,
        VALIDATION_SHARE,
        key=lambda row: row[columns.ID],
        stratum=lambda row: min(row[columns.INGREDIENT_LABELS], key=lambda label: (frequency[label], label), default=0),
    )


def _read_folder(folder: Path) -> ImportedTable:
    names = read_categories(folder / CATEGORIES_FILE)
    images, masks = folder / "Images" / "img_dir", folder / "Images" / "ann_dir"
    rows: dict[str, list[Row]] = {}
    left_out: dict[str, list[str]] = {"mask without picture": []}
    for split in ("train", "test"):
        if not (images / split).is_dir():
            raise BadInputError(f"{images / split} is missing; name a folder in the layout of FoodSeg103")
        # A mask has the name of its picture; one without a picture is left out and named.
        paths = sorted(path for path in (images / split).iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        rows[split] = [
            _row(
                f"{split}/{path.stem}",
                NamedFile(images / split, path.name),
                NamedFile(masks / split, f"{path.stem}.png"),
            )
            for path in paths
        ]
        stems = {path.stem for path in paths}
        left_out["mask without picture"] += [
            path.name for path in sorted((masks / split).glob("*.png")) if path.stem not in stems
        ]
    train, validation = _carve_validation(rows["train"])
    return ImportedTable(_features(names), {"train": train, "validation": validation, "test": rows["test"]}, left_out)


def _row(identifier: str, picture: NamedFile | bytes, mask: NamedFile | bytes) -> Row:
    """Return a row with the ids in its mask, sorted, without background and unknown."""
    try:
        with Image.open(io.BytesIO(mask if isinstance(mask, bytes) else mask.read(allow_outside=True))) as image:
            check_pixels(image)
            present = np.unique(np.asarray(image)).tolist()
    except UNREADABLE:
        present = []  # an unreadable mask is reported when its row is written, with the pictures
    labels = [number for number in present if number not in (columns.BACKGROUND, columns.UNKNOWN)]
    return photo_row(identifier, picture, {columns.MASK: mask, columns.INGREDIENT_LABELS: labels})


class _HubRows(Sequence[Row]):
    """Rows of the Hub's columns, read one at a time so that the pictures are never in memory together."""

    def __init__(self, data: Any, indices: Sequence[int], split: str, folder: Path):
        self.data, self.indices, self.split, self.folder = data, indices, split, folder

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: Any) -> Any:
        row = self.data[self.indices[position]]
        picture, mask = (self._file(row[name]) for name in ("image", "label"))
        return _row(f"{self.split}/{row['id']}", picture, mask)

    def _file(self, cell: dict[str, Any] | None) -> NamedFile | bytes:
        cell = cell or {}
        return cell.get("bytes") or NamedFile(self.folder, cell.get("path") or "")

    def __iter__(self) -> Iterator[Row]:
        return (self[position] for position in range(len(self)))


def _loaded(load: Callable[[str], Any], source: str) -> Any:
    with outside(f"{source} cannot be read as a folder or as a data set on the Hub", "check that name"):
        return load(source)


def _read_hub(source: str) -> ImportedTable:
    """Read the columns `image, label, classes_on_image, id` of the Hub's Parquet files."""
    folder = Path(source)
    if not folder.is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise BadInputError(f"{source} is neither a folder nor a data set on the Hub (org/name); name one of them")
    _loaded(load_dataset_builder, source)  # reports a mistyped name before a long download
    names = read_categories(folder / CATEGORIES_FILE if folder.is_dir() else Path(CATEGORIES_FILE))
    data = _loaded(load_dataset, source)
    wanted = {"image", "label", "classes_on_image", "id"}
    held = "validation" if "validation" in data else "test"
    if "train" not in data or held not in data:
        raise BadInputError(f"{source} has the splits {', '.join(data)}; train and validation or test are expected")
    for split in ("train", held):
        if missing := wanted - set(data[split].column_names):
            raise BadInputError(f"{source}: the column {', '.join(sorted(missing))} is missing in {split}")
    data = data.cast_column("image", ImageFeature(decode=False)).cast_column("label", ImageFeature(decode=False))
    # Labels come from a column, so that no mask is decoded before its row is written.
    keys = [
        {
            "index": index,
            columns.ID: str(index),
            columns.INGREDIENT_LABELS: [label for label in labels if label != columns.BACKGROUND],
        }
        for index, labels in enumerate(data["train"]["classes_on_image"])
    ]
    train, validation = _carve_validation(keys)
    return ImportedTable(
        _features(names),
        {
            "train": _HubRows(data["train"], [key["index"] for key in train], "train", folder),
            "validation": _HubRows(data["train"], [key["index"] for key in validation], "train", folder),
            "test": _HubRows(data[held], range(len(data[held])), "test", folder),
        },
    )


def read_foodseg103(source: str) -> ImportedTable:
    """Read the raw folders (`Images/img_dir`, `Images/ann_dir`), or a folder or Hub id with the Hub's columns.

    The official set has no validation split: one is carved from train, stratified by rare ingredients. With a Hub id
    the class names are read from `category_id.txt` in the working directory.
    """
    folder = Path(source)
    if (folder / "Images").is_dir() or (folder.is_dir() and not list(folder.rglob("*.parquet"))):
        return _read_folder(folder)
    return _read_hub(source)
