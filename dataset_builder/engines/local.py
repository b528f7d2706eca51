"""Units of work in this process, or in several processes of this machine."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from dataset_builder.engines.work import Report, Work
from dataset_builder.processes import end_with_parent

# Units per process that may wait or be done before their turn: enough to keep all busy, few enough to bound memory.
IN_FLIGHT = 3
# Seconds between looks at what workers report.
_LOOK = 0.5


class LocalEngine:
    """Runs work in processes of this machine.

    Args:
        processes: 1 works in this process; None for one per core.
    """

    def __init__(self, processes: int | None = None):
        self.processes = processes or os.cpu_count() or 1

    def run(self, work: Work, units: Iterable[Any], report: Report | None = None) -> Iterator[Any]:
        """Yield the results of the units in their order, see `work.Engine`."""
        report = report or _ignore
        # Not more processes than there are units, as far as their number is known.
        processes = min(self.processes, len(units)) if isinstance(units, Sized) else self.processes
        if processes <= 1:
            if processes:
                do = work.start(0, 1)
                for unit in units:
                    yield do(unit, report)
            return
        context: Any = multiprocessing.get_context("fork" if work.forks else "spawn")
        done, numbers = context.Value("q", 0), context.Value("i", 0)
        arguments = (work, processes, done, numbers)
        pool = ProcessPoolExecutor(processes, context, _begin, arguments)
        reported = _Reported(done, report)
        waiting: deque[Future] = deque()
        before = multiprocessing.active_children()  # of somebody else
        try:
            pool.submit(_ignore, 0)  # starts processes, which are known before any of them can end
            for unit in units:
                if len(reported.workers) < processes:
                    reported.workers.update(one for one in multiprocessing.active_children() if one not in before)
                waiting.append(pool.submit(_do_unit, unit))
                if len(waiting) >= IN_FLIGHT * processes:
                    yield _result(waiting, reported)
            while waiting:
                yield _result(waiting, reported)
            reported.look()
        finally:
            # After an error, or when nobody wants the rest, running units have no use.
            for worker in multiprocessing.active_children() if waiting else ():
                if worker not in before:
                    worker.terminate()
            pool.shutdown(cancel_futures=True)


def _ignore(number: int) -> None:
    """Report to nobody."""


class _Reported:
    """Passes on what workers counted since the last look; knows the processes."""

    def __init__(self, done: Any, report: Report):
        self._done, self._report, self._last = done, report, 0
        self.workers: set[Any] = set()

    def look(self) -> None:
        now = self._done.value
        if now > self._last:
            self._report(now - self._last)
            self._last = now


def _result(waiting: deque[Future], reported: _Reported) -> Any:
    """Return the result of the oldest unit, reporting meanwhile."""
    first = waiting[0]
    while not first.done():
        wait([first], timeout=_LOOK)
        reported.look()
    try:
        result = first.result()
    except BrokenProcessPool as error:
        # The pool ends the others by a signal; the one that ended by itself says more.
        ended = [worker.exitcode for worker in reported.workers if worker.exitcode not in (None, 0, -signal.SIGTERM)]
        status = f" with status {ended[0]}" if ended else ""
        raise OSError(f"a worker process ended{status}; repeat the command to go on") from error
    waiting.popleft()
    reported.look()
    return result


_work: Work
_workers: int
_number: int
_done: Any
_do: Callable[[Any, Report], Any] | None = None


def _begin(work: Work, workers: int, done: Any, numbers: Any) -> None:
    """Prepare a worker process; what it loads waits for the first unit, where an error reaches the main process."""
    global _work, _workers, _number, _done, _do
    # Ctrl-C reaches every process of the terminal; the main one answers it for all and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    with numbers.get_lock():
        _number = numbers.value
        numbers.value += 1
    _work, _workers, _done, _do = work, workers, done, None


def _do_unit(unit: Any) -> Any:
    global _do
    if _do is None:
        _do = _work.start(_number, _workers)
    return _do(unit, _count)


def _count(number: int) -> None:
    with _done.get_lock():
        _done.value += number
