"""Spreadsheets: the first sheet of an Excel or OpenDocument file whose rows begin with a header."""

import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown
from dataset_builder.recipes.containers import MOST_BYTES, Source, unpacked
from dataset_builder.recipes.table_file import Row, TableFile, distinct

SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
# How the older form of Excel's files begins.
MAGIC = b"\xd0\xcf\x11\xe0"


class SpreadsheetFile(TableFile):
    """A sheet, which is held in memory as a whole."""

    def __init__(self, source: Source):
        self.name, self.folder = source.name, source.path.parent
        try:
            from python_calamine import CalamineError, CalamineWorkbook
        except ImportError as error:
            raise BadInputError(
                f"{self.name} is a spreadsheet, which needs a library: pip install 'flavour-fusion[excel]'; "
                "or save the sheet as CSV"
            ) from error
        whole = source.whole()
        with unpacked(self.name):
            if zipfile.is_zipfile(whole) and _unpacked_size(whole) > MOST_BYTES:
                raise BadInputError(f"{self.name} unpacks to more than {MOST_BYTES >> 20} MB; save the sheet as CSV")
        try:
            workbook = CalamineWorkbook.from_object(whole)
            sheets = [(name, workbook.get_sheet_by_name(name).to_python()) for name in workbook.sheet_names]
        except (CalamineError, OSError, ValueError) as error:
            raise BadInputError(f"{self.name} is no spreadsheet: {shown(error, 120)}; save it again") from error
        filled = [(name, sheet) for name, sheet in sheets if any(any(map(_text, row)) for row in sheet)]
        name, sheet = filled[0] if filled else ("", [])
        records = [[_text(cell) for cell in row] for row in sheet]
        self._records = [record for record in records if any(record)]
        self.columns = distinct(self._records[0] if self._records else [])
        self.size = max(len(self._records) - 1, 0)
        if len(filled) > 1:
            others = ", ".join(shown(name) for name, _ in filled[1:])
            self.notes = (f"of {self.name} the sheet {shown(name)} was read; not read: {others}",)

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Yield the named columns of every row of the sheet, from the start."""
        places = [(column, self.columns.index(column)) for column in columns]
        for number, record in enumerate(self._records[1:], start=1):
            self.position = number
            yield {column: record[place] for column, place in places}


def _text(cell: Any) -> str:
    """Return a cell as a person sees it: whole numbers without a point."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def _unpacked_size(whole: Any) -> int:
    with zipfile.ZipFile(whole) as archive:
        return sum(one.file_size for one in archive.infolist())
