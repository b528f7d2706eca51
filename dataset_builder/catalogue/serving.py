"""Serving of a dish: its vessel, the liquids of a drink or broth, and which of its ingredients are visible."""

import functools
import re
from collections.abc import Sequence

from dataset_builder.catalogue.ingredients import VESSELS, Ingredient, catalogue_dishes, dish_facts

# Colour of a liquid, and how strongly it tints what it is mixed with: tea shows in much milk, sparkling water nowhere.
LIQUIDS: dict[str, tuple[str, float]] = {
    "water": ("#dfe4dc", 0.3), "sparkling water": ("#e4e8e2", 0.3), "tonic water": ("#e2e7e4", 0.3),
    "gin": ("#e4e8e4", 0.3), "vodka": ("#e4e8e6", 0.3), "pisco": ("#e6e4d2", 0.4), "tequila": ("#e6dfbe", 0.4),
    "rum": ("#c48a3a", 0.7), "whisky": ("#b9701f", 1.0), "sherry": ("#c08a3c", 0.8), "marsala": ("#8a4a1c", 1.0),
    "white wine": ("#e8dda0", 0.6), "red wine": ("#5a1024", 2.0), "cider": ("#d9a640", 0.7), "beer": ("#d99a26", 0.8),
    "stout": ("#21120c", 2.5), "mirin": ("#e0c888", 0.5), "sweet vermouth": ("#8e3620", 1.0), "amaro": ("#4a2418", 1.5),
    "orange liqueur": ("#e8a848", 0.5), "coffee liqueur": ("#2c170f", 2.0), "absinthe": ("#b9cf7a", 0.6),
    "cola": ("#2a130b", 2.0), "angostura bitters": ("#8a3018", 0.3),
    "milk": ("#f6f1e4", 1.2), "buttermilk": ("#f5f0df", 1.2), "cream": ("#fbf3dd", 1.2),
    "condensed milk": ("#f0dfb4", 1.0), "rice": ("#efe6d4", 1.0),
    "black tea": ("#a4551c", 1.6), "yerba mate": ("#7f8a34", 1.6), "espresso": ("#3a1f10", 2.5),
    "chicory coffee": ("#3b2212", 2.0), "hibiscus flower": ("#8e0f2c", 2.0), "fenugreek": ("#c99a3c", 1.2),
    "honey": ("#dc9a2a", 1.0), "maple syrup": ("#9a5418", 0.8), "molasses": ("#2c150c", 1.0),
    "lemon juice": ("#efe6ac", 0.5), "lime juice": ("#dfe6ae", 0.5), "verjuice": ("#dcd9a0", 0.5),
    "orange juice": ("#f3a52c", 1.0), "grapefruit juice": ("#ee9a7c", 1.0), "tomato juice": ("#c23a22", 2.0),
    "tamarind": ("#8a5128", 1.6), "pomegranate molasses": ("#5a1420", 1.2), "sauerkraut juice": ("#dfdcae", 0.5),
    "soy sauce": ("#2b140c", 2.0), "sweet soy sauce": ("#24100a", 2.0), "fish sauce": ("#b4641e", 1.2),
    "oyster sauce": ("#33190f", 1.5), "hoisin sauce": ("#3a1a12", 1.5), "worcestershire sauce": ("#3a1d10", 1.0),
    "white wine vinegar": ("#e9e2b4", 0.4), "red wine vinegar": ("#8f3440", 0.8), "malt vinegar": ("#8a4a1e", 0.8),
    "rice vinegar": ("#ece6c4", 0.4), "balsamic vinegar": ("#2e140f", 1.5), "hot pepper sauce": ("#c8371a", 0.6),
    "chicken stock": ("#d9a94c", 1.0), "beef stock": ("#7a4520", 1.2), "fish stock": ("#dcc48a", 0.8),
    "vegetable stock": ("#cf9f4c", 0.8), "dashi": ("#d6b06a", 0.8),
    "olive oil": ("#b9a52c", 0.4), "vegetable oil": ("#e6c95a", 0.3), "sesame oil": ("#a8702a", 0.4),
    "palm oil": ("#d8641a", 0.6),
}  # fmt: skip
# What sets when it is baked or chilled: with these, water and milk do not stay liquid.
SETTING = frozenset(("flour", "rice flour", "semolina", "egg", "yeast", "baking powder", "gelatine"))
PLATE, BOWL, BOARD, GLASS = VESSELS
# Words in the name of a dish that determine its vessel; the last one decides: a coffee cake is a cake.
VESSEL_WORDS = {
    BOWL: (
        "soup", "stew", "curry", "cereal", "bowl", "broth", "bisque", "chowder", "ramen", "pho", "laksa", "chili",
        "chilli", "porridge", "congee", "oatmeal", "muesli", "granola", "gazpacho", "dal", "dhal", "goulash", "ragout",
        "tagine", "parfait", "sundae", "compote", "mousse", "pudding", "gumbo", "minestrone", "borscht", "ceviche",
        "poke", "risotto", "ice cream", "sorbet", "hummus", "dip", "guacamole", "noodles", "yogurt", "fruit salad",
    ),
    BOARD: (
        "bread", "pizza", "board", "toast", "bruschetta", "crostini", "sandwich", "focaccia", "flatbread", "burger",
        "bagel", "baguette", "quesadilla", "smorrebrod", "tartine", "pretzel", "charcuterie", "naan",
    ),
    GLASS: (
        "juice", "smoothie", "cocktail", "tea", "coffee", "latte", "lassi", "lemonade", "milkshake", "shake", "punch",
        "espresso", "cappuccino", "mojito", "spritz", "negroni", "martini", "sangria", "limeade", "tonic", "cocoa",
        "hot chocolate", "horchata", "eggnog", "margarita", "highball", "glass", "chai", "macchiato", "kombucha",
        "old fashioned", "fizz", "julep", "americano", "bellini", "daiquiri", "flat white", "mocha", "toddy",
    ),
    PLATE: (
        "plate", "salad", "cake", "tart", "pie", "pudding cake", "cookies", "biscuits", "brownie", "pancakes", "roast",
        "steak", "pasta", "omelette", "tacos", "waffles", "cheesecake", "crepes", "muffins", "bread pudding", "scones",
    ),
}  # fmt: skip
_WORDS = {word: vessel for vessel, words in VESSEL_WORDS.items() for word in words}
_VESSEL_PATTERN = re.compile(
    r"\b(" + "|".join(sorted(map(re.escape, _WORDS), key=len, reverse=True)) + r")s?\b", re.IGNORECASE
)
# What follows one of these does not name the dish: "soup with toast" is a soup.
_ASIDE = re.compile(r"[(]|\b(?:with|without|on|over|in|topped|served)\b", re.IGNORECASE)
_BROTH = re.compile(r":.*\bbroth\b", re.IGNORECASE | re.DOTALL)
# Forms that lie at the bottom, under the pieces.
BEDS = ("pool", "grain", "strand", "slab", "round")


def hidden_liquids(vessel_kind: str, ingredients: Sequence[Ingredient]) -> list[Ingredient]:
    """Return the liquids of a dish that is nothing else: a drink, a dip or a broth in which no ingredient is seen.

    Empty for every other dish: one with something to see, and one without that is no liquid, as bread or meringue.

    >>> from dataset_builder.catalogue.ingredients import find_ingredients
    >>> [item.name for item in hidden_liquids("glass", find_ingredients("black tea, sugar, milk"))]
    ['black tea', 'milk']
    >>> hidden_liquids("plate", find_ingredients("flour, water, yeast"))
    []
    """
    if any(item.visible and shows(vessel_kind, item) for item in ingredients):
        return []
    if vessel_kind != GLASS and any(item.name in SETTING for item in ingredients):
        return []
    return [item for item in ingredients if item.name in LIQUIDS]


def dish_title(prompt: str) -> str:
    """Return the name of the dish: what stands before the list of ingredients."""
    return re.split(r":", prompt, maxsplit=1)[0].strip()


@functools.lru_cache(maxsize=1)
def _known_vessels() -> dict[str, str]:
    facts = dish_facts()
    return {dish.title.lower(): facts[dish.dish_id].vessel for dish in catalogue_dishes()}


def vessel_for(prompt: str) -> str:
    """Return what the dish is served in.

    A dish of the catalogue has its own vessel, with or without what a cook added ("with toast"); other titles are
    judged by their words, and a broth among the ingredients wants a bowl.

    >>> vessel_for("Mushroom soup with toast: mushroom, cream"), vessel_for("Coffee cake")
    ('bowl', 'plate')
    """
    title = dish_title(prompt)
    head = _ASIDE.split(title, maxsplit=1)[0].strip()
    known = _known_vessels()
    for name in (title, head):
        if name.lower() in known:
            return known[name.lower()]
    found = _VESSEL_PATTERN.findall(head)
    if found:
        return _WORDS[found[-1].lower()]
    return BOWL if _BROTH.search(prompt) else PLATE


def shows(vessel_kind: str, ingredient: Ingredient) -> bool:
    """Return whether a visible ingredient is seen in this vessel: one steeped or milled into a drink is not."""
    # Grain, bread and noodles are steeped or milled into a drink; a pool, such as cream, and pieces are seen.
    return vessel_kind != GLASS or ingredient.form == "pool" or ingredient.form not in BEDS
