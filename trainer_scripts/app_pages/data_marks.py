"""Marks of a visitor: what is wrong with which row, as a list on the page and as a file that a build follows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset_builder import columns
from dataset_builder.building.corrections import EXCLUDE, HEADER, NEW_FLAVOUR, NEW_TITLE, NOTE
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.files import write_csv
from dataset_builder.publishing.review import cells_of
from trainer_scripts.app_pages import markup
from trainer_scripts.app_pages.inputs import short
from trainer_scripts.data.row_index import RowTable

MOST_MARKS = 2_000
KEEP = "keep"
CORRECTIONS = "corrections.csv"
Marks = dict[str, dict[str, Any]]


def with_mark(
    marks: Marks, rows: RowTable, row: Mapping[str, Any], flavour: str, title: str, note: str, exclude: bool
) -> Marks:
    """Return the marks with one more, which takes the place of an earlier one of its row.

    Args:
        marks: so far, by row id.
        rows: of the data set.
        row: a whole row of it.
        flavour: the right label, or `KEEP`.
        title: the right title; empty keeps it.
        note: why.
        exclude: whether the row is to be left out.

    Raises:
        BadInputError: nothing is said of the row, something is too long, or there are too many marks.
    """
    if flavour not in (KEEP, *FLAVOURS):
        raise BadInputError("choose a flavour of the list")
    if len(marks) >= MOST_MARKS:
        raise BadInputError(f"{MOST_MARKS:,} rows are marked; download the file and begin another")
    said = {
        NEW_FLAVOUR: "" if flavour == KEEP else flavour,
        NEW_TITLE: short(title),
        EXCLUDE: "yes" if exclude else "",
        NOTE: short(note, what="the note"),
    }
    if not any(said.values()):
        raise BadInputError("say what is wrong: a label, a title, leave it out, or a note")
    return {**marks, row[columns.ID]: {**cells_of(rows.named(row), row["split"]), **said}}


def without_mark(marks: Marks, row: Mapping[str, Any]) -> Marks:
    """Return the marks without that of a row."""
    return {row_id: one for row_id, one in marks.items() if row_id != row[columns.ID]}


def marks_html(marks: Marks) -> str:
    """Return the list of marks."""
    if not marks:
        return markup.note("Nothing is marked yet.")
    rows = []
    for row_id, mark in marks.items():
        said = [f"label {mark[NEW_FLAVOUR]}"] if mark[NEW_FLAVOUR] else []
        said += [f"title {mark[NEW_TITLE]}"] if mark[NEW_TITLE] else []
        said += ["left out"] if mark[EXCLUDE] else []
        rows.append([markup.text(row_id), markup.text(", ".join(said) or "looked at"), markup.text(mark[NOTE])])
    return markup.table(("row", "mark", "note"), rows)


def write_marks(marks: Marks, folder: Path) -> Path:
    """Write the marks as the corrections that `flavour-sd build --corrections` reads; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CORRECTIONS
    write_csv(path, HEADER, [[mark.get(name, "") for name in HEADER] for mark in marks.values()])
    return path
