"""The parser of the command lines beside `train.py`, made from a dataclass of options; no library is loaded for it."""

import argparse
import ctypes
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from math import isfinite, nan
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dataset_builder.errors import CommandParser, exit_on_bad_input
from dataset_builder.progress import quiet_libraries
from trainer_scripts.settings.options import REQUIRED, Range, option, options_of

# Settings of glibc's allocator, numbered as in its malloc.h, and how much freed memory may lie at the end of the heap.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _KEPT_BYTES = -1, -4, 2**31 - 1
_OTHER = str.maketrans("-_", "_-")


@dataclass
class ModelOptions:
    """What names the one finished model of a command."""

    model: str = option(REQUIRED, "folder or Hub id", metavar="MODEL")
    # A folder has no revisions: there the default is not read.
    revision: str = option("main", "revision of a Hub model (%(default)s)")


@dataclass(kw_only=True)
class DatasetOptions:
    """How the data set of a command is read, whatever the models were trained on."""

    dataset_revision: str | None = option(None, "revision of a Hub data set")
    columns: dict[str, str] | None = option(
        None, 'column mapping of this data set, ours to theirs: \'{"title": "name"}\' (default: the model\'s own)'
    )


class ArgumentParser(CommandParser):
    """Parser of the options of a dataclass, spelled with hyphens and with underscores alike.

    Args:
        arguments: dataclass whose fields are made by `option`; one without a default is a positional argument.
        prog: name of the command.
        spelling: the separator of words that `--help` shows first.
        settings: those of `argparse.ArgumentParser`.
    """

    def __init__(self, arguments: type, prog: str, spelling: Literal["_", "-"] = "_", **settings: Any):
        super().__init__(prog=prog, **settings)
        groups: dict[str, Any] = {}
        kinds, options = get_type_hints(arguments), options_of(arguments)
        for item in fields(arguments):
            properties = options[item.name]
            if properties.group and properties.group not in groups:
                groups[properties.group] = self.add_argument_group(properties.group)
            target = groups[properties.group] if properties.group else self
            given = _reading(kinds[item.name], properties.allowed, properties.choices)
            given["help"] = item.metadata["help"]
            if properties.metavar:
                given["metavar"] = properties.metavar
            # A positional argument has one spelling and no default.
            if item.default is MISSING:
                given |= {"nargs": "*"} if properties.may_be_absent else {}
                target.add_argument(item.name, **given)
                continue
            # Both spellings are taken; `--help` lists the first one first.
            name = item.name.replace("_", spelling)
            spellings = dict.fromkeys((f"--{name}", f"--{name.translate(_OTHER)}"))
            target.add_argument(*spellings, default=item.default, **given)
        self.add_argument("--verbose", action="store_true", help="show the messages and progress bars of libraries too")


def _reading(kind: Any, allowed: Range | None, choices: tuple[str, ...]) -> dict[str, Any]:
    """Return how argparse reads a value of an annotated type."""
    members = [member for member in get_args(kind) if member is not NoneType]
    if NoneType in get_args(kind):  # None is the default alone; it cannot be typed
        return _reading(members[0], allowed, choices)
    if kind is bool:
        return {"action": "store_true"}
    if get_origin(kind) is list:
        return {**_reading(members[0], allowed, choices), "nargs": "+"}
    if get_origin(kind) is dict:
        return {"type": column_mapping, "metavar": "JSON"}
    if get_origin(kind) is Literal or choices:
        return {"choices": choices or tuple(members)}
    return {"type": kind if allowed is None else _number(kind, allowed)}


def _number(kind: type, allowed: Range) -> Callable[[str], float]:
    """Return the reader of a number within a range; NaN is in none, and infinity is refused too."""
    if allowed.high != float("inf"):
        limits = f"from {allowed.low:g} to {allowed.high:g}"
    else:
        limits = f"above {allowed.low:g}" if allowed.above else f"from {allowed.low:g} on"

    def number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = nan
        # NaN, which stands for text that is no number, fails here too.
        if not (isfinite(value) and value in allowed):
            raise argparse.ArgumentTypeError(f"{text!r} is no {'whole ' if kind is int else ''}number {limits}")
        return value

    return number


def column_mapping(text: str) -> dict[str, str]:
    """Return a column mapping, ours to theirs, given as a JSON object as `train.py` takes it."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise argparse.ArgumentTypeError(f'{text!r} is no mapping of columns such as \'{{"title": "name"}}\'')
    return value


@contextmanager
def command(parser: ArgumentParser, arguments: Sequence[str] | None) -> Iterator[argparse.Namespace]:
    """Parse a command line for a block of code; bad input in it ends with one line on stderr and status 2."""
    given = parser.parse_args(arguments)
    with exit_on_bad_input(parser.prog):
        prepare_process(given.verbose)
        yield given


def prepare_process(verbose: bool = False) -> None:
    """Set what makes a process that computes faster, and libraries quiet; to be called before these are imported."""
    if not verbose:
        quiet_libraries()
    let_waiting_threads_sleep()
    keep_freed_memory()


def let_waiting_threads_sleep() -> None:
    """Let threads that wait for each other sleep rather than spin, unless the environment says otherwise.

    Spinning is faster on an idle machine; beside any other program the spinning thread occupies the core that the
    thread it waits for needs, and a training step takes many times as long. The OpenMP runtime reads the variable once,
    when torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_freed_memory() -> None:
    """Let the process keep large buffers that it frees, unless the environment says otherwise (`MALLOC_...`).

    Each layer of a network on a CPU allocates its output. The C library of Linux maps every large buffer anew and gives
    it back when it is freed, so that the kernel clears the same pages again and again: 40 % of the time of a frozen
    MobileNetV2 went there. Freed buffers that stay are used again; a process keeps what its largest step took.
    Other systems have other allocators, which this leaves alone.
    """
    given = [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]
    if given or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
