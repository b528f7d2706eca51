"""Find the phrases of a lexicon that would label wrongly, each with its line and what to do about it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dataset_builder.catalogue.ingredients import ingredients
from dataset_builder.catalogue.matching import MATCH_MODES, clause_end, phrase_key
from dataset_builder.columns import FLAVOURS
from dataset_builder.labelling.lexicon import DISH, SOURCES, Lexicon, LexiconEntry
from dataset_builder.messages import echo

# A list this many times longer than another of its source wins by its length.
UNEVEN = 3

_SHOWN = 5
_SHORTEST_HALF = 3

# Words of recipes, beside the ingredient names of the catalogue, in which short taste words hide.
_RECIPE_WORDS = """
unsalted unsweetened virgin ginger gingerbread steak crispy boiled parboiled foil broiled soiled drumstick crumb goat
coconut butternut doughnut eggplant peppercorn popcorn hamburger champagne hampered grapefruit pineapple buttermilk
butterscotch coffeecake steamed streak instead team meatball meatless seam cream limestone sublime slime unlimited
dated updated figure configure configured plump pearl spear spearmint appear prepared peas chickpea peanut speared
beetle sugarcane oatmeal bloat floating barley bitters salted saltine salty honeydew honeycomb jamon grated chopped
sweetened sourdough soured picked pickled brined rocketed alert teaspoon pale scaled healed chipotle chipped chives
spiced malted melted nestle cakes pancake shrimp rump rumpled trumpet crumble drum portion portobello imported
"""
# Words that are correctly written together although their halves are words too.
_COMPOUNDS = """
applesauce beefsteak blackberry blackcurrant blueberry breadcrumb breadstick buttercream buttermilk butternut
butterscotch candyfloss caperberry cheeseburger cheesecake cheesesteak chickpea chocolate clambake coffeecake
cornbread cornflour cottonseed crabapple crabmeat cranberry cupcake currywurst eggnog eggplant fishcake flatbread
fruitcake gingerbread gingersnap goatfish gooseberry grapefruit grapeseed hazelnut honeycomb honeydew hotcake hotdog
hotpot icecream jackfruit lemonade lemongrass limeade meatball meatloaf milkshake mincemeat muskmelon oatcake oatmeal
oxtail pancake peanut peppermint piecrust pineapple popcorn potpie raspberry redcurrant rosewater saltfish saltwater
seafood seaweed shellfish shortbread shortcake shortcrust sourdough soybean spearmint starfruit strawberry sugarcane
sunflower sweetbread sweetcorn sweetmeat teacake watercress watermelon wheatgrass
"""


class Finding(NamedTuple):
    """One fault of a lexicon file: its line, the kind of fault, and a message with the remedy."""

    line: int
    check: str
    message: str


def lint(lexicon: Lexicon, match: str = "substring") -> list[Finding]:
    """Return all findings in the order of their lines.

    Args:
        lexicon: what to check.
        match: the matching that the lexicon is meant for. Word matching takes the longest phrase and whole words
            only, in any case, so that phrases inside others, substring traps and upper case do no harm there;
            "substring" checks everything.

    Raises:
        ValueError: an unknown mode.
    """
    if match not in MATCH_MODES:
        raise ValueError(f"match is {match!r}; allowed are {', '.join(MATCH_MODES)}")
    findings: list[Finding] = []
    for source in SOURCES:
        entries = lexicon.of_source(source)
        findings += _repeated(entries)
        if source != DISH:  # a title holds few names of dishes, however many are listed
            findings += _uneven(entries, source)
        if match == "substring":
            findings += _contained(entries)
    findings += _never_matching(lexicon.entries, match)
    findings += _glued(lexicon.entries)
    if match == "substring":
        findings += _trapped(lexicon.entries)
        findings += [
            Finding(
                line,
                "outer blank",
                f"{phrase!r} begins or ends with a blank, so that it is not found where a text or a line does or "
                f"beside a comma; match by word, or write {phrase.strip()!r}",
            )
            for line, _, _, phrase, _ in lexicon.entries
            if phrase != phrase.strip()
        ]
    return sorted(findings)


def run_lint(path: str | None, match: str | None = None) -> int:
    """Carry out `flavour-sd lint`: print the findings, return 1 when there are any and 0 when there are none.

    The embedded lexicon is checked for word matching, which it is written for; a file for everything.

    Raises:
        BadInputError: the file is no lexicon.
    """
    lexicon = Lexicon.load(path)
    findings = lint(lexicon, match or ("word" if path is None else "substring"))
    for finding in findings:
        echo(f"{lexicon.path}:{finding.line}: {finding.check}: {finding.message}")
    echo(f"{len(findings) or 'nothing'} found in {len(lexicon.entries)} phrases")
    return 1 if findings else 0


def _repeated(entries: Iterable[LexiconEntry]) -> Iterator[Finding]:
    """Duplicates, and phrases that vote for several flavours; singular and plural are equal."""
    by_key: dict[tuple[str, ...], list[LexiconEntry]] = defaultdict(list)
    for entry in entries:
        by_key[phrase_key(entry.phrase)].append(entry)
    for key, same in by_key.items():
        if not key:
            continue
        # Reversed, so that of each flavour the first entry stays.
        first_of = {entry.flavour: entry for entry in reversed(same)}
        for entry in same:
            if entry is not first_of[entry.flavour]:
                yield Finding(
                    entry.line,
                    "duplicate",
                    f"{entry.phrase!r} is already {entry.flavour} in line {first_of[entry.flavour].line}; remove it",
                )
        if len(first_of) > 1:
            places = ", ".join(f"{one.flavour} (line {one.line})" for one in sorted(first_of.values()))
            yield Finding(
                min(entry.line for entry in same),
                "several flavours",
                f"{same[0].phrase!r} votes for {places}; keep the one that it tastes of most",
            )


def _uneven(entries: tuple[LexiconEntry, ...], source: str) -> Iterator[Finding]:
    lists: dict[str, list[LexiconEntry]] = {flavour: [] for flavour in FLAVOURS}
    for entry in entries:
        if entry.weight:
            lists[entry.flavour].append(entry)
    longest = max(lists, key=lambda flavour: len(lists[flavour]))
    for flavour, own in lists.items():
        if len(own) * UNEVEN < len(lists[longest]):
            yield Finding(
                own[0].line if own else 1,
                "uneven lists",
                f"{source} has {len(own)} phrases for {flavour} and {len(lists[longest])} for {longest}, which wins by "
                f"length; add phrases for {flavour}",
            )


def _contained(entries: tuple[LexiconEntry, ...]) -> Iterator[Finding]:
    for inner in entries:
        outer = [
            one
            for one in entries
            if one.flavour != inner.flavour and one.phrase != inner.phrase and inner.phrase in one.phrase
        ]
        if outer:
            places = _some(f"{one.phrase!r} ({one.flavour}, line {one.line})" for one in outer)
            yield Finding(
                inner.line,
                "inside another",
                f"{inner.phrase!r} ({inner.flavour}) votes wherever {places} does; "
                "match by word, or make the shorter phrase longer",
            )


def _never_matching(entries: Iterable[LexiconEntry], match: str) -> Iterator[Finding]:
    for entry in entries:
        phrase = entry.phrase
        plain = " ".join(phrase.split())
        if not phrase_key(phrase):
            fault = "has no letter or digit; write a word"
        elif match == "substring" and phrase != phrase.lower():
            fault = f"has upper case, texts are compared in lower case; write {phrase.lower()!r}"
        elif match == "substring" and phrase.strip() != plain:
            fault = f"has unusual blanks; write {plain!r}"
        elif match == "word" and (mark := clause_end(phrase)):
            fault = (
                f"reaches over {mark!r}, which ends a clause and with it every match; write its parts in lines of "
                "their own"
            )
        else:
            continue
        yield Finding(entry.line, "never matches", f"{phrase!r} {fault}")


def _glued(entries: tuple[LexiconEntry, ...]) -> Iterator[Finding]:
    """Two phrases become one where the comma between two strings is forgotten."""
    phrases = {entry.phrase.lower() for entry in entries}
    names = {name.lower() for name in _ingredient_names()}
    compounds = set(_COMPOUNDS.split())
    words = {word for name in names for word in name.split()}
    for entry in entries:
        phrase = entry.phrase.lower()
        # Names of ingredients and common compounds are right as they are.
        if phrase in names or any({word, word.removesuffix("s")} & compounds for word in phrase.split()):
            continue
        for cut in range(_SHORTEST_HALF, len(phrase) - _SHORTEST_HALF + 1):
            left, right = phrase[:cut], phrase[cut:]
            # Words that all occur in names of ingredients are separated as they should be.
            known = (left in phrases or left in names) and (right in phrases or right in names)
            if known and not set(phrase.split()) <= words:
                yield Finding(
                    entry.line,
                    "glued",
                    f"{entry.phrase!r} is {left!r} and {right!r} without the comma between; write them in two lines",
                )
                break


def _trapped(entries: Iterable[LexiconEntry]) -> Iterator[Finding]:
    words = sorted(
        {*_RECIPE_WORDS.split(), *(name.lower() for name in _ingredient_names())}, key=lambda word: (len(word), word)
    )
    # A word is a trap where it contains the letters of the phrase but not the phrase as words.
    keyed = [(word, phrase_key(word)) for word in words]
    for entry in entries:
        key = phrase_key(entry.phrase)
        traps = [word for word, whole in keyed if entry.phrase in word and not _holds(whole, key)]
        if traps:
            yield Finding(
                entry.line,
                "substring trap",
                f"{entry.phrase!r} ({entry.flavour}) is found in {_some(map(repr, traps))}; "
                "match by word, or make the phrase longer",
            )


def _holds(whole: tuple[str, ...], part: tuple[str, ...]) -> bool:
    """Return whether a phrase holds another as whole words."""
    return any(whole[start : start + len(part)] == part for start in range(len(whole) - len(part) + 1))


def _ingredient_names() -> list[str]:
    return [name for item in ingredients() for name in (item.name, *item.aliases)]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    rest = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
