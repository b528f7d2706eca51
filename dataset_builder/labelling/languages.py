"""Whether a recipe is in the language of its lexicon: the share of its words that are known.

A lexicon finds chance words in recipes of another language ("Salat", "olio", "sel"), so that a recipe whose ingredients
are hardly known gets no label. What is known are the words of the lexicon and, if it is an English one, those of the
catalogue and of English recipes.
"""

from collections.abc import Iterable
from functools import lru_cache

from dataset_builder.catalogue.ingredients import catalogue_dishes, ingredients
from dataset_builder.catalogue.matching import is_without_blanks, phrase_key
from dataset_builder.labelling.lexicon import DISH, Lexicon

# Of 395 real English recipes the least share was .29; German, Italian and Spanish ones had less than .3, most none.
LEAST_KNOWN = 0.25
# A table of which less is known is said to be in another language.
LEAST_KNOWN_OF_TABLE = 0.4
FEWEST_WORDS = 3
_CACHED_LINES = 1 << 16
# A lexicon of which this share is English is an English one.
ENGLISH = 0.5

_COMMON = """
cup tablespoon tbsp teaspoon tsp ounce pound gram kilogram liter litre millilitre pint quart gallon pinch dash handful
clove slice piece can tin jar box package packet bunch sprig stick large medium small fresh dried ground chopped minced
diced sliced peeled grated crushed whole cold warm hot and with for the into taste optional about plus more each divided
room temperature softened melted finely roughly thinly inch one two three four five six few some your you any brand
"""


class Vocabulary:
    """The known words of a lexicon.

    Attributes:
        is_checked: whether recipes can be told to be in another language; not for a lexicon that is no English one.
    """

    def __init__(self, lexicon: Lexicon):
        # Names of dishes come from many languages and say little about that of a recipe.
        own = _words(entry.phrase for entry in lexicon.entries if entry.source != DISH)
        english = _english()
        self.is_checked = bool(own) and sum(word in english for word in own) >= ENGLISH * len(own)
        self._known = frozenset(own) | (english if self.is_checked else frozenset())
        # Recipes share ingredient lines.
        self._count_line = lru_cache(_CACHED_LINES)(self._count_line_uncached)

    def count(self, lines: Iterable[str]) -> tuple[int, int]:
        """Return how many words of the ingredients are known, and how many there are."""
        known = words = 0
        for line in lines:
            known_of_line, words_of_line = self._count_line(line)
            known += known_of_line
            words += words_of_line
        return known, words

    def _count_line_uncached(self, line: str) -> tuple[int, int]:
        words = _words([line])
        return sum(word in self._known for word in words), len(words)

    def fits(self, known: int, words: int) -> bool:
        """Return whether a recipe with these counts may be in the language of the lexicon."""
        return not self.is_checked or words < FEWEST_WORDS or known >= LEAST_KNOWN * words


def phrases_without_blanks(lexicon: Lexicon) -> int:
    """Return how many phrases are in scripts without blanks, and thus found inside longer runs of letters."""
    return sum(is_without_blanks(entry.phrase) for entry in lexicon.entries)


def _words(texts: Iterable[str]) -> list[str]:
    """Return the words of three letters and more, as keys; numbers and amounts such as "200g" are none."""
    return [key for text in texts for key in phrase_key(text) if len(key) > 2 and not key[0].isdigit()]


@lru_cache(maxsize=1)
def _english() -> frozenset[str]:
    names = (name for item in ingredients() for name in (item.name, *item.aliases))
    lines = (line for dish in catalogue_dishes() for line in dish.ingredients)
    own = (entry.phrase for entry in Lexicon.load().entries if entry.source != DISH)
    return frozenset(_words((*names, *lines, *own, _COMMON)))


@lru_cache(maxsize=8)
def vocabulary_of(lexicon: Lexicon) -> Vocabulary:
    """Return the vocabulary of a lexicon, made once."""
    return Vocabulary(lexicon)
