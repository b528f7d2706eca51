"""JSON in any form: one object per line, lists, documents of recipes, one after another."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TextIO

from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown
from dataset_builder.recipes.containers import LONGEST_LINE, MOST_BYTES, Source
from dataset_builder.recipes.encodings import damage, encoding_of, open_text
from dataset_builder.recipes.json_shapes import DEEPEST, depth_of, records_of
from dataset_builder.recipes.table_file import FIRST_ROWS, Row, TableFile

_CHUNK = 1 << 16
_ADVICE = "write one object per line, as `jq -c '.[]'` does with a list"
_DECODER = json.JSONDecoder()
_BLANKS = " \t\r\n\ufeff"


class JsonFile(TableFile):
    """A file of JSON; lists and lines are read one recipe at a time, other documents as a whole."""

    unit = "B"

    def __init__(self, source: Source, encoding: str | None = None):
        self.name, self.folder, self.size, self._source = source.name, source.path.parent, source.size, source
        self._encoding, guessed = (encoding, False) if encoding else encoding_of(source)
        if guessed:
            self.notes = (
                f"{self.name} is not in UTF-8 and was read as {self._encoding}, a guess; --encoding states it",
            )
        # Objects omit keys without a value, so the columns are those of many objects.
        first = islice(self._records(), FIRST_ROWS)
        self.columns = tuple(dict.fromkeys(name for record in first for name in record))

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the named columns of every recipe, from the start."""
        for record in self._records():
            yield {column: record.get(column) for column in columns}

    def _records(self) -> Iterator[dict[str, Any]]:
        self.position = 0
        with open_text(self._source, self._encoding) as (text, tell):
            try:
                for line, value in self._values(text):
                    self.position = tell()
                    for record in records_of(value):
                        if not isinstance(record, dict):
                            raise BadInputError(f"{self.name}, line {line} is no object; {_ADVICE}")
                        yield record
            except UnicodeError as error:
                raise damage(self._source, self._encoding, error) from error
            self.position = tell()

    def _values(self, text: TextIO) -> Iterator[tuple[int, Any]]:
        """Yield each value with its line: of lines, of one list the elements, or of documents one after another."""
        number, line = 0, ""
        while not line.strip(_BLANKS):
            line = text.readline(_CHUNK)
            number += line.endswith(("\n", "\r"))
            if not line:
                return
        number += not line.endswith(("\n", "\r"))
        whole = len(line) < _CHUNK or line.endswith(("\n", "\r"))
        if not line.lstrip(_BLANKS).startswith("[") and whole and self._is_object(line):
            yield number, self._checked(line, number, json.loads(line.lstrip("\ufeff")))
            yield from self._lines(text, number)
        else:
            yield from self._documents(text, line, number)

    def _is_object(self, line: str) -> bool:
        try:
            return isinstance(json.loads(line.lstrip("\ufeff")), dict)
        except (ValueError, RecursionError):
            return False

    def _lines(self, text: TextIO, number: int) -> Iterator[tuple[int, Any]]:
        while line := text.readline(LONGEST_LINE):
            number += 1
            if not line.strip():
                continue
            if len(line) == LONGEST_LINE:
                raise BadInputError(f"{self.name}, line {number} is longer than {LONGEST_LINE >> 20} MB; mend the file")
            try:
                value = json.loads(line)
            except RecursionError as error:
                raise self._too_deep(number) from error
            except ValueError as error:
                raise BadInputError(
                    f"{self.name}, line {number} is not JSON: {shown(error, 120)}; {_ADVICE}"
                ) from error
            yield number, self._checked(line, number, value)

    def _documents(self, text: TextIO, begin: str, line: int) -> Iterator[tuple[int, Any]]:
        """Yield the values of a list, or of several, and other documents, however they are spread over lines."""
        buffer, at, in_list, ended = begin, 0, False, False
        while True:
            # Skips what stands between values; a comma there is one between the elements of a list.
            while at < len(buffer) and (buffer[at] in _BLANKS or (in_list and buffer[at] in ",]")):
                line += buffer[at] == "\n"
                in_list = in_list and buffer[at] != "]"
                at += 1
            if at == len(buffer):
                buffer, at = text.read(_CHUNK), 0
                if not buffer:
                    if in_list:
                        raise BadInputError(
                            f"{self.name} breaks off in line {line}: its list is not closed; fetch it again"
                        )
                    return
                continue
            if buffer[at] == "[" and not in_list:
                in_list, at = True, at + 1
                continue
            try:
                value, end = _DECODER.raw_decode(buffer, at)
            except RecursionError as error:
                raise self._too_deep(line) from error
            except ValueError as error:
                # The value may go on in what was not read yet; each time as much again is read.
                more = "" if ended else text.read(max(_CHUNK, len(buffer)))
                ended = not more
                if ended:
                    place = line + buffer.count("\n", at, getattr(error, "pos", at))
                    raise BadInputError(
                        f"{self.name}, line {place} is not JSON: {shown(error, 120)}; {_ADVICE}"
                    ) from error
                buffer, at = buffer[at:] + more, 0
                if len(buffer) > (LONGEST_LINE if in_list else MOST_BYTES):
                    raise BadInputError(
                        f"{self.name}, line {line}: a value is too long to be read; {_ADVICE}"
                    ) from error
                continue
            yield line, self._checked(buffer[at:end], line, value)
            line += buffer.count("\n", at, end)
            at = end

    def _checked(self, text: str, line: int, value: Any) -> Any:
        """Return a value after the checks that its text makes needful.

        Raises:
            BadInputError: it is nested too deep, or holds half of a character.
        """
        if text.count("[") + text.count("{") > DEEPEST and depth_of(value) > DEEPEST:
            raise self._too_deep(line)
        if "\\ud" in text.lower() and not _can_be_written(value):
            raise BadInputError(
                f"{self.name}, line {line} holds half of a character (a lone surrogate such as \\ud83c), "
                "which no text can keep; remove it"
            )
        return value

    def _too_deep(self, line: int) -> BadInputError:
        return BadInputError(f"{self.name}, line {line} is nested more than {DEEPEST} levels deep; flatten it")


def _can_be_written(record: Any) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
