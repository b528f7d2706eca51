"""Opens tables of any common kind: CSV, JSON, Parquet, spreadsheets, packed or not, a folder of them, the Hub."""

import errno
import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from dataset_builder.boundaries import outside
from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown
from dataset_builder.recipes.containers import ZIP, Source
from dataset_builder.recipes.delimited import DelimitedFile
from dataset_builder.recipes.encodings import checked_encoding
from dataset_builder.recipes.hub_names import configured, several_configurations
from dataset_builder.recipes.json_tables import JsonFile
from dataset_builder.recipes.parquet_tables import ParquetFile
from dataset_builder.recipes.spreadsheets import MAGIC, SUFFIXES, SpreadsheetFile
from dataset_builder.recipes.table_file import Row, TableFile
from dataset_builder.storage.places import fetched

__all__ = ["ACCEPTED", "Row", "TableFile", "open_table"]

ACCEPTED = (
    "a CSV, TSV, JSON or JSON lines, Parquet or Excel file, also packed (.gz, .zip), a folder of one of these kinds, "
    "or a data set on the Hub (org/name)"
)

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SHARD = re.compile(r"data/[\w.]+-\d{5}-of-\d{5}\.\w+")
_JSON = (".jsonl", ".ndjson", ".json", ".jsonld")
_PARQUET = ".parquet"
_KINDS = {
    _PARQUET: "Parquet", **dict.fromkeys(_JSON, "JSON lines"), ".csv": "CSV", ".tsv": "TSV",
    **dict.fromkeys(SUFFIXES, "spreadsheet"),
}  # fmt: skip
# Some files named .csv hold JSON; no header begins like this.
_JSON_BEGINS = re.compile(rb"\[\s*\{\s*\"|\{\s*\"[^\"]*\"\s*:")
# A name that can be no path on this machine may still be a data set on the Hub.
_NO_PATH = (None, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EINVAL)


class _Several(TableFile):
    """The tables of a folder or of an archive, all of one kind, read as one.

    Args:
        name: the folder or archive.
        folder: where the files that the tables name are.
        files: the tables; of JSON each may lack columns.
    """

    def __init__(self, name: str, folder: Path, files: Sequence[TableFile]):
        self.name, self.folder, self._files = name, folder, files
        self.columns, self.unit = files[0].columns, files[0].unit
        self.size = sum(file.size or 0 for file in files)
        self.notes = tuple(chain.from_iterable(file.notes for file in files))
        if all(isinstance(file, JsonFile) for file in files):
            self.columns = tuple(dict.fromkeys(chain.from_iterable(file.columns for file in files)))
            return
        for file in files:
            if set(file.columns) != set(self.columns):
                raise BadInputError(
                    f"{file.name} has the columns {_listed(file.columns)}, but {files[0].name} has "
                    f"{_listed(self.columns)}; give one of them alone"
                )

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        before = 0
        for file in self._files:
            for row in file.rows(columns):
                self.position = before + file.position
                yield row
            before += file.size or 0


def _open_folder(folder: Path, encoding: str | None) -> TableFile:
    """Open the tables of a folder.

    Where there are shards as data sets have them (`data/train-00000-of-00001.parquet`), they alone are the table, as
    for `load_dataset`. Hidden files and folders are ignored.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if Source(path).suffix in _KINDS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    found = [path for path in found if _SHARD.fullmatch(path.relative_to(folder).as_posix())] or found
    sources = [Source(path) for path in found]
    if any(source.suffix not in _JSON for source in sources):
        # Beside tables, a JSON document describes them, such as the manifest of a build.
        sources = [one for one in sources if one.suffix != ".json" or _is_json_lines(one.path)]
    return _open_several(shown(folder, 200), folder, sources, encoding)


def _open_several(name: str, folder: Path, sources: Sequence[Source], encoding: str | None) -> TableFile:
    kinds = {_KINDS[source.suffix]: source for source in reversed(sources)}
    if not kinds:
        raise BadInputError(f"{name} holds no table; give {ACCEPTED}")
    if len(kinds) > 1:
        described = (
            (kind, shown(one.member or one.path.relative_to(folder).as_posix())) for kind, one in sorted(kinds.items())
        )
        listed = ", ".join(f"{kind} ({path})" for kind, path in described)
        raise BadInputError(f"{name} holds tables of several kinds, {listed}; give one of them alone")
    files = [_open_source(source, encoding) for source in sources]
    return files[0] if len(files) == 1 and sources[0].member else _Several(name, folder, files)


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
            raise BadInputError(
                f"{full_name} is neither a file nor a data set that the Hub gives: {shown(error, 300)}"
            ) from error
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
            stream = iter(rows)
            while True:
                with outside(f"{self.name} breaks off after {self.position} rows", "mend or repeat"):
                    row = next(stream, None)
                if row is None:
                    break
                self.position += 1
                yield row


def _listed(columns: Sequence[str], most: int = 30) -> str:
    """Return names of columns for a message."""
    more = f" and {len(columns) - most} more" if len(columns) > most else ""
    return ", ".join(shown(column) for column in columns[:most]) + more


def _is_json_lines(path: Path) -> bool:
    """Return whether a file begins with an object in one line."""
    try:
        with path.open("rb") as file:
            return isinstance(json.loads(next(filter(bytes.strip, file), b"")), dict)
    except (ValueError, RecursionError):
        return False


def open_table(source: str | Path, encoding: str | None = None) -> TableFile:
    """Open a table and read its header.

    Args:
        source: a file, a folder, either by its URL in a store, or the id of a data set on the Hub.
        encoding: of CSV and JSON; None takes UTF-8, or the likeliest one where a file is not in it (see `notes`).

    Raises:
        BadInputError: there is no such file or data set, or it is of no kind that can be read.
    """
    if encoding is not None:
        encoding = checked_encoding(encoding)
    path = fetched(source)
    try:
        if path.is_dir():
            return _open_folder(path, encoding)
        if path.exists():
            return _open_source(Source(path), encoding)
    except (ValueError, OSError) as error:
        if isinstance(error, BadInputError) or getattr(error, "errno", None) not in _NO_PATH:
            raise
    name, configuration = configured(str(source))
    if path.suffix.lower() not in _KINDS and _HUB_ID.fullmatch(name):
        return _HubTable(name, configuration)
    raise BadInputError(f"{shown(source, 200)} does not exist; give {ACCEPTED}")


def _open_source(source: Source, encoding: str | None) -> TableFile:
    """Open a file by what it begins with, and else by its name."""
    head = source.head()
    if head.startswith(ZIP) and source.suffix not in SUFFIXES:
        members = source.members()
        if members is None:
            return SpreadsheetFile(source)
        tables = [one for one in members if one.suffix in _KINDS]
        return _open_several(source.name, source.path.parent, tables, encoding)
    if source.suffix not in _KINDS:
        raise BadInputError(f"{source.name} is no table by its name; give {ACCEPTED}")
    if head.startswith(b"PAR1") or source.suffix == _PARQUET:
        return ParquetFile(source)
    if head.startswith(MAGIC) or source.suffix in SUFFIXES:
        return SpreadsheetFile(source)
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if source.suffix in _JSON or _JSON_BEGINS.match(begin):
        return JsonFile(source, encoding)
    return DelimitedFile(source, encoding)
