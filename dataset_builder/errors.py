"""The error for input that the user can correct, and how command lines report it."""

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from dataset_builder.messages import echo, one_line
from model_cards.errors import CardError

TRACEBACK = "FLAVOUR_TRACEBACK"  # variable of the environment that asks for the traceback of an error
_MAKE_ROOM = "; make room there, or name another place, and repeat the command"
_REMEDIES: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _MAKE_ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES), "; name a place that you may write to or read from"),
    errno.ELOOP: "; remove the link that points to itself",
    errno.ENAMETOOLONG: "; give a shorter name",
}


class BadInputError(ValueError):
    """Input that is refused; the message names what was given, why it is refused, and the remedy.

    The message is one line: control characters of foreign text are escaped, and what is very long is shortened.
    """

    def __init__(self, message: str = "", *others: Any):
        super().__init__(one_line(message), *others)


@contextmanager
def card_errors_as_bad_input() -> Iterator[None]:
    """Turn a refused card into bad input, so that callers of this package catch one error."""
    try:
        yield
    except CardError as error:
        raise BadInputError(str(error)) from error


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line, however strange the words of the command line are."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message to stderr and end with status 2."""
        super().error(one_line(message))


@contextmanager
def exit_on_bad_input(program: str) -> Iterator[None]:
    """End the process with one line on stderr and status 2 for bad input, 130 for Ctrl-C.

    `OSError` counts as bad input too: a missing file, a full disk, a folder that cannot be written, a taken port.
    Any other exception is a bug and keeps its traceback.

    Standard input is empty inside the block: no command asks, so a library that does gets no answer.
    """
    asked = sys.stdin
    try:
        with open(os.devnull, encoding="utf-8") as sys.stdin:
            yield
    except (BadInputError, CardError, OSError, RuntimeError) as error:
        # Before Python 3.13 a path of links that name each other is no OSError.
        if isinstance(error, RuntimeError) and not str(error).startswith("Symlink loop"):
            raise
        if os.environ.get(TRACEBACK):
            traceback.print_exception(error)
        remedy = _REMEDIES.get(getattr(error, "errno", None), "")
        echo(f"{program}: error: {one_line(str(error))}{remedy}", sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        echo(f"{program}: interrupted; repeat the command to go on", sys.stderr)
        sys.exit(130)
    finally:
        sys.stdin = asked
