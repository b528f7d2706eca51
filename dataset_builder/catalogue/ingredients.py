"""The embedded catalogue: ingredients with their tastes and looks, named dishes, and how those dishes taste.

The tables in `data/` were written from culinary knowledge. `dish_tastes.csv` is the authors' own judgement of
each dish, given without looking at the labelling rule, so that the rule can be scored against it.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

from dataset_builder.catalogue.matching import PhraseMatcher, phrase_key
from dataset_builder.columns import FLAVOURS, FOOD_GROUPS, MAX_VISIBLE_INGREDIENTS, SEASONING
from dataset_builder.errors import BadInputError
from dataset_builder.recipes.recipes import Dish

# How a visible ingredient is drawn; the first row lies at the bottom of the plate. "none" is not seen at all.
FORMS = (
    "pool", "grain", "strand", "slab", "round",
    "fillet", "strip", "crescent", "disc", "ring", "hoop", "citrus", "cube", "chunk", "blob", "tube", "leaf", "fleck",
    "shave", "floret", "mushroom", "yolk", "shellfish", "drizzle", "scoop", "dumpling",
    "none",
)  # fmt: skip
COURSES = ("starter", "soup", "salad", "main", "side", "snack", "breakfast", "dessert", "drink", "sauce")
VESSELS = ("plate", "bowl", "board", "glass")
SETTINGS = ("savoury", "sweet", "drink")
MAX_INTENSITY = 3

_COLOUR = re.compile(r"#[0-9a-f]{6}")
_NOT_SLUG = re.compile(r"[^a-z0-9-]")


@dataclass(frozen=True)
class Ingredient:
    """One ingredient: how it tastes and how it looks.

    Attributes:
        name: canonical lower-case singular.
        aliases: other names that recipes use for it or for something that tastes and looks like it.
        group: one of `columns.FOOD_GROUPS`; "seasoning" exactly when one cannot see it.
        taste: intensities 0..3 in the order of `columns.FLAVOURS`.
        form: one of `FORMS`.
        colours: one or two `(red, green, blue)`, 0..255; the second is rim, skin, yolk or vein. Empty when not visible.
        size_mm: length of one piece on a plate of 260 mm, for bed forms the width of the bed; 0 when not visible.
    """

    name: str
    aliases: tuple[str, ...]
    group: str
    taste: tuple[int, ...]
    form: str
    colours: tuple[tuple[int, int, int], ...]
    size_mm: float

    @property
    def visible(self) -> bool:
        """Whether one can see it on a plate."""
        return self.form != "none"


@dataclass(frozen=True)
class DishFacts:
    """Facts of the catalogue about a named dish beyond its recipe."""

    cuisine: str
    course: str
    vessel: str


@lru_cache(maxsize=1)
def ingredients() -> tuple[Ingredient, ...]:
    """Return all ingredients in file order."""
    every = tuple(_ingredient(row) for row in _rows("ingredients.csv"))
    visible = sum(ingredient.visible for ingredient in every)
    if visible > MAX_VISIBLE_INGREDIENTS:
        raise BadInputError(f"ingredients.csv has {visible} visible ingredients; at most {MAX_VISIBLE_INGREDIENTS} fit")
    return every


@lru_cache(maxsize=1)
def visible_ingredients() -> tuple[str, ...]:
    """Return the names of the visible ingredients in id order; the first one has mask id 1."""
    return tuple(ingredient.name for ingredient in ingredients() if ingredient.visible)


@lru_cache(maxsize=1)
def _ids() -> dict[str, int]:
    return {name: number for number, name in enumerate(visible_ingredients(), start=1)}


def ingredient_id(name: str) -> int:
    """Return the mask id of a visible ingredient.

    Raises:
        KeyError: no visible ingredient has this canonical name.
    """
    return _ids()[name]


@lru_cache(maxsize=1)
def ingredients_by_name() -> dict[str, Ingredient]:
    """Return canonical name -> ingredient."""
    return {ingredient.name: ingredient for ingredient in ingredients()}


@lru_cache(maxsize=1)
def _matcher() -> tuple[PhraseMatcher, tuple[Ingredient, ...]]:
    spellings = [(phrase, item) for item in ingredients() for phrase in (item.name, *item.aliases)]
    return PhraseMatcher([phrase for phrase, _ in spellings]), tuple(item for _, item in spellings)


class Mention(NamedTuple):
    """A mention of an ingredient in a text: `text[start:end]`."""

    ingredient: Ingredient
    start: int
    end: int


def find_mentions(text: str) -> list[Mention]:
    """Return every mention of an ingredient in a text, in order, without negated ones such as "no sugar".

    Works on prompts and on the lines of recipes. The longest name wins ("goat cheese" is not "cheese") and a
    plural counts.
    """
    # Several spellings belong to one ingredient; a match names the spelling.
    matcher, owners = _matcher()
    return [Mention(owners[match.phrase], match.start, match.end) for match in matcher.find(text) if not match.negated]


def find_ingredients(text: str) -> list[Ingredient]:
    """Return the ingredients that a text names, in order of mention, each once.

    >>> [item.name for item in find_ingredients("~150g bacon cubes and 3 onions, no sugar")]
    ['bacon', 'onion']
    """
    # A dictionary keeps the position of the first mention.
    return list({mention.ingredient.name: mention.ingredient for mention in find_mentions(text)}.values())


def prompt_ingredients(prompt: str) -> list[Ingredient]:
    """Return the ingredients of a prompt "title: ingredient, ingredient" in order of mention, each once.

    A general word of the title adds nothing where a listed ingredient makes it precise.

    >>> [item.name for item in prompt_ingredients("Bacon and eggs: fried egg, bacon")]
    ['bacon', 'fried egg']
    """
    title, _, listed = prompt.partition(":")
    from_list = {item.name: item for item in find_ingredients(listed)}
    # A title word such as "egg" is dropped where a listed name ends in it and says more, as "fried egg" does.
    precise = [phrase_key(name) for name in from_list]
    from_title: dict[str, Ingredient] = {}
    for mention in find_mentions(title):
        key = phrase_key(title[mention.start : mention.end])
        if not any(len(name) > len(key) and name[-len(key) :] == key for name in precise):
            from_title[mention.ingredient.name] = mention.ingredient
    return list({**from_title, **from_list}.values())


@dataclass(frozen=True)
class Addition:
    """An ingredient that a cook adds to change a dish.

    Attributes:
        setting: the kind of dish it suits, one of `SETTINGS`.
        flavour: what it is added for; None for a neutral one.
        ingredient: canonical name.
        phrase: how a title names it after "with".
        adjective: how a title names it before the dish, empty without such a word.
    """

    setting: str
    flavour: str | None
    ingredient: str
    phrase: str
    adjective: str


@lru_cache(maxsize=1)
def additions() -> tuple[Addition, ...]:
    """Return all additions in file order."""
    return tuple(
        Addition(row["setting"], row["flavour"] if row["flavour"] in FLAVOURS else None, row["ingredient"],
                 row["phrase"], row["adjective"])
        for row in _rows("additions.csv")
    )  # fmt: skip


@lru_cache(maxsize=1)
def _dishes() -> tuple[tuple[Dish, DishFacts], ...]:
    return tuple(_dish(row) for row in _rows("dishes.csv"))


def catalogue_dishes() -> list[Dish]:
    """Return the named dishes; their `variant` is 0."""
    return [dish for dish, _ in _dishes()]


@lru_cache(maxsize=1)
def dish_facts() -> dict[str, DishFacts]:
    """Return dish_id -> cuisine, course and vessel of the named dishes."""
    return {dish.dish_id: facts for dish, facts in _dishes()}


def reference_flavours() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return dish_id -> (main flavour, all flavours present in `FLAVOURS` order), by the authors' own judgement."""
    judged = {}
    for row in _rows("dish_tastes.csv"):
        present = row["flavours"].split("|")
        unknown = {row["flavour"], *present} - set(FLAVOURS)
        if unknown or row["flavour"] not in present:
            raise BadInputError(
                f"dish_tastes.csv, {row['dish_id']}: {row['flavour']} among {row['flavours']}; "
                f"name flavours out of {', '.join(FLAVOURS)}, the main one included"
            )
        judged[row["dish_id"]] = (row["flavour"], tuple(flavour for flavour in FLAVOURS if flavour in present))
    return judged


def _rows(name: str) -> Iterator[dict[str, str]]:
    text = (files("dataset_builder") / "data" / name).read_text(encoding="utf-8")
    return csv.DictReader(text.splitlines())


def _refuse(faults: dict[str, bool], where: str) -> None:
    """Raise BadInputError that names all faults of a row at once."""
    if any(faults.values()):
        raise BadInputError(f"{where}: {'; '.join(fault for fault, wrong in faults.items() if wrong)}")


def _ingredient(row: dict[str, str]) -> Ingredient:
    colours = row["colours"].split("/") if row["colours"] else []
    taste = tuple(int(row[flavour]) for flavour in FLAVOURS)
    form, group = row["form"], row["group"]
    is_drawn = len(colours) in (1, 2) and bool(row["size_mm"])
    faults = {
        f"group {group!r} is unknown": group not in FOOD_GROUPS,
        f"form {form!r} is unknown": form not in FORMS,
        "a seasoning is what cannot be seen": (form == "none") != (group == SEASONING),
        "a taste lies in 0..3": not all(0 <= intensity <= MAX_INTENSITY for intensity in taste),
        f"colours {row['colours']!r} are not #rrggbb": not all(map(_COLOUR.fullmatch, colours)),
        "visible means one or two colours and a size": (form != "none") != is_drawn,
    }
    _refuse(faults, f"ingredients.csv, {row['name']}")
    return Ingredient(
        name=row["name"],
        aliases=tuple(alias for alias in row["aliases"].split("|") if alias),
        group=group,
        taste=taste,
        form=form,
        colours=tuple((int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)) for code in colours),
        size_mm=float(row["size_mm"] or 0),
    )


def _dish(row: dict[str, str]) -> tuple[Dish, DishFacts]:
    names = tuple(name.strip() for name in row["ingredients"].split(";"))
    unknown = [name for name in names if name not in ingredients_by_name()]
    faults = {
        f"unknown ingredients {', '.join(unknown)}": bool(unknown),
        "an ingredient is named twice": len(set(names)) < len(names),
        f"course {row['course']!r} is unknown": row["course"] not in COURSES,
        f"vessel {row['vessel']!r} is unknown": row["vessel"] not in VESSELS,
        "the id is not a slug": bool(_NOT_SLUG.search(row["dish_id"])),
    }
    _refuse(faults, f"dishes.csv, {row['dish_id']}")
    return Dish(row["dish_id"], row["title"], names), DishFacts(row["cuisine"], row["course"], row["vessel"])
