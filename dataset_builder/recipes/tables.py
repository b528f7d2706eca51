"""Opens tables of any common kind and yields their rows: CSV, JSON lines, Parquet, a folder of them, the Hub."""

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.errors import BadInputError
from dataset_builder.recipes.hub_names import configured, several_configurations

ACCEPTED = "a CSV, TSV, JSON lines or Parquet file, a folder of one of these kinds, or a data set on the Hub (org/name)"

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SHARD = re.compile(r"data/[\w.]+-\d{5}-of-\d{5}\.\w+")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON = (".jsonl", ".ndjson", ".json")
_PARQUET = ".parquet"
_KINDS = {_PARQUET: "Parquet", **dict.fromkeys(_JSON, "JSON lines"), ".csv": "CSV", ".tsv": "TSV"}
_BATCH_ROWS = 2048

# As in `csv.DictReader`, the key None holds the cells of a row that has more of them than the header.
Row = dict[str | None, Any]


class TableFile:
    """One table whose rows can be read again and again.

    Attributes:
        name: description of the table, for messages.
        folder: folder of the files that the table names, None for a table on the Hub.
        columns: the names in the header.
        size: value of `position` at the end (rows or bytes), None when unknown.
        unit: "rows" or "B".
        position: rows or bytes that were read so far.
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
        if self._delimiter == "," and len(self.columns) == 1 and ";" in self.columns[0]:
            # Spreadsheets write semicolons where the comma is the decimal mark.
            self._delimiter = ";"
            self.columns = tuple(next(self._records(), []))

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        places = [(column, self.columns.index(column)) for column in columns]
        records = self._records()
        next(records, None)
        for record in records:
            if not record:
                continue
            row: Row = {column: record[place] if place < len(record) else None for column, place in places}
            surplus = record[len(self.columns) :]
            if any(surplus):
                row[None] = surplus
            yield row

    def _records(self) -> Iterator[list[str]]:
        with self._path.open("rb") as raw:
            lines = (line.decode("utf-8-sig" if self.position == len(line) else "utf-8") for line in self._watched(raw))
            # Strict, or a quote that is never closed would take all rows after it into one cell.
            reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
            begins = 1
            try:
                for record in reader:
                    yield record
                    # A record may span lines; messages name the one in which it begins.
                    begins = reader.line_num + 1
            except UnicodeDecodeError as error:
                raise BadInputError(f"{self.name} is not a table in UTF-8: {error}; save it as CSV in UTF-8") from error
            except csv.Error as error:
                raise BadInputError(
                    f"{self.name}, line {begins}: the record that begins there breaks off in line {reader.line_num} "
                    f"({error}); close its quotes, and write a quote inside a quoted cell twice"
                ) from error

    def _watched(self, raw: BinaryIO) -> Iterator[bytes]:
        self.position = 0
        for line in raw:
            self.position += len(line)
            yield line


class _JsonFile(TableFile):
    unit = "B"

    def __init__(self, path: Path):
        self.name, self.folder, self.size, self._path = str(path), path.parent, path.stat().st_size, path
        # Objects omit keys without a value, so the columns are those of many objects.
        first = islice(self._records(), _BATCH_ROWS)
        self.columns = tuple(dict.fromkeys(name for record in first for name in record))

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        for record in self._records():
            yield {column: record.get(column) for column in columns}

    def _records(self) -> Iterator[dict[str, Any]]:
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
                        f"{self.name}, line {number} is not JSON: {error}; write one object per line, "
                        "as `jq -c '.[]'` does with a list"
                    ) from error
                if b"\\ud" in line.lower() and not _can_be_written(record):
                    raise BadInputError(
                        f"{self.name}, line {number} holds half of a character (a lone surrogate such as \\ud83c), "
                        "which no text can keep; remove it"
                    )
                if not isinstance(record, dict):
                    raise BadInputError(
                        f"{self.name}, line {number} is no object; write one object per line, as `jq -c '.[]'` does "
                        "with a list"
                    )
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
            # Converted by Arrow before any value becomes a Python object.
            schema = pa.schema([_written_as_text(file.schema_arrow.field(name)) for name in columns])
            for batch in file.iter_batches(_BATCH_ROWS, columns=list(columns)):
                table = pa.table(batch).select(columns).cast(schema)
                for row in table.to_pylist(maps_as_pydicts="lossy"):
                    self.position += 1
                    yield row

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        """Open the file; inside the block, whatever Arrow cannot read is reported as a damaged file."""
        try:
            with pq.ParquetFile(self._path) as file:
                yield file
        except (pa.ArrowInvalid, OSError) as error:
            raise BadInputError(f"{self.name} is not a whole Parquet file: {error}; write or fetch it again") from error


class _Folder(TableFile):
    """The tables of a folder, all of one kind, read as one.

    Where there are shards as data sets have them (`data/train-00000-of-00001.parquet`), they alone are the table, as
    for `load_dataset`. Hidden files and folders are ignored.
    """

    def __init__(self, folder: Path):
        self.name, self.folder = str(folder), folder
        paths = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in _KINDS
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        )
        paths = [path for path in paths if _SHARD.fullmatch(path.relative_to(folder).as_posix())] or paths
        # Beside tables, a JSON document describes them, such as the manifest of a build.
        paths = [path for path in paths if path.suffix.lower() != ".json" or _is_json_lines(path)] or paths
        kinds = {_KINDS[path.suffix.lower()]: path.relative_to(folder) for path in reversed(paths)}
        if not kinds:
            raise BadInputError(f"the folder {folder} holds no table; give {ACCEPTED}")
        if len(kinds) > 1:
            listed = ", ".join(f"{kind} ({path})" for kind, path in sorted(kinds.items()))
            raise BadInputError(f"the folder {folder} holds tables of several kinds, {listed}; give one of them alone")
        self._files = [open_table(path) for path in paths]
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

    def __init__(self, name: str, configuration: str | None):
        from datasets import load_dataset

        full_name = f"{name}:{configuration}" if configuration else name
        self.name = f"data set {full_name}"
        try:
            self._splits = load_dataset(name, configuration, streaming=True)
            # A text file names its columns only as it is read.
            first = next(iter(self._splits.values()))
            self.columns = tuple(first.column_names or next(iter(first.take(1)), {}))
        except (OSError, ValueError) as error:
            if configuration is None and (several := several_configurations(name)):
                raise BadInputError(several) from error
            raise BadInputError(f"{full_name} is neither a file nor a data set that the Hub gives: {error}") from error
        except RuntimeError as error:
            raise BadInputError(
                f"{self.name} cannot be read: {error}; save it as Parquet, CSV or JSON lines and give that"
            ) from error
        counts = [getattr(split.info.splits.get(key), "num_examples", 0) if split.info.splits else 0
                  for key, split in self._splits.items()]  # fmt: skip
        self.size = sum(counts) if all(counts) else None

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        self.position = 0
        for split in self._splits.values():
            rows = split.select_columns(list(columns))
            try:
                for row in rows:
                    self.position += 1
                    yield row
            except (OSError, ValueError) as error:
                raise BadInputError(
                    f"{self.name} breaks off after {self.position} rows: {error}; mend or repeat"
                ) from error


def _can_be_written(record: Any) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _written_as_text(field: pa.Field) -> pa.Field:
    """Return a column of bytes as one of text: some writers of Parquet do not mark text as such."""
    items = getattr(field.type, "value_type", field.type)
    if not (pa.types.is_binary(items) or pa.types.is_large_binary(items)):
        return field
    return field.with_type(pa.large_string() if items is field.type else pa.large_list(pa.large_string()))


def _is_json_lines(path: Path) -> bool:
    """Return whether a file begins with an object in one line."""
    try:
        with path.open("rb") as file:
            return isinstance(json.loads(next(filter(bytes.strip, file), b"")), dict)
    except ValueError:
        return False


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
    name, configuration = configured(str(source))
    if kind is None and _HUB_ID.fullmatch(name):
        return _HubTable(name, configuration)
    raise BadInputError(f"{path} does not exist; give {ACCEPTED}")
