"""How much of an ingredient a recipe takes, read from the words of its line."""

import re
from functools import lru_cache

# Grams, or millilitres, of one of each unit. Millilitres count as grams, and household measures are rounded: whether
# something is a cup or a pinch decides, not its density.
_UNITS = {
    0.001: "mg",
    0.4: "pinch pinches dash dashes drop drops hint prise prisen pincée pincées pizca pizzico pitada",
    1: "g gr gram grams gramme grammes ml milliliter milliliters millilitre millilitres gramm gramos grammi",
    4: "clove cloves sprig sprigs zehe zehen gousse gousses diente dientes spicchio spicchi",
    5: "tsp tsps teaspoon teaspoons teaspoonful tl teelöffel cucharadita cucharaditas cucchiaino cucchiaini càc",
    10: "cl",
    15: "tbsp tbsps tbs tb tablespoon tablespoons tablespoonful tablespoonfuls el esslöffel cucharada cucharadas "
    "cucchiaio cucchiai càs",
    20: "spoon spoons spoonful spoonfuls",
    25: "slice slices scheibe scheiben tranche tranches rebanada fetta fette",
    28: "oz ounce ounces",
    40: "handful handfuls bunch bunches bund splash",
    100: "dl",
    113: "stick sticks",
    200: "glass glasses glas becher bicchiere verre vaso mug mugs",
    240: "cup cups tasse tassen tasses taza tazas tazza",
    400: "can cans tin tins jar jars package packages pkg packet packets bottle bottles block dose dosen",
    454: "lb lbs pound pounds pfund",
    473: "pint pints pt",
    946: "quart quarts qt",
    1000: "kg kilo kilos kilogram kilograms kilogramm l lt liter liters litre litres",
    3785: "gallon gallons gal",
}
GRAMS = {name: grams for grams, names in _UNITS.items() for name in names.split()}
# "1 T" is a tablespoon and "1 t" a teaspoon: the only units whose case matters.
_BY_CASE = {"T": 15.0, "t": 5.0}
# One egg, onion or lemon, and what is added to taste.
PIECE = 60.0
A_LITTLE = 2.0
_MOST_PIECES = 12

_FRACTIONS = {"½": 0.5, "⅓": 1 / 3, "⅔": 2 / 3, "¼": 0.25, "¾": 0.75, "⅛": 0.125, "⅜": 0.375, "⅝": 0.625, "⅞": 0.875}
_WRITTEN = {
    "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "twelve": 12, "half": 0.5, "quarter": 0.25, "few": 3, "couple": 2, "dozen": 12,
}  # fmt: skip
_NUMBER = rf"\d+(?:\s+\d+\s*[/⁄]\s*\d+|\s*[/⁄]\s*\d+|[.,]\d+|\s*[{''.join(_FRACTIONS)}])?|[{''.join(_FRACTIONS)}]"
# A number, perhaps a second one of a range ("100-200 g"), perhaps a word of size, and the word after it.
_AMOUNT = re.compile(
    rf"(?<![^\W_])(?P<number>{_NUMBER})"
    rf"(?:\s*(?:-|–|to|or)\s*(?:{_NUMBER}))?"
    r"(?:[\s-]*(?:fluid|heaped|heaping|level|large|small|scant|generous|big|fl\.?)\b)?[\s-]*(?P<unit>[^\W\d_]+)?"
)
_OPENING = re.compile(rf"\W*(?:about\s+)?(?P<number>{'|'.join(_WRITTEN)})\b(?P<rest>.*)", re.DOTALL)
_BARE = re.compile(r"\b(pinch|dash|drops?|hint|splash|handful|bunch|prise|pizca|pincée|pizzico)\b")
_LITTLE = re.compile(r"\b(?:to taste|optional|(?:for|to) serv|garnish|nach geschmack|al gusto|au goût|q\.?\s?b)")
_SPOONS = re.compile(r"(?:\w+ à )?(table|tea|salt|dessert|soupe|caf)(?:[\s-]*spoon|(?<=soupe)|(?<=caf)é)")
_SPOON_GRAMS = {"table": 15.0, "soupe": 15.0, "dessert": 10.0, "tea": 5.0, "caf": 5.0, "salt": 2.5}
_WORD = re.compile(r"[^\W\d_]+")


@lru_cache(maxsize=1 << 17)
def grams_of(line: str) -> float | None:
    """Return how much an ingredient line takes, in grams, roughly; None where it does not say.

    The first number with a unit counts; a number without one counts pieces. Pieces, cans and handfuls are guesses.

    >>> [grams_of(line) for line in ("2 cups sugar", "1 pinch salt", "1 1/2 tsp salt", "1,5 kg Mehl", "salt")]
    [480.0, 0.4, 7.5, 1500.0, None]
    >>> [grams_of(line) for line in ("100-200 g sugar", "½ lb butter", "A quarter of a pound of sugar", "3 lemons")]
    [100.0, 227.0, 113.5, 180.0]
    """
    lowered = line.lower()
    pieces = None
    for match in _AMOUNT.finditer(line):
        number = _value(match["number"])
        unit = match["unit"] or ""
        grams = _BY_CASE.get(unit) or GRAMS.get(unit.lower())
        if grams is None and (spoon := _SPOONS.match(lowered, match.start("unit"))):
            grams = _SPOON_GRAMS[spoon[1]]
        if grams is not None:
            return number * grams
        if pieces is None:
            pieces = number
    if pieces is None:
        grams, pieces = _written(lowered)
        if grams is not None:
            return grams
        if bare := _BARE.search(lowered):
            return float(GRAMS.get(bare[1], A_LITTLE))
        if _LITTLE.search(lowered):
            return A_LITTLE
    return None if pieces is None else PIECE * min(pieces, _MOST_PIECES)


def _value(number: str) -> float:
    """Return the value of digits: "2", "1/2", "1 1/2", "1,5" or "1 ½"."""
    total = 0.0
    for mark, value in _FRACTIONS.items():
        if mark in number:
            total += value
            number = number.replace(mark, " ")
    for part in re.sub(r"\s*[/⁄]\s*", "/", number).split():
        above, slash, below = part.partition("/")
        total += float(above.replace(",", ".")) / (float(below) or 1.0 if slash else 1.0)
    return total


def _written(lowered: str) -> tuple[float | None, float | None]:
    """Return grams, or pieces where no unit follows, of a line that opens with a number in words."""
    opening = _OPENING.match(lowered)
    if opening is None:
        return None, None
    number = float(_WRITTEN[opening["number"]])
    if spoon := _SPOONS.match(opening["rest"].strip(" -")):
        return number * _SPOON_GRAMS[spoon[1]], None
    # "a quarter of a pound", "half a pint": the unit stands within a few words.
    for word in _WORD.findall(opening["rest"])[:5]:
        if word in ("half", "quarter"):
            number *= _WRITTEN[word]
        elif word in GRAMS:
            return number * GRAMS[word], None
    return None, number
