"""Widen a list of dishes by the variants a cook would make of them.

A variant swaps ingredients of one food group, adds what suits the kind of dish, seasons it differently, or leaves
something out. Its title names some of the changes and its picture shows some, but neither gives all, so that a model
needs both. A title never names an ingredient that the variant lacks.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

from dataset_builder.catalogue import ingredients as catalogue
from dataset_builder.catalogue.ingredients import Addition, Ingredient, find_ingredients, ingredients_by_name
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.recipes.recipes import Dish

# A visible change is named less often than a hidden one: the picture shows it anyway.
NAME_VISIBLE = 0.4
NAME_HIDDEN = 0.7
# Menus also name what belongs to the dish: without it the title of a foreign dish would say nothing to most readers.
NAME_BASE = 0.8
BASE_NAMES = 2
# Nobody orders a dish for these.
NOT_ON_MENUS = frozenset({"salt", "sugar", "msg", "milk", "onion", "garlic"})
# An adjective ("miso", "pickled") replaces "with ..." this often, where the language has one.
ADJECTIVE = 0.5
# A title that names more than this reads like a shopping list.
MAX_NAMED = 4

# The share of variants that change until the wanted flavour leads; the others are content with one addition.
TURN = 0.9
MAX_ADDITIONS = 4
# Lead over the other flavours, in intensities, with which a dish counts as clearly one of the wanted flavour.
LEAD = 4
# Among additions of the wanted flavour, the share that one can see.
VISIBLE_ADDITION = 0.6

SWAP = 0.5
# How much a swap prefers an ingredient for each step of the wanted taste.
SWAP_TOWARDS = 2.0
# Chance that an addition displaces another ingredient, preferably one that tastes strongly of another flavour.
LEAVE_OUT = 0.6
NEUTRAL_ADDITION = 0.35

# The first ingredients are the dish; a title in another language may name them, so they are neither swapped nor left
# out, unless the title names them in words that can be replaced.
PROTECTED = 3
FEWEST_INGREDIENTS = 3

# Nearly every recipe has salt; its full intensity would make every dish a salty one.
SALT_INTENSITY = 1
# An ingredient suits a kind of dish when at least this many named dishes of the kind use it.
USES_TO_SUIT = 2
# Attempts at one distinct variant; they run out only when far more recipes are wanted than the catalogue can give.
MAX_ATTEMPTS = 40

# Words for titles that name no change; they say nothing about taste.
HOUSE_WORDS = (
    "Weeknight", "Sunday", "Grandmother's", "Our", "The chef's", "Bistro", "Market-day", "Rustic", "Midsummer",
    "Winter", "Village", "Harvest", "Canteen", "Picnic", "Festive", "Farmhouse", "Harbour", "Late-night", "Everyday",
    "Old-town",
)  # fmt: skip

SAVOURY, SWEET, DRINK = "savoury", "sweet", "drink"
# Snacks and breakfasts are of both kinds and are judged by their tastes.
_SETTING_OF_COURSE = {
    "dessert": SWEET, "drink": DRINK,
    **dict.fromkeys(("starter", "soup", "salad", "main", "side", "sauce"), SAVOURY),
}  # fmt: skip


@dataclass
class _Draft:
    """A variant that is being made; `items` are the catalogue's ingredients of the `lines`, None for unknown ones."""

    title: str
    lines: list[str]
    items: list[Ingredient | None]
    setting: str
    rng: random.Random
    wanted: str
    phrases: list[str] = field(default_factory=list)
    adjective: str = ""

    def has(self, name: str) -> bool:
        return any(item is not None and item.name == name for item in self.items)

    def named_in_title(self) -> set[str]:
        return {name for words in (self.adjective, self.title, *self.phrases) for name in _named(words)}


@lru_cache(maxsize=1 << 16)
def _named(words: str) -> frozenset[str]:
    return frozenset(item.name for item in find_ingredients(words))


def widen(
    dishes: Sequence[Dish], number: int, seed: int, accept: Callable[[Dish], bool] = lambda variant: True
) -> list[Dish]:
    """Return `number` distinct recipes: the dishes as named, and variants of them.

    Every dish gets its share of the variants, the flavours that they aim at are drawn evenly, and no two recipes have
    the same set of ingredients or the same title. Fewer than there are dishes gives a sample of the dishes.

    Args:
        dishes: named dishes of the catalogue or any recipes; only ingredients that the catalogue knows are changed.
        number: how many recipes to return.
        seed: same seed, same recipes.
        accept: whether a variant is good enough; another one is made in place of a rejected one.

    Returns:
        The recipes, those of one dish together, the named one (`variant` 0) first. Variants have no instructions and no
        photograph, because those of the named dish would not be true of them.

    Raises:
        BadInputError: fewer distinct recipes than `number` can be made.
    """
    if number < len(dishes):
        kept = set(random.Random(f"{seed}|sample").sample(range(len(dishes)), number))
        return [dish for position, dish in enumerate(dishes) if position in kept]
    recipes = {_recipe_key(dish) for dish in dishes}
    titles = {_title_key(dish.title) for dish in dishes}
    variants: list[list[Dish]] = [[] for _ in dishes]
    missing = number - len(dishes)
    order = list(range(len(dishes)))
    random.Random(f"{seed}|order").shuffle(order)
    while missing:
        before = missing
        # One round gives each dish one more variant; dishes for which none is left are passed over in later rounds too.
        for position in order[:missing]:
            variant = _new_variant(dishes[position], len(variants[position]) + 1, seed, recipes, titles, accept)
            if variant is not None:
                recipes.add(_recipe_key(variant))
                titles.add(_title_key(variant.title))
                variants[position].append(variant)
                missing -= 1
        if missing == before:
            raise BadInputError(
                f"{number} recipes are wanted, but only {number - missing} distinct ones can be made of "
                f"{len(dishes)} dishes; ask for fewer"
            )
    return [recipe for dish, made in zip(dishes, variants, strict=True) for recipe in (dish, *made)]


def _recipe_key(dish: Dish) -> frozenset[str]:
    return frozenset(line.casefold() for line in dish.ingredients)


def _title_key(title: str) -> str:
    return " ".join(title.casefold().split())


def _new_variant(
    dish: Dish, number: int, seed: int, recipes: set[frozenset[str]], titles: set[str], accept: Callable[[Dish], bool]
) -> Dish | None:
    """Return a variant whose recipe and title are new, None when none is found."""
    wishes = list(FLAVOURS)
    random.Random(f"{seed}|{dish.dish_id}").shuffle(wishes)
    for attempt in range(MAX_ATTEMPTS):
        rng = random.Random(f"{seed}|{dish.dish_id}|{number}|{attempt}")
        # Later attempts may wish for another flavour: not every dish can be turned to every taste.
        wanted = wishes[(number - 1 + attempt // 8) % len(wishes)]
        items = [_catalogue_item(line) for line in dish.ingredients]
        draft = _Draft(dish.title, list(dish.ingredients), items, _setting(dish, items), rng, wanted)
        _change(draft)
        variant = Dish(dish.dish_id, _compose_title(draft, titles), tuple(draft.lines), variant=number)
        is_new = _recipe_key(variant) not in recipes and _title_key(variant.title) not in titles
        if is_new and _is_true(variant.title, draft, dish) and accept(variant):
            return variant
    return None


def _is_true(title: str, draft: _Draft, dish: Dish) -> bool:
    """Return whether a title names nothing that the variant lacks, apart from what the original title named already.

    Words that were put side by side can name a third thing: "mustard" and "green mango" hold "mustard green".
    """
    had = {item.name for item in map(_catalogue_item, dish.ingredients) if item is not None}
    has = {item.name for item in draft.items if item is not None}
    # A title may name by itself what its recipe lacks, as "peanut butter cookies" without butter.
    excused = _named(dish.title) - had
    return _named(title) <= has | excused


@lru_cache(maxsize=1 << 16)
def _catalogue_item(line: str) -> Ingredient | None:
    return ingredients_by_name().get(line) or next(iter(find_ingredients(line)), None)


def _setting(dish: Dish, items: Sequence[Ingredient | None]) -> str:
    """Return the kind of dish: by the course of a dish of the catalogue, by the tastes of any other."""
    facts = catalogue.dish_facts().get(dish.dish_id)
    if facts is not None and facts.course in _SETTING_OF_COURSE:
        return _SETTING_OF_COURSE[facts.course]
    tastes = _tastes(items)
    return SWEET if tastes["sweet"] > tastes["salty"] + tastes["umami"] else SAVOURY


def _tastes(items: Sequence[Ingredient | None]) -> Counter[str]:
    tastes: Counter[str] = Counter(dict.fromkeys(FLAVOURS, 0))
    for item in items:
        if item is not None:
            for flavour, intensity in zip(FLAVOURS, item.taste, strict=True):
                tastes[flavour] += min(intensity, SALT_INTENSITY) if item.name == "salt" else intensity
    return tastes


def _change(draft: _Draft) -> None:
    """Apply the kinds of change, each by its own chance."""
    rng = draft.rng
    if rng.random() < SWAP:
        _swap(draft)
    turn = rng.random() < TURN
    for _ in range(MAX_ADDITIONS):
        # Add for the wanted flavour until it leads, and sometimes drop what tastes of another one.
        _add(draft, draft.wanted)
        if rng.random() < LEAVE_OUT:
            _leave_out(draft)
        if not turn or _leads(draft):
            break
    if rng.random() < NEUTRAL_ADDITION:
        _add(draft, None)
    _name_base(draft)


def _leads(draft: _Draft) -> bool:
    tastes = _tastes(draft.items)
    return all(tastes[draft.wanted] >= tastes[flavour] + LEAD for flavour in FLAVOURS if flavour != draft.wanted)


@lru_cache(maxsize=1)
def _suits() -> dict[str, set[str]]:
    """Return setting -> ingredients that named dishes of the setting use, or that `additions.csv` gives to it."""
    uses: dict[str, Counter[str]] = {SAVOURY: Counter(), SWEET: Counter(), DRINK: Counter()}
    for dish in catalogue.catalogue_dishes():
        items = [ingredients_by_name()[name] for name in dish.ingredients]
        uses[_setting(dish, items)].update(dish.ingredients)
    suiting = {setting: {name for name in used if used[name] >= USES_TO_SUIT} for setting, used in uses.items()}
    for addition in catalogue.additions():
        suiting[addition.setting].add(addition.ingredient)
    return suiting


def _swap(draft: _Draft) -> None:
    """Replace a visible ingredient by another of its food group, in the title too where it is named there."""
    mentioned = {mention.ingredient.name for mention in catalogue.find_mentions(draft.title)}
    places = [
        (place, item)
        for place, item in enumerate(draft.items)
        if item is not None and item.visible and (place >= PROTECTED or item.name in mentioned)
    ]
    if not places:
        return
    place, old = draft.rng.choice(places)
    choices = [
        item
        for item in catalogue.ingredients()
        if item.group == old.group and item.name in _suits()[draft.setting] and not draft.has(item.name)
    ]
    if not choices:
        return
    wanted = FLAVOURS.index(draft.wanted)
    # Any ingredient of the group may come, rather one with the wanted taste.
    new = draft.rng.choices(choices, [1 + SWAP_TOWARDS * item.taste[wanted] for item in choices])[0]
    draft.lines[place], draft.items[place] = new.name, new
    draft.title = _replace_in_title(draft.title, old, new)
    if old.name not in mentioned:
        _perhaps_name(draft, new, NAME_VISIBLE, _phrase(new.name), "")


def _replace_in_title(title: str, old: Ingredient, new: Ingredient) -> str:
    # From the end, so that the offsets of earlier mentions stay valid.
    for mention in reversed(catalogue.find_mentions(title)):
        if mention.ingredient.name == old.name:
            spoken = title[mention.start : mention.end]
            name = _phrase(new.name) if spoken.endswith("s") else new.name
            name = name[0].upper() + name[1:] if spoken[0].isupper() else name
            title = title[: mention.start] + name + title[mention.end :]
    return title


def _leave_out(draft: _Draft) -> None:
    """Leave out an ingredient that the title does not name, rather one that keeps the wanted flavour from leading."""
    named = draft.named_in_title()
    tastes = {
        place: item.taste
        for place, item in enumerate(draft.items)
        if item is not None and place >= PROTECTED and item.name not in named
    }
    if not tastes or len(draft.lines) <= FEWEST_INGREDIENTS:
        return
    wanted = FLAVOURS.index(draft.wanted)
    against = [1 + max(taste[:wanted] + taste[wanted + 1 :]) for taste in tastes.values()]
    place = draft.rng.choices(list(tastes), against)[0]
    del draft.lines[place], draft.items[place]


@cache
def _additions_for(setting: str, flavour: str | None) -> tuple[Addition, ...]:
    return tuple(each for each in catalogue.additions() if (each.setting, each.flavour) == (setting, flavour))


def _add(draft: _Draft, flavour: str | None) -> None:
    """Add an ingredient for a flavour, None for a neutral one: a topping that one sees, or a seasoning."""
    choices = [addition for addition in _additions_for(draft.setting, flavour) if not draft.has(addition.ingredient)]
    see = draft.rng.random() < VISIBLE_ADDITION
    choices = [choice for choice in choices if ingredients_by_name()[choice.ingredient].visible == see] or choices
    if not choices:
        return
    addition: Addition = draft.rng.choice(choices)
    item = ingredients_by_name()[addition.ingredient]
    # What one sees lies on top of the dish itself; a seasoning comes last, as in written recipes.
    place = min(PROTECTED, len(draft.lines)) if item.visible else len(draft.lines)
    draft.lines.insert(place, item.name)
    draft.items.insert(place, item)
    _perhaps_name(draft, item, NAME_VISIBLE if item.visible else NAME_HIDDEN, addition.phrase, addition.adjective)


def _perhaps_name(draft: _Draft, item: Ingredient, chance: float, phrase: str, adjective: str) -> None:
    if draft.rng.random() >= chance or item.name in draft.named_in_title():
        return
    if adjective and not draft.adjective and draft.rng.random() < ADJECTIVE:
        draft.adjective = adjective
    elif len(draft.phrases) < MAX_NAMED:
        draft.phrases.append(phrase)


def _name_base(draft: _Draft) -> None:
    """Name ingredients that the dish has had all along, as menus do: rather those that one tastes."""
    for _ in range(BASE_NAMES):
        named = draft.named_in_title()
        items = [item for item in draft.items if item is not None and item.name not in named and max(item.taste)]
        items = [item for item in items if item.name not in NOT_ON_MENUS]
        if items:
            item = draft.rng.choices(items, [max(item.taste) ** 2 for item in items])[0]
            _perhaps_name(draft, item, NAME_BASE, _phrase(item.name), "")


@cache
def _phrase(name: str) -> str:
    """Return how a title names an ingredient after "with"."""
    return next((addition.phrase for addition in catalogue.additions() if addition.ingredient == name), name)


def _compose_title(draft: _Draft, taken: set[str]) -> str:
    """Join adjective, title and phrases; a house word makes the title new where it is taken already."""
    title = f"{draft.adjective[0].upper()}{draft.adjective[1:]} {draft.title}" if draft.adjective else draft.title
    phrases = draft.phrases
    if phrases:
        named = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
        title = f"{title}, {named}" if " with " in title else f"{title} with {named}"
    if _title_key(title) not in taken:
        return title
    words = list(HOUSE_WORDS)
    draft.rng.shuffle(words)
    return next((f"{word} {title}" for word in words if _title_key(f"{word} {title}") not in taken), title)
