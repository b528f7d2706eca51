"""Features on disk: memory-mapped, under a key of all they depend on, computed in steps, read only when complete."""

import hashlib
import json
import os
import shutil
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from accelerate import PartialState
from filelock import FileLock, Timeout

from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from dataset_builder.messages import echo
from dataset_builder.progress import progress
from trainer_scripts.data.samples import RowFeatures
from trainer_scripts.features.engines import cores

FORMAT = 1
KEY, VALUES, DONE, FINISHED, LOCK = "key.json", "features.npy", "done.npy", "finished.json", "lock"
BATCHES_AHEAD = 4
BATCHES_BETWEEN_FLUSHES = 32
SECONDS_BETWEEN_LOOKS = 0.2


class Extractor(Protocol):
    """Makes the features of places: `view * rows + row`, in the order of the file."""

    def prepare(self) -> None:
        """Get ready, before the first `load`."""

    def load(self, place: int) -> Any:
        """Return what `run` needs of one place; called from several threads, ahead of `run`."""

    def run(self, loaded: Sequence[Any]) -> np.ndarray:
        """Return the features of some places, `(places, ...)`, or of all their tokens, `(tokens, size)`."""


def digest_of(parts: Iterable[Any]) -> str:
    """Return the hash of strings, bytes and numbers in order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def stored_features(
    root: Path,
    key: dict[str, Any],
    rows: int,
    extractor: Extractor,
    offsets: np.ndarray | None = None,
    batch_size: int = 32,
) -> RowFeatures:
    """Return the features under a key: those on disk, or computed now by all processes of this machine together.

    An interrupted computation goes on where it stopped; what is not complete is never read. Of several runs that need
    the same features, one computes them and the others wait; where it is killed, the next one goes on. A file that is
    no longer what was computed, by its checksum, is said and computed again.

    Args:
        root: folder of all features.
        key: everything the features depend on, as JSON holds it; `views` is how many there are of each row.
        rows: rows of the table.
        extractor: makes them.
        offsets: first token of each place and, at the end, their number; None where all places are of one shape.
        batch_size: places computed at once.
    """
    content = {**key, "format": FORMAT}
    folder = folder_of(root, key)
    if (folder / FINISHED).is_file() and not _is_sound(folder):
        _discard(folder)
    if not (folder / FINISHED).is_file():
        places = int(key["views"]) * rows
        batches = [range(start, min(start + batch_size, places)) for start in range(0, places, batch_size)]
        # The processes of a run meet at these files, never at a barrier: a run on another machine that shares the
        # folder may hold the lock, and a barrier gives up after half an hour.
        if PartialState().is_local_main_process:
            with _locked(folder):
                if not (folder / FINISHED).is_file():
                    _allocate(folder, content, places if offsets is None else int(offsets[-1]), len(batches), extractor)
                    _fill(folder, batches, extractor, offsets, content["part"])
                    _wait_until(lambda: bool(np.load(folder / DONE).all()))
                    write_json(folder / FINISHED, {"places": places, "crc32": _checksum(folder / VALUES)})
        else:
            _wait_until(lambda: (folder / DONE).is_file())
            _fill(folder, batches, extractor, offsets, content["part"])
            _wait_until(lambda: (folder / FINISHED).is_file())
    return RowFeatures(np.load(folder / VALUES, mmap_mode="r"), rows, offsets)


def folder_of(root: Path, key: dict[str, Any]) -> Path:
    """Return the folder of the features under a key."""
    return root / digest_of([json.dumps({**key, "format": FORMAT}, sort_keys=True)])[:24]


def finished_features(
    root: Path, key: dict[str, Any], rows: int, offsets: np.ndarray | None = None
) -> RowFeatures | None:
    """Return the features under a key as far as they are complete on disk, without computing any; else None."""
    folder = folder_of(root, key)
    if not (folder / FINISHED).is_file() or not _is_sound(folder):
        return None
    return RowFeatures(np.load(folder / VALUES, mmap_mode="r"), rows, offsets)


def computed_features(
    rows: int, extractor: Extractor, name: str, offsets: np.ndarray | None = None, batch_size: int = 32, most: int = 0
) -> RowFeatures | None:
    """Return features that are kept in memory alone, in one view; None where they take more than `most` bytes."""
    extractor.prepare()
    first = extractor.run([extractor.load(0)])
    shape = (rows if offsets is None else int(offsets[-1]), *first.shape[1:])
    if 4 * int(np.prod(shape)) > most:
        return None
    values = np.empty(shape, dtype=np.float32)
    batches = [range(start, min(start + batch_size, rows)) for start in range(0, rows, batch_size)]
    for batch, found in zip(batches, computed_batches(batches, extractor, name), strict=True):
        first_place, last = batch[0], batch[-1] + 1
        part = slice(first_place, last) if offsets is None else slice(int(offsets[first_place]), int(offsets[last]))
        values[part] = found
    return RowFeatures(values, rows, offsets)


def _is_sound(folder: Path) -> bool:
    """Whether finished features are those that were computed; those of earlier versions have no checksum."""
    try:
        stated = json.loads((folder / FINISHED).read_text(encoding="utf-8"))
        np.load(folder / VALUES, mmap_mode="r")
        known = stated.get("crc32")
        return known is None or known == _checksum(folder / VALUES)
    except (OSError, ValueError, AttributeError):
        return False


def _checksum(path: Path) -> int:
    """Return the CRC-32 of a file: it finds damage, and reading gigabytes for it takes seconds."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            found = zlib.crc32(block, found)
    return found


def _discard(folder: Path) -> None:
    """Remove damaged features; the other processes of the run wait until the first one has done so."""
    if not PartialState().is_local_main_process:
        _wait_until(lambda: not (folder / FINISHED).is_file())
        return
    with _locked(folder):
        if (folder / FINISHED).is_file() and not _is_sound(folder):
            echo(f"the features in {folder} are damaged: they are computed again", sys.stderr)
            for name in (DONE, VALUES, FINISHED):
                (folder / name).unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a features folder inside the block; the system releases it when its process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        # The first attempt does not wait, so that a wait can be announced.
        lock.acquire(timeout=0)
    except Timeout:
        echo(f"another run computes {folder}; waiting for it", sys.stderr)
        lock.acquire(poll_interval=SECONDS_BETWEEN_LOOKS)
    try:
        yield
    finally:
        lock.release()


def _wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another process until `condition` holds; where that process fails, the launcher ends this one."""
    while not condition():
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _fill(folder: Path, batches: Sequence[range], extractor: Extractor, offsets: np.ndarray | None, name: str) -> None:
    """Compute this process's share of what is not done yet."""
    state = PartialState()
    extractor.prepare()
    values, done = np.load(folder / VALUES, mmap_mode="r+"), np.load(folder / DONE, mmap_mode="r+")
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if state.num_processes > 1 else 1
    # Processes of one machine take batches in turn, so that no two write the same places.
    mine = range(state.local_process_index % sharing, len(batches), sharing)
    left = [number for number in mine if not done[number]]
    computed: list[int] = []
    features = computed_batches([batches[number] for number in left], extractor, name)
    for number, found in zip(left, features, strict=True):
        first, last = batches[number][0], batches[number][-1] + 1
        values[slice(first, last) if offsets is None else slice(int(offsets[first]), int(offsets[last]))] = found
        computed.append(number)
        if len(computed) >= BATCHES_BETWEEN_FLUSHES or number == left[-1]:
            values.flush()  # the mark must not reach the disk before what it vouches for
            done[computed] = True
            done.flush()
            computed.clear()


def _allocate(folder: Path, key: dict[str, Any], length: int, batches: int, extractor: Extractor) -> None:
    """Make the empty file, and the list of what of it is done, written last; where that is there, all is.

    Raises:
        BadInputError: the disk has no room for it.
    """
    if (folder / DONE).is_file():
        return
    shape = (length, *extractor.run([extractor.load(0)]).shape[1:])
    needed, free = 4 * int(np.prod(shape)), shutil.disk_usage(folder).free
    if needed > free:
        raise BadInputError(
            f"the features of the frozen {key['part']} backbone take {needed / 1e9:.1f} GB, and {folder.parent} has "
            f"{free / 1e9:.1f} GB; give another --features_dir, or --frozen_features recompute"
        )
    write_json(folder / KEY, key)
    np.lib.format.open_memmap(folder / VALUES, "w+", np.float32, shape).flush()
    partial = folder / f"{DONE}.partial"
    with partial.open("wb") as file:
        np.save(file, np.zeros(batches, dtype=bool))
    partial.replace(folder / DONE)


def computed_batches(batches: Sequence[range], extractor: Extractor, name: str = "") -> Iterator[np.ndarray]:
    """Yield the features of each batch; the next ones are loaded in other threads meanwhile.

    Args:
        batches: their places.
        extractor: makes the features, and is prepared.
        name: shown beside the progress bar; empty for no bar.
    """
    rows, most = sum(map(len, batches)), max(map(len, batches), default=1)
    shown = bool(name) and PartialState().is_main_process
    with ThreadPoolExecutor(cores()) as pool:
        waiting: deque = deque()
        upcoming = iter(batches)
        for _ in progress(batches, f"{name} features", total=rows, shown=shown, each=most):
            while len(waiting) <= BATCHES_AHEAD and (batch := next(upcoming, None)) is not None:
                waiting.append([pool.submit(extractor.load, place) for place in batch])
            yield extractor.run([future.result() for future in waiting.popleft()])
