"""Progress of work that takes longer than some seconds: a bar on a terminal, a line every 10 % without one."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from tqdm import tqdm

from dataset_builder.messages import echo

Item = TypeVar("Item")
SECONDS = 3.0  # what is done before stays silent
LINES = 10


# Progress bars of libraries, and what they report of steps that went well. Errors are raised whatever these say.
QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DATASETS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
}


def quiet_libraries() -> None:
    """Keep libraries imported from now on from reporting what went well, unless the environment asks for it."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def duration(seconds: float) -> str:
    """Return a time as a person reads it.

    >>> duration(42.4), duration(200), duration(7300)
    ('42 s', '3 min 20 s', '2 h 1 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Progress:
    """Shows how far some work is, how fast it goes and how long the rest will take.

    Args:
        name: what is done, such as "image features".
        total: number of units; None where it is not known, which without a terminal is a line every 30 seconds.
        unit: what is counted, in the plural.
        shown: whether anything is shown.
        initial: units that were done before.
        scaled: whether large numbers of units are shown as k, M and G.

    Attributes:
        done: units so far.
    """

    def __init__(
        self,
        name: str,
        total: int | None = None,
        unit: str = "rows",
        shown: bool = True,
        initial: int = 0,
        scaled: bool = False,
    ):
        self._name, self._total, self._unit, self._scaled = name, total, unit, scaled
        self._shown = shown
        self._initial = self.done = initial
        self._started = self._last = time.monotonic()
        self._lines = 0
        self._bar: Any = None
        if shown and sys.stderr is not None and sys.stderr.isatty():
            self._bar = tqdm(
                total=total, desc=name, unit=f" {unit}", delay=1, leave=False, initial=initial, unit_scale=scaled
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, number: int = 1) -> None:
        """Count further units."""
        self.done += number
        if self._bar is not None:
            self._bar.update(number)
        elif self._shown:
            self._line()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def _line(self) -> None:
        now = time.monotonic()
        if now - self._started < SECONDS:
            return
        speed = max(self.done - self._initial, 1e-9) / (now - self._started)
        rate = f"{self._number(speed)} {self._unit}/s"
        if self._total is None:
            if now - self._last >= 10 * SECONDS:
                self._last = now
                echo(f"{self._name}: {self._number(self.done)} {self._unit}, {rate}", sys.stderr)
            return
        reached = LINES * self.done // max(self._total, 1)
        if reached > self._lines:
            self._lines = reached
            left = "done" if self.done >= self._total else f"{duration((self._total - self.done) / speed)} left"
            of = f"{self._number(self.done)} of {self._number(self._total)} {self._unit}"
            echo(f"{self._name}: {100 * reached // LINES} %, {of}, {rate}, {left}", sys.stderr)

    def _number(self, value: float) -> str:
        if self._scaled:
            return tqdm.format_sizeof(value)
        return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def progress(
    items: Iterable[Item], name: str, unit: str = "rows", total: int | None = None, shown: bool = True, each: int = 1
) -> Iterator[Item]:
    """Yield items and show how far they are.

    Args:
        items: what is worked on.
        name: what is done; empty shows nothing.
        unit: what is counted, in the plural.
        total: number of units; None takes the length of the items, where they have one, times `each`.
        shown: whether anything is shown.
        each: units per item; the last one may have fewer.
    """
    if total is None and isinstance(items, Sized):
        total = len(items) * each
    done = 0
    with Progress(name, total, unit, shown and bool(name)) as shows:
        for item in items:
            yield item
            number = each if total is None else min(each, total - done)
            done += number
            shows.update(number)
