"""Reads recipe tables of any common shape as dishes.

Columns are recognised by name, ingredients may be written in any notation, and rows left out are counted and named.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from dataset_builder.errors import BadInputError
from dataset_builder.messages import escaped, shown
from dataset_builder.named_files import RefusedFileError, resolve
from dataset_builder.recipes.ingredient_lists import cell_text, has_ingredients, lines_of, parse_ingredients
from dataset_builder.recipes.part_names import (
    AMOUNT,
    COLUMN_NAMES,
    ONE_INGREDIENT,
    REQUIRED,
    UNIT,
    columns_named,
    name_key,
    numbered_ingredients,
)
from dataset_builder.recipes.table_file import FIRST_ROWS, Row
from dataset_builder.recipes.tables import TableFile, open_table
from dataset_builder.recipes.text import plain_title, readable
from dataset_builder.storage.compact import HashMap

NO_TITLE = "without title"
NO_INGREDIENTS = "without ingredients"
EQUAL_TITLE = "equal title"
SURPLUS = "with surplus cells"
OVERSIZED = "with a text of more than a million characters"
_LONGEST_TEXT = 1_000_000
_NAMED = 20
_LONGEST_NAME = 60

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Dish:
    """One recipe.

    Attributes:
        dish_id: slug, equal for all rows that belong to one named dish, which never cross splits.
        title: as given, blanks trimmed.
        ingredients: as given, one string each, the most important first where the source knows.
        instructions: as given, empty when there are none.
        variant: 0 for the dish as named, 1.. for its variants.
        image_path: an existing photograph, None without one.
        image_fault: why the photograph that the table names is not there, None where none is named.
    """

    dish_id: str
    title: str
    ingredients: tuple[str, ...]
    instructions: str = ""
    variant: int = 0
    image_path: str | None = None
    image_fault: str | None = None


@dataclass
class Skipped:
    """Rows left out for one reason: how many, and the names of the first twenty, long ones cut."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count one row and keep its name while there is room."""
        self.count += 1
        if len(self.names) < _NAMED:
            name = escaped(" ".join(name[: 10 * _LONGEST_NAME].split()))
            self.names.append(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}...")

    def merge(self, other: "Skipped") -> None:
        """Count the rows of another one."""
        self.count += other.count
        self.names += other.names[: _NAMED - len(self.names)]


class RawRecipe(NamedTuple):
    """A row that is kept, its ingredients still as written: `parse_ingredients` gives at least one of them."""

    dish_id: str
    title: str
    ingredients: Any
    instructions: str
    image_path: str | None
    variant: int = 0
    image_fault: str | None = None

    def dish(self) -> Dish:
        """Return the dish, ingredients read."""
        ingredients = parse_ingredients(self.ingredients)
        return Dish(
            self.dish_id,
            self.title,
            ingredients,
            self.instructions,
            self.variant,
            self.image_path,
            self.image_fault,
        )


class RecipeTable:
    """The dishes of a table, read on access.

    `dishes` reads all rows into a list; `stream` reads them one by one in bounded memory, a table of one ingredient per
    row as a whole. Left out, counted and named in `skipped`: rows without title (a title that is no text is none), rows
    without ingredients, rows with a text that no recipe has, rows with more cells than the header, which would be read
    shifted, and rows whose title came before (see `text.plain_title`), unless `keep_equal_titles`. Rows whose dish id
    is given and equal are variants of one dish, also with equal titles, if their ingredients differ.

    Args:
        table: the rows.
        layout: where the parts of a recipe are.
        keep_equal_titles: rows of equal titles are variants of one dish, too.
        allow_outside: photographs may lie outside the folder of the table.
    """

    def __init__(
        self, table: TableFile, layout: "Layout", keep_equal_titles: bool = False, allow_outside: bool = False
    ):
        self.table = table
        self.columns = dict(layout.columns)
        self._layout = layout
        self._keep_equal_titles = keep_equal_titles
        self._allow_outside = allow_outside
        self._skipped: dict[str, Skipped] | None = None

    @cached_property
    def dishes(self) -> list[Dish]:
        """All dishes of the table."""
        return [recipe.dish() for recipe in self.stream()]

    @property
    def skipped(self) -> dict[str, Skipped]:
        """Rows left out, by reason; complete once the table was read to its end."""
        if self._skipped is None:
            _ = self.dishes
        return self._skipped or {}

    def stream(self) -> Iterator[RawRecipe]:
        """Yield the rows that are kept, from the start.

        Raises:
            BadInputError: no row is kept, or the file breaks off.
        """
        self._skipped = skipped = {reason: Skipped() for reason in (NO_TITLE, NO_INGREDIENTS, EQUAL_TITLE)}
        identities = _Identities(self._keep_equal_titles)
        image = self.columns.get("image")
        photographs = _Photographs(self.table.folder, self._allow_outside) if image else None
        kept = 0
        for read, row in enumerate(self._layout.rows(self.table), start=1):
            title = title_of(row[self.columns["title"]])
            ingredients = self._layout.ingredients(row)
            instructions = row[self.columns["instructions"]] if "instructions" in self.columns else None
            reason, identity = None, None
            if None in row:  # more cells than the header
                reason = SURPLUS
            elif not title:
                reason = NO_TITLE
            elif ingredients is None:
                reason = NO_INGREDIENTS
            elif any(
                isinstance(text, str) and len(text) > _LONGEST_TEXT for text in (title, ingredients, instructions)
            ):
                reason = OVERSIZED
            else:
                given = cell_text(row[self.columns["id"]]) if "id" in self.columns else ""
                identity = identities.identify(given, title, ingredients)
                reason = EQUAL_TITLE if identity is None else None
            if reason or identity is None:
                skipped.setdefault(reason or EQUAL_TITLE, Skipped()).add(title or f"row {read}")
                continue
            kept += 1
            path, fault = photographs.find(row[image]) if photographs else (None, None)
            yield RawRecipe(identity[0], title, ingredients, lines_of(instructions), path, identity[1], fault)
        if not kept:
            reasons = ", ".join(f"{entry.count} {reason}" for reason, entry in skipped.items() if entry.count)
            raise BadInputError(
                f"{self.table.name} has no recipe: {reasons or 'no row at all'}; give a table with rows"
            )


def title_of(value: Any) -> str:
    """Return the title in a cell in one line; nothing where the cell is no text, such as an object or a number."""
    if isinstance(value, Mapping):  # as WordPress and JSON-LD write text
        value = value.get("rendered", value.get("@value"))
    if not isinstance(value, str):
        return ""
    text = cell_text(value)
    return " ".join((readable(text) if "<" in text or "&" in text else text).split())


@dataclass(frozen=True)
class Layout:
    """Where a table keeps the parts of a recipe.

    Attributes:
        columns: part -> column; no ingredients where they are numbered.
        other_ingredients: columns that are read where a cell of the ingredients column holds none.
        numbered: the columns of numbered ingredients, one group (amount, unit, name) each; read last.
        one_per_row: the columns (amount, unit, name) where each row is one ingredient; empty for any other table.
    """

    columns: Mapping[str, str]
    other_ingredients: Sequence[str] = ()
    numbered: Sequence[Sequence[str]] = ()
    one_per_row: Sequence[str] = ()

    def ingredients(self, row: Row) -> Any:
        """Return the ingredients of a row as written, None where it has none."""
        lists = (self.columns["ingredients"], *self.other_ingredients) if "ingredients" in self.columns else ()
        found = next((row[name] for name in lists if has_ingredients(row[name])), None)
        if found is not None or not self.numbered:
            return found
        lines = [_joined(row, group) for group in self.numbered if cell_text(row[group[-1]])]
        return lines if has_ingredients(lines) else None

    def rows(self, table: TableFile) -> Iterator[Row]:
        """Yield the rows of a table, those of one recipe joined where each row is one ingredient."""
        more = [*self.other_ingredients, *(name for group in (*self.numbered, self.one_per_row) for name in group)]
        rows = table.rows(list(dict.fromkeys([*self.columns.values(), *more])))
        if not self.one_per_row:
            yield from rows
            return
        key = self.columns.get("id", self.columns["title"])
        recipes: dict[str, Row] = {}
        current = ""
        for row in rows:
            # Sheets often write a title once, and only ingredients in the rows below it.
            current = plain_title(cell_text(row[key])) or current
            recipe = recipes.setdefault(current, {**row, self.columns["ingredients"]: []})
            if line := _joined(row, self.one_per_row):
                recipe[self.columns["ingredients"]].append(line)
        yield from recipes.values()


def _joined(row: Row, columns: Sequence[str]) -> str:
    return " ".join(filter(None, (cell_text(row[name]) for name in columns)))


def read_recipes(
    source: str | Path,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    keep_equal_titles: bool = False,
    allow_outside: bool = False,
) -> RecipeTable:
    """Open a recipe table.

    Args:
        source: a CSV, TSV, JSON, Parquet or Excel file, packed or not, a folder of one of these kinds, or a data set id
            on the Hub, `org/name` or, with a configuration, `org/name:configuration`.
        columns: names of columns where they are not recognised, such as `{"title": "Gericht"}`; the parts are title,
            ingredients, instructions, image and id.
        encoding: of CSV and JSON; None takes UTF-8, or a guess that `table.notes` names.
        keep_equal_titles: keep rows whose title came before.
        allow_outside: photographs may lie outside the folder of the table.

    Raises:
        BadInputError: no such table, an empty one, or no columns for title and ingredients.
    """
    table = open_table(source, encoding)
    if not table.columns:
        raise BadInputError(f"{table.name} is empty; give a table with a title and an ingredients column")
    return RecipeTable(table, _find_layout(table, columns or {}), keep_equal_titles, allow_outside)


def _described(table: TableFile, most: int = 30) -> str:
    more = f" and {len(table.columns) - most} more" if len(table.columns) > most else ""
    return f"{table.name} has the columns {', '.join(repr(shown(one)) for one in table.columns[:most])}{more}"


def _find_layout(table: TableFile, given: Mapping[str, str]) -> Layout:
    for part, column in given.items():
        if part not in COLUMN_NAMES:
            raise BadInputError(f"{shown(part)!r} is no part of a recipe; allowed are {', '.join(COLUMN_NAMES)}")
        if column not in table.columns:
            raise BadInputError(f"{_described(table)}; there is no {shown(column)!r} to take as {part}")
    # The candidates for each part, the best first; only the given one where one is given.
    candidates = {
        part: [given[part]] if part in given else columns_named(names, table.columns)
        for part, names in COLUMN_NAMES.items()
    }
    chosen = {part: names[0] for part, names in candidates.items() if names}
    numbered = () if "ingredients" in given else numbered_ingredients(table.columns)
    one_per_row: tuple[str, ...] = ()
    if "title" in chosen and not candidates["ingredients"] and not numbered:
        one_per_row = _one_per_row(table, chosen)
        if single := columns_named(ONE_INGREDIENT, table.columns):
            chosen["ingredients"] = single[0]
    elif given.get("ingredients") and name_key(given["ingredients"]) in map(name_key, ONE_INGREDIENT):
        one_per_row = _one_per_row(table, chosen)
    for part in REQUIRED:
        if part not in chosen and not (part == "ingredients" and numbered):
            raise BadInputError(
                f"{_described(table)}; none of them is the {part}: accepted are {', '.join(COLUMN_NAMES[part])}"
            )
    return Layout(chosen, candidates["ingredients"][1:], numbered, one_per_row)


def _one_per_row(table: TableFile, chosen: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns (amount, unit, name) of a table with one ingredient per row; empty for any other table."""
    names = columns_named(ONE_INGREDIENT, table.columns)
    if not names:
        return ()
    key = chosen.get("id", chosen["title"])
    rows = list(islice(table.rows(list(dict.fromkeys([key, names[0]]))), FIRST_ROWS))
    keys = [plain_title(cell_text(row[key])) for row in rows]
    # Titles come again, and no cell is a list.
    if len(set(keys)) == len(keys) or any(len(parse_ingredients(row[names[0]])) > 1 for row in rows):
        return ()
    others = (columns_named(names, table.columns)[:1] for names in (AMOUNT, UNIT))
    return (*(name for found in others for name in found), names[0])


def slug(text: str) -> str:
    """Return lower-case ASCII letters and digits joined by hyphens; a short hash where nothing of the text is ASCII.

    >>> slug("Crème brûlée, No. 2")
    'creme-brulee-no-2'
    """
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", ascii_text)
    return "-".join(words) or f"dish-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


class _Identities:
    """The titles and ids used so far; only hashes are kept, so that millions fit in memory."""

    def __init__(self, keep_equal_titles: bool):
        # Title -> the given id of the first row that has it, 0 for none.
        self._titles = HashMap()
        self._ids = HashMap()
        self._rows_of_dish = HashMap()
        self._variants = HashMap()
        # Given ids whose slug another id has already; few, so that they are kept in full.
        self._renamed: dict[int, str] = {}
        self._keep_equal_titles = keep_equal_titles
        self._dishes = HashMap()  # titles of rows without an id, where equal ones are kept
        # Titles whose dish id is not the slug of their plain form; few, too.
        self._dish_of_title: dict[int, str] = {}

    def identify(self, given: str, title: str, ingredients: Any) -> tuple[str, int] | None:
        """Return dish id and variant, None for a row whose title came before.

        Equal given ids are one dish, and so are equal titles where they are kept; equal slugs of titles are not.
        """
        plain = plain_title(title)
        same, owner = hash(plain), hash(given.casefold()) if given else 0
        known = self._titles.get(same)
        if known is None:
            self._titles[same] = owner
        if given:
            content = hash((owner, same, repr(ingredients)))
            variant_of_dish = known == owner and content not in self._variants
            self._variants.add(content)
        else:
            variant_of_dish = False
        if known is not None and not variant_of_dish and not self._keep_equal_titles:
            return None
        if given:
            return self._variant_of_given(owner, slug(given))
        if not self._keep_equal_titles:
            # Without an id each title is a dish of its own.
            return self._new_id(slug(title)), 0
        dish_id = self._dish_of_title.get(same, slug(plain))
        if same not in self._dishes:
            self._dishes.add(same)
            dish_id = self._new_id(slug(title))
            if dish_id != slug(plain):
                self._dish_of_title[same] = dish_id
        return dish_id, self._next_variant(hash(dish_id))

    def _variant_of_given(self, owner: int, base: str) -> tuple[str, int]:
        variant = self._next_variant(owner)
        if variant:
            return self._renamed.get(owner, base), variant
        dish_id = self._new_id(base)
        if dish_id != base:
            self._renamed[owner] = dish_id
        return dish_id, 0

    def _next_variant(self, dish: int) -> int:
        variant = self._rows_of_dish.get(dish) or 0
        self._rows_of_dish[dish] = variant + 1
        return variant

    def _new_id(self, base: str) -> str:
        dish_id = base
        number = 1
        while hash(dish_id) in self._ids:
            number += 1
            dish_id = f"{base}-{number}"
        self._ids.add(hash(dish_id))
        return dish_id


class _Photographs:
    """Photographs beside a table, found by the name that the table gives, with or without folder and ending."""

    def __init__(self, folder: Path | None, allow_outside: bool):
        self._folder, self._allow_outside = folder, allow_outside
        paths = sorted(folder.rglob("*"), reverse=True) if folder else []
        self._by_stem = {path.stem: path for path in paths if path.suffix.lower() in _IMAGE_SUFFIXES}

    def find(self, cell: Any) -> tuple[str | None, str | None]:
        """Return the path of a photograph, or why there is none; neither where the cell names none."""
        name = cell_text(cell) if isinstance(cell, str) else ""
        if not name or self._folder is None:
            return None, None
        if name.startswith("file:"):
            name = unquote(urlsplit(name).path)
        elif "://" in name:
            return None, "an address on the web, which is not fetched"
        # The name may be a path below the folder; otherwise its stem is looked up anywhere below it.
        known = None
        if Path(name).suffix.lower() not in _IMAGE_SUFFIXES or not (self._folder / name).exists():
            known = self._by_stem.get(name) or self._by_stem.get(Path(name).stem)
        try:
            path = resolve(str(known.relative_to(self._folder)) if known else name, self._folder, self._allow_outside)
        except RefusedFileError as error:
            return None, str(error)
        return str(path), None
