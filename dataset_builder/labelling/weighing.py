"""The default rule: every word of the recipe is evidence, weighed by how much of it there is and by what the dish is.

The evidence for a flavour is the sum over the ingredients and the title. An ingredient counts the weight of its word
times the cube root of its amount over `USUAL_GRAMS`: a taste follows quantity, but much less than in proportion. Of
words in one line that name the same flavour ("honey or maple syrup") the heaviest counts. A title counts what its
words weigh, names of dishes included (`lexicon.DISH`), and its head noun more: in "lemon cake with vanilla" that is the
cake. Where the title, or sugar without meat, says that the dish is a dessert, what its ingredients have of other
flavours counts half: neither the salt of a dough nor the cocoa of a cake decides how it tastes.

The flavour with the most evidence is the label, and the soft scores are the shares of the same evidence, so that the
two never contradict. Among flavours that are level the title decides.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from dataset_builder.catalogue.matching import PhraseMatcher, phrase_key
from dataset_builder.columns import FLAVOURS
from dataset_builder.labelling.amounts import grams_of
from dataset_builder.labelling.lexicon import DISH, INGREDIENT, TITLE, Lexicon, LexiconEntry
from dataset_builder.labelling.rule import (
    AGREE,
    CONFLICT_INGREDIENTS,
    CONFLICT_TITLE,
    INGREDIENTS_ONLY,
    MAIN_INGREDIENTS,
    NO_VOTES,
    SMOOTHING,
    TIE_TITLE,
    TITLE_ONLY,
    TOGETHER,
    TOO_CLOSE,
    Label,
)

# The amount that counts the weight of a word once, and the bounds of the factor.
USUAL_GRAMS = 30.0
_FEWEST_TIMES, _MOST_TIMES = 0.2, 3.0
# What a recipe lists without an amount, among ingredients with amounts, is mostly seasoning.
_UNSTATED = 0.7
_TITLE = 1.5
_HEAD = 1.25
_DESSERT_TITLE = 4.0
_DESSERT_SUGAR = 4.0
_OTHERS_OF_DESSERT = 0.4
# Less evidence than this names no flavour, and flavours with at least this share of the most are level.
LEAST = 1.5
LEVEL = 0.98
# A flavour is present from this much evidence of the ingredients on, or with a word in the title.
_PRESENT = 2.0
_CACHED_TEXTS = 1 << 17
_CACHED_LABELS = 1 << 14
_SWEET = FLAVOURS.index("sweet")
_UMAMI = FLAVOURS.index("umami")
# Words and marks after which a title says what goes with the dish.
_AFTER_HEAD = re.compile(
    r"\b(?:with|without|in|on|of|and|or|for|from|alla|alle|al|all|con|di|e|à|au|aux|et|avec|mit|und|auf|y|de|com)\b"
    r"|[,;:(&/\u2013]|\s-\s",
    re.IGNORECASE,
)


class _Line(NamedTuple):
    """What one ingredient line says: its amount, and per flavour its heaviest word and all of them, by index."""

    grams: float | None
    evidence: tuple[tuple[int, int, int], ...]
    words: frozenset[int]


class WeighedLabeller:
    """Labels recipes by weighed evidence.

    Args:
        lexicon: None for the one that comes with the package.
        min_lead: a recipe whose first flavour leads the second by less than this share of all evidence gets no label;
            0 labels every recipe with enough evidence.

    Raises:
        ValueError: a value that is not allowed.
    """

    rule = "weighed"

    def __init__(self, lexicon: Lexicon | None = None, min_lead: float = 0.0):
        if not 0 <= min_lead < 1:
            raise ValueError(f"min_lead is {min_lead}; give a share from 0 up, below 1")
        self.lexicon = lexicon or Lexicon.load()
        self.min_lead = min_lead
        self.settings = {"lexicon": self.lexicon, "rule": self.rule, "min_lead": min_lead}
        self._ingredients = self.lexicon.of_source(INGREDIENT)
        self._in_lines = PhraseMatcher([entry.phrase for entry in self._ingredients])
        dishes = self.lexicon.of_source(DISH)
        known = {phrase_key(entry.phrase) for entry in dishes}
        # The name of a dish stands for the word of titles that is written like it.
        words = [entry for entry in self.lexicon.of_source(TITLE) if phrase_key(entry.phrase) not in known]
        self._titles: tuple[LexiconEntry, ...] = (*words, *dishes)
        self._in_titles = PhraseMatcher([entry.phrase for entry in self._titles])
        # Flavours that the lexicon names first come first among equals.
        self._order = [FLAVOURS.index(flavour) for flavour in self.lexicon.flavours]
        self._line = lru_cache(_CACHED_TEXTS)(self._read_line)
        self._decide = lru_cache(_CACHED_LABELS)(self._decide_uncached)

    def label(self, title: str, ingredients: Iterable[str]) -> Label:
        """Label one recipe."""
        return self._decide(tuple([self._line(line) for line in ingredients]), self._read_title(title))

    def _read_line(self, text: str) -> _Line:
        heaviest: dict[int, tuple[int, int]] = {}
        words = frozenset(place for place in self._in_lines.affirmed(text) if self._ingredients[place].weight)
        for place in sorted(words):
            entry = self._ingredients[place]
            flavour = FLAVOURS.index(entry.flavour)
            if entry.weight > heaviest.get(flavour, (0, 0))[1]:
                heaviest[flavour] = (place, entry.weight)
        return _Line(grams_of(text), tuple([(flavour, *of) for flavour, of in heaviest.items()]), words)

    def _read_title(self, title: str) -> tuple[tuple[int, bool], ...]:
        """Return the words of a title, by index, and whether each is the head noun."""
        found = [match for match in self._in_titles.find(title) if not match.negated]
        if not found:
            return ()
        # A title may open with one of these words.
        after = _AFTER_HEAD.search(title, 1)
        head_end = len(title[: after.start()].rstrip()) if after else len(title.rstrip())
        words: dict[int, bool] = {}
        for match in found:
            words[match.phrase] = words.get(match.phrase, False) or match.end == head_end
        return tuple([(place, is_head) for place, is_head in words.items() if self._titles[place].weight])

    def _decide_uncached(self, lines: tuple[_Line, ...], title: tuple[tuple[int, bool], ...]) -> Label:
        of_ingredients = self._weigh(lines)
        of_title = [0.0] * len(FLAVOURS)
        names_sweet = False
        for place, is_head in title:
            entry = self._titles[place]
            of_title[FLAVOURS.index(entry.flavour)] += entry.weight * _TITLE * (_HEAD if is_head else 1)
            # "Sweet" and "honey" before another noun do not make a dessert.
            names_sweet = names_sweet or (entry.flavour == "sweet" and (is_head or entry.source == DISH))
        if _is_dessert(of_ingredients, of_title, names_sweet):
            of_ingredients = [
                value if flavour == _SWEET else value * _OTHERS_OF_DESSERT
                for flavour, value in enumerate(of_ingredients)
            ]
        total = [one + other for one, other in zip(of_ingredients, of_title, strict=True)]
        most = max(total)
        level = [flavour for flavour in self._order if total[flavour] >= most * LEVEL]
        winner = max(level, key=of_title.__getitem__)  # the first of equals
        if len(level) > 1:
            # What decides among equals counts a little, so that the soft scores have the same first flavour.
            total[winner] = most / LEVEL
        by_ingredients = _first(of_ingredients, self._order, LEAST)
        by_title = _first(of_title, self._order, 0.0)
        second = max(value for flavour, value in enumerate(total) if flavour != winner)
        whole = sum(total) + SMOOTHING * len(FLAVOURS)
        flavour: str | None = FLAVOURS[winner]
        if most < LEAST and by_title is None:
            flavour, source = None, NO_VOTES
        elif (total[winner] - second) / whole < self.min_lead:
            flavour, source = None, TOO_CLOSE
        else:
            source = _source(FLAVOURS[winner], by_ingredients, by_title, len(level) > 1)
        present = [
            name
            for place, name in enumerate(FLAVOURS)
            if name == flavour or of_ingredients[place] >= _PRESENT or of_title[place] > 0
        ]
        return Label(
            flavour,
            tuple(present),
            tuple([(value + SMOOTHING) / whole for value in total]),
            source,
            {
                "ingredients": _spoken(self._ingredients, frozenset().union(*[line.words for line in lines])),
                "title": _spoken(self._titles, [place for place, _ in title]),
            },
            by_ingredients,
            by_title,
        )

    def _weigh(self, lines: tuple[_Line, ...]) -> list[float]:
        """Return the evidence of the ingredients per flavour; a word in several lines counts once, where it is most."""
        # A recipe that states most of its amounts is weighed by them. Of others the order says what is most.
        stated = sum([line.grams is not None for line in lines])
        by_amount = stated and stated * 2 >= len(lines)
        heaviest: dict[tuple[int, int], float] = {}
        for position, (grams, evidence, _) in enumerate(lines):
            if not evidence:
                continue
            if not by_amount:
                times = 2.0 if position < MAIN_INGREDIENTS else 1.0
            elif grams is None:
                times = _UNSTATED
            else:
                times = min(_MOST_TIMES, max(_FEWEST_TIMES, (grams / USUAL_GRAMS) ** (1 / 3)))
            for flavour, place, weight in evidence:
                heaviest[flavour, place] = max(heaviest.get((flavour, place), 0.0), weight * times)
        found = [0.0] * len(FLAVOURS)
        for (flavour, _), value in heaviest.items():
            found[flavour] += value
        return found


def _is_dessert(of_ingredients: list[float], of_title: list[float], names_sweet: bool) -> bool:
    """Return whether the title names a sweet dish, or it is silent and there is sugar, and nothing of meat or stock."""
    others = max(value for flavour, value in enumerate(of_title) if flavour != _SWEET)
    if names_sweet and of_title[_SWEET] >= _DESSERT_TITLE and of_title[_SWEET] > others:
        return True
    return not others and not of_ingredients[_UMAMI] and of_ingredients[_SWEET] >= _DESSERT_SUGAR


def _first(evidence: list[float], order: list[int], least: float) -> str | None:
    best = max(order, key=evidence.__getitem__)
    return FLAVOURS[best] if evidence[best] > 0 and evidence[best] >= least else None


def _source(flavour: str, by_ingredients: str | None, by_title: str | None, level: bool) -> str:
    if by_ingredients is None or by_title is None:
        return INGREDIENTS_ONLY if by_title is None else TITLE_ONLY
    if by_ingredients == by_title == flavour:
        return AGREE
    if level:
        return TIE_TITLE
    if flavour == by_ingredients:
        return CONFLICT_INGREDIENTS
    return CONFLICT_TITLE if flavour == by_title else TOGETHER


def _spoken(entries: tuple[LexiconEntry, ...], places: Iterable[int]) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {flavour: [] for flavour in FLAVOURS}
    for place in sorted(places):
        words[entries[place].flavour].append(entries[place].phrase.strip())
    return words
