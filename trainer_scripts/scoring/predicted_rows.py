"""The rows that `predict.py` reads: ids, texts and pictures of any table, the data set's own format among them."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, Value, load_dataset

from dataset_builder.boundaries import patiently
from dataset_builder.columns import ID, IMAGE, TITLE
from dataset_builder.errors import BadInputError
from dataset_builder.hub_data import load_tables
from dataset_builder.importers.comp5329 import TEST_HEADER, TRAIN_HEADER, read_records
from dataset_builder.messages import shown
from dataset_builder.recipes.hub_names import configured
from dataset_builder.recipes.tables import open_table
from dataset_builder.storage.places import fetched, is_url, place
from dataset_builder.storage.stored_sets import stored_shards
from modeling_flavour.pictures_flavour import read_address
from trainer_scripts.data.plain_table import PICTURES
from trainer_scripts.tasks.common.items import Item

ID_COLUMNS, TEXT_COLUMNS = ("ImageID", ID), ("Caption",)


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
    source = open_table(table)
    columns = _columns(table, source.columns, wanted)
    path = fetched(table)
    is_data_set = not path.exists() or any(path.rglob("*.parquet")) or path.suffix.lower() == ".parquet"
    if wanted.split is not None and not is_data_set:
        raise BadInputError(f"--split is for data sets with splits; {table} is one table; leave it out")
    header = ",".join(source.columns)
    given = (wanted.id_column, wanted.text_column, wanted.image_column)
    rows: Iterator[dict[Any, Any]]
    # These files quote captions in a way that no CSV reader takes.
    if header in (TEST_HEADER, TRAIN_HEADER) and path.suffix == ".csv" and not any(given):
        records = read_records(path, header)
        rows = ({columns.id: record.image_id, columns.text: record.caption} for record in records)
    elif is_data_set and (columns.image is not None or wanted.split is not None):
        rows = _data_set_rows(table, columns, wanted.split)
    else:
        rows = source.rows([name for name in (columns.id, columns.text, columns.image) if name is not None])
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
        usual = () if wanted.images is not None else wanted.own_images
        image = found(wanted.image_column, usual, "")
        no_folder = wanted.images is not None and not wanted.images.is_dir()
        if no_folder or (image is None and wanted.images is None):
            raise BadInputError(
                f"this model sees pictures and --images is {wanted.images}; give the folder that holds them, or the "
                "column of pictures or of their paths (--image_column)"
            )
    return _Columns(
        found(wanted.id_column, ID_COLUMNS, "" if image is not None else "id"),
        found(wanted.text_column, (*TEXT_COLUMNS, *wanted.own_texts), "text") if wanted.modality != "image" else None,
        image,
    )


def _data_set_rows(table: str, columns: _Columns, split: str | None) -> Iterator[dict[Any, Any]]:
    """Yield the rows of a data set; a picture that it holds itself is a function that reads it when it is needed."""

    def load() -> Any:
        if is_url(table):
            if stored_shards(place(table)):
                return load_tables(table)
            copy = fetched(table)
            return load_dataset("parquet", data_files=glob.escape(str(copy)), cache_dir=str(copy.parent / "cache"))
        if Path(table).is_file():
            return load_dataset("parquet", data_files=glob.escape(table))
        return load_tables(table) if Path(table).exists() else load_tables(*configured(table))

    splits = patiently(f"cannot read data set {table!r}", "give the folder or the Hub id of a data set", load)
    if split is not None and split not in splits:
        raise BadInputError(f"{table} has no split {split!r}; it has {', '.join(splits)}")
    for rows in splits.values() if split is None else [splits[split]]:
        plain = rows.select_columns([name for name in (columns.id, columns.text) if name is not None])
        pictures = None
        if columns.image is not None:
            feature = rows.features[columns.image]
            pictures = rows.select_columns([columns.image])
            if isinstance(feature, Image):
                pictures = pictures.cast_column(columns.image, Image(decode=False))
            elif isinstance(feature, Value) and "string" in feature.dtype:
                paths, pictures = pictures[columns.image][:], None
            elif not (isinstance(feature, dict) or (isinstance(feature, Value) and "binary" in feature.dtype)):
                raise BadInputError(f"{table}, column {columns.image!r} holds no pictures but {feature}")
        for number in range(len(rows)):
            row = dict(plain[number]) if plain.column_names else {}
            if columns.image is not None:
                row[columns.image] = paths[number] if pictures is None else partial(_cell, pictures, number)
            yield row


def _cell(pictures: Dataset, number: int) -> Any:
    return next(iter(pictures[number].values()))


def _given(value: Any) -> Any:
    return value


def _item(
    table: str, number: int, row: dict[Any, Any], columns: _Columns, wanted: RowsWanted, folder: Path | None
) -> Item:
    # A CSV reader keeps the cells beyond the header under the key None.
    if columns.id is not None and row.get(None):
        raise BadInputError(f"{table}, row {number} has more cells than the header; put its text in quotes")
    picture = None if columns.image is None else row[columns.image]
    name = picture if isinstance(picture, str) else ""
    item_id = (name or str(number)) if columns.id is None else row[columns.id]
    if item_id in (None, ""):
        raise BadInputError(f"{table}, row {number} has no {columns.id}; give it one or remove the row")
    item_id, text = str(item_id), None
    if columns.text is not None:
        value = row[columns.text]
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value or "")
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
