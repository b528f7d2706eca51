"""A process that tries inputs, watched from another one that outlives it."""

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

Place = tuple[int, str]  # seed and name of a family


def watched(target: Callable[..., None], *given: Any) -> Iterator[tuple[Place, str | None]]:
    """Run a function such as `try_inputs` in a process of its own; yield each place with what is wrong there.

    Libraries in C++ may end the whole process, which is a fault of the input that it was at.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=target, args=(there, *given))
    child.start()
    there.close()
    at: Place | None = None
    while True:
        try:
            said = here.recv()
        except EOFError:
            break
        at = said[:2] if len(said) == 2 else None
        if at is None:
            yield said[:2], said[2]
    child.join()
    if at is not None and child.exitcode:
        yield at, f"the process ended with {child.exitcode}"
