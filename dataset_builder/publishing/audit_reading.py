"""Reads the rows of any data set for the audit; a value of another form than in our builds becomes None."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Image, IterableDataset, IterableDatasetDict, load_dataset
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from dataset_builder.boundaries import outside
from dataset_builder.building.finished_build import MANIFEST, MANIFEST_KEYS
from dataset_builder.building.shards import MANIFEST_KINDS
from dataset_builder.columns import (
    DISH_ID,
    FLAVOUR,
    FLAVOURS,
    GENERATION,
    ID,
    IMAGE,
    INGREDIENTS,
    TASTE,
    TITLE,
)
from dataset_builder.engines.local import LocalEngine
from dataset_builder.engines.work import Engine, Report
from dataset_builder.errors import BadInputError
from dataset_builder.files import read_json
from dataset_builder.hub_data import load_tables
from dataset_builder.importers.table import UNREADABLE
from dataset_builder.kinds import check_entries
from dataset_builder.messages import shown
from dataset_builder.pictures.near_duplicates import Looks, looks_of
from dataset_builder.progress import Progress
from dataset_builder.recipes.hub_names import configured, several_configurations
from dataset_builder.recipes.ingredient_lists import parse_ingredients
from dataset_builder.storage.places import files_in, is_url, pattern_of, place
from dataset_builder.storage.stored_sets import stored_shards

BATCH = 256
_READERS = {
    ".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json",
}  # fmt: skip
COLUMNS = (ID, DISH_ID, TITLE, INGREDIENTS, FLAVOUR, TASTE, GENERATION, IMAGE)


@dataclass
class Rows:
    """The rows of all splits, column by column; a column that the data set lacks is absent."""

    splits: list[str] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=partial(defaultdict, list))
    looks: list[Looks | None] = field(default_factory=list)
    unreadable_at: list[int] = field(default_factory=list)

    def __contains__(self, column: str) -> bool:
        return any(self.looks) if column == IMAGE else column in self.columns

    def extend(self, other: "Rows") -> None:
        """Add the rows of another file."""
        before = len(self.splits)
        self.splits += other.splits
        for column, values in other.columns.items():
            self.columns[column] += values
        self.looks += other.looks
        self.unreadable_at += [before + place for place in other.unreadable_at]

    @property
    def unreadable(self) -> list[str]:
        """The rows whose picture cannot be read."""
        return [self.name(place) for place in self.unreadable_at]

    def name(self, position: int) -> str:
        """Return the id of a row, or its split and position where there are no ids."""
        return str(self.columns[ID][position]) if ID in self else f"{self.splits[position]} row {position}"


def open_dataset(dataset: str) -> IterableDatasetDict:
    """Return the splits of a folder, file or Hub id, to be streamed; `name:configuration` picks one of several.

    Raises:
        BadInputError: it is no single table.
    """
    name, configuration = (dataset, None) if is_url(dataset) else configured(dataset)
    path = place(name)
    try:
        if is_url(path):
            return load_tables(str(path), streaming=True)
        if path.is_dir() and (shards := stored_shards(path)):
            return load_dataset("parquet", data_files=shards, streaming=True)
        if path.is_file():
            return _open_file(path)
        if path.exists() and not path.is_dir():
            raise BadInputError(f"{shown(path)} is no regular file; give a table, a folder of tables or a Hub id")
        return load_dataset(name, configuration, streaming=True)
    except BadInputError:
        raise
    except (DataFilesNotFoundError, EmptyDatasetError) as error:
        # The message of the first lists all extensions that `datasets` reads, so that it is not passed on.
        raise BadInputError(
            f"{dataset} holds no table; give CSV, JSON lines or Parquet, or the folder of a finished build"
        ) from error
    except ValueError as error:
        if configuration is None and (several := several_configurations(name)):
            raise BadInputError(several) from error
        raise BadInputError(f"{dataset} cannot be read ({_first_line(error)}); mend or remove that file") from error
    except RuntimeError as error:
        raise BadInputError(
            f"{name} cannot be read ({_first_line(error)}); give a folder of its tables: of a set on the Hub, "
            "`hf download --repo-type dataset --revision refs/convert/parquet` gets them"
        ) from error


def _open_file(path: Path) -> IterableDatasetDict:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise BadInputError(
            f"{shown(path)} is no table by its name; give CSV, JSON lines or Parquet, or a folder of them"
        )
    more = {"sep": "\t"} if path.suffix.lower() == ".tsv" else {}
    return load_dataset(reader, data_files=[pattern_of(path)], streaming=True, **more)


def manifest_of(dataset: str) -> Mapping[str, Any]:
    """Return the manifest of a data set that `flavour-sd build` made; empty for any other."""
    path = file_of(dataset, MANIFEST)
    if path is None:
        return {}
    manifest = read_json(path, "build again, or remove it if no build wrote it") or {}
    if not manifest.keys() >= MANIFEST_KEYS.keys():
        return {}
    check_entries(manifest, MANIFEST_KINDS, str(path))
    return manifest


def file_of(dataset: str, name: str) -> Path | None:
    """Return a file beside the tables of a folder or Hub id; None when there is no such file."""
    if is_url(dataset):
        stored = place(dataset)
        return stored / name if name in files_in(stored) else None
    where = configured(dataset)[0]
    if Path(where).exists():
        path = Path(where, name)
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(where, name, repo_type="dataset"))
    except (EntryNotFoundError, FileNotFoundError):
        return None


def read_rows(dataset: IterableDatasetDict, name: str, engine: Engine | None = None) -> Rows:
    """Return the rows of a data set; of each picture only its looks are kept.

    Args:
        dataset: the splits, each in one or more files.
        name: for messages.
        engine: reads the files; None for this process, with a thread per core.

    Raises:
        BadInputError: there are no rows, or none of the columns is there.
    """
    rows, found = Rows(), set()
    for split, stream in dataset.items():
        with _readable(name):  # a text file names its columns only as it is read
            features = stream.features or dict.fromkeys(next(iter(stream.take(1)), {}))
        if not features:
            continue  # a text file without rows
        wanted = [column for column in COLUMNS if column in features]
        if not wanted:
            raise BadInputError(f"{name} has none of the columns {', '.join(COLUMNS)}; rename its columns first")
        found.update(wanted)
        work, files = _Reading(split, stream, features, wanted, name), range(stream.num_shards)
        with Progress(f"reading {split}", None, "rows") as bar:
            for part in (engine or LocalEngine(1)).run(work, files, bar.update):
                rows.extend(part)
    if not rows.splits:
        raise BadInputError(f"{name} has no rows; build or import it first")
    # Columns that some split has stay, with None in the splits that lack them.
    for column in set(COLUMNS) - found:
        rows.columns.pop(column, None)
    return rows


class _Reading:
    """Work on the files of one split, see `engines.work.Work`: one unit reads the rows of one file."""

    uses_gpu = forks = False

    def __init__(self, split: str, stream: IterableDataset, features: Any, wanted: list[str], name: str):
        self._split, self._stream, self._features = split, stream, features
        self._wanted, self._name = wanted, name

    def start(self, number: int, workers: int) -> Callable[[int, Report], Rows]:
        return self._read

    def _read(self, file: int, report: Report) -> Rows:
        rows, wanted = Rows(), self._wanted
        with _readable(self._name):
            # A data set of one file is left as it is: not every source can be divided.
            stream = self._stream if self._stream.num_shards == 1 else self._stream.shard(self._stream.num_shards, file)
        for batch in _batches(stream, wanted, self._name):
            rows.splits += [self._split] * batch.num_rows
            for column in (one for one in COLUMNS if one != IMAGE):
                values = batch[column].to_pylist() if column in wanted else [None] * batch.num_rows
                rows.columns[column] += [_value(column, value, self._features.get(column)) for value in values]
            _add_looks(rows, batch[IMAGE].to_pylist() if IMAGE in wanted else [None] * batch.num_rows)
            report(batch.num_rows)
        return rows


def _batches(stream: IterableDataset, columns: list[str], name: str) -> Iterator[pa.Table]:
    with _readable(name):
        yield from stream.select_columns(columns).with_format("arrow").iter(batch_size=BATCH)


def _readable(name: str) -> AbstractContextManager[None]:
    return outside(f"{name} cannot be read", "mend or remove that file")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _value(column: str, value: Any, feature: Any) -> Any:
    """Return a value in the form of our own builds, None where that is not possible."""
    if isinstance(feature, ClassLabel):
        return feature.names[value] if value is not None and 0 <= value < len(feature.names) else None
    if column == INGREDIENTS:
        plain = isinstance(value, list) and all(isinstance(one, str) for one in value)
        return value if plain or value is None else list(parse_ingredients(value))
    if column == TASTE:
        numbers = isinstance(value, list) and len(value) == len(FLAVOURS) and not any(one is None for one in value)
        return value if numbers else None
    if column == GENERATION:
        return value if isinstance(value, dict) else None
    missing = value is None or value != value  # as NaN is
    return None if missing else value if column == FLAVOUR else str(value)


def _add_looks(rows: Rows, pictures: Sequence[Any]) -> None:
    def look(picture: Any) -> Looks | str | None:
        try:
            return None if picture is None else looks_of(Image().decode_example(picture))
        except UNREADABLE as error:
            return str(error)

    # Decoding and hashing release the interpreter's lock, so that threads use all cores.
    with ThreadPoolExecutor() as pool:
        for found in pool.map(look, pictures):
            if isinstance(found, str):
                rows.unreadable_at.append(len(rows.looks))
            rows.looks.append(None if isinstance(found, str) else found)
