"""Features on disk: memory-mapped, under a key that names all they depend on, filled bit by bit, never half taken."""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import PartialState
from tqdm import tqdm

from dataset_builder.errors import BadInputError
from trainer_scripts.backbone_engines import cores
from trainer_scripts.predictions import write_json

FORMAT = 1
KEY, VALUES, DONE, FINISHED = "key.json", "features.npy", "done.npy", "finished.json"
BATCHES_AHEAD = 4
BATCHES_BETWEEN_FLUSHES = 32


@dataclass
class RowFeatures:
    """Features of the rows of one table, in one or several random views.

    Attributes:
        values: float32, `(views * rows, ...)`, or `(all tokens, size)` with `offsets`.
        rows: number of rows.
        offsets: `(views * rows + 1,)` first token of each row, for rows of different length; else None.
    """

    values: np.ndarray
    rows: int
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return self.rows

    @property
    def views(self) -> int:
        """Random views per row; 1 where nothing varies."""
        return (len(self.values) if self.offsets is None else len(self.offsets) - 1) // self.rows

    def of(self, row: int, epoch: int = 0) -> torch.Tensor:
        """Return the features of one row, in the view of an epoch."""
        place = (epoch % self.views) * self.rows + row
        if self.offsets is None:
            return torch.from_numpy(np.array(self.values[place]))
        return torch.from_numpy(np.array(self.values[self.offsets[place] : self.offsets[place + 1]]))

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.of(row)


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

    An interrupted computation goes on where it stopped; what is not complete is never read.

    Args:
        root: folder of all features.
        key: everything the features depend on, as JSON holds it; `views` is how many there are of each row.
        rows: rows of the table.
        extractor: makes them.
        offsets: first token of each place and, at the end, their number; None where all places are of one shape.
        batch_size: places computed at once.
    """
    content = {**key, "format": FORMAT}
    folder = root / digest_of([json.dumps(content, sort_keys=True)])[:24]
    if not (folder / FINISHED).is_file():
        _fill(folder, content, int(key["views"]) * rows, extractor, offsets, batch_size)
    return RowFeatures(np.load(folder / VALUES, mmap_mode="r"), rows, offsets)


def _fill(
    folder: Path, key: dict[str, Any], places: int, extractor: Extractor, offsets: np.ndarray | None, batch_size: int
) -> None:
    state = PartialState()
    batches = [range(start, min(start + batch_size, places)) for start in range(0, places, batch_size)]
    if state.is_local_main_process and not (folder / DONE).is_file():
        shape = extractor.run([extractor.load(0)]).shape[1:]
        _allocate(folder, key, (places if offsets is None else int(offsets[-1]), *shape), len(batches))
    extractor.prepare()
    state.wait_for_everyone()
    values, done = np.load(folder / VALUES, mmap_mode="r+"), np.load(folder / DONE, mmap_mode="r+")
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if state.num_processes > 1 else 1
    mine = range(state.local_process_index % sharing, len(batches), sharing)
    left = [number for number in mine if not done[number]]
    computed: list[int] = []
    features = _computed([batches[number] for number in left], extractor, key["part"])
    for number, found in zip(left, features, strict=True):
        first, last = batches[number][0], batches[number][-1] + 1
        values[slice(first, last) if offsets is None else slice(int(offsets[first]), int(offsets[last]))] = found
        computed.append(number)
        if len(computed) >= BATCHES_BETWEEN_FLUSHES or number == left[-1]:
            values.flush()  # the mark must not reach the disk before what it vouches for
            done[computed] = True
            done.flush()
            computed.clear()
    state.wait_for_everyone()
    if state.is_local_main_process:
        write_json(folder / FINISHED, {"places": places})
        (folder / DONE).unlink()
    state.wait_for_everyone()


def _allocate(folder: Path, key: dict[str, Any], shape: tuple[int, ...], batches: int) -> None:
    """Make the empty file, and the list of what of it is done, written last.

    Raises:
        BadInputError: the disk has no room for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
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


def _computed(batches: Sequence[range], extractor: Extractor, name: str) -> Iterator[np.ndarray]:
    """Yield the features of each batch; the next ones are loaded in other threads meanwhile."""
    quiet = None if PartialState().is_main_process else True
    with ThreadPoolExecutor(cores()) as pool:
        waiting: deque = deque()
        upcoming = iter(batches)
        for _ in tqdm(batches, desc=f"{name} features", unit="batch", leave=False, disable=quiet):
            while len(waiting) <= BATCHES_AHEAD and (batch := next(upcoming, None)) is not None:
                waiting.append([pool.submit(extractor.load, place) for place in batch])
            yield extractor.run([future.result() for future in waiting.popleft()])
