"""Reads recipe tables of any common shape as dishes.

Columns are recognised by name, ingredients may be written in any notation, and rows left out are counted and named.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from dataset_builder.errors import BadInputError
from dataset_builder.recipes.ingredient_lists import cell_text, has_ingredients, lines_of, parse_ingredients
from dataset_builder.recipes.tables import TableFile, open_table

# Column names of each part, best first; case is ignored, and blanks, hyphens and underscores are equal.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "title": ("title", "name", "dish", "dish_name", "recipe_name", "recipe_title", "recipe"),
    "ingredients": ("cleaned_ingredients", "ingredients", "ingredient_list", "ingredient_lines"),
    "instructions": ("instructions", "directions", "steps", "method"),
    "image": ("image_name", "image_path", "image_file", "photo"),
    "id": ("dish_id", "recipe_id", "id"),
}
_REQUIRED = ("title", "ingredients")

NO_TITLE = "without title"
NO_INGREDIENTS = "without ingredients"
EQUAL_TITLE = "equal title"
SURPLUS = "with surplus cells"
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
    """

    dish_id: str
    title: str
    ingredients: tuple[str, ...]
    instructions: str = ""
    variant: int = 0
    image_path: str | None = None


@dataclass
class Skipped:
    """Rows left out for one reason: how many, and the names of the first twenty, long ones cut."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count one row and keep its name while there is room."""
        self.count += 1
        if len(self.names) < _NAMED:
            name = " ".join(name.split())
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

    def dish(self) -> Dish:
        """Return the dish, ingredients read."""
        ingredients = parse_ingredients(self.ingredients)
        return Dish(self.dish_id, self.title, ingredients, self.instructions, self.variant, self.image_path)


class RecipeTable:
    """The dishes of a table, read on access.

    `dishes` reads all rows into a list; `stream` reads them one by one in bounded memory. Left out, counted and named
    in `skipped`: rows without title, rows without ingredients, rows whose title came before, and rows with more cells
    than the header, which would be read shifted. Rows whose dish id is given and equal are variants of one dish.

    Args:
        table: the rows.
        columns: part of a recipe -> name of its column.
        other_ingredients: columns that are read where a cell of the ingredients column holds none.
    """

    def __init__(self, table: TableFile, columns: Mapping[str, str], other_ingredients: Sequence[str] = ()):
        self.table = table
        self.columns = dict(columns)
        # The first of these columns that holds any ingredient is read, row by row.
        self._ingredients = (self.columns["ingredients"], *other_ingredients)
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
        identities = _Identities()
        photographs = _Photographs(self.table.folder) if "image" in self.columns else None
        read = kept = 0
        wanted = list(dict.fromkeys([*self.columns.values(), *self._ingredients]))
        for read, row in enumerate(self.table.rows(wanted), start=1):
            title = " ".join(cell_text(row[self.columns["title"]]).split())
            ingredients = next((row[name] for name in self._ingredients if has_ingredients(row[name])), None)
            reason = None
            if None in row:  # more cells than the header
                reason = SURPLUS
            elif not title:
                reason = NO_TITLE
            elif ingredients is None:
                reason = NO_INGREDIENTS
            elif identities.is_known(title):
                reason = EQUAL_TITLE
            if reason:
                skipped.setdefault(reason, Skipped()).add(title or f"row {read}")
                continue
            kept += 1
            cells = {part: row[column] for part, column in self.columns.items()}
            dish_id, variant = identities.identify(cell_text(cells.get("id")), title)
            yield RawRecipe(
                dish_id,
                title,
                ingredients,
                lines_of(cells.get("instructions")),
                photographs.find(cell_text(cells.get("image"))) if photographs else None,
                variant,
            )
        if not kept:
            reasons = ", ".join(f"{entry.count} {reason}" for reason, entry in skipped.items() if entry.count)
            raise BadInputError(
                f"{self.table.name} has no recipe: {reasons or 'no row at all'}; give a table with rows"
            )


def read_recipes(source: str | Path, columns: Mapping[str, str] | None = None) -> RecipeTable:
    """Open a recipe table.

    Args:
        source: a CSV, TSV, JSON lines or Parquet file, a folder of one of these kinds, or a data set id on the Hub,
            `org/name` or, with a configuration, `org/name:configuration`.
        columns: names of columns where they are not recognised, such as `{"title": "Gericht"}`; the parts are title,
            ingredients, instructions, image and id.

    Raises:
        BadInputError: no such table, an empty one, or no columns for title and ingredients.
    """
    table = open_table(source)
    if not table.columns:
        raise BadInputError(f"{table.name} is empty; give a table with a title and an ingredients column")
    candidates = _find_columns(table, columns or {})
    for part in _REQUIRED:
        if not candidates[part]:
            raise BadInputError(
                f"{_described(table)}; none of them is the {part}: accepted are {', '.join(COLUMN_NAMES[part])}"
            )
    chosen = {part: names[0] for part, names in candidates.items() if names}
    return RecipeTable(table, chosen, candidates["ingredients"][1:])


def _described(table: TableFile) -> str:
    return f"{table.name} has the columns {', '.join(map(repr, table.columns))}"


def _find_columns(table: TableFile, given: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the columns that may be each part, the best first; only the given one where one is given."""
    for part, column in given.items():
        if part not in COLUMN_NAMES:
            raise BadInputError(f"{part!r} is no part of a recipe; allowed are {', '.join(COLUMN_NAMES)}")
        if column not in table.columns:
            raise BadInputError(f"{_described(table)}; there is no {column!r} to take as {part}")
    # Reversed, so that of equal names the first column of the table is kept.
    by_key = {re.sub(r"[\s_-]+", "_", column.strip().casefold()): column for column in reversed(table.columns)}
    return {
        part: [given[part]] if part in given else [by_key[name] for name in names if name in by_key]
        for part, names in COLUMN_NAMES.items()
    }


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

    def __init__(self) -> None:
        self._titles: set[int] = set()
        self._ids: set[int] = set()
        self._rows_of_given: dict[int, int] = {}
        # Given ids whose slug another id has already; few, so that they are kept in full.
        self._renamed: dict[int, str] = {}

    def is_known(self, title: str) -> bool:
        """Return whether a title came before, and remember it."""
        before = len(self._titles)
        self._titles.add(hash(title.casefold()))
        return len(self._titles) == before

    def identify(self, given: str, title: str) -> tuple[str, int]:
        """Return dish id and variant: equal given ids are one dish, equal slugs of titles are not."""
        # Without an id each title is a dish of its own.
        if not given:
            return self._new_id(slug(title)), 0
        key, base = hash(given.casefold()), slug(given)
        variant = self._rows_of_given.get(key, 0)
        self._rows_of_given[key] = variant + 1
        if variant:
            return self._renamed.get(key, base), variant
        dish_id = self._new_id(base)
        if dish_id != base:
            self._renamed[key] = dish_id
        return dish_id, 0

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

    def __init__(self, folder: Path | None):
        self._folder = folder
        paths = sorted(folder.rglob("*"), reverse=True) if folder else []
        self._by_stem = {path.stem: path for path in paths if path.suffix.lower() in _IMAGE_SUFFIXES}

    def find(self, name: str) -> str | None:
        if not name or self._folder is None:
            return None
        # The name may be a path below the folder; otherwise its stem is looked up anywhere below it.
        direct = self._folder / name
        if direct.suffix.lower() in _IMAGE_SUFFIXES and direct.is_file():
            return str(direct)
        path = self._by_stem.get(name) or self._by_stem.get(Path(name).stem)
        return str(path) if path else None
