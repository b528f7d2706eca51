"""Delimited text: CSV with any delimiter, line end and encoding."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TextIO

from dataset_builder.errors import BadInputError
from dataset_builder.recipes.containers import LONGEST_LINE, Source
from dataset_builder.recipes.encodings import damage, encoding_of, open_text
from dataset_builder.recipes.table_file import Row, TableFile, distinct

# Ending -> the delimiter that it stands for, which the content may overrule.
DELIMITERS = {".csv": ",", ".tsv": "\t"}
_OTHERS = (",", ";", "\t", "|")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# The line with which Excel states the delimiter.
_STATED = re.compile(r'\ufeff?"?sep=(.|\\t)"?\s*', re.IGNORECASE)
_RECORDS = 20


class DelimitedFile(TableFile):
    """A file of delimited text.

    Args:
        source: the file.
        encoding: of its text; None takes UTF-8 or the likeliest one, which is noted.
    """

    unit = "B"

    def __init__(self, source: Source, encoding: str | None = None):
        self.name, self.folder, self.size = source.name, source.path.parent, source.size
        self._source = source
        self._encoding, guessed = (encoding, False) if encoding else encoding_of(source)
        notes = []
        if guessed:
            notes.append(f"{self.name} is not in UTF-8 and was read as {self._encoding}, a guess; --encoding states it")
        csv.field_size_limit(LONGEST_LINE)
        usual = DELIMITERS.get(source.suffix, ",")
        self._delimiter = self._stated = self._find_stated()
        if self._stated is None:
            self._delimiter = max(_OTHERS, key=lambda one: (*self._fit(one), one == usual))
            if self._delimiter != usual and self._fit(self._delimiter)[1] < 2:
                self._delimiter = usual
            if source.suffix == ".tsv" and self._delimiter != usual:
                notes.append(f"{self.name} is delimited by {_NAMES[self._delimiter]}")
        self.columns = distinct(next(self._records(), []))
        self.notes = tuple(notes)

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the named columns of every record, from the start."""
        places = [(column, self.columns.index(column)) for column in columns]
        records = self._records()
        next(records, None)
        for record in records:
            row: Row = {column: record[place] if place < len(record) else None for column, place in places}
            surplus = record[len(self.columns) :]
            if any(surplus):
                row[None] = surplus
            yield row

    def _find_stated(self) -> str | None:
        with open_text(self._source, self._encoding) as (text, _), suppress(UnicodeError):
            stated = _STATED.fullmatch(text.readline(16))
            return stated[1].replace("\\t", "\t") if stated else None
        return None

    def _fit(self, delimiter: str) -> tuple[float, int]:
        """Return how well a delimiter fits: the share of first records as long as the header, and that length."""
        lengths = []
        # An open quote or a bad byte is reported when the table is read.
        with suppress(BadInputError):
            lengths = [len(record) for record in islice(self._records(delimiter), _RECORDS)]
        if not lengths or lengths[0] < 2:
            return 0.0, 1
        return sum(length == lengths[0] for length in lengths) / len(lengths), lengths[0]

    def _records(self, delimiter: str | None = None) -> Iterator[list[str]]:
        """Yield the records, the header first; records without any text are left out."""
        self.position = 0
        with open_text(self._source, self._encoding) as (text, tell):
            # Strict, or a quote that is never closed would take all rows after it into one cell.
            delimiter = delimiter or self._delimiter or ","
            reader = csv.reader(self._lines(text), delimiter=delimiter, strict=True)
            begins = 1
            try:
                for number, record in enumerate(reader):
                    self.position = tell()
                    if any(record) and not (number == 0 and self._stated):
                        yield record
                    # A record may span lines; messages name the one in which it begins.
                    begins = reader.line_num + 1
                self.position = tell()
            except UnicodeError as error:
                raise damage(self._source, self._encoding, error) from error
            except csv.Error as error:
                raise BadInputError(
                    f"{self.name}, line {begins}: the record that begins there breaks off in line {reader.line_num} "
                    f"({error}); close its quotes, and write a quote inside a quoted cell twice"
                ) from error

    def _lines(self, text: TextIO) -> Iterator[str]:
        for number, line in enumerate(iter(lambda: text.readline(LONGEST_LINE), ""), start=1):
            if len(line) == LONGEST_LINE:
                raise BadInputError(f"{self.name}, line {number} is longer than {LONGEST_LINE >> 20} MB; mend the file")
            yield line
