"""The error for input that the user can correct, and how command lines report it."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from model_cards.errors import CardError

_MAKE_ROOM = "; make room there, or name another place, and repeat the command"
_REMEDIES: dict[int | None, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _MAKE_ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES), "; name a place that you may write to or read from"),
}


class BadInputError(ValueError):
    """Input that is refused; the message names what was given, why it is refused, and the remedy."""


@contextmanager
def card_errors_as_bad_input() -> Iterator[None]:
    """Turn a refused card into bad input, so that callers of this package catch one error."""
    try:
        yield
    except CardError as error:
        raise BadInputError(str(error)) from error


@contextmanager
def exit_on_bad_input(program: str) -> Iterator[None]:
    """End the process with one line on stderr and status 2 for bad input, 130 for Ctrl-C.

    `OSError` counts as bad input too: a missing file, a full disk, a folder that cannot be written, a taken port.
    Any other exception is a bug and keeps its traceback.
    """
    try:
        yield
    except (BadInputError, CardError, OSError) as error:
        remedy = _REMEDIES.get(getattr(error, "errno", None), "")
        print(f"{program}: error: {' '.join(str(error).split())}{remedy}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{program}: interrupted; repeat the command to go on", file=sys.stderr)
        sys.exit(130)
