"""Recipe tables of any common shape to dishes.

Columns are found by name, ingredients may be written in any notation, and what is left out is counted and named.
"""

import ast
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from dataset_builder.errors import BadInputError
from dataset_builder.table_files import TableFile, open_table

# What a table calls each part, best name first; upper and lower case, blanks, hyphens and underscores are equal.
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
_NAMED = 20

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_WRITTEN = re.compile(r"[^\W_]")
_NOTHING = frozenset({"nan", "none", "null", "na", "n/a"})
_BULLET = re.compile(r"^\s*[-*\u2022\u00b7]\s+")
_PYTHON_LIST = re.compile(r"\[\s*'[^'\"\\]*'(?:, '[^'\"\\]*')*\s*\]")
# A printed NumPy array has no commas; read as Python its words would be glued into one.
_NUMPY_LIST = re.compile(r"\[\s*'[^'\"\\]*'(?:\s+'[^'\"\\]*')+\s*\]")


@dataclass(frozen=True)
class Dish:
    """One recipe.

    Attributes:
        dish_id: slug, equal for all rows that belong to one named dish.
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
    """Rows left out for one reason: how many, and the names of the first twenty."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count one row and keep its name while there is room."""
        self.count += 1
        if len(self.names) < _NAMED:
            self.names.append(name)

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

    def dish(self) -> Dish:
        """Return the dish, ingredients read."""
        return Dish(
            self.dish_id, self.title, parse_ingredients(self.ingredients), self.instructions, image_path=self.image_path
        )


class RecipeTable:
    """The dishes of a table, read when asked for.

    `dishes` reads all rows into a list; `stream` reads them one by one in bounded memory. Left out, counted and named
    in `skipped`: rows without title, rows without ingredients, and rows whose title came before.
    """

    def __init__(self, table: TableFile, columns: Mapping[str, str]):
        self.table = table
        self.columns = dict(columns)
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
        for read, row in enumerate(self.table.rows(list(dict.fromkeys(self.columns.values()))), start=1):
            cells = {part: row[column] for part, column in self.columns.items()}
            title = " ".join(_text(cells["title"]).split())
            reason = _refusal(title, cells["ingredients"]) or identities.refusal(title)
            if reason:
                skipped[reason].add(title or f"row {read}")
                continue
            kept += 1
            yield RawRecipe(
                identities.new_id(_text(cells.get("id")) or title),
                title,
                cells["ingredients"],
                _instructions(cells.get("instructions")),
                photographs.find(_text(cells.get("image"))) if photographs else None,
            )
        if not kept:
            reasons = ", ".join(f"{entry.count} {reason}" for reason, entry in skipped.items() if entry.count)
            raise BadInputError(
                f"{self.table.name} has no recipe: {reasons or 'no row at all'}; give a table with rows"
            )


def read_recipes(source: str | Path, columns: Mapping[str, str] | None = None) -> RecipeTable:
    """Open a recipe table.

    Args:
        source: a CSV, TSV, JSON lines or Parquet file, a folder of them, or a data set id on the Hub.
        columns: names of columns where they are not recognised, such as `{"title": "Gericht"}`; the parts are title,
            ingredients, instructions, image and id.

    Raises:
        BadInputError: no such table, an empty one, or no columns for title and ingredients.
    """
    table = open_table(source)
    if not table.columns:
        raise BadInputError(f"{table.name} is empty; give a table with a title and an ingredients column")
    return RecipeTable(table, _find_columns(table, columns or {}))


def _find_columns(table: TableFile, given: Mapping[str, str]) -> dict[str, str]:
    found = f"{table.name} has the columns {', '.join(map(repr, table.columns))}"
    for part, column in given.items():
        if part not in COLUMN_NAMES:
            raise BadInputError(f"{part!r} is no part of a recipe; allowed are {', '.join(COLUMN_NAMES)}")
        if column not in table.columns:
            raise BadInputError(f"{found}; there is no {column!r} to take as {part}")
    by_key = {re.sub(r"[\s_-]+", "_", column.strip().casefold()): column for column in reversed(table.columns)}
    columns = {
        part: given.get(part) or next((by_key[name] for name in names if name in by_key), None)
        for part, names in COLUMN_NAMES.items()
    }
    for part in _REQUIRED:
        if columns[part] is None:
            raise BadInputError(f"{found}; none of them is the {part}: accepted are {', '.join(COLUMN_NAMES[part])}")
    return {part: column for part, column in columns.items() if column is not None}


def parse_ingredients(value: Any) -> tuple[str, ...]:
    """Return the ingredients of one recipe, however they are written.

    Understood are a list (of strings, or of objects with a "text" or "name"), a Python or JSON list in a string, lines,
    and one line with semicolons or commas. Entries without any letter or digit are no ingredients.

    >>> parse_ingredients("['salt', '2 eggs']")
    ('salt', '2 eggs')
    >>> parse_ingredients("salt; 2 eggs, beaten")
    ('salt', '2 eggs, beaten')
    """
    entries = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else _listed(_text(value))
    texts = (_BULLET.sub("", _entry(entry)).strip() for entry in entries)
    return tuple(text for text in texts if _WRITTEN.search(text))


def _entry(entry: Any) -> str:
    if isinstance(entry, Mapping):
        entry = entry.get("text") or entry.get("name")
    return _text(entry)


def _listed(text: str) -> list[Any]:
    if _PYTHON_LIST.fullmatch(text):  # the common case, ten times faster than the general one
        return text[1:-1].strip()[1:-1].split("', '")
    if _NUMPY_LIST.fullmatch(text):
        return re.findall(r"'([^']*)'", text)
    if text.startswith("[") and text.endswith("]"):
        for read in (json.loads, ast.literal_eval):
            try:
                return list(read(text))
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
        text = text[1:-1]
    lines = text.splitlines()
    return lines if len(lines) > 1 else text.split(";" if ";" in text else ",")


def _refusal(title: str, ingredients: Any) -> str | None:
    if not title:
        return NO_TITLE
    # Text is not parsed here: millions of rows are checked by one process and parsed by several.
    text = isinstance(ingredients, str)
    written = _WRITTEN.search(_text(ingredients)) if text else parse_ingredients(ingredients)
    return None if written else NO_INGREDIENTS


def _text(value: Any) -> str:
    text = "" if value is None else str(value).strip()
    return "" if text.casefold() in _NOTHING else text


def _instructions(value: Any) -> str:
    return "\n".join(map(_text, value)) if isinstance(value, list) else _text(value)


def slug(text: str) -> str:
    """Return lower-case ASCII letters and digits joined by hyphens; a short hash where nothing of the text is ASCII.

    >>> slug("Crème brûlée, No. 2")
    'creme-brulee-no-2'
    """
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", ascii_text)
    return "-".join(words) or f"dish-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


class _Identities:
    """Titles and ids that were given out; only hashes are kept, so that millions fit in memory."""

    def __init__(self) -> None:
        self._titles: set[int] = set()
        self._ids: set[int] = set()

    def refusal(self, title: str) -> str | None:
        key = hash(title.casefold())
        if key in self._titles:
            return EQUAL_TITLE
        self._titles.add(key)
        return None

    def new_id(self, text: str) -> str:
        base = dish_id = slug(text)
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
        direct = self._folder / name
        if direct.suffix.lower() in _IMAGE_SUFFIXES and direct.is_file():
            return str(direct)
        path = self._by_stem.get(name) or self._by_stem.get(Path(name).stem)
        return str(path) if path else None
