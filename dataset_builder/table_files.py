"""Open a table of any common shape and give its rows: CSV, JSON lines, Parquet, a folder of them, the Hub."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.errors import BadInputError

ACCEPTED = "a CSV, TSV, JSON lines or Parquet file, a folder of them, or a data set on the Hub (org/name)"

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON = (".jsonl", ".ndjson", ".json")
_PARQUET = ".parquet"
_SUFFIXES = (_PARQUET, *_JSON, *_DELIMITERS)
_BATCH_ROWS = 2048

Row = dict[str, Any]


class TableFile:
    """One table whose rows can be read again and again.

    Attributes:
        name: the table in words, for messages.
        folder: where files named in the table are looked for, None for a table on the Hub.
        columns: the names in the header.
        size: how far `position` can get (rows or bytes), None when unknown.
        unit: "rows" or "B".
        position: how far the reading that goes on has got.
    """

    name: str
    folder: Path | None = None
    columns: tuple[str, ...] = ()
    size: int | None = None
    unit = "rows"
    position = 0

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the named columns of every row, from the start."""
        raise NotImplementedError


class _DelimitedFile(TableFile):
    unit = "B"

    def __init__(self, path: Path):
        self.name, self.folder, self.size = str(path), path.parent, path.stat().st_size
        self._path, self._delimiter = path, _DELIMITERS[path.suffix.lower()]
        csv.field_size_limit(sys.maxsize)
        self.columns = tuple(next(self._records(), []))

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        places = [(column, self.columns.index(column)) for column in columns]
        records = self._records()
        next(records, None)
        for record in records:
            if record:
                yield {column: record[place] if place < len(record) else None for column, place in places}

    def _records(self) -> Iterator[list[str]]:
        with self._path.open("rb") as raw:
            lines = (line.decode("utf-8-sig" if self.position == len(line) else "utf-8") for line in self._watched(raw))
            try:
                yield from csv.reader(lines, delimiter=self._delimiter)
            except (csv.Error, UnicodeDecodeError) as error:
                raise BadInputError(f"{self.name} is not a table in UTF-8: {error}; save it as CSV in UTF-8") from error

    def _watched(self, raw: BinaryIO) -> Iterator[bytes]:
        self.position = 0
        for line in raw:
            self.position += len(line)
            yield line


class _JsonFile(TableFile):
    unit = "B"

    def __init__(self, path: Path):
        self.name, self.folder, self.size, self._path = str(path), path.parent, path.stat().st_size, path
        self.columns = tuple(next(self._records(), {}))

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        for record in self._records():
            yield {column: record.get(column) for column in columns}

    def _records(self) -> Iterator[Row]:
        self.position = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                self.position += len(line)
                if not line.strip():
                    continue
                try:
                    record = json.loads(line.decode("utf-8-sig"))
                except ValueError as error:
                    raise BadInputError(
                        f"{self.name}, line {number} is not JSON: {error}; write one object per line"
                    ) from error
                if not isinstance(record, dict):
                    raise BadInputError(f"{self.name}, line {number} is no object; write one object per line")
                yield record


class _ParquetFile(TableFile):
    def __init__(self, path: Path):
        self.name, self.folder, self._path = str(path), path.parent, path
        with self._open() as file:
            self.columns = tuple(file.schema_arrow.names)
            self.size = file.metadata.num_rows

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        self.position = 0
        with self._open() as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
                for row in batch.to_pylist():
                    self.position += 1
                    yield row

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self._path)
        except pa.ArrowInvalid as error:
            raise BadInputError(f"{self.name} is not a whole Parquet file: {error}") from error


class _Folder(TableFile):
    """All tables of one kind in a folder, read as one."""

    def __init__(self, folder: Path):
        self.name, self.folder = str(folder), folder
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
        first_kind = next((kind for kind in _SUFFIXES for path in paths if path.suffix.lower() == kind), None)
        if first_kind is None:
            raise BadInputError(f"the folder {folder} holds no table; give {ACCEPTED}")
        self._files = [open_table(path) for path in paths if path.suffix.lower() == first_kind]
        self.columns, self.unit = self._files[0].columns, self._files[0].unit
        self.size = sum(file.size or 0 for file in self._files)
        for file in self._files:
            if set(file.columns) != set(self.columns):
                raise BadInputError(
                    f"{file.name} has the columns {', '.join(file.columns)}, but {self._files[0].name} has "
                    f"{', '.join(self.columns)}; give one of them alone"
                )

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        before = 0
        for file in self._files:
            for row in file.rows(columns):
                self.position = before + file.position
                yield row
            before += file.size or 0


class _HubTable(TableFile):
    """A data set on the Hub, streamed, all its splits one after the other."""

    def __init__(self, name: str):
        from datasets import load_dataset

        self.name = f"data set {name}"
        try:
            self._splits = load_dataset(name, streaming=True)
            self.columns = tuple(next(iter(self._splits.values())).column_names or ())
        except (OSError, ValueError) as error:
            raise BadInputError(f"{name} is neither a file nor a data set that the Hub gives: {error}") from error
        counts = [getattr(split.info.splits.get(key), "num_examples", 0) if split.info.splits else 0
                  for key, split in self._splits.items()]  # fmt: skip
        self.size = sum(counts) if all(counts) else None

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        self.position = 0
        for split in self._splits.values():
            for row in split.select_columns(list(columns)):
                self.position += 1
                yield row


def open_table(source: str | Path) -> TableFile:
    """Open a table and read its header.

    Raises:
        BadInputError: there is no such file or data set, or it is of no kind that can be read.
    """
    path = Path(source)
    if path.is_dir():
        return _Folder(path)
    kinds: dict[str, Callable[[Path], TableFile]] = {
        **dict.fromkeys(_DELIMITERS, _DelimitedFile),
        **dict.fromkeys(_JSON, _JsonFile),
        _PARQUET: _ParquetFile,
    }
    kind = kinds.get(path.suffix.lower())
    if path.is_file():
        if kind is None:
            raise BadInputError(f"{path} is no table by its name; give {ACCEPTED}")
        return kind(path)
    if kind is None and _HUB_ID.fullmatch(str(source)):
        return _HubTable(str(source))
    raise BadInputError(f"{path} does not exist; give {ACCEPTED}")
