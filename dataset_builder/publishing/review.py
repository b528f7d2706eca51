"""`flavour-sd review`: the rows of a build that are most worth a person's look, with reasons and pictures.

The table is what `flavour-sd build --corrections` reads, once a person has filled in its last columns.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import ClassLabel, Features, Image

from dataset_builder import columns
from dataset_builder.building.corrections import (
    FILLED_IN,
    HEADER,
    PICTURE_HASH,
    drawn_hash,
    photograph_hash,
    read_corrections,
    row_hash,
)
from dataset_builder.building.finished_build import FinishedBuild, read_build
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.files import write_csv, write_whole
from dataset_builder.importers.table import UNREADABLE
from dataset_builder.labelling.rule import CONFLICT_INGREDIENTS, CONFLICT_TITLE, HUMAN, TIE_TITLE
from dataset_builder.pictures.near_duplicates import Looks, alike_across, looks_of
from dataset_builder.pictures.photographs import PHOTOGRAPH
from dataset_builder.progress import Progress

REVIEW = "review"  # folder of the result, in that of the build
TABLE = "review.csv"
PICTURES = "pictures"
ROWS = 200

CLOSE = 0.15  # the lead of the first soft score over the second from which on the label is no close call
# Which rule decided -> why that is a reason to look.
DECIDED = {
    CONFLICT_INGREDIENTS: "title and ingredients disagree, and the ingredients won",
    CONFLICT_TITLE: "title and ingredients disagree, and the title won",
    TIE_TITLE: "the ingredients tie, and the title decided",
}
ALIKE = "the picture looks like"
_BATCH = 256
_READ = (
    columns.ID, columns.IMAGE, columns.TITLE, columns.INGREDIENTS, columns.INSTRUCTIONS, columns.FLAVOUR, columns.TASTE,
    columns.LABEL_SOURCE, columns.LABEL_VOTES, columns.GENERATION, columns.CAPTIONS, columns.LABEL, columns.LABELS,
)  # fmt: skip
_UNSAFE = re.compile(r"[^\w.-]")


@dataclass
class Reviewed:
    """One row of the table: what it shows, why, and how much it is worth a look (0 and up)."""

    cells: dict[str, str]
    reasons: list[str] = field(default_factory=list)
    worth: float = 0.0

    def add(self, worth: float, reason: str) -> None:
        """Add a reason."""
        self.worth += worth
        self.reasons.append(reason)


def review(folder: str | Path, out: str | Path | None = None, rows: int = ROWS) -> str:
    """Write the table of the rows most worth a look, and their pictures beside it.

    Args:
        folder: of a finished build.
        out: folder of `review.csv` and `pictures/`; None for `review` in that of the build.
        rows: at most so many, those most worth a look first.

    Returns:
        One line for the terminal.

    Raises:
        BadInputError: no finished build, or no rows wanted.
    """
    if rows < 1:
        raise BadInputError(f"--rows is {rows}; give a whole number of at least 1")
    build = read_build(folder)
    target = Path(out) if out is not None else build.folder / REVIEW
    found = [one for one in review_rows(build) if one.reasons]
    chosen = sorted(found, key=lambda one: (-one.worth, one.cells[columns.ID]))[:rows]
    (target / PICTURES).mkdir(parents=True, exist_ok=True)
    _write_pictures(build, {one.cells[columns.ID]: one for one in chosen}, target)
    table = target / TABLE
    if table.exists() and _is_filled_in(table):
        raise BadInputError(f"{table} holds corrections; move it, or give another --out")
    write_csv(table, HEADER, [review_line(one) for one in chosen])
    more = f"; {len(found) - len(chosen)} more have reasons too, --rows lists them" if len(found) > len(chosen) else ""
    return (
        f"{table}: {len(chosen)} of {build.rows} rows, those most worth a look first{more}; fill in "
        f"{', '.join(FILLED_IN)} and give the file to `flavour-sd build --corrections`"
    )


def review_line(row: Reviewed) -> list[str]:
    """Return the cells of a row in the order of the header, the last columns empty."""
    cells = {**row.cells, "reasons": "; ".join(row.reasons)}
    return [cells.get(name, "") for name in HEADER]


def cells_of(row: Mapping[str, Any], split: str, drawn: str = "") -> dict[str, str]:
    """Return what the table shows of a row; its picture and the reasons are added elsewhere.

    Args:
        row: in storage form, its flavour as a name.
        split: where it lies.
        drawn: `drawn_hash` of its build; empty where that is not known, and its picture may change.
    """
    if (row.get(columns.GENERATION) or {}).get("pipeline") == PHOTOGRAPH:
        drawn = photograph_hash((row.get(columns.IMAGE) or {}).get("bytes") or b"")
    taste = row.get(columns.TASTE) or []
    shares = sorted(zip(FLAVOURS, taste, strict=False), key=lambda one: -one[1])
    title, lines = row.get(columns.TITLE) or "", row.get(columns.INGREDIENTS) or []
    flavour = row.get(columns.FLAVOUR)
    return {
        columns.ID: row[columns.ID],
        "row": row_hash(title, lines, row.get(columns.INSTRUCTIONS) or "", flavour),
        PICTURE_HASH: drawn,
        "split": split,
        columns.TITLE: title,
        columns.INGREDIENTS: "; ".join(lines),
        columns.FLAVOUR: flavour or "",
        columns.TASTE: ", ".join(f"{name} {share:.2f}" for name, share in shares if share >= 0.005),
        columns.LABEL_SOURCE: row.get(columns.LABEL_SOURCE) or "",
    }


def review_rows(build: FinishedBuild) -> Iterator[Reviewed]:
    """Yield every row of a build with the reasons to look at it; none for most."""
    return reviewed(read_rows_of(build), build.rows, drawn_hash(build.manifest["settings"]))


def reviewed(every: Iterable[tuple[str, Mapping[str, Any]]], total: int, drawn: str = "") -> Iterator[Reviewed]:
    """Yield rows with the reasons to look at them.

    Args:
        every: split and row, in storage form, flavours as names.
        total: number of rows.
        drawn: `drawn_hash` of their build, as for `cells_of`.
    """
    rows: list[Reviewed] = []
    looks: list[Looks | None] = []
    with Progress("looking for doubtful rows", total, "rows") as bar:
        for split, row in every:
            one = Reviewed(cells_of(row, split, drawn))
            for worth, reason in doubts(row):
                one.add(worth, reason)
            looks.append(_looks(row.get(columns.IMAGE), one))
            rows.append(one)
            bar.update()
    # Pictures of one recipe may look alike, those of two should not.
    recipes = [one.cells[columns.ID].rpartition("-")[0] for one in rows]
    for i, j in alike_across(looks, recipes):
        for this, other in ((rows[i], rows[j]), (rows[j], rows[i])):
            across = this.cells["split"] != other.cells["split"]
            where = f", which is in {other.cells['split']}" if across else ""
            name = f"{other.cells[columns.TITLE]} ({other.cells[columns.ID]})"
            # Named once: of many alike ones the list would have no end.
            if not any(reason.startswith(ALIKE) for reason in this.reasons):
                this.add(1.0 if across else 0.4, f"{ALIKE} that of {name}{where}")
    yield from rows


def read_rows_of(build: FinishedBuild) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield split and row, flavours as names, a few hundred rows in memory at a time."""
    for split, paths in build.shards.items():
        for path in paths:
            yield from ((split, row) for row in rows_of_file(path, build.features))


def rows_of_file(path: Path, features: Features) -> Iterator[dict[str, Any]]:
    """Yield the rows of a shard, flavours as names."""
    label = features.get(columns.FLAVOUR)
    names = label.names if isinstance(label, ClassLabel) else None
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH, columns=[name for name in _READ if name in features]):
            for row in batch.to_pylist():
                value = row.get(columns.FLAVOUR)
                if names is not None:
                    row[columns.FLAVOUR] = names[value] if value is not None and 0 <= value < len(names) else None
                yield row


def doubts(row: Mapping[str, Any]) -> Iterator[tuple[float, str]]:
    """Yield the reasons to look at a row that it holds itself, each with its worth.

    Args:
        row: in storage form, its flavour as a name.
    """
    source, flavour = row.get(columns.LABEL_SOURCE) or "", row.get(columns.FLAVOUR)
    if source != HUMAN:  # a person has looked at its label already
        yield from _doubts_of_label(row, source, flavour)
    made = row.get(columns.GENERATION) or {}
    if rejected := made.get("rejected"):
        yield 0.3 + 0.1 * len(rejected), f"{len(rejected)} earlier pictures were rejected ({rejected[0]})"
    if made.get("prompt_read") is not None:
        yield 0.2, "the prompt was longer than the text encoder reads"


def _doubts_of_label(row: Mapping[str, Any], source: str, flavour: str | None) -> Iterator[tuple[float, str]]:
    taste = row.get(columns.TASTE)
    if taste and len(taste) == len(FLAVOURS):
        order = sorted(range(len(FLAVOURS)), key=lambda place: -taste[place])
        first, second = (f"{FLAVOURS[place]} {taste[place]:.2f}" for place in order[:2])
        lead = taste[order[0]] - taste[order[1]]
        if flavour in FLAVOURS and FLAVOURS[order[0]] != flavour:
            own = taste[FLAVOURS.index(flavour)]
            yield 1.0 + taste[order[0]] - own, f"label {flavour} {own:.2f}, but the soft label leads with {first}"
        elif lead < CLOSE:
            yield 0.8 * (1 - lead / CLOSE) + 0.2, f"a close call: {first}, {second}"
    votes = row.get(columns.LABEL_VOTES) or {}
    said = {method: {name: words for name, words in (of or {}).items() if words} for method, of in votes.items()}
    title, lines = said.get("title") or {}, said.get("ingredients") or {}
    against = sorted(name for name in title if name != flavour)
    if title and flavour not in title:
        words = ", ".join(word for name in against for word in title[name])
        yield 0.7, f"the title speaks for {' and '.join(against)} ({words})"
    elif lines and flavour not in lines:
        yield 0.5, f"no ingredient speaks for {flavour}"
    if source in DECIDED:
        yield 0.4, DECIDED[source]
    supporting = [word for of in said.values() for word in of.get(flavour or "", ())]
    if said and len(supporting) == 1:
        yield 0.3, f"one word alone speaks for {flavour} ({supporting[0]})"


def _looks(stored: Any, row: Reviewed) -> Looks | None:
    if not stored:
        row.add(0.5, "no picture")
        return None
    try:
        return looks_of(Image().decode_example(stored))
    except UNREADABLE:
        row.add(1.5, "the picture cannot be read")
        return None


def _write_pictures(build: FinishedBuild, chosen: Mapping[str, Reviewed], target: Path) -> None:
    """Write the pictures of the chosen rows as they are stored, and their paths into the rows."""
    for _, row in read_rows_of(build):
        one = chosen.get(row[columns.ID])
        content = (row.get(columns.IMAGE) or {}).get("bytes")
        if one is None or not content:
            continue
        suffix = "png" if content.startswith(b"\x89PNG") else "jpg"
        # Ids come from titles of strangers, so the name keeps only what is safe in one.
        path = Path(PICTURES, f"{_UNSAFE.sub('_', row[columns.ID])[:120]}.{suffix}")
        write_whole(target / path, _writer(content))
        one.cells["picture"] = path.as_posix()


def _writer(content: bytes) -> Any:
    return lambda path: path.write_bytes(content)


def _is_filled_in(table: Path) -> bool:
    try:
        return bool(read_corrections([table]))
    except BadInputError:
        return True  # half filled in, perhaps
