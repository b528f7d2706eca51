"""What all readers of tables have in common."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# As in `csv.DictReader`, the key None holds the cells of a row that has more of them than the header.
Row = dict[str | None, Any]

# Of so many rows the columns and the notation of a table are learned.
FIRST_ROWS = 2048


class TableFile:
    """One table whose rows can be read again and again.

    Attributes:
        name: description of the table, for messages.
        folder: folder of the files that the table names, None for a table on the Hub.
        columns: the names in the header.
        size: value of `position` at the end (rows or bytes), None when unknown.
        unit: "rows" or "B".
        position: rows or bytes that were read so far.
        notes: what the reader had to guess, for the user.
    """

    name: str
    folder: Path | None = None
    columns: tuple[str, ...] = ()
    size: int | None = None
    unit = "rows"
    position = 0
    notes: tuple[str, ...] = ()

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the named columns of every row, from the start."""
        raise NotImplementedError


def distinct(names: Sequence[Any]) -> tuple[str, ...]:
    """Return names of columns as texts; one that comes again gets a number, as pandas gives it.

    >>> distinct(["title", "ingredient", "ingredient"])
    ('title', 'ingredient', 'ingredient.1')
    """
    found: dict[str, None] = {}
    for name in names:
        name = "" if name is None else str(name)
        numbered, number = name, 0
        while numbered in found:
            number += 1
            numbered = f"{name}.{number}"
        found[numbered] = None
    return tuple(found)
