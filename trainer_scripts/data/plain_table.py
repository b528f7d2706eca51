"""A plain table as a data set: CSV, TSV, JSON lines, Parquet or Arrow with picture paths, texts and labels."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from datasets import Dataset, DatasetDict, Image, IterableDataset, Value, load_dataset

from dataset_builder.errors import BadInputError

ARROW = ".arrow"
KINDS = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet", ARROW: "arrow"}
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jfif")
SPLIT, TRAIN = "split", "train"
SEPARATOR = "|"
NAMED = 3
RowsT = TypeVar("RowsT", Dataset, IterableDataset)


def is_plain_table(name: str) -> bool:
    """Whether a data set is given as a single file of rows."""
    return Path(name).suffix.lower() in KINDS and Path(name).is_file()


def open_plain_table(path: Path) -> DatasetDict:
    """Return the rows of a file by the values of its column `split`; all are `train` where there is no such column.

    A column of paths becomes one of pictures. Paths are relative to the folder of the table, or absolute.

    Raises:
        BadInputError: a picture of such a column is missing, or a row names no split.
    """
    rows = _read_file(path)
    if SPLIT not in rows.column_names:
        return DatasetDict({TRAIN: rows})
    names = rows[SPLIT][:]
    if None in names:
        raise BadInputError(f"{path}, row {names.index(None)} names no split; fill the column {SPLIT!r}, or remove it")
    # In the order of the file; rows are chosen by number, so that no picture is decoded.
    return DatasetDict(
        {
            str(name): rows.select([row for row, each in enumerate(names) if each == name])
            for name in dict.fromkeys(names)
        }
    )


def tables_beside_pictures(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by split, if it holds CSV, TSV or JSON files of rows beside pictures; else nothing.

    `datasets` would take such a folder for one of pictures alone, and leave the tables out.
    """
    if not folder.is_dir() or list(folder.glob("metadata.*")):  # the library joins metadata with pictures itself
        return {}
    tables = [file for file in sorted(folder.iterdir()) if KINDS.get(file.suffix.lower()) in ("csv", "json")]
    files = {file.stem: file for file in tables if file.stem.isidentifier()}
    whole = tables and len(files) == len(tables) and len({KINDS[file.suffix.lower()] for file in tables}) == 1
    return files if whole and any(file.suffix.lower() in PICTURES for file in folder.glob("**/*")) else {}


def open_folder_of_tables(files: Mapping[str, Path]) -> DatasetDict:
    """Return the rows of files by split; see `tables_beside_pictures` and, for errors, `open_plain_table`."""
    return DatasetDict({split: _read_file(path) for split, path in files.items()})


def _read_file(path: Path) -> Dataset:
    settings: dict[str, Any] = {"sep": "\t"} if path.suffix.lower() == ".tsv" else {}
    if path.stat().st_size == 0:
        raise BadInputError(f"{path} is empty; give a table with rows")
    try:
        rows: Any = load_dataset(KINDS[path.suffix.lower()], data_files=str(path), split=TRAIN, **settings)
    except ValueError as error:
        if "corresponds to no data" not in str(error):  # what the library says of a table without rows
            raise
        raise BadInputError(f"{path} has no rows; give a table with rows") from error
    return with_pictures(rows, path)


def with_pictures(rows: Dataset, path: Path) -> Dataset:
    """Return the rows with each column of picture paths as a column of pictures."""
    for name, feature in rows.features.items():
        if not (isinstance(feature, Value) and feature.dtype in ("string", "large_string")):
            continue
        values = rows[name][:]
        first = next((value for value in values if value), None)
        # A column counts by its first path: names of files that lie elsewhere may be ids.
        if first is None or not first.lower().endswith(PICTURES) or not _file(path, first).is_file():
            continue
        missing = [value for value in values if value and not _file(path, value).is_file()]
        if missing:
            named = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
            raise BadInputError(
                f"{path}, column {name!r}: {len(missing)} of {len(values)} pictures are missing ({named}); paths are "
                "relative to the folder of the table; mend or remove these rows"
            )
        paths = [str(_file(path, value)) if value else None for value in values]
        rows = replaced(rows, name, paths).cast_column(name, Image())
    return rows


# A column counts as one of paths if one of its first rows has the name of a picture, or leads to a file.
LOOKED_AT = 100


def paths_as_pictures(rows: RowsT, column: str, dataset: str) -> RowsT:
    """Return the rows with pictures in the place of their paths, where a column of a local data set holds paths.

    Relative paths start at the folder of the data set.
    """
    feature = (rows.features or {}).get(column)
    if not (isinstance(feature, Value) and feature.dtype in ("string", "large_string")) or not Path(dataset).exists():
        return rows
    folder = Path(dataset) if Path(dataset).is_dir() else Path(dataset).parent
    first = [row[column] for row in itertools.islice(rows, LOOKED_AT)]
    if not any(path and (path.lower().endswith(PICTURES) or (folder / path).is_file()) for path in first):
        return rows  # texts of another kind, which are refused as no images
    features = rows.features.copy()
    features[column] = Image(decode=False)
    return rows.map(
        lambda path: {column: {"bytes": None, "path": str(folder / path)} if path else None},
        input_columns=[column],
        features=features,
    )


def label_sets(rows: Dataset, column: str) -> Any:
    """Return the rows with a column of strings such as `sweet|salty` as lists of labels; lists stay as they are."""
    if column not in rows.column_names or not isinstance(rows.features[column], Value):
        return rows
    values = rows.select_columns([column])[column][:]
    sets = [[label for part in str(value or "").split(SEPARATOR) if (label := part.strip())] for value in values]
    return replaced(rows, column, sets)


def replaced(rows: Dataset, column: str, values: Sequence[Any]) -> Dataset:
    """Return the rows with other values in a column, which keeps its place."""
    order = rows.column_names
    if order == [column]:  # without it no rows would be left
        return Dataset.from_dict({column: list(values)})
    made: Any = rows.remove_columns(column).add_column(column, list(values))  # type: ignore[call-arg]
    return made.select_columns(order)


def _file(table: Path, value: str) -> Path:
    return table.parent / value
