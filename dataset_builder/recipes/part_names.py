"""The names under which tables keep the parts of a recipe."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

# Best first; case, blanks, hyphens and underscores do not count (see `name_key`).
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "title": (
        "title", "name", "dish", "dish_name", "recipe_name", "recipe_title", "recipe", "str_meal", "str_drink", "label",
    ),
    "ingredients": (
        "cleaned_ingredients", "ingredients", "ingredient_list", "ingredients_list", "ingredient_lines",
        "recipe_ingredient", "recipe_ingredients", "extended_ingredients", "recipe_ingredient_parts", "sections",
        "components",
    ),
    "instructions": (
        "instructions", "directions", "steps", "method", "recipe_instructions", "str_instructions", "preparation",
    ),
    "image": ("image_name", "image_path", "image_file", "photo", "picture", "image"),
    "id": ("dish_id", "recipe_id", "id"),
}  # fmt: skip
REQUIRED = ("title", "ingredients")

# Tables with one ingredient per row, and the cells beside it.
ONE_INGREDIENT = ("ingredient", "ingredient_name")
AMOUNT = ("amount", "quantity", "qty", "measure")
UNIT = ("unit", "units", "measurement_unit")

_NUMBERED = {
    "name": re.compile(r"(?:str)?ingredients?(?:name)?\.?(\d{1,3})"),
    "amount": re.compile(r"(?:str)?(?:amount|quantity|qty|measure|ingredientamount|ingredientquantity)\.?(\d{1,3})"),
    "unit": re.compile(r"(?:str)?(?:unit|measurementunit|ingredientunit)\.?(\d{1,3})"),
}


@lru_cache(maxsize=1 << 12)
def name_key(name: str) -> str:
    """Return the form under which names of columns are equal: `Recipe_Ingredient` and `recipeIngredient`.

    >>> name_key("Recipe_Ingredient ") == name_key("recipeIngredient")
    True
    """
    return re.sub(r"[\s_-]+", "", str(name).casefold())


_KEYS = {part: tuple(map(name_key, names)) for part, names in COLUMN_NAMES.items()}


def columns_named(names: Iterable[str], columns: Iterable[str]) -> list[str]:
    """Return the columns that bear one of the names, in the order of the names; of equal names the first column."""
    by_key = {name_key(column): column for column in reversed(list(columns))}
    return [by_key[key] for key in dict.fromkeys(map(name_key, names)) if key in by_key]


@lru_cache(maxsize=1 << 10)
def keys_of_parts(columns: tuple[str, ...]) -> Mapping[str, str]:
    """Return part -> its best column, for the parts that are among the columns."""
    by_key = {name_key(column): column for column in reversed(columns)}
    found = {part: next((by_key[key] for key in keys if key in by_key), None) for part, keys in _KEYS.items()}
    return {part: column for part, column in found.items() if column is not None}


def numbered_ingredients(columns: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the columns of numbered ingredients, one group of (amount, unit, name) columns per number.

    A table whose header repeats one name (`ingredient,ingredient.1,ingredient.2`, as pandas numbers it) counts too.

    >>> numbered_ingredients(["strIngredient1", "strIngredient2", "strMeasure1"])
    [('strMeasure1', 'strIngredient1'), ('strIngredient2',)]
    """
    groups: dict[int, dict[str, str]] = {}
    for column in columns:
        for role, pattern in _NUMBERED.items():
            if match := pattern.fullmatch(name_key(column)):
                groups.setdefault(int(match[1]), {})[role] = column
    # The first of several columns of one name has no number.
    if groups and (first := columns_named(ONE_INGREDIENT, columns)) and 0 not in groups:
        groups[0] = {"name": first[0]}
    named = (groups[number] for number in sorted(groups) if "name" in groups[number])
    return [tuple(group[role] for role in ("amount", "unit", "name") if role in group) for group in named]
