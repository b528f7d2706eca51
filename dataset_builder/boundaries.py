"""The edges of this package: whatever a library raises while it reads something from outside becomes one line.

Files, models and the answers of a Hub are made by others, and every library has its own ways to fail on a damaged one:
safetensors, tokenizers, PyYAML, pyarrow, Pillow and httpx share no base class. So the block around a call of such a
library names what is read once, and no list of exception types is repeated. The cause stays: `FLAVOUR_TRACEBACK=1`
shows it.
"""

import errno
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import yaml

from dataset_builder.errors import BadInputError
from dataset_builder.messages import echo, shown
from model_cards.errors import CardError

Read = TypeVar("Read")

# Limits of what is read whole, stated in SECURITY.md. The largest configuration of our own has 20 kB.
LARGEST_TEXT = 64_000_000  # bytes of a JSON or YAML file
DEEPEST = 64  # lists and mappings inside each other
MOST_VALUES = 5_000_000  # values in one file; YAML can name one value many times

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
# Answers after which the same request may succeed.
PASSING = {429, 500, 502, 503, 504}
ATTEMPTS, FIRST_PAUSE = 3, 1.0


@contextmanager
def outside(what: str, remedy: str = "") -> Iterator[None]:
    """Turn any error of a library that reads something from outside into bad input.

    Only calls of a library belong into the block, so that no fault of this package hides behind its message.

    Args:
        what: what was read, and that it failed: "cannot load a model from 'x'".
        remedy: what to do about it.

    Raises:
        BadInputError: names what was read, the reason and the remedy.
        OSError: a disk is full or read-only, which is no fault of what was read.
    """
    try:
        yield
    except BadInputError:
        raise
    except BaseException as error:
        if not is_failure(error) or (isinstance(error, OSError) and error.errno in FULL):
            raise
        advice = f"; {remedy}" if remedy else ""
        raise BadInputError(f"{what}: {reason(error)}{advice}") from error


def is_failure(error: BaseException) -> bool:
    """Return whether something failed, rather than that a user or the interpreter ended it.

    A client that is written in Rust, such as `hf_xet`, panics with an exception that is no `Exception`.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def reason(error: BaseException) -> str:
    """Return why something failed, as part of a line: the answer of a Hub if it was that, else the first sentences."""
    broken = _network_fault(error)
    if broken is not None:
        return broken
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 (byte {error.start})"
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:  # an option of the library, which commands of this package do not have
        return "it needs code of its own, and a stranger's code does not run here; give one whose classes are known"
    # Of classes such as KeyError the text alone says nothing.
    known = isinstance(error, CardError | OSError | ValueError) and text
    return shown(text if known else f"{type(error).__name__}: {text}".rstrip(": "), 400)


def patiently(what: str, remedy: str, read: Callable[[], Read]) -> Read:
    """Return what a function reads from a Hub; a connection that breaks and a passing refusal are tried again, aloud.

    Raises:
        BadInputError: it fails for another reason, or every time.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            with outside(what, remedy):
                return read()
        except BadInputError as error:
            if error.__cause__ is None or not _may_pass(error.__cause__):
                raise
            pause = FIRST_PAUSE * 2 ** (attempt - 1)
            echo(f"{reason(error.__cause__)}; trying again in {pause:g} s", sys.stderr)
            time.sleep(pause)
    with outside(what, remedy):
        return read()


def read_text(path: Path, advice: str, largest: int = LARGEST_TEXT) -> str:
    """Return the text of a regular UTF-8 file of bounded size.

    Raises:
        FileNotFoundError: there is none.
        BadInputError: it is no regular file, too large, or not UTF-8; the message ends with `advice`.
    """
    if not isinstance(path, Path):  # of a store, see `storage.places`
        return _stored_text(path, advice, largest)
    with outside(f"{path} cannot be read", advice):
        try:
            # Opened without waiting: a pipe that nobody writes to would block for ever.
            number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError:
            number = -1
        if number >= 0:
            with os.fdopen(number, "rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise BadInputError(f"{path} is no regular file; {advice}")
                content = file.read(largest + 1)
                if len(content) > largest:
                    raise BadInputError(f"{path} is larger than the {largest / 1e6:g} MB that are read; {advice}")
                return content.decode("utf-8")
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _stored_text(path: Any, advice: str, largest: int) -> str:
    content = None
    with outside(f"{path} cannot be read", advice):
        path.fs.invalidate_cache()
        with suppress(FileNotFoundError), path.fs.open(path.path, "rb") as file:
            content = file.read(largest + 1)
        if content is not None and len(content) > largest:
            raise BadInputError(f"{path} is larger than the {largest / 1e6:g} MB that are read; {advice}")
        if content is not None:
            return content.decode("utf-8")
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def parse_json(text: str, what: str, advice: str) -> Any:
    """Return the value of JSON text of bounded depth.

    Raises:
        BadInputError: it is no JSON, or holds lists in lists in lists without end; the message ends with `advice`.
    """
    with outside(f"{what} is not JSON", advice):
        value = json.loads(text)
    check_size(value, what, advice)
    return value


def parse_yaml(text: str, what: str, advice: str) -> Any:
    """Return the value of YAML text of bounded depth and size; a value that is named many times counts each time.

    Raises:
        BadInputError: it is no YAML, or too deep or too large; the message ends with `advice`.
    """
    with outside(f"{what} is not YAML", advice):
        value = yaml.safe_load(text)
    check_size(value, what, advice)
    return value


def check_size(value: Any, what: str, advice: str) -> None:
    """Raise BadInputError for lists and mappings that lie too deep in each other, or hold too many values in all."""
    level, depth, seen = [value], 0, 0
    while level:
        seen += len(level)
        if depth > DEEPEST or seen > MOST_VALUES:
            limit = f"{DEEPEST} levels" if depth > DEEPEST else f"{MOST_VALUES:,} values"
            raise BadInputError(f"{what} has more than the {limit} that are read; {advice}")
        following: list[Any] = []
        for one in level:
            if isinstance(one, dict | list):
                following.extend(one.values() if isinstance(one, dict) else one)
                if len(following) > MOST_VALUES:
                    break
        level, depth = following, depth + 1


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _broke(error: BaseException) -> bool:
    """Whether an error is that of a connection; httpx has another name in some releases of its clients."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"TransportError", "ClientConnectionError"}) or isinstance(
        error, ConnectionError | TimeoutError
    )


def _network_fault(error: BaseException) -> str | None:
    for one in _chain(error):
        status = _status(one)
        # An absent repository or file has a message of its own, which names it.
        if status is not None and status >= 400 and status != 404 and not type(one).__name__.endswith("NotFoundError"):
            known = status in {each.value for each in HTTPStatus}
            return f"the Hub answered {status}{f' {HTTPStatus(status).phrase}' if known else ''}"
    for one in _chain(error):
        if _broke(one):
            return f"the connection to the Hub broke ({type(one).__name__}: {shown(one)})".replace(": )", ")")
    return None


def _may_pass(error: BaseException) -> bool:
    statuses = [status for status in map(_status, _chain(error)) if status is not None]
    return statuses[0] in PASSING if statuses else any(map(_broke, _chain(error)))
