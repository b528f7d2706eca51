"""The rule that counts votes, labels and their reasons, and the scores of labels. The default rule is in `weighing`.

Two methods vote: the ingredients and the title. Each names the flavour with the most votes, or none when the votes are
too few. If they agree, or only one of them names a flavour, that is the label; a conflict is settled by `on_conflict`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dataset_builder.catalogue.matching import PhraseMatcher
from dataset_builder.columns import FLAVOURS
from dataset_builder.labelling.lexicon import INGREDIENT, TITLE, Lexicon, LexiconEntry

ON_CONFLICT = ("ingredients", "title", "drop")

AGREE = "agree"
INGREDIENTS_ONLY = "ingredients_only"
TITLE_ONLY = "title_only"
CONFLICT_INGREDIENTS = "conflict_ingredients"
CONFLICT_TITLE = "conflict_title"
CONFLICT_DROPPED = "conflict_dropped"
TIE_TITLE = "tie_title"
TOGETHER = "together"
TOO_CLOSE = "too_close"
NO_VOTES = "none"
# No rule decided but a person, see `building.corrections`.
HUMAN = "human"
LABEL_SOURCES = (
    AGREE, INGREDIENTS_ONLY, TITLE_ONLY, CONFLICT_INGREDIENTS, CONFLICT_TITLE, CONFLICT_DROPPED, TIE_TITLE, TOGETHER,
    TOO_CLOSE, NO_VOTES,
)  # fmt: skip

# In word mode the votes of this many first ingredients count twice.
MAIN_INGREDIENTS = 4

# Added to the votes of every flavour before they are turned into shares, so that one vote is not certainty.
SMOOTHING = 0.5
# No phrase contains it, so that none matches across two lines.
_BETWEEN_LINES = "\0"
_CACHED_TEXTS = 1 << 17
_CACHED_LABELS = 1 << 14

Votes = dict[str, dict[str, list[str]]]


class Label(NamedTuple):
    """The label of one recipe and its reasons.

    Attributes:
        flavour: the label; None when no method named a flavour, or when a conflict was dropped.
        flavours: every flavour that reaches the least votes of a method, in the order of `columns.FLAVOURS`;
            holds `flavour`.
        taste: soft scores in the order of `columns.FLAVOURS` that sum to 1: the smoothed shares of all votes.
        source: which rule decided, one of `LABEL_SOURCES`.
        votes: per method ("ingredients", "title") and flavour, the phrases that voted for it; not to be changed.
        by_ingredients: the flavour by the ingredients alone, None when their votes are too few.
        by_title: the flavour by the title alone, None when its votes are too few.
    """

    flavour: str | None
    flavours: tuple[str, ...]
    taste: tuple[float, ...]
    source: str
    votes: Votes
    by_ingredients: str | None
    by_title: str | None


class Labeller:
    """Labels recipes by a lexicon.

    With `match="substring"`, two ingredient votes, one title vote and conflicts settled by the ingredients this is the
    rule of the first system: each phrase contained in the lower-cased text counts one, weights do not matter, the
    flavour that the lexicon names first wins ties. With `match="word"` phrases are found as whole words (see
    `matching.PhraseMatcher`), denied ones do not vote, and a vote counts the weight of its entry, twice that when one
    of the first four ingredients gives it: recipes name first what a dish is made of, and its seasoning last.

    Args:
        lexicon: None for the one that comes with the package.
        match: "word" or "substring".
        min_ingredient_votes: votes that the ingredients need to name a flavour; at least 1.
        min_title_votes: the same for the title.
        on_conflict: "ingredients" or "title" wins, or "drop" leaves the recipe without a label.

    Raises:
        ValueError: a value that is not allowed.
    """

    rule = "votes"

    def __init__(
        self,
        lexicon: Lexicon | None = None,
        match: str = "word",
        min_ingredient_votes: int = 2,
        min_title_votes: int = 1,
        on_conflict: str = "ingredients",
    ):
        if on_conflict not in ON_CONFLICT:
            raise ValueError(f"on_conflict is {on_conflict!r}; allowed are {', '.join(ON_CONFLICT)}")
        if min(min_ingredient_votes, min_title_votes) < 1:
            raise ValueError(
                f"min_ingredient_votes is {min_ingredient_votes}, min_title_votes is {min_title_votes}; "
                "both must be 1 or more"
            )
        self.lexicon = lexicon or Lexicon.load()
        self.on_conflict = on_conflict
        # The arguments with which another process builds the same labeller.
        self.settings = {
            "lexicon": self.lexicon,
            "rule": self.rule,
            "match": match,
            "min_ingredient_votes": min_ingredient_votes,
            "min_title_votes": min_title_votes,
            "on_conflict": on_conflict,
        }
        self._ingredients = _Ballot(self.lexicon, INGREDIENT, match, min_ingredient_votes)
        self._title = _Ballot(self.lexicon, TITLE, match, min_title_votes)
        # Recipes share ingredient lines, and variants of a dish share all their votes.
        self._decide = lru_cache(_CACHED_LABELS)(self._decide_uncached)

    def label(self, title: str, ingredients: Iterable[str]) -> Label:
        """Label one recipe."""
        return self._decide(*self._ingredients.find_in_lines(ingredients), self._title.find(title))

    def _decide_uncached(self, found: frozenset[int], found_in_main: frozenset[int], in_title: frozenset[int]) -> Label:
        ingredients, ingredient_words = self._ingredients.count(found, found_in_main)
        title, title_words = self._title.count(in_title)
        # Each method names its winner on its own; only then are the two combined.
        by_ingredients = self._ingredients.winner(ingredients)
        by_title = self._title.winner(title)
        flavour, source = self._combine(by_ingredients, by_title)
        # The soft scores pool the votes of both methods, whichever of them decided the label.
        total = sum(ingredients.values()) + sum(title.values()) + SMOOTHING * len(FLAVOURS)
        enough, enough_in_title = self._ingredients.least, self._title.least
        return Label(
            flavour,
            tuple([name for name in FLAVOURS if ingredients[name] >= enough or title[name] >= enough_in_title]),
            tuple([(ingredients[name] + title[name] + SMOOTHING) / total for name in FLAVOURS]),
            source,
            {"ingredients": ingredient_words, "title": title_words},
            by_ingredients,
            by_title,
        )

    def _combine(self, by_ingredients: str | None, by_title: str | None) -> tuple[str | None, str]:
        if by_ingredients is None and by_title is None:
            return None, NO_VOTES
        if by_ingredients == by_title:
            return by_ingredients, AGREE
        if by_title is None:
            return by_ingredients, INGREDIENTS_ONLY
        if by_ingredients is None:
            return by_title, TITLE_ONLY
        if self.on_conflict == "ingredients":
            return by_ingredients, CONFLICT_INGREDIENTS
        if self.on_conflict == "title":
            return by_title, CONFLICT_TITLE
        return None, CONFLICT_DROPPED


class _Ballot:
    """The votes of one method: phrases of one source found in a text, counted per flavour."""

    def __init__(self, lexicon: Lexicon, source: str, match: str, least: int):
        self._entries: tuple[LexiconEntry, ...] = lexicon.of_source(source)
        self._flavours = lexicon.flavours
        self.least = least
        self._weighted = match == "word"
        # Read for every word found: plain tuples are quicker than the entries themselves.
        self._spoken = [
            (entry.flavour, entry.phrase.strip() if self._weighted else entry.phrase, entry.weight)
            for entry in self._entries
        ]
        self._silent = {place for place, entry in enumerate(self._entries) if self._weighted and not entry.weight}
        self._matcher = PhraseMatcher([entry.phrase for entry in self._entries], match, lexicon.negation)
        # Searching for substrings is faster than looking up a cache.
        self.find = lru_cache(_CACHED_TEXTS)(self._find_words) if self._weighted else self._matcher.affirmed

    def _find_words(self, text: str) -> frozenset[int]:
        return self._matcher.affirmed(text) - self._silent

    def find_in_lines(self, lines: Iterable[str]) -> tuple[frozenset[int], frozenset[int]]:
        """Return the phrases found in any line, and those of the first lines where these count twice."""
        if not self._weighted:
            return self.find(_BETWEEN_LINES.join(lines)), frozenset()
        # Each phrase counts once however many lines name it; one of the first lines makes it count twice.
        found = [self.find(line) for line in lines]
        return frozenset().union(*found), frozenset().union(*found[:MAIN_INGREDIENTS])

    def count(
        self, found: frozenset[int], found_in_main: frozenset[int] = frozenset()
    ) -> tuple[dict[str, int], dict[str, list[str]]]:
        """Return per flavour the votes and the phrases that gave them, in the order of the lexicon."""
        votes = dict.fromkeys(self._flavours, 0)
        words: dict[str, list[str]] = {flavour: [] for flavour in FLAVOURS}
        for index in sorted(found):
            flavour, phrase, weight = self._spoken[index]
            votes[flavour] += weight * (1 + (index in found_in_main)) if self._weighted else 1
            words[flavour].append(phrase)
        return votes, words

    def winner(self, votes: Mapping[str, int]) -> str | None:
        """Return the flavour with the most votes, the first one of the lexicon on a tie."""
        best = max(self._flavours, key=votes.__getitem__)
        return best if votes[best] >= self.least else None


@dataclass(frozen=True)
class LabelScores:
    """Agreement of labels with reference flavours.

    Attributes:
        rows: number of recipes with a reference.
        coverage: share of them that got a label.
        accuracy: share of the labelled ones whose label is the reference; nan when none is labelled.
        f1: per flavour, over all rows: a recipe without label is a miss of its reference flavour.
        macro_f1: plain mean of `f1`.
        confusion: `(5, 6)` counts, rows are reference flavours, columns are labels, the last one is "no label".
    """

    rows: int
    coverage: float
    accuracy: float
    f1: dict[str, float]
    macro_f1: float
    confusion: np.ndarray


def score_labels(labels: Sequence[str | None], reference: Sequence[str]) -> LabelScores:
    """Compare labels with reference flavours, row by row.

    Raises:
        ValueError: no rows, or lists of different length.
    """
    if not reference or len(labels) != len(reference):
        raise ValueError(f"{len(labels)} labels and {len(reference)} references; give equally many, at least one")
    confusion = np.zeros((len(FLAVOURS), len(FLAVOURS) + 1), dtype=np.int64)
    for label, truth in zip(labels, reference, strict=True):
        # A recipe without label goes to the last column.
        column = len(FLAVOURS) if label is None else FLAVOURS.index(label)
        confusion[FLAVOURS.index(truth), column] += 1
    hits = np.diag(confusion[:, :-1])
    labelled = confusion[:, :-1].sum()
    # F1 = 2 TP / (2 TP + FP + FN), where TP + FN are the rows of a flavour and TP + FP its labels.
    both = confusion.sum(axis=1) + confusion[:, :-1].sum(axis=0)
    f1 = np.divide(2 * hits, both, out=np.zeros(len(FLAVOURS)), where=both > 0)
    return LabelScores(
        rows=len(reference),
        coverage=float(labelled / len(reference)),
        accuracy=float(hits.sum() / labelled) if labelled else float("nan"),
        f1=dict(zip(FLAVOURS, f1.tolist(), strict=True)),
        macro_f1=float(f1.mean()),
        confusion=confusion,
    )
