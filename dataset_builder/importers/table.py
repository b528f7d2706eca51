"""Write the rows of any importer as Parquet, a batch of pictures at a time, in bounded memory."""

import io
import os
import shutil
import struct
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from dataset_builder import columns
from dataset_builder.building.shards import ShardWriter
from dataset_builder.errors import BadInputError
from dataset_builder.files import lock_file, named_full_disk, read_json, write_json
from dataset_builder.messages import echo, shown
from dataset_builder.named_files import OUTSIDE, NamedFile, RefusedFileError, check_pixels
from dataset_builder.progress import Progress
from dataset_builder.recipes.containers import refuse_stand_ins

Row = dict[str, Any]
Item = TypeVar("Item")

ROWS_PER_BATCH = 64
SHARD_BYTES = 500 * 1024**2
NAMED_IN_MESSAGE = 5
RECORD = "import.json"

# Value of EXIF's orientation -> the turn that makes the picture upright, as in `PIL.ImageOps.exif_transpose`.
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
# Those that exchange width and height.
_LYING = (_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8])


@dataclass(frozen=True)
class ImportedTable:
    """The result of an importer: per split the rows, whose `image` (and `mask`) are named files or encoded bytes.

    `left_out` maps a reason to the names of the records that the importer itself could not use.
    """

    features: Features
    splits: Mapping[str, Sequence[Row]]
    left_out: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ImportSummary:
    """Rows written per split, and the names of what was left out by reason."""

    rows: dict[str, int]
    left_out: dict[str, list[str]]

    def __str__(self) -> str:
        """Return a line per split and per reason."""
        lines = [f"{split}: {count} rows" for split, count in self.rows.items()]
        lines += [f"left out, {reason}: {describe_names(names)}" for reason, names in self.left_out.items()]
        return "\n".join(lines)


# Raised by Pillow and the image feature for a file that is damaged, of another format or no file at all, and for a
# picture so large that it may be meant to exhaust memory. A RuntimeError is how the AVIF reader fails.
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, struct.error, Image.DecompressionBombError,
    RuntimeError, MemoryError, OverflowError,
)  # fmt: skip


class _BadPictureError(Exception):
    """A picture that cannot be used; the message is the reason."""


def photo_features(more: Mapping[str, Any]) -> Features:
    """Return the columns that every imported table begins with, and `more` columns behind them."""
    text = Value("string")
    return Features({columns.ID: text, columns.DISH_ID: text, columns.IMAGE: ImageFeature(), **more})


def photo_row(name: str, image: NamedFile | bytes, more: Mapping[str, Any]) -> Row:
    """Return the row of a photograph, which is a dish of its own: no other row shows the same one."""
    return {columns.ID: name, columns.DISH_ID: name, columns.IMAGE: image, **more}


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark, its lines ended by "\\n".

    Raises:
        BadInputError: another encoding, a pointer of Git LFS or a web page in its place, or no regular file.
        OSError: no such file.
    """
    if path.exists() and not path.is_file():
        raise BadInputError(f"{path} is no regular file; give the file itself")
    with path.open("rb") as file:
        refuse_stand_ins(file.read(512), shown(path))
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path} is not in UTF-8: {error}; save it in UTF-8") from error


def describe_names(names: Sequence[str]) -> str:
    """Return the number of names and the first few of them."""
    more = f" and {len(names) - NAMED_IN_MESSAGE} more" if len(names) > NAMED_IN_MESSAGE else ""
    return f"{len(names)} ({', '.join(shown(name, 60) for name in names[:NAMED_IN_MESSAGE])}{more})"


def held_out(
    items: Sequence[Item], share: float, key: Callable[[Item], str], stratum: Callable[[Item], Hashable]
) -> tuple[list[Item], list[Item]]:
    """Split items into kept and held out, the same share of every stratum, by a hash of `key`.

    The choice depends on the keys alone: not on the order, not on a random state. A stratum of several items gives at
    least one, so that no class is missing from the held-out part; an item that is alone in its stratum is kept.
    """
    strata: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        strata[stratum(item)].append(item)
    chosen: set[str] = set()
    for members in strata.values():
        members = sorted(members, key=lambda item: sha256(key(item).encode()).digest())
        # The members of a stratum with the smallest hashes are held out.
        count = 0 if len(members) == 1 else max(1, round(share * len(members)))
        chosen.update(key(item) for item in members[:count])
    return [item for item in items if key(item) not in chosen], [item for item in items if key(item) in chosen]


def write_table(
    table: ImportedTable, out: Path, embed: bool = True, strict: bool = False, allow_outside: bool = False
) -> ImportSummary:
    """Write an imported table into the new folder `out` as `data/SPLIT-*.parquet`.

    `data` appears when all is written, after `import.json`, which records what was imported: the same import again
    leaves the folder as it is. Pictures that the table names are opened as `named_files` allows.

    Raises:
        BadInputError: `out` holds anything else, no row is left, or a picture is bad and `strict` is set.
    """
    settings = {"embed": embed, "strict": strict, "allow_outside": allow_outside}
    source = _fingerprint(table, settings)
    if finished := _finished(out, source):
        return finished
    out.parent.mkdir(parents=True, exist_ok=True)
    # One name for all attempts, so that what a killed one left is thrown away by the next.
    scratch = out.parent / f".{out.name}.unfinished"
    with _sole_writer(scratch, out):
        left_out = {reason: list(names) for reason, names in table.left_out.items()}
        encode = partial(_encode_row, features=table.features, embed=embed, allow_outside=allow_outside)
        rows = {split: _write_split(table, split, scratch / "data", encode, left_out) for split in table.splits}
        left_out = {reason: names for reason, names in left_out.items() if names}
        summary = ImportSummary(rows=rows, left_out=left_out)
        if strict and left_out:
            raise BadInputError(f"records were left out although --strict was given: {summary}")
        if not any(rows.values()):
            raise BadInputError(f"no usable row was found; {summary}")
        out.mkdir(exist_ok=True)
        write_json(out / RECORD, {"source_sha256": source, **settings, "rows": summary.rows, "left_out": left_out})
        (scratch / "data").rename(out / "data")
    return summary


def _fingerprint(table: ImportedTable, settings: Mapping[str, bool]) -> str:
    """Return the SHA-256 of what an import writes: the rows, and of files that they name, the sizes and times."""
    digest = sha256(repr((settings, sorted(table.left_out.items()))).encode())
    for split, rows in table.splits.items():
        digest.update(f"\0{split}".encode())
        for row in rows:
            for name, value in row.items():
                digest.update(f"\0{name}\0".encode())
                digest.update(value if isinstance(value, bytes) else repr(value).encode(errors="surrogatepass"))
                if isinstance(value, NamedFile):
                    with suppress(OSError, ValueError):
                        status = (value.folder / value.name).stat()
                        digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _finished(out: Path, source: str) -> ImportSummary | None:
    """Return the summary of the same import where `out` holds it, None where it can be written.

    Raises:
        BadInputError: `out` holds anything else.
    """
    if not out.exists() or {path.name for path in out.iterdir()} <= {RECORD}:
        return None
    kinds = {"source_sha256": str, "rows": dict[str, int], "left_out": dict[str, list]}
    record = read_json(out / RECORD, f"name a new folder instead of {out}", kinds) or {}
    if record.get("source_sha256") != source or not (out / "data").is_dir():
        what = "another import" if record else "other files"
        raise BadInputError(f"{out} exists and is not empty: it holds {what}; name a new folder")
    echo(f"{out} holds this import already")
    return ImportSummary(rows=record.get("rows", {}), left_out=record.get("left_out", {}))


@contextmanager
def _sole_writer(scratch: Path, out: Path) -> Iterator[None]:
    """Make the folder `scratch`, empty and held by this process, and remove it in the end."""
    scratch.mkdir(exist_ok=True)
    lock = lock_file(scratch / "lock", f"another import into {out} is running; wait for it or give another --out")
    try:
        shutil.rmtree(scratch / "data", ignore_errors=True)
        with named_full_disk(out):
            yield
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()
        with suppress(OSError):  # Windows removes a lock file only when it is released
            scratch.rmdir()


def _write_split(
    table: ImportedTable, split: str, folder: Path, encode: Callable[[Row], Any], left_out: dict[str, list[str]]
) -> int:
    """Write one split and return its number of rows; bad pictures are added to `left_out`."""
    with (
        _SplitWriter(folder, split, table.features.arrow_schema) as writer,
        ThreadPoolExecutor(os.cpu_count()) as threads,
        Progress(f"importing {split}", len(table.splits[split])) as progress,
    ):
        for batch in _batches(table.splits[split], ROWS_PER_BATCH):
            outcomes = threads.map(encode, batch)
            good = []
            for row, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, _BadPictureError):
                    left_out.setdefault(str(outcome), []).append(row[columns.ID])
                else:
                    good.append(outcome)
            writer.write(good)
            progress.update(len(batch))
    return writer.rows


def _batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch


def _encode_row(row: Row, features: Features, embed: bool, allow_outside: bool) -> Row | _BadPictureError:
    """Return the row in the form of the table, or the reason why its picture cannot be used."""
    try:
        row = dict(row)
        picture = row[columns.IMAGE]
        data = _content(picture, "picture", allow_outside)
        size = _check_picture(data)
        if columns.MASK in features:
            ids = features[columns.INGREDIENT_LABELS].feature
            mask = _content(row[columns.MASK], "mask", allow_outside)
            data, mask = _checked_pair(data, size, mask, row[columns.MASK], ids)
            row[columns.MASK] = {"bytes": mask, "path": None}
        if isinstance(picture, bytes):
            row[columns.IMAGE] = {"bytes": data, "path": None}
        elif embed:
            row[columns.IMAGE] = {"bytes": data, "path": PurePath(picture.name).name}
        else:
            row[columns.IMAGE] = {"bytes": None, "path": os.path.realpath(picture.folder / picture.name)}
        return {name: row.get(name) for name in features}
    except _BadPictureError as error:
        return error


def _content(picture: NamedFile | bytes, kind: str, allow_outside: bool) -> bytes:
    """Return the encoded picture or mask."""
    if isinstance(picture, bytes):
        return picture
    try:
        return picture.read(allow_outside)
    except RefusedFileError as error:
        hint = "; --allow-outside takes it" if str(error) == OUTSIDE else ""
        raise _BadPictureError(f"{kind} {error}{hint}") from error


def _check_picture(data: bytes) -> tuple[int, int]:
    """Decode a picture at reduced size, which finds truncated files, and return its full size."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            size = image.size
            check_pixels(image)
            image.draft(None, (size[0] // 8, size[1] // 8))
            image.load()
            return size
    except RefusedFileError as error:
        raise _BadPictureError(f"picture {error}") from error
    except UNREADABLE as error:
        raise _BadPictureError("picture broken") from error


def _checked_pair(
    picture: bytes, size: tuple[int, int], data: bytes, source: NamedFile | bytes, ids: ClassLabel
) -> tuple[bytes, bytes]:
    """Return picture and mask, encoded, after checking size, channels and ids; both upright where a camera lay.

    Photographs are turned as their EXIF data say when they are decoded, masks are not, so that a mask drawn over the
    stored pixels would not lie over the picture. Which way a mask was drawn shows in its size alone; where it does not,
    the row is left out.

    Raises:
        BadInputError: an id outside the label set, which is a fault of the whole table and not of one picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_pixels(image)
            image.load()
    except RefusedFileError as error:
        raise _BadPictureError(f"mask {error}") from error
    except UNREADABLE as error:
        raise _BadPictureError("mask broken") from error
    if image.mode not in ("L", "P"):
        raise _BadPictureError(f"mask of mode {image.mode} where 8-bit ids were expected")
    turn = _turn_of(picture)
    turned_size = size[::-1] if turn in _LYING else size
    if turn is None:
        if image.size != size:
            raise _BadPictureError("mask of another size than its picture")
    elif turned_size != size and image.size == turned_size:
        pass  # drawn over the upright picture
    elif turned_size != size and image.size == size:
        # Drawn over the stored pixels: turned as the picture will be.
        upright = image.transpose(turn)
        encoded = io.BytesIO()
        upright.save(encoded, format="PNG")
        data = encoded.getvalue()
    elif image.size in (size, turned_size):
        raise _BadPictureError("picture turned by EXIF data, and its mask does not tell which way it was drawn")
    else:
        raise _BadPictureError("mask of another size than its picture")
    # 255 marks pixels without a label.
    unknown = sorted(set(np.unique(np.asarray(image)).tolist()) - set(range(ids.num_classes)) - {columns.UNKNOWN})
    if unknown:
        name = source.folder / source.name if isinstance(source, NamedFile) else "a mask"
        raise BadInputError(
            f"{name} holds the ids {unknown}, but the label set ends at {ids.num_classes - 1}; give the matching list"
        )
    return picture, data


def _turn_of(picture: bytes) -> Image.Transpose | None:
    """Return how a decoder turns a photograph upright, None where it stands upright."""
    try:
        with Image.open(io.BytesIO(picture)) as image:
            return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except UNREADABLE:
        return None


class _SplitWriter:
    """Parquet files of one split, closed at about `SHARD_BYTES` of input and numbered when all are known."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.split, self.schema = folder, split, schema
        self.rows = 0
        self._bytes = 0
        self._shards: list[Path] = []
        self._writer: ShardWriter | None = None

    def __enter__(self) -> "_SplitWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is not None:
            with suppress(OSError):
                self._close()
            return
        self._close()
        for number, shard in enumerate(self._shards):
            shard.rename(self.folder / f"{self.split}-{number:05d}-of-{len(self._shards):05d}.parquet")

    def write(self, rows: list[Row]) -> None:
        if not rows:
            return
        batch = pa.Table.from_pylist(rows, schema=self.schema)
        if self._writer is None or self._bytes > SHARD_BYTES:
            self._close()
            # The names of data sets state the number of shards, which is known only at the end.
            self._shards.append(self.folder / f"{self.split}-{len(self._shards):05d}.part")
            self._writer = ShardWriter(self._shards[-1], self.schema)
            self._bytes = 0
        self._writer.write_table(batch)
        self._bytes += batch.nbytes
        self.rows += len(rows)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
