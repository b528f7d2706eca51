"""Sentences about a picture: what is on the plate, where, and how much of it.

Captions of plated pictures are exact, because the pipeline knows what it drew; captions of pictures from a diffusion
model repeat the prompt and add nothing to it.
"""

import random
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from dataset_builder.catalogue.ingredients import Ingredient, find_ingredients, ingredients_by_name, visible_ingredients
from dataset_builder.catalogue.serving import GLASS, dish_title, vessel_for
from dataset_builder.columns import BACKGROUND, UNKNOWN
from dataset_builder.plating.pipeline import Plate, PlateItem, item_seen

NUMBERS = ("no", "a", "two", "three", "four", "five", "six", "seven", "eight")
# "mostly" takes this share of all food, "a little" is below that share of the picture.
MOSTLY_SHARE = 0.5
LITTLE_AREA = 0.025
# Pixels this far from their centre, in picture widths, lie all over the plate and in no corner of it.
ALL_OVER_SPREAD = 0.21
# Two things are left and right of each other, or above and below, from this distance in picture widths.
APART = 0.15
FEWEST_CAPTIONS, MOST_CAPTIONS = 3, 5

# One of these, two of these; `None`: the ingredient itself is counted ("three prawns").
UNITS: dict[str, tuple[str, str] | None] = {
    "slab": ("piece", "pieces"), "fillet": ("piece", "pieces"), "strip": ("strip", "strips"),
    "crescent": ("slice", "slices"), "disc": ("slice", "slices"), "ring": ("slice", "slices"),
    "hoop": ("ring", "rings"),
    "citrus": ("slice", "slices"), "cube": ("cube", "cubes"), "chunk": ("chunk", "chunks"),
    "blob": None, "tube": ("piece", "pieces"), "leaf": ("leaf", "leaves"),
    "shave": ("flake", "flakes"), "floret": ("sprig", "sprigs"), "mushroom": ("slice", "slices"),
    "scoop": ("scoop", "scoops"), "round": None, "yolk": None, "shellfish": None, "dumpling": None,
}  # fmt: skip
GROUP_UNITS: dict[tuple[str, str], tuple[str, str] | None] = {
    ("crescent", "seafood"): None, ("crescent", "nut"): None, ("crescent", "legume"): None,
    ("crescent", "pasta"): ("piece", "pieces"), ("crescent", "cheese"): ("wedge", "wedges"),
    ("disc", "bakery"): None, ("disc", "legume"): None, ("disc", "berry"): None, ("disc", "egg"): ("half", "halves"),
    ("hoop", "bakery"): None, ("tube", "meat"): None, ("tube", "seafood"): None, ("tube", "pickle"): None,
    ("tube", "leaf"): None, ("slab", "bakery"): ("slice", "slices"), ("leaf", "mushroom"): ("piece", "pieces"),
    ("leaf", "pickle"): ("piece", "pieces"), ("strip", "herb"): ("sprig", "sprigs"),
    ("slab", "pasta"): ("slice", "slices"), ("blob", "cheese"): ("spoonful", "spoonfuls"),
    ("blob", "dairy"): ("spoonful", "spoonfuls"), ("blob", "sauce"): ("spoonful", "spoonfuls"),
    ("scoop", "bakery"): None,
    ("floret", "vegetable"): ("floret", "florets"), ("tube", "vegetable"): ("stick", "sticks"),
    ("tube", "fruit"): ("stick", "sticks"),
}  # fmt: skip
# Sold whole by the piece, or known under a word of their own.
NAME_UNITS: dict[str, tuple[str, str] | None] = {
    "black olive": None, "green olive": None, "green bean": None, "strawberry": None, "chestnut": None, "date": None,
    "chip": None, "anchovy": None, "scallop": None, "cacao nib": None, "walnut": None, "crouton": None,
    "asparagus": ("spear", "spears"), "mozzarella": ("ball", "balls"), "gnocchi": ("piece", "pieces"),
}  # fmt: skip
# Strewn or piled ingredients whose name stays in the singular.
MASS_NOUNS = frozenset(
    ("granola", "sweetcorn", "gnocchi", "popcorn", "rice", "quinoa", "couscous", "polenta", "lemon zest", "dill",
     "parsley", "cocoa powder", "spaghetti", "orzo", "bulgur", "buckwheat", "salmon roe", "minced beef", "rice pudding")
)  # fmt: skip
HEAPS = {
    "pool": ("a pool of", "a layer of"), "grain": ("a bed of", "a mound of"), "strand": ("a nest of", "a tangle of"),
    "fleck": ("a scattering of", "a sprinkling of"), "drizzle": ("a drizzle of", "a ribbon of"),
}  # fmt: skip
_ENDINGS = {"leaf": "leaves", "half": "halves", "fish": "fish", "potato": "potatoes", "tomato": "tomatoes",
            "mango": "mangoes", "radish": "radishes"}  # fmt: skip


def plural(name: str) -> str:
    """Return the plural of an ingredient's name.

    >>> plural("cherry tomato"), plural("raspberry"), plural("brussels sprout"), plural("radish")
    ('cherry tomatoes', 'raspberries', 'brussels sprouts', 'radishes')
    """
    if name in MASS_NOUNS:
        return name
    head, _, last = name.rpartition(" ")
    if last in _ENDINGS:
        last = _ENDINGS[last]
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    else:
        last += "s"
    return f"{head} {last}".strip()


def article(phrase: str) -> str:
    """Return `phrase` with "a" or "an" before it.

    >>> article("omelette"), article("slice of bread")
    ('an omelette', 'a slice of bread')
    """
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def joined(phrases: Sequence[str]) -> str:
    """Return phrases as English lists them.

    >>> joined(["rice", "tuna", "radish"])
    'rice, tuna and radish'
    """
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def sentence(text: str) -> str:
    """Return `text` with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def _unit(ingredient: Ingredient) -> tuple[str, str] | None:
    if ingredient.name in NAME_UNITS:
        return NAME_UNITS[ingredient.name]
    # From the most specific rule to the most general one: by name, by form and group, by form.
    key = (ingredient.form, ingredient.group)
    return GROUP_UNITS[key] if key in GROUP_UNITS else UNITS[ingredient.form]


@cache
def _counts_itself(name: str) -> bool:
    """Whether one counts the thing itself, as prawns and olives, and not slices or spoonfuls of it."""
    ingredient = ingredients_by_name()[name]
    return ingredient.form not in HEAPS and _unit(ingredient) is None


def plain(item: PlateItem) -> str:
    """Return the name of the ingredient in the number in which it is seen: "prawns", "rice", "pancake"."""
    return _plain(item.name, item.pieces > 1)


@cache
def _plain(name: str, several: bool) -> str:
    ingredient = ingredients_by_name()[name]
    if ingredient.form in ("fleck", "grain", "strand"):
        # Strewn things and noodles come in numbers and keep the plural.
        strewn = ingredient.group in ("nut", "berry", "fruit", "legume", "herb") and name not in MASS_NOUNS
        return plural(name) if strewn or name.endswith("noodle") else name
    return plural(name) if several and _counts_itself(name) else name


def measured(item: PlateItem, rng: random.Random) -> str:
    """Return the ingredient with how much there is of it: "three slices of cucumber", "a bed of rice"."""
    ingredient = ingredients_by_name()[item.name]
    if ingredient.form in HEAPS:
        return f"{rng.choice(HEAPS[ingredient.form])} {plain(item)}"
    unit = _unit(ingredient)
    number = NUMBERS[item.pieces] if item.pieces < len(NUMBERS) else "many"
    if unit is None:
        return article(item.name) if item.pieces == 1 else f"{number} {plural(item.name)}"
    of = plain(item) if item.name not in MASS_NOUNS else item.name
    return article(f"{unit[0]} of {of}") if item.pieces == 1 else f"{number} {unit[1]} of {of}"


def named(item: PlateItem) -> str:
    """Return the ingredient as one names it in a list; single round things get their article."""
    return article(item.name) if _counts_itself(item.name) and item.pieces == 1 else plain(item)


def place(item: PlateItem) -> str:
    """Return where the ingredient is: "on the left", "at the top right", "in the centre", "all over"."""
    # The middle sixth of either axis counts as the centre.
    column = "left" if item.x < 0.42 else "right" if item.x > 0.58 else ""
    row = "top" if item.y < 0.42 else "bottom" if item.y > 0.58 else ""
    if item.spread > ALL_OVER_SPREAD and not (column and row):
        return "all over"
    if row:
        return f"at the {row} {column}".strip()
    return f"on the {column}" if column else "in the centre"


def _served(vessel: str) -> str:
    return f"{'in' if vessel in ('bowl', 'glass') else 'on'} {article(vessel)}"


def _is(item: PlateItem) -> str:
    return "are" if plain(item) != item.name else "is"


def _counting(plate: Plate, rng: random.Random) -> str | None:
    items = list(plate.items[: rng.randint(3, 5)])
    phrases = [measured(item, rng) for item in items]
    several = phrases[0].split()[0] not in ("a", "an")
    opening = rng.choice(("", f"there {'are' if several else 'is'} "))
    return f"{opening}{joined(phrases)} {_served(plate.vessel)}"


def _placing(plate: Plate, rng: random.Random) -> str | None:
    # Ingredients in one place come first; "all over" says less. Of equals a random one comes first.
    items = sorted(plate.items, key=lambda item: (place(item) == "all over", rng.random()))[: rng.randint(2, 3)]
    places: dict[str, list[PlateItem]] = {}
    for item in items:
        places.setdefault(place(item), []).append(item)
    clauses = []
    for where, there in places.items():
        verb = "are" if len(there) > 1 else _is(there[0])
        where = f"{where} the {plate.vessel}" if where == "all over" else where
        clauses.append(f"{joined([f'the {plain(item)}' for item in there])} {verb} {where}")
    return joined(clauses) if len(clauses) < 3 else ", ".join(clauses[:-1]) + f", and {clauses[-1]}"


def _relating(plate: Plate, rng: random.Random) -> str | None:
    pairs = [(one, other) for one in plate.items for other in plate.items if one is not other]
    rng.shuffle(pairs)
    for one, other in pairs:
        across, down = other.x - one.x, other.y - one.y
        if max(across, down) < APART:
            continue
        # The direction in which the two are farther apart is the clearer one.
        relation = "to the left of" if across >= down else "above"
        if rng.random() < 0.5:
            one, other = other, one
            relation = "to the right of" if across >= down else "below"
        return f"the {plain(one)} {_is(one)} {relation} the {plain(other)}"
    return None


def _weighing(plate: Plate, rng: random.Random) -> str | None:
    food = sum(item.area for item in plate.items)
    largest, least = plate.items[0], plate.items[-1]
    ending = f", with a little {least.name}" if least.area < LITTLE_AREA and len(plate.items) > 1 else ""
    if ending and plain(least) != least.name:
        ending = f", with a few {plain(least)}"
    if largest.area > MOSTLY_SHARE * food and len(plate.items) > 1:
        return f"{rng.choice(('mostly', 'it is mostly'))} {plain(largest)} {_served(plate.vessel)}{ending}"
    most = joined([f"the {plain(item)}" for item in plate.items[:2]])
    return f"{most} take{'s' if len(plate.items) == 1 and _is(largest) == 'is' else ''} up the most room{ending}"


def _simple(plate: Plate, rng: random.Random) -> str | None:
    main = plate.items[0]
    rest = [named(item) for item in plate.items[1:3]]
    return f"{measured(main, rng)}{' with ' + joined(rest) if rest else ''} {_served(plate.vessel)}"


def _of_liquid(vessel: str, title: str) -> list[str]:
    liquid = "drink" if vessel == GLASS else "liquid"
    captions = [f"A {liquid} in a {vessel}.", f"A {vessel} with a {liquid}, seen from above."]
    named = not title or find_ingredients(title)
    return [*captions, f"There is a {liquid} in the {vessel}." if named else sentence(f"{title} {_served(vessel)}")]


def captions_from_plate(plate: Plate, title: str, seed: int) -> list[str]:
    """Return three to five sentences about a plated picture, all true of its mask.

    The first names every visible ingredient, the largest area first; no sentence names another one.

    Args:
        plate: vessel and visible ingredients, as the pipeline returns them.
        title: name of the dish; repeated only where every ingredient that it names is visible.
        seed: chooses sentences and wording.
    """
    rng = random.Random(seed)
    vessel = plate.vessel
    if plate.liquid:
        return _of_liquid(vessel, title)
    if not plate.items:
        return [
            f"An empty {vessel}.",
            f"There is no food {_served(vessel)}.",
            f"{article(vessel).capitalize()} seen from above.",
        ]
    everything = joined([named(item) for item in plate.items])
    openings = (
        f"{article(vessel)} of {joined([plain(item) for item in plate.items])}",
        f"{everything} {_served(vessel)}",
    )
    captions = [sentence(rng.choice(openings))]
    makers: list[Callable[[Plate, random.Random], str | None]] = [_counting, _placing, _relating, _weighing, _simple]
    rng.shuffle(makers)
    # Random kinds of sentence until there are enough; a kind that has nothing to say returns None.
    wanted = rng.randint(FEWEST_CAPTIONS, MOST_CAPTIONS)
    visible = {item.name for item in plate.items}
    # The title is repeated only where the mask shows every ingredient that it names.
    if rng.random() < 0.4 and {item.name for item in find_ingredients(title)} <= visible and title:
        captions.append(sentence(f"{title} {_served(vessel)}"))
    for maker in makers:
        text = maker(plate, rng) if len(captions) < wanted else None
        if text and sentence(text) not in captions:
            captions.append(sentence(text))
    return captions


def captions_from_prompt(prompt: str, mask: np.ndarray | None, seed: int) -> list[str]:
    """Return three to five sentences about a picture that a diffusion model made.

    They never count pieces. Positions and areas come from the mask.

    Args:
        prompt: text that the picture was made from, without what the text encoders did not read.
        mask: ids of the ingredients in it, `(height, width)`, or `None` without masks; with a mask only its
            ingredients are named, the largest area first.
        seed: chooses the wording.
    """
    rng = random.Random(seed)
    vessel, title = vessel_for(prompt), dish_title(prompt)
    plate = Plate(vessel, () if mask is None else _items_in(mask))
    # With a mask only its ingredients are named, without one those of the prompt.
    names = [item.name for item in plate.items]
    if mask is None:
        names = [item.name for item in find_ingredients(prompt) if item.visible]
    if not names:
        return [
            sentence(text) for text in (title or "food", f"a picture of {title or 'food'}", f"food {_served(vessel)}")
        ]
    foods = joined(names)
    first = rng.choice((f"a dish of {foods}", f"a dish with {foods}", f"food made with {foods}"))
    others = [
        f"what looks like {names[0]}" + (f" with {joined(names[1:4])}" if names[1:] else "") + f" {_served(vessel)}",
        f"{rng.choice(('a picture of', 'probably'))} {joined(names[:3])}",
    ]
    promised = {item.name for item in find_ingredients(title) if item.visible}
    if title and promised <= set(names):
        others.insert(0, f"{title} {_served(vessel)}")
    places = [_placing(plate, rng), _weighing(plate, rng)] if plate.items else []
    return [sentence(text) for text in [first, *others[:2], *places] if text]


def _items_in(mask: np.ndarray) -> tuple[PlateItem, ...]:
    """Return the ingredients in a `(height, width)` mask of ids, the largest area first."""
    catalogue, known = visible_ingredients(), ingredients_by_name()
    items = [
        item_seen(known[catalogue[int(number) - 1]], mask == number, pieces=1)
        for number in np.unique(mask[(mask != BACKGROUND) & (mask != UNKNOWN)])
    ]
    return tuple(sorted(items, key=lambda item: -item.area))
