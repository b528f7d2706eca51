"""Decoded pixels kept in memory: side by side in one mapped array per sequence, within one budget per process."""

import math
import mmap
import weakref
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from dataset_builder.progress import Progress

MEMORY_LIMIT_BYTES = 3 * 1024**3
DECODING_THREADS = 4
DECODED_AHEAD = 64


class Budget:
    """Limits how many bytes all sequences of a process keep together.

    Attributes:
        limit: the number of bytes.
    """

    def __init__(self, limit: int = MEMORY_LIMIT_BYTES):
        self.limit = limit
        # A sequence counts for as long as it lives.
        self.keepers: weakref.WeakSet[Kept] = weakref.WeakSet()

    @property
    def room(self) -> int:
        """Bytes that are left."""
        return self.limit - sum(keeper.nbytes for keeper in self.keepers)


MEMORY = Budget()


def map_memory(size: int) -> np.ndarray:
    """Map a uint8 array of `size` bytes, or of as many as the system promises; a page counts once it is written to."""
    while True:
        try:
            return np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)
        except OSError:  # more than there is memory
            size //= 2


class Kept(ABC):
    """A sequence of uint8 tensors that are decoded from rows, and kept where they fit.

    All are copied into one array that is mapped before the first of them. Kept where they were decoded, they would lie
    between the short-lived buffers of decoding, and each leave a hole there that the next buffer does not fit: a
    process then grows by several times what it keeps. The same goes for the few bytes of a tensor object, which is why
    none is made before it is asked for.

    Args:
        rows: length of the sequence.
        budget: limits the bytes that are kept; None for the budget of the process.

    Attributes:
        nbytes: bytes that are kept.
    """

    def __init__(self, rows: int, budget: Budget | None = None):
        self._rows = rows
        self._loaded = False
        self._keep_nothing(budget or MEMORY)

    def _keep_nothing(self, budget: Budget) -> None:
        self._budget = budget
        self._array: np.ndarray | None = None
        # Row -> first byte, shape and strides.
        self._kept: dict[int, tuple[int, tuple[int, ...], tuple[int, ...]]] = {}
        self.nbytes = 0
        budget.keepers.add(self)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process that is not forked decodes for itself: gigabytes would have to be copied for each.
        return {**self.__dict__, "_budget": None, "_array": None, "_kept": {}, "nbytes": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._keep_nothing(MEMORY)

    @abstractmethod
    def decode(self, index: int) -> torch.Tensor:
        """Return the tensor of one row, decoded anew."""

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int) -> torch.Tensor:
        if index in self._kept:
            return self._view(index)
        pixels = self.decode(index)
        # What a worker process keeps is its own, once per worker, and lost at the end of the epoch.
        if not self._loaded and get_worker_info() is None:
            self._keep(index, pixels)
        return pixels

    def load(self) -> None:
        """Decode all rows now if all fit, and keep nothing more from then on.

        Call it before worker processes are forked, which then share what is kept.
        """
        if self._loaded:
            return
        self._loaded = True
        missing = [index for index in range(len(self)) if index not in self._kept]
        if not missing or self.decode(missing[0]).nbytes * len(missing) > self._budget.room:
            return
        what = type(self).__name__.lower()
        with (
            Progress(f"decoding {what}", len(missing), what) as shows,
            ThreadPoolExecutor(min(DECODING_THREADS, torch.get_num_threads() + 1)) as pool,
        ):
            for start in range(0, len(missing), DECODED_AHEAD):
                part = missing[start : start + DECODED_AHEAD]
                fits = [self._keep(*pair) for pair in zip(part, pool.map(self.decode, part), strict=True)]
                shows.update(len(part))
                if not all(fits):
                    return

    def _keep(self, index: int, pixels: torch.Tensor) -> bool:
        """Copy the pixels of a row; return False where they do not fit."""
        room = self._budget.room
        if pixels.numel() > room:
            return False
        if self._array is None:
            self._array = map_memory(room)
        if self.nbytes + pixels.numel() > self._array.size:
            return False
        # A picture decoded by PIL lies with its channels last, which is how the models take it: strides stay.
        strides = torch.empty_like(pixels, device="meta").stride()
        self._kept[index] = (self.nbytes, tuple(pixels.shape), strides)
        self.nbytes += pixels.numel()
        self._view(index).copy_(pixels)
        return True

    def _view(self, index: int) -> torch.Tensor:
        """Return the tensor of a row that is kept, not a copy."""
        assert self._array is not None
        start, shape, strides = self._kept[index]
        # Of these bytes alone, so that a tensor that is sent or saved does not take the whole array along.
        return torch.from_numpy(self._array[start : start + math.prod(shape)]).as_strided(shape, strides)
