"""Shared by all benchmarks: timing of ways that take turns, and one table of ratios with medians and spread."""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: what of ours was measured, with its measure: "title + picture, batch 64: 12.3 ms per step".
        against: what it stands beside, with the same measure.
        ratios: one per round, above 1 where ours is better.
        required: least median, or None for a figure without a goal.
    """

    what: str
    against: str
    ratios: list[float]
    required: float | None = None

    def cells(self) -> list[str]:
        """The line as words."""
        median = statistics.median(self.ratios)
        verdict = "" if self.required is None else "yes" if median >= self.required else "NO"
        required = "" if self.required is None else f"{self.required:g}"
        spread = f"[{min(self.ratios):.2f}, {max(self.ratios):.2f}]"
        return [self.what, self.against, f"{median:.2f}", spread, required, verdict]


HEADER = ["ours", "against", "ratio", "least, most", "goal", "met"]


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned lines."""
    lines = [HEADER, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def arguments_of(doc: str | None, rounds: int = 5, **options: dict[str, Any]) -> argparse.Namespace:
    """Read the command line: what all benchmarks take, and `options` (name -> arguments of `add_argument`)."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each way is measured (%(default)s)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu suffers less from other programs")
    parser.add_argument("--rows", type=Path, help="write the rows of the table here too, as JSON")
    for name, settings in options.items():
        parser.add_argument(f"--{name}", **settings)
    return parser.parse_args()


def report(rows: Sequence[Row], given: argparse.Namespace) -> None:
    """Print the table; write it where `--rows` says."""
    print(table(rows), flush=True)
    if given.rows is not None:
        given.rows.write_text(json.dumps([dataclasses.asdict(row) for row in rows]), encoding="utf-8")


def in_turns(ways: dict[str, Callable[[], Any]], rounds: int, clock: str = "wall") -> dict[str, list[float]]:
    """Seconds of each way in each round, after one round that does not count; each round another is the first."""
    now, names = CLOCKS[clock], list(ways)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = now()
            ways[name]()
            if number:
                found[name].append(now() - start)
    return found


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    """How many times less ours took, round by round."""
    return [their / our for their, our in zip(theirs, ours, strict=True)]


def milliseconds(seconds: Sequence[float]) -> str:
    """The median as words."""
    return f"{statistics.median(seconds) * 1000:.1f} ms"


def per_second(seconds: Sequence[float], parts: int, of: str) -> str:
    """The median rate as words."""
    return f"{parts / statistics.median(seconds):,.0f} {of}/s"
