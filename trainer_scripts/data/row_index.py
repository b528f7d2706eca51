"""The rows of a data set for those who look at them: few columns of all rows, and whole rows one at a time.

Parquet is read by columns and row groups, from a folder or by ranges from a Hub, so that a hundred thousand rows are
listed without any of their pictures. The index grows file by file in a thread of its own.
"""

import io
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import ClassLabel, Features
from huggingface_hub import HfApi, HfFileSystem
from PIL import Image

from dataset_builder import columns
from dataset_builder.boundaries import outside
from dataset_builder.building.finished_build import SHARD
from dataset_builder.catalogue.ingredients import dish_facts
from dataset_builder.columns import FLAVOURS, SPLITS
from dataset_builder.errors import BadInputError
from dataset_builder.named_files import RefusedFileError, check_pixels
from dataset_builder.publishing.review import CLOSE, DECIDED
from dataset_builder.recipes.hub_names import pinned
from modeling_flavour.pictures_flavour import open_picture

ALL = "all"
SOFT, METHODS, CALLS, REJECTED, HUMAN = (
    "label and soft label differ", "title and ingredients disagree", "close calls", "earlier pictures rejected",
    "labelled by a person",
)  # fmt: skip
DOUBTS = (ALL, SOFT, METHODS, CALLS, REJECTED, HUMAN)
# What `rejected` and the attempts of a picture are read from, without the rest of its record.
_ATTEMPTS = f"{columns.GENERATION}.attempts"
_LISTED = (columns.ID, columns.DISH_ID, columns.TITLE, columns.FLAVOUR, columns.TASTE, columns.LABEL_SOURCE)
# Seconds that a page waits for the first file, and then for the others.
_PATIENCE, _MORE = 3.0, 0.3


@dataclass(frozen=True)
class RowFile:
    """One Parquet file of a split; `open` gives it as pyarrow reads it."""

    split: str
    name: str
    open: Callable[[], Any]


@dataclass
class RowTable:
    """A data set.

    Attributes:
        name: folder or Hub id, for the page.
        files: in the order of the splits.
        features: columns and their types.
        read: set when the index is whole, or cannot be read further.
        fault: why it cannot.
    """

    name: str
    files: Sequence[RowFile]
    features: Features
    _parts: list[pa.Table] = field(default_factory=list, repr=False)
    _first: threading.Event = field(default_factory=threading.Event, repr=False)
    read: threading.Event = field(default_factory=threading.Event, repr=False)
    fault: str | None = None

    def start(self) -> "RowTable":
        """Begin to read the index in a thread of its own."""
        threading.Thread(target=self._read, name="rows", daemon=True).start()
        return self

    def _read(self) -> None:
        try:
            for number, file in enumerate(self.files):
                with outside(f"cannot read {file.name}", "mend or remove that file"):
                    self._parts.append(self.listed(number))
                self._first.set()
        except BadInputError as error:
            self.fault = str(error)
        finally:
            self._first.set()
            self.read.set()

    def listed(self, number: int) -> pa.Table:
        """Return what is listed of the rows of one file."""
        file = self.files[number]
        with pq.ParquetFile(file.open(), pre_buffer=True) as opened:
            known = [name for name in _LISTED if name in self.features]
            generation = [_ATTEMPTS] if "attempts" in (self.features.get(columns.GENERATION) or {}) else []
            table = opened.read(columns=[*known, *generation])
        rows = table.num_rows
        none = pa.nulls(rows, pa.string())
        flavour = self._flavours(table) if columns.FLAVOUR in known else none
        ids = table[columns.ID] if columns.ID in known else pa.array([f"{file.split} row {n}" for n in range(rows)])
        soft, lead = (
            _soft_labels(table[columns.TASTE]) if columns.TASTE in known else (none, pa.nulls(rows, pa.float64()))
        )
        attempts = pc.struct_field(table[columns.GENERATION], "attempts") if generation else pa.nulls(rows, pa.int32())
        cuisines = dish_facts()
        dishes = table[columns.DISH_ID].to_pylist() if columns.DISH_ID in known else [None] * rows
        cuisine = [cuisines[dish].cuisine if dish in cuisines else None for dish in dishes]
        return pa.table(
            {
                "file": pa.array(np.full(rows, number, np.int32)),
                "row": pa.array(np.arange(rows, dtype=np.int64)),
                "split": pa.array([file.split] * rows, pa.string()),
                "id": ids,
                "title": table[columns.TITLE] if columns.TITLE in known else none,
                "flavour": flavour,
                "soft": soft,
                "lead": lead,
                "source": table[columns.LABEL_SOURCE] if columns.LABEL_SOURCE in known else none,
                "attempts": attempts,
                "cuisine": pa.array(cuisine, pa.string()),
            }
        )

    def _flavours(self, table: pa.Table) -> Any:
        label = self.features[columns.FLAVOUR]
        if not isinstance(label, ClassLabel):
            return table[columns.FLAVOUR].cast(pa.string())
        names = pa.array([*label.names, None], pa.string())
        ids = pc.fill_null(table[columns.FLAVOUR], -1)
        known = pc.and_(pc.greater_equal(ids, 0), pc.less(ids, len(label.names)))
        return pc.take(names, pc.if_else(known, ids, len(label.names)))

    def index(self) -> pa.Table:
        """Return what is listed of the rows that were read so far; the first file is waited for.

        Raises:
            BadInputError: a file cannot be read.
        """
        self._first.wait(_PATIENCE)
        self.read.wait(_MORE)
        parts = list(self._parts)
        if not parts:
            raise BadInputError(self.fault or f"{self.name} is still being read; try again in a moment")
        return pa.concat_tables(parts, promote_options="permissive")

    def choices(self) -> dict[str, list[str]]:
        """Return the values of the filters."""
        index, label = self.index(), self.features.get(columns.FLAVOUR)
        # Of the first file, as the others may still be read: labels are stated, and cuisines are the catalogue's.
        flavours = label.names if isinstance(label, ClassLabel) else index["flavour"].unique().to_pylist()
        known = index["cuisine"].null_count < len(index)
        cuisines = sorted({facts.cuisine for facts in dish_facts().values()}) if known else []
        splits = list(dict.fromkeys(file.split for file in self.files))
        return {"split": [ALL, *splits], "flavour": [ALL, *filter(None, flavours)], "cuisine": [ALL, *cuisines]}

    def find(self, split: str, flavour: str, cuisine: str, doubt: str, words: str) -> pa.Table:
        """Return the listed rows that a filter lets through.

        Args:
            split: name, or `ALL`; as for flavour and cuisine.
            flavour: a label.
            cuisine: of a named dish of the catalogue.
            doubt: one of `DOUBTS`.
            words: that the title holds, in any case.
        """
        index = self.index()
        kept = pa.array(np.ones(len(index), bool))
        for name, wanted in (("split", split), ("flavour", flavour), ("cuisine", cuisine)):
            if wanted != ALL:
                kept = pc.and_(kept, pc.fill_null(pc.equal(index[name], wanted), False))
        if words:
            kept = pc.and_(kept, pc.fill_null(pc.match_substring(index["title"], words, ignore_case=True), False))
        doubts = {
            SOFT: lambda: pc.not_equal(index["soft"], index["flavour"]),
            METHODS: lambda: pc.is_in(index["source"], pa.array(list(DECIDED))),
            CALLS: lambda: pc.less(index["lead"], CLOSE),
            REJECTED: lambda: pc.greater(index["attempts"], 1),
            HUMAN: lambda: pc.equal(index["source"], "human"),
        }
        if doubt in doubts:
            kept = pc.and_(kept, pc.fill_null(doubts[doubt](), False))
        return index.filter(kept)

    def rows(self, listed: pa.Table, wanted: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return whole rows in the order of a list of them; only their row groups are read.

        Args:
            listed: rows of the index.
            wanted: columns; None for all.
        """
        names = [name for name in wanted or self.features if name in self.features]
        places = list(zip(listed["file"].to_pylist(), listed["row"].to_pylist(), strict=True))
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for number in dict.fromkeys(file for file, _ in places):
            file = self.files[number]
            with outside(f"cannot read {file.name}"), pq.ParquetFile(file.open(), pre_buffer=True) as opened:
                starts = np.cumsum([0, *(opened.metadata.row_group(n).num_rows for n in range(opened.num_row_groups))])
                mine = sorted(row for file, row in places if file == number)
                groups = np.searchsorted(starts, mine, side="right") - 1
                for group in dict.fromkeys(groups.tolist()):
                    inside = [row for row, of in zip(mine, groups, strict=True) if of == group]
                    table = opened.read_row_group(group, columns=names)
                    taken = table.take([row - int(starts[group]) for row in inside])
                    found |= {(number, row): one for row, one in zip(inside, taken.to_pylist(), strict=True)}
        return [{**found[place], "split": self.files[place[0]].split} for place in places]

    def at(self, place: object) -> dict[str, Any]:
        """Return the whole row at a place that a page names (`file.row`); it comes from a visitor.

        Raises:
            BadInputError: there is no such row.
        """
        file, _, row = str(place).partition(".")
        if not file.isdecimal() or not row.isdecimal():
            raise BadInputError("choose a row first")
        index = self.index()
        wanted = index.filter((pc.field("file") == int(file)) & (pc.field("row") == int(row)))
        if len(wanted) != 1:
            raise BadInputError("there is no such row; choose one of the page")
        return {columns.ID: wanted["id"][0].as_py(), **self.rows(wanted)[0]}

    def named(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with its flavour as a name."""
        names, value = getattr(self.features.get(columns.FLAVOUR), "names", None), row.get(columns.FLAVOUR)
        if names is not None:
            value = names[value] if value is not None and 0 <= value < len(names) else None
        return {**row, columns.FLAVOUR: value}


def _soft_labels(taste: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """Return the first flavour of each row's soft label, and its lead over the second; null where there is none."""
    rows = taste.to_pylist()
    size = len(FLAVOURS)
    known = np.array([one is not None and len(one) == size and None not in one for one in rows], bool)
    shares = np.array([one if ok else [0.0] * size for one, ok in zip(rows, known, strict=True)], np.float64)
    shares = shares.reshape(-1, size)
    ordered = np.sort(shares, axis=1)
    first = [FLAVOURS[place] if ok else None for place, ok in zip(shares.argmax(axis=1), known, strict=True)]
    return pa.array(first, pa.string()), pa.array(ordered[:, -1] - ordered[:, -2], mask=~known)


def open_rows(dataset: str) -> RowTable:
    """Return the rows of a folder of Parquet files, one such file, or a data set of the Hub.

    Args:
        dataset: folder, file, Hub id or `ID@REVISION`.

    Raises:
        BadInputError: there is no Parquet file, or the first one cannot be read.
    """
    name, revision = pinned(dataset)
    path = Path(name)
    if path.exists():
        found = [path] if path.is_file() else sorted([*path.glob("data/*.parquet"), *path.glob("*.parquet")])
        files = [RowFile(_split_of(one.name), one.name, _opener(one)) for one in found if one.suffix == ".parquet"]
    elif name.count("/") == 1:
        with outside(f"cannot read data set {name!r}", "give the folder or the Hub id of a data set"):
            # Of one commit, so that places in the index stay right when the data set is published anew.
            commit = HfApi().dataset_info(name, revision=revision).sha
            system = HfFileSystem(skip_instance_cache=True)
            root = f"datasets/{name}@{commit}"
            remote = sorted(system.glob(f"{root}/**/*.parquet"))
        files = [RowFile(_split_of(Path(one).name), one, _remote_opener(system, one)) for one in remote]
    else:
        raise BadInputError(f"there is no data set at {dataset!r}; give a folder, or a Hub id such as org/flavour-sd")
    if not files:
        raise BadInputError(f"{dataset} holds no Parquet file; give the result of `flavour-sd build` or `import`")
    files.sort(key=lambda file: (SPLITS.index(file.split) if file.split in SPLITS else len(SPLITS), file.name))
    with outside(f"cannot read {files[0].name}", "mend or remove that file"), pq.ParquetFile(files[0].open()) as opened:
        features = Features.from_arrow_schema(opened.schema_arrow)
    shown = path.resolve().name if path.exists() else dataset
    return RowTable(shown, files, features).start()


def _split_of(name: str) -> str:
    match = SHARD.fullmatch(name)
    return match["split"] if match else name.removesuffix(".parquet").split("-")[0]


def _opener(path: Path) -> Callable[[], Any]:
    return lambda: str(path)


def _remote_opener(system: HfFileSystem, path: str) -> Callable[[], Any]:
    # By exact ranges: whole blocks around them would bring most pictures along.
    return lambda: system.open(path, cache_type="none")


def picture_of(stored: object) -> Image.Image | None:
    """Return the picture of a row; None where there is none, or where the row refers to a file.

    Raises:
        BadInputError: it cannot be read.
    """
    return _opened(stored, "picture")


def mask_of(stored: object) -> np.ndarray | None:
    """Return the ids of a row's mask, `(height, width)`; None where there is none.

    Raises:
        BadInputError: it cannot be read.
    """
    mask = _opened(stored, "mask")
    return None if mask is None else np.asarray(mask.convert("L"))


def _opened(stored: object, kind: str) -> Image.Image | None:
    content = (stored or {}).get("bytes") if isinstance(stored, dict) else None
    if not content:
        return None
    try:
        with Image.open(io.BytesIO(content)) as opened:
            check_pixels(opened)
            if kind == "mask":  # its values are ids, so it is neither turned nor converted to colours
                opened.load()
                return opened.copy()
        return open_picture(content)
    except (RefusedFileError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInputError(f"the {kind} cannot be read: {error}") from error
