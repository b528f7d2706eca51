"""Text of foreign origin on a terminal and in a spreadsheet: no control characters, no line without end, no formula.

A title, an id or a file name may hold the escape sequences of a terminal, or a million letters. Everything that this
package prints passes through `echo`, and every error message through `one_line`.
"""

import re
import sys
from typing import Any, TextIO

LONGEST_VALUE = 100  # characters of one value in a message
LONGEST_MESSAGE = 1200  # characters of a message in all
# Scripts such as Persian and many emoji need these two joiners; they move nothing on a terminal.
_JOINERS = "\u200c\u200d"
# User and password in a URL.
_USER = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+@")
# With these a spreadsheet begins a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escaped(text: str, keep: str = "") -> str:
    r"""Return text with every control character, text direction mark and lone surrogate as an escape such as `\x1b`.

    Args:
        text: any text; a backslash in it stays as it is, so escaping twice changes nothing.
        keep: characters that stay.

    >>> escaped("soup\x1b[2J"), escaped("a\nb", keep="\n")
    ('soup\\x1b[2J', 'a\nb')
    """
    text = without_password(text)
    if text.isprintable():
        return text
    kept = _JOINERS + keep
    return "".join(
        one if one.isprintable() or one in kept else one.encode("unicode_escape").decode("ascii") for one in text
    )


def without_password(text: str) -> str:
    """Return text with dots in place of the user and password that a URL in it may hold.

    >>> without_password("ftp://me:secret@host/set")
    'ftp://...@host/set'
    """
    return _USER.sub("...@", text) if "://" in text else text


def shown(value: Any, longest: int = LONGEST_VALUE) -> str:
    r"""Return a value of foreign origin as part of a message: one line, escaped, and shortened in its middle.

    >>> shown("soup\nof the day"), len(shown("x" * 10**6)) < 130
    ('soup\\nof the day', True)
    """
    return _shortened(escaped(_text(value, longest)), longest)


def one_line(message: str) -> str:
    """Return a message as one line: words joined by single spaces, escaped, long words and the whole shortened.

    >>> one_line("two \\n lines")
    'two lines'
    """
    words = _text(message, 10 * LONGEST_MESSAGE).split()
    return _shortened(" ".join(_shortened(escaped(word), 4 * LONGEST_VALUE) for word in words), LONGEST_MESSAGE)


def echo(text: str = "", stream: TextIO | None = None) -> None:
    """Print text of one or more lines with escaped control characters, at once; None is standard output."""
    stream = sys.stdout if stream is None else stream
    try:
        print(escaped(text, keep="\n\t"), file=stream, flush=True)
    except UnicodeEncodeError:  # letters that this terminal cannot show
        shown_there = text.encode(stream.encoding or "ascii", "backslashreplace").decode(stream.encoding or "ascii")
        print(escaped(shown_there, keep="\n\t"), file=stream, flush=True)


def spreadsheet_cell(text: str) -> str:
    """Return text as a cell of a CSV file: what a spreadsheet would run as a formula gets an apostrophe in front.

    Numbers such as -5 stay, as they are no formula.

    >>> spreadsheet_cell("=HYPERLINK(1)"), spreadsheet_cell("-5"), spreadsheet_cell("soup")
    ("'=HYPERLINK(1)", '-5', 'soup')
    """
    if not text.startswith(_FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _text(value: Any, longest: int) -> str:
    """Return a value as text; one of many megabytes is cut first, so that showing it takes no time."""
    try:
        text = value if isinstance(value, str) else str(value)
    except ValueError:  # Python writes no integer of over 4300 digits
        return f"a {type(value).__name__} of very many digits"
    return _shortened(text, 1000 * longest)


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    end = longest // 4
    return f"{text[: longest - end]} [... {len(text) - longest} more characters ...] {text[-end:]}"
