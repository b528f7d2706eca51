"""Decoded pixels kept in memory: side by side in large blocks, within one budget for the whole process."""

import math
import weakref
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info
from tqdm import tqdm

MEMORY_LIMIT_BYTES = 3 * 1024**3
BLOCK_BYTES = 64 * 1024**2
DECODING_THREADS = 4
DECODED_AHEAD = 64


class Budget:
    """How many bytes all shelves of a process may hold together.

    Attributes:
        limit: that many.
    """

    def __init__(self, limit: int = MEMORY_LIMIT_BYTES):
        self.limit = limit
        self._shelves: weakref.WeakSet[Shelf] = weakref.WeakSet()

    def add(self, shelf: "Shelf") -> None:
        """Count a shelf for as long as it lives."""
        self._shelves.add(shelf)

    @property
    def room(self) -> int:
        """Bytes that are left."""
        return self.limit - sum(shelf.nbytes for shelf in self._shelves)


MEMORY = Budget()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies: number of the block, first byte, shape and strides."""

    block: int
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Shelf:
    """Copies of uint8 tensors, one after the other in large blocks.

    Kept where they were decoded, they would lie between the short-lived buffers of decoding, and each leave a hole
    there that the next buffer does not fit: a process then grows by several times what it keeps. The same goes for the
    few bytes of a tensor object, which is why none is made before it is asked for.

    Args:
        budget: what it takes its bytes from.
    """

    def __init__(self, budget: Budget):
        self.nbytes = 0
        self._budget = budget
        self._blocks: list[np.ndarray] = []
        self._used = 0
        budget.add(self)

    def keep(self, pixels: torch.Tensor) -> Place | None:
        """Copy a uint8 tensor; None where the budget is spent."""
        size = pixels.numel()
        if size > self._budget.room:
            return None
        if not self._blocks or self._used + size > self._blocks[-1].size:
            self._blocks.append(np.empty(max(BLOCK_BYTES, size), dtype=np.uint8))
            self._used = 0
        # A picture out of PIL lies with its channels last, which is how the models take it: strides stay.
        strides = torch.empty_like(pixels, device="meta").stride()
        place = Place(len(self._blocks) - 1, self._used, tuple(pixels.shape), strides)
        self.at(place).copy_(pixels)
        self._used += size
        self.nbytes += size
        return place

    def at(self, place: Place) -> torch.Tensor:
        """Return the tensor that lies there, not a copy."""
        block = self._blocks[place.block][place.start : place.start + math.prod(place.shape)]
        return torch.from_numpy(block).as_strided(place.shape, place.strides)


class Kept(ABC):
    """A sequence of uint8 tensors that are decoded from rows, and kept where they fit.

    Args:
        rows: how many there are.
        budget: of the bytes that are kept; None for that of the process.
    """

    def __init__(self, rows: int, budget: Budget | None = None):
        self._rows = rows
        self._budget = budget or MEMORY
        self._shelf = Shelf(self._budget)
        self._places: dict[int, Place] = {}
        self._loaded = False

    def __getstate__(self) -> dict[str, Any]:
        # A worker process that is not forked decodes for itself: gigabytes would have to be copied for each.
        return {**self.__dict__, "_budget": None, "_shelf": None, "_places": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._budget = MEMORY
        self._shelf = Shelf(MEMORY)

    @abstractmethod
    def decode(self, index: int) -> torch.Tensor:
        """Return one, decoded anew."""

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int) -> torch.Tensor:
        if index in self._places:
            return self._shelf.at(self._places[index])
        pixels = self.decode(index)
        # What a worker process keeps is its own, once per worker, and lost at the end of the epoch.
        if not self._loaded and get_worker_info() is None:
            self._keep(index, pixels)
        return pixels

    def load(self) -> None:
        """Decode all now where all are to be kept; before worker processes are made, which share them.

        From then on nothing more is kept.
        """
        if self._loaded:
            return
        self._loaded = True
        missing = [index for index in range(len(self)) if index not in self._places]
        if not missing or self.decode(missing[0]).nbytes * len(missing) > self._budget.room:
            return
        progress = tqdm(total=len(missing), desc=f"decoding {type(self).__name__.lower()}", delay=2, disable=None)
        with progress, ThreadPoolExecutor(min(DECODING_THREADS, torch.get_num_threads() + 1)) as pool:
            for start in range(0, len(missing), DECODED_AHEAD):
                part = missing[start : start + DECODED_AHEAD]
                found = zip(part, pool.map(self.decode, part), strict=True)
                fits = [self._keep(index, pixels) for index, pixels in found]
                progress.update(len(part))
                if not all(fits):
                    return

    def _keep(self, index: int, pixels: torch.Tensor) -> bool:
        place = self._shelf.keep(pixels)
        if place is not None:
            self._places[index] = place
        return place is not None
