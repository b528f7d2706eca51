"""What every engine runs: work that is started once per worker and then does one unit after the other."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

# Called by a worker with the number of things that it finished.
Report = Callable[[int], Any]


class Work(Protocol):
    """Work that can be pickled; it is the same for all workers.

    Attributes:
        uses_gpu: whether a worker takes a GPU where there are any.
        forks: whether local workers may be forked, which shares what is loaded; not with device or threads in use.
    """

    uses_gpu: bool
    forks: bool

    def start(self, number: int, workers: int) -> Callable[[Any, Report], Any]:
        """Load what a worker needs and return the function that does one unit.

        Args:
            number: of the worker on its machine, from 0.
            workers: how many there are on that machine.
        """
        ...


class Engine(Protocol):
    """A way to run work."""

    def run(self, work: Work, units: Iterable[Any], report: Report | None = None) -> Iterator[Any]:
        """Yield the results of the units in their order; few units are in memory at a time.

        Args:
            work: done by every worker.
            units: read as workers get free.
            report: called with what workers finished.

        Raises:
            BadInputError: a worker met bad input.
            OSError: a worker could not write, or was lost and could not be replaced.
        """
        ...
