"""Corrections by people: a table of labels, titles, exclusions and notes that the next build follows.

`flavour-sd review` writes the table and the data tab of the app downloads one; both have the columns of `HEADER`. A
person fills in the last four of them. The column `row` holds a hash of what the person saw, so that a correction of a
row that changed since is refused instead of being applied to something else.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_builder.columns import FLAVOURS, ID, TITLE
from dataset_builder.errors import BadInputError
from dataset_builder.labelling.rule import HUMAN, Label
from dataset_builder.messages import shown, spreadsheet_cell
from dataset_builder.recipes.tables import open_table

PICTURE_HASH = "picture_hash"
ROW, NEW_FLAVOUR, NEW_TITLE, EXCLUDE, NOTE = "row", "new_flavour", "new_title", "exclude", "note"
# What a person reads, then what a person fills in.
SHOWN = ("split", "picture", TITLE, "ingredients", "flavour", "taste", "label_source", "reasons")
FILLED_IN = (NEW_FLAVOUR, NEW_TITLE, EXCLUDE, NOTE)
HEADER = (ID, ROW, PICTURE_HASH, *SHOWN, *FILLED_IN)

_NEEDED = (ID, ROW)
# Settings of a build on which its drawn pictures depend; masks and batches do not change them.
_PICTURED_BY = (
    "pipeline", "revision", "variant", "pipeline_config", "lora", "clip", "template", "negative_prompt", "steps",
    "guidance", "size", "dtype", "scheduler", "attempts", "seed",
)  # fmt: skip
_YES = {"yes", "y", "true", "1", "x"}
_NO = {"", "no", "n", "false", "0"}
_DIGITS = 12
_NAMED = 5


@dataclass(frozen=True)
class Correction:
    """What a person said about one row.

    Attributes:
        row_id: id of the row.
        seen: `row_hash` of the row that the person looked at.
        flavour: its right label; None to leave it.
        title: its right title; None to leave it.
        exclude: whether the row is left out.
        note: for the manifest and the card.
        place: file and row number, for messages.
        picture: hash of the picture that the person looked at; empty where the table has none.
    """

    row_id: str
    seen: str
    flavour: str | None = None
    title: str | None = None
    exclude: bool = False
    note: str = ""
    place: str = ""
    picture: str = ""

    @property
    def recipe(self) -> str:
        """Key of the recipe, which shares label and title with its other rows."""
        return self.row_id.rpartition("-")[0]


def row_hash(title: str, ingredients: Iterable[str], instructions: str, flavour: str | None) -> str:
    """Return a text that changes with the text of a recipe and with its label.

    It is the letter r and 12 hexadecimal digits: of digits alone a spreadsheet would make a number.

    >>> row_hash("Soup", ["salt"], "", "salty") == row_hash("Soup", ["salt"], "", "sour")
    False
    """
    seen = json.dumps([title, list(ingredients), instructions, flavour], ensure_ascii=True)
    return f"r{hashlib.sha256(seen.encode()).hexdigest()[:_DIGITS]}"


def drawn_hash(settings: Mapping[str, Any]) -> str:
    """Return a text that changes with the settings by which a build draws, and so with its drawn pictures.

    Args:
        settings: of the manifest of a build; what a recipe says is not in them, see `row_hash`.
    """
    return _picture_hash(json.dumps([settings.get(name) for name in _PICTURED_BY]).encode())


def photograph_hash(stored: bytes) -> str:
    """Return a text that changes with a photograph as a row stores it."""
    return _picture_hash(stored)


def _picture_hash(content: bytes) -> str:
    return f"p{hashlib.sha256(content).hexdigest()[:_DIGITS]}"


def read_corrections(paths: Sequence[str | Path]) -> list[Correction]:
    """Return the corrections of one or more tables in order; rows in which nothing is filled in are none.

    Args:
        paths: CSV as `flavour-sd review` writes it, or saved by a spreadsheet with another delimiter or encoding.

    Raises:
        BadInputError: no such file, missing columns, a flavour or an exclusion that is not known.
    """
    corrections = []
    for path in paths:
        if not Path(path).is_file():
            raise BadInputError(f"corrections {shown(path)}: no such file; `flavour-sd review DIR` writes one")
        table = open_table(path)
        missing = [name for name in _NEEDED if name not in table.columns]
        if missing or not set(FILLED_IN) & set(table.columns):
            raise BadInputError(
                f"corrections {table.name}: no column {', '.join(missing or FILLED_IN)}; "
                "fill in a table that `flavour-sd review` wrote"
            )
        wanted = [name for name in (*_NEEDED, PICTURE_HASH, *FILLED_IN) if name in table.columns]
        for number, row in enumerate(table.rows(wanted), start=2):
            cells = {name: _cell(row.get(name)) for name in wanted}
            if any(cells.get(name) for name in FILLED_IN):
                corrections.append(_correction(cells, f"{table.name}, row {number}"))
    return corrections


def _cell(value: Any) -> str:
    text = "" if value is None else str(value).strip()
    # The apostrophe that keeps a spreadsheet from running a title is no part of it.
    return text[1:] if text[:1] == "'" and spreadsheet_cell(text[1:]) == text else text


def _correction(cells: Mapping[str, str], place: str) -> Correction:
    flavour = cells.get(NEW_FLAVOUR, "").lower()
    if flavour and flavour not in FLAVOURS:
        raise BadInputError(
            f"{place}: {NEW_FLAVOUR} of {shown(cells[ID])} is {shown(flavour)}; allowed are {', '.join(FLAVOURS)}"
        )
    exclude = cells.get(EXCLUDE, "").lower()
    if exclude not in _YES | _NO:
        raise BadInputError(f"{place}: {EXCLUDE} of {shown(cells[ID])} is {shown(exclude)}; write yes, or nothing")
    for name in _NEEDED:
        if not cells[name]:
            raise BadInputError(f"{place} has no {name}; leave the first columns as `flavour-sd review` wrote them")
    return Correction(
        cells[ID],
        cells[ROW],
        flavour or None,
        cells.get(NEW_TITLE) or None,
        exclude in _YES,
        cells.get(NOTE, ""),
        place,
        cells.get(PICTURE_HASH, ""),
    )


class Corrections:
    """Corrections by recipe, to be applied to the recipes of a build one by one.

    Later corrections follow earlier ones: a row that an earlier one relabelled may be reviewed again.

    Args:
        corrections: in the order in which they were made.
    """

    def __init__(self, corrections: Sequence[Correction] = ()):
        self._of: dict[str, list[Correction]] = {}
        self._met: set[str] = set()
        for one in corrections:
            self._of.setdefault(one.recipe, []).append(one)
        self._applied: dict[str, dict[str, Any]] = {}
        self._stale: list[Correction] = []
        self.excluded: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._of)

    def title_of(self, recipe: str) -> str | None:
        """Return the corrected title of a recipe, None where it stays."""
        titles = [one.title for one in self._of.get(recipe, ()) if one.title]
        return titles[-1] if titles else None

    def apply(self, recipe: str, text: tuple[str, Sequence[str], str], by_rule: Label, retitled: Label) -> Label:
        """Return the label of a recipe after its corrections, and keep record of them.

        Args:
            recipe: its key.
            text: title, ingredients and instructions as the table gives them.
            by_rule: label that the rule gives to that text.
            retitled: label that the rule gives under the corrected title; the same where the title stays.
        """
        if recipe not in self._of:
            return retitled
        self._met.add(recipe)
        title, ingredients, instructions = text
        flavour = by_rule.flavour
        known = {row_hash(title, ingredients, instructions, flavour)}
        chosen: str | None = None
        for one in self._of[recipe]:
            if one.seen not in known:
                self._stale.append(one)
                continue
            record = self._applied.setdefault(one.row_id, {})
            if one.flavour:
                record["flavour"] = [flavour, one.flavour]
                flavour = chosen = one.flavour
            if one.title:
                record["title"] = [title, one.title]
                title, flavour = one.title, chosen or retitled.flavour
            if one.exclude:
                record["excluded"] = True
                self.excluded.add(one.row_id)
            if one.note:
                record["note"] = one.note
            known.add(row_hash(title, ingredients, instructions, flavour))
        return retitled if chosen is None else by_person(retitled, chosen)

    def exclusions(self) -> list[Correction]:
        """Return the exclusions that met their row and name the picture that the person saw."""
        every = (one for of in self._of.values() for one in of)
        return [one for one in every if one.exclude and one.picture and one.row_id in self.excluded]

    def refuse_pictures(self, stale: Sequence[Correction]) -> None:
        """Refuse exclusions of rows whose picture is another one than the person saw.

        Raises:
            BadInputError: names them.
        """
        if stale:
            raise BadInputError(
                f"{len(stale)} exclusions are of rows whose picture changed since they were reviewed: "
                f"{_named(f'{one.row_id} ({one.place})' for one in stale)}; look at these pictures again, or remove "
                f"these rows from the file (an empty {PICTURE_HASH} excludes them whatever their picture is)"
            )

    def check(self, row_ids: Iterable[str]) -> None:
        """Refuse corrections that met no row, or another one than the person saw.

        Raises:
            BadInputError: names them.
        """
        rows = set(row_ids)
        unknown = [one for recipe, of in self._of.items() if recipe not in self._met for one in of]
        # The recipe may be there while its third picture is not.
        lost = {row_id for row_id in self._applied if row_id not in rows}
        if self._stale:
            raise BadInputError(
                f"{len(self._stale)} corrections are of rows that changed since they were reviewed: "
                f"{_named(f'{one.row_id} ({one.place})' for one in self._stale)}; review the data set again, or remove "
                "these rows from the file"
            )
        if unknown or lost:
            names = [f"{one.row_id} ({one.place})" for one in unknown] + sorted(lost)
            raise BadInputError(
                f"{len(names)} corrections are of rows that this build does not have: {_named(names)}; give the "
                "recipes and settings of the build that was reviewed, or remove these rows from the file"
            )

    @property
    def facts(self) -> dict[str, Any]:
        """The entry of the manifest: how many of each kind, and per row what a person said."""
        of = self._applied.values()
        return {
            "labels": sum("flavour" in one for one in of),
            "titles": sum("title" in one for one in of),
            "excluded": len(self.excluded),
            "notes": sum("note" in one for one in of),
            "rows": dict(sorted(self._applied.items())),
        }


def by_person(label: Label, flavour: str) -> Label:
    """Return a label with the flavour that a person chose; label and soft scores name the same one.

    The person's flavour takes the largest soft score, and the flavour that had it takes the person's.
    """
    taste = list(label.taste)
    first, place = max(range(len(taste)), key=taste.__getitem__), FLAVOURS.index(flavour)
    taste[first], taste[place] = taste[place], taste[first]
    present = tuple(name for name in FLAVOURS if name in label.flavours or name == flavour)
    return label._replace(flavour=flavour, flavours=present, taste=tuple(taste), source=HUMAN)


def corrections_digest(corrections: Sequence[Correction]) -> str:
    """Return a hash of what people said, whichever files hold it."""
    said = [(one.row_id, one.seen, one.flavour, one.title, one.exclude, one.note) for one in corrections]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def corrections_line(facts: Mapping[str, Any]) -> str:
    """Return the counts of the corrections of a manifest in words.

    >>> corrections_line({"labels": 2, "titles": 0, "excluded": 1, "notes": 1, "rows": {}})
    '2 labels, 0 titles, 1 rows left out, 1 notes'
    """
    return (
        f"{facts['labels']} labels, {facts['titles']} titles, {facts['excluded']} rows left out, {facts['notes']} notes"
    )


def corrections_in_words(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line per corrected row: what it was, what it is, and the note."""
    for row_id, said in facts["rows"].items():
        changed = ((what, *said[what]) for what in ("flavour", "title") if what in said)
        parts = [f"{what} {old} -> {new}" if old != new else f"{what} {old} confirmed" for what, old, new in changed]
        parts += ["left out"] if said.get("excluded") else []
        note = f" ({said['note']})" if said.get("note") else ""
        yield f"{row_id}: {', '.join(parts) or 'looked at'}{note}"


def _named(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(shown(name) for name in listed[:_NAMED]) + more
