"""The rows that `predict.py` reads: ids, texts and pictures of any table, the data set's own format among them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dataset_builder.columns import ID, IMAGE, TITLE
from dataset_builder.errors import BadInputError
from dataset_builder.importers.comp5329 import TEST_HEADER, TRAIN_HEADER, begins_as_record, read_records
from dataset_builder.messages import shown
from dataset_builder.recipes.tables import open_table
from dataset_builder.storage.places import fetched
from modeling_flavour.pictures_flavour import SHORTEST_BASE64, read_address
from trainer_scripts.data.plain_table import PICTURES
from trainer_scripts.scoring.data_set_rows import (
    FILE_NAME,
    data_set_rows,
    is_arrow,
    load_splits,
    lone_pictures,
    metadata_files,
    metadata_rows,
)
from trainer_scripts.tasks.common.items import Item

ID_COLUMNS, TEXT_COLUMNS = ("ImageID", ID), ("Caption",)
# How a picture begins in a cell of text: an address that holds it, or JPEG, PNG, GIF and WebP in base64.
IN_TEXT = ("data:", "/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR")


@dataclass(frozen=True)
class RowsWanted:
    """What is read of a table.

    Attributes:
        modality: of the model.
        images: folder of the pictures that ids or an image column name; None: pictures are in the table, or named
            relative to its folder.
        id_column: None: `ImageID` or `id`; without either, the name of the picture or the number of the row.
        text_column: None: `Caption`, or the first of `own_texts` that is there.
        image_column: column of pictures or of their paths; None: ids name the pictures in `images`, or without such a
            folder the first of `own_images` that is there.
        split: the one split of a data set that is read; None: all, in their order.
        allow_outside: whether pictures outside their folder may be opened.
        own_texts, own_images: names of the columns that the model was trained on.
    """

    modality: str
    images: Path | None = None
    id_column: str | None = None
    text_column: str | None = None
    image_column: str | None = None
    split: str | None = None
    allow_outside: bool = False
    own_texts: tuple[str, ...] = (TITLE,)
    own_images: tuple[str, ...] = (IMAGE,)


@dataclass(frozen=True)
class _Columns:
    """Names of the columns of a table; None for one that is not read."""

    id: str | None
    text: str | None
    image: str | None


def read_items(table: str, wanted: RowsWanted) -> list[Item]:
    """Return the rows of a table in its order.

    Raises:
        BadInputError: no such table, no such columns, no row, a row without id or with cells beyond the header, or no
            pictures for a model that reads them.
    """
    path = fetched(table)
    alone = wanted.modality == "image" and wanted.images is None and wanted.split is None
    if alone and (names := lone_pictures(path)):
        return [Item(name, None, path / name, path, wanted.allow_outside) for name in names]
    splits, source, metadata = None, None, metadata_files(path)
    if is_arrow(path) or (metadata and wanted.split is not None):
        splits = load_splits(table)
        there: tuple[str, ...] = tuple(next(iter(splits.values())).column_names)
    else:
        source = open_table(metadata[0] if metadata else table)
        there = tuple(source.columns)
    columns = _columns(table, there, wanted)
    is_data_set = not path.exists() or any(path.rglob("*.parquet")) or path.suffix.lower() == ".parquet"
    if wanted.split is not None and splits is None and not is_data_set:
        raise BadInputError(f"--split is for data sets with splits; {table} is one table; leave it out")
    header = ",".join(there)
    given = (wanted.id_column, wanted.text_column, wanted.image_column)
    others = [name for name in (columns.id, columns.text) if name is not None]
    rows: Iterator[dict[Any, Any]]
    if metadata and columns.image == FILE_NAME:
        rows = metadata_rows(path, metadata, [*others, FILE_NAME])
    elif source is None or (is_data_set and (columns.image is not None or wanted.split is not None)):
        rows = data_set_rows(table, splits or load_splits(table), others, columns.image, wanted.split)
    # These files quote captions in a way that no CSV reader takes.
    elif header in (TEST_HEADER, TRAIN_HEADER) and begins_as_record(path, header) and not any(given):
        records = read_records(path, header)
        rows = ({columns.id: record.image_id, columns.text: record.caption} for record in records)
    else:
        rows = source.rows([*others, *([] if columns.image is None else [columns.image])])
    # The pictures that a Hub's rows name are not on this machine.
    beside = path if path.is_dir() else path.parent if path.exists() else None
    folder = None if wanted.modality == "text" else wanted.images or beside
    items = [_item(table, number, row, columns, wanted, folder) for number, row in enumerate(rows, start=1)]
    if not items:
        raise BadInputError(f"{table} has no rows")
    return items


def _columns(table: str, there: Sequence[str], wanted: RowsWanted) -> _Columns:
    """Return the columns that are read."""

    def found(given: str | None, usual: Sequence[str], what: str) -> str | None:
        if given is not None and given not in there:
            raise BadInputError(f"{table} has no column {given!r}; it has {', '.join(there)}")
        name = given or next((name for name in usual if name in there), None)
        if name is None and what:
            raise BadInputError(
                f"{table} has no column {usual[0]!r}; it has {', '.join(there)}; name it with --{what}_column"
            )
        return name

    image = None
    if wanted.modality != "text":
        usual = () if wanted.images is not None else (*wanted.own_images, FILE_NAME)
        image = found(wanted.image_column, usual, "")
        no_folder = wanted.images is not None and not wanted.images.is_dir()
        if no_folder or (image is None and wanted.images is None):
            raise BadInputError(
                f"this model sees pictures and --images is {wanted.images}; give the folder that holds them, or the "
                "column of pictures or of their paths (--image_column)"
            )
    # Rows of texts alone may go by their numbers; where pictures are files, their names are needed.
    unnamed = wanted.modality == "text" or image is not None
    return _Columns(
        found(wanted.id_column, ID_COLUMNS, "" if unnamed else "id"),
        found(wanted.text_column, (*TEXT_COLUMNS, *wanted.own_texts), "text") if wanted.modality != "image" else None,
        image,
    )


def _given(value: Any) -> Any:
    return value


def _item(
    table: str, number: int, row: dict[Any, Any], columns: _Columns, wanted: RowsWanted, folder: Path | None
) -> Item:
    # A CSV reader keeps the cells beyond the header under the key None.
    if columns.id is not None and row.get(None):
        raise BadInputError(f"{table}, row {number} has more cells than the header; put its text in quotes")
    picture = None if columns.image is None else row[columns.image]
    if isinstance(picture, str) and picture.startswith(IN_TEXT) and len(picture) > SHORTEST_BASE64:
        picture = partial(read_address, picture)
    name = picture if isinstance(picture, str) else ""
    item_id = (name or str(number)) if columns.id is None else row[columns.id]
    if isinstance(item_id, float) and item_id.is_integer():
        item_id = int(item_id)  # as pandas writes numbers beside a missing one
    if item_id in (None, ""):
        raise BadInputError(f"{table}, row {number} has no {columns.id}; give it one or remove the row")
    item_id, text = str(item_id), None
    if columns.text is not None:
        value = row[columns.text]
        text = " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
    if picture is not None and not isinstance(picture, str):
        cell = picture if callable(picture) else partial(_given, picture)
        return Item(item_id, text, None, folder, wanted.allow_outside, cell)
    if columns.image is None:
        name = item_id if wanted.modality != "text" else ""
    if not name:
        return Item(item_id, text, None, folder, wanted.allow_outside)
    if folder is None:
        raise BadInputError(
            f"{table}, row {number} names the picture {shown(name)}, which is not in the data set; give the folder "
            "that holds it (--images)"
        )
    return Item(item_id, text, picture_file(folder, name), folder, wanted.allow_outside)


def picture_file(folder: Path, name: str) -> Path:
    """Return the file that a row names; a name without the ending of a picture finds the one file that has one.

    Raises:
        BadInputError: several files have that name.
    """
    if name.startswith("file:"):
        name = str(read_address(name))
    path = folder / name
    if path.suffix.lower() in PICTURES or os.path.isfile(path):
        return path
    named = [f"{path}{ending}" for low in PICTURES for ending in (low, low.upper())]
    # Where letters of names do not count, x.png and x.PNG are one file.
    files = {os.stat(each).st_ino: Path(each) for each in reversed(named) if os.path.isfile(each)}
    if len(files) > 1:
        there = ", ".join(sorted(shown(each.name) for each in files.values()))
        raise BadInputError(
            f"the id {shown(name)} fits several pictures in {folder}: {there}; write it with its ending"
        )
    return next(iter(files.values()), path)
