"""Units of work in this process, or in several processes of this machine."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, cast

from dataset_builder.engines.work import Report, Work
from dataset_builder.processes import end_with_parent

# Units per process that may wait or be done before their turn: enough to keep all busy, few enough to bound memory.
IN_FLIGHT = 3
# Seconds between looks at what workers report.
_LOOK = 0.5
# Seconds to wait for the status of a process that ended.
_STATUS_WAIT = 5.0


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
        remembering = _Remembering(context)
        pool = ProcessPoolExecutor(processes, cast(Any, remembering), _begin, arguments)
        reported = _Reported(done, report, remembering.workers)
        waiting: deque[Future] = deque()
        try:
            for unit in units:
                waiting.append(pool.submit(_do_unit, unit))
                if len(waiting) >= IN_FLIGHT * processes:
                    yield _result(waiting, reported)
            while waiting:
                yield _result(waiting, reported)
            reported.look()
        finally:
            # After an error, or when nobody wants the rest, running units have no use.
            for worker in remembering.workers if waiting else ():
                if worker.is_alive():
                    worker.terminate()
            if waiting:
                # Else the pool would wait for ever: for the rest of a result that a worker was writing when it ended,
                # and (before gh-94777 of CPython) for somebody to read units that are larger than a pipe.
                cast(Any, pool)._result_queue._writer.close()
                cast(Any, pool)._call_queue.cancel_join_thread()
            pool.shutdown(cancel_futures=True)


def _ignore(number: int) -> None:
    """Report to nobody."""


class _Remembering:
    """A multiprocessing context that remembers the processes it started; a pool forgets those that ended."""

    def __init__(self, context: Any):
        self._context = context
        self.workers: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def Process(self, *args: Any, **kwargs: Any) -> Any:
        self.workers.append(self._context.Process(*args, **kwargs))
        return self.workers[-1]


class _Reported:
    """Passes on what workers counted since the last look; knows the processes."""

    def __init__(self, done: Any, report: Report, workers: list[Any]):
        self._done, self._report, self._last = done, report, 0
        self._workers = workers

    def exit_status(self) -> int | None:
        """Return the status of a worker that ended by itself, None where none is known.

        The pool waits for its processes in a thread of its own, and ends the others by a signal: until it has done
        so, the status of the first one may not be known here.
        """
        end = time.monotonic() + _STATUS_WAIT
        while time.monotonic() < end:
            ended = [worker.exitcode for worker in self._workers]
            by_itself = [status for status in ended if status not in (None, 0, -signal.SIGTERM)]
            if by_itself or None not in ended:
                return by_itself[0] if by_itself else None
            time.sleep(0.01)
        return None

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
        status = reported.exit_status()
        said = "" if status is None else f" with status {status}"
        raise OSError(f"a worker process ended{said}; repeat the command to go on") from error
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
