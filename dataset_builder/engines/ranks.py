"""Units of work in the processes that `accelerate launch` or torchrun started, on one machine or several."""

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from dataset_builder.engines.work import Report, Work

# Processes of `accelerate launch` wait for the slowest of them, however long that takes.
PATIENCE = timedelta(days=30)


def is_launched() -> bool:
    """Return whether `accelerate launch` or torchrun started this process with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main() -> bool:
    """Return whether this process writes the result: the first one of a launcher, or one that none started."""
    return int(os.environ.get("RANK", "0")) == 0


def launched_state() -> Any:
    """Return the `PartialState` of this process among those it was started with."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)


class RanksEngine:
    """Runs work in the processes of a launcher, all of which call it alike; each gets the results of all."""

    def run(self, work: Work, units: Iterable[Any], report: Report | None = None) -> Iterator[Any]:
        """Yield the results of the units in their order, see `work.Engine`."""
        from accelerate.utils import gather_object

        state, each = launched_state(), list(units)
        do = work.start(state.local_process_index, int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes)))
        found = [do(unit, report or _ignore) for unit in each[state.process_index :: state.num_processes]]
        parts = gather_object([found])  # a list per process
        for place in range(len(each)):
            yield parts[place % state.num_processes][place // state.num_processes]


def _ignore(number: int) -> None:
    """Report to nobody."""
