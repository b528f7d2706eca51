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
from operator import add
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
    Votes,
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
_SWEET = FLAVOURS.index("sweet")  # the first of all
_UMAMI = FLAVOURS.index("umami")
# Words and marks after which a title says what goes with the dish.
_AFTER_HEAD = re.compile(
    r"\s(?:with|without|in|on|of|and|or|for|from|alla|alle|al|all|con|di|e|à|au|aux|et|avec|mit|und|auf|y|de|com)\b"
    r"|[,;:(&/\u2013]|\s-\s",
    re.IGNORECASE,
)


class _Line(NamedTuple):
    """What one ingredient line says.

    Attributes:
        times: how often its amount counts the weight of a word; None where it states none.
        evidence: word, by index, and weight: the heaviest word of each flavour.
        words: all its words, by index.
    """

    times: float | None
    evidence: tuple[tuple[int, int], ...]
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
        self._in_lines = PhraseMatcher([entry.phrase for entry in self._ingredients], negation=self.lexicon.negation)
        dishes = self.lexicon.of_source(DISH)
        known = {phrase_key(entry.phrase) for entry in dishes}
        # The name of a dish stands for the word of titles that is written like it.
        words = [entry for entry in self.lexicon.of_source(TITLE) if phrase_key(entry.phrase) not in known]
        self._titles: tuple[LexiconEntry, ...] = (*words, *dishes)
        self._in_titles = PhraseMatcher([entry.phrase for entry in self._titles], negation=self.lexicon.negation)
        self._flavour_of = [FLAVOURS.index(entry.flavour) for entry in self._ingredients]
        # Per word of titles: its flavour, its evidence, and whether it is the name of a dish.
        self._said = [
            (FLAVOURS.index(entry.flavour), entry.weight * _TITLE, entry.source == DISH) for entry in self._titles
        ]
        # Flavours that the lexicon names first come first among equals.
        self._order = [FLAVOURS.index(flavour) for flavour in self.lexicon.flavours]
        self._line = lru_cache(_CACHED_TEXTS)(self._read_line)
        self._spoken = lru_cache(_CACHED_LABELS)(self._spoken_uncached)

    def label(self, title: str, ingredients: Iterable[str]) -> Label:
        """Label one recipe."""
        return self._decide([self._line(line) for line in ingredients], self._read_title(title))

    def _read_line(self, text: str) -> _Line:
        heaviest: dict[int, tuple[int, int]] = {}
        words = frozenset(place for place in self._in_lines.affirmed(text) if self._ingredients[place].weight)
        for place in sorted(words):
            flavour, weight = self._flavour_of[place], self._ingredients[place].weight
            if flavour not in heaviest or weight > heaviest[flavour][1]:
                heaviest[flavour] = (place, weight)
        grams = grams_of(text)
        times = None if grams is None else min(_MOST_TIMES, max(_FEWEST_TIMES, (grams / USUAL_GRAMS) ** (1 / 3)))
        return _Line(times, tuple(heaviest.values()), words)

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

    def _decide(self, lines: list[_Line], title: tuple[tuple[int, bool], ...]) -> Label:
        of_ingredients = self._weigh(lines)
        of_title = [0.0] * len(FLAVOURS)
        names_sweet = False
        for place, is_head in title:
            flavour, evidence, is_dish = self._said[place]
            of_title[flavour] += evidence * _HEAD if is_head else evidence
            # "Sweet" and "honey" before another noun do not make a dessert.
            names_sweet = names_sweet or (flavour == _SWEET and (is_head or is_dish))
        if _is_dessert(of_ingredients, of_title, names_sweet):
            sweet = of_ingredients[_SWEET]
            of_ingredients = [value * _OTHERS_OF_DESSERT for value in of_ingredients]
            of_ingredients[_SWEET] = sweet
        total = list(map(add, of_ingredients, of_title)) if title else of_ingredients[:]
        most = max(total)
        least_of_level = most * LEVEL
        level = [flavour for flavour in self._order if total[flavour] >= least_of_level]
        winner = level[0]
        if len(level) > 1:
            winner = max(level, key=of_title.__getitem__)  # the first of equals
            # What decides among equals counts a little, so that the soft scores have the same first flavour.
            total[winner] = most / LEVEL
        by_ingredients = self._first(of_ingredients, LEAST)
        by_title = self._first(of_title, 0.0) if title else None
        whole = sum(total) + SMOOTHING * len(FLAVOURS)
        source = _source(FLAVOURS[winner], by_ingredients, by_title, len(level) > 1)
        if most < LEAST and by_title is None:
            source = NO_VOTES
        elif self.min_lead and (total[winner] - sorted(total)[-2]) / whole < self.min_lead:
            source = TOO_CLOSE
        named = None if source in (NO_VOTES, TOO_CLOSE) else FLAVOURS[winner]
        present = [
            name
            for place, name in enumerate(FLAVOURS)
            if of_ingredients[place] >= _PRESENT or of_title[place] or name == named
        ]
        return Label(
            named,
            tuple(present),
            tuple([(value + SMOOTHING) / whole for value in total]),
            source,
            self._spoken(frozenset().union(*[line[2] for line in lines]), title),
            by_ingredients,
            by_title,
        )

    def _weigh(self, lines: list[_Line]) -> list[float]:
        """Return the evidence of the ingredients per flavour; a word in several lines counts once, where it is most."""
        # A recipe that states most of its amounts is weighed by them. Of others the order says what is most.
        unstated = [line[0] for line in lines].count(None)
        by_amount = unstated < len(lines) and unstated * 2 <= len(lines)
        heaviest: dict[int, float] = {}
        for position, (times, evidence, _) in enumerate(lines):
            if not evidence:
                continue
            if not by_amount:
                times = 2.0 if position < MAIN_INGREDIENTS else 1.0
            elif times is None:
                times = _UNSTATED
            for place, weight in evidence:
                value = weight * times
                if place not in heaviest or value > heaviest[place]:
                    heaviest[place] = value
        found = [0.0] * len(FLAVOURS)
        for place, value in heaviest.items():
            found[self._flavour_of[place]] += value
        return found

    def _first(self, evidence: list[float], least: float) -> str | None:
        """Return the flavour with the most evidence, the first one of the lexicon on a tie; None with too little."""
        most = max(evidence)
        if not most or most < least:
            return None
        if evidence.count(most) == 1:
            return FLAVOURS[evidence.index(most)]
        return FLAVOURS[next(flavour for flavour in self._order if evidence[flavour] == most)]

    def _spoken_uncached(self, of_ingredients: frozenset[int], title: tuple[tuple[int, bool], ...]) -> Votes:
        """Return the words that spoke; recipes share the result, so that it must not be changed."""
        return {
            "ingredients": _by_flavour(self._ingredients, of_ingredients),
            "title": _by_flavour(self._titles, [place for place, _ in title]),
        }


def _is_dessert(of_ingredients: list[float], of_title: list[float], names_sweet: bool) -> bool:
    """Return whether the title names a sweet dish, or it is silent and there is sugar, and nothing of meat or stock."""
    others = max(of_title[_SWEET + 1 :])
    if names_sweet and of_title[_SWEET] >= _DESSERT_TITLE and of_title[_SWEET] > others:
        return True
    return not others and not of_ingredients[_UMAMI] and of_ingredients[_SWEET] >= _DESSERT_SUGAR


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


def _by_flavour(entries: tuple[LexiconEntry, ...], places: Iterable[int]) -> dict[str, list[str]]:
    words: dict[str, list[str]] = {flavour: [] for flavour in FLAVOURS}
    for place in sorted(places):
        words[entries[place].flavour].append(entries[place].phrase.strip())
    return words
