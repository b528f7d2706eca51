"""The parser of the command lines beside `train.py`, and the kinds of values that they take."""

import argparse
import json
import os
from collections.abc import Callable
from math import inf, nan
from typing import Any


class ArgumentParser(argparse.ArgumentParser):
    """Takes options of several words with hyphens and with underscores alike, as the parser of transformers does."""

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Add an option under both spellings; the one given is shown first."""
        others = (name[:2] + name[2:].translate(_OTHER) for name in names if name.startswith("--"))
        return super().add_argument(*dict.fromkeys((*names, *others)), **settings)


_OTHER = str.maketrans("-_", "_-")


def at_least(least: int) -> Callable[[str], int]:
    """Return the kind of option that takes a whole number from `least` on."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return value

    return whole_number


def _number(accepts: Callable[[float], bool], which: str) -> Callable[[str], float]:
    """Return the kind of option that takes the numbers that `accepts` does; no NaN, as it passes no comparison."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = nan
        if not accepts(value):
            raise argparse.ArgumentTypeError(f"{text!r} is no number {which}")
        return value

    return number


probability = _number(lambda value: 0 <= value <= 1, "from 0 to 1")
from_zero = _number(lambda value: 0 <= value < inf, "from 0 on")
factor = _number(lambda value: 0 < value < inf, "above 0")


def column_mapping(text: str) -> dict[str, str]:
    """Return a column mapping, ours to theirs, given as a JSON object as `train.py` takes it."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise argparse.ArgumentTypeError(f'{text!r} is no mapping of columns such as \'{{"title": "name"}}\'')
    return value


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add `--columns`, for data that name their columns otherwise than those a model was trained on."""
    parser.add_argument(
        "--columns",
        type=column_mapping,
        metavar="JSON",
        help='column mapping of this data set, ours to theirs: \'{"title": "name"}\' (default: the model\'s own)',
    )


def let_waiting_threads_sleep() -> None:
    """Let threads that wait for each other sleep rather than spin, unless the environment says otherwise.

    Spinning is faster on an idle machine; beside any other program the spinning thread holds the very core
    that it waits for, and a training step takes many times as long. The OpenMP runtime reads the variable once, when
    torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
