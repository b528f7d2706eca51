"""Find many phrases in a text: by whole words with plurals and negation, or as plain substrings."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import regex
from ahocorasick import Automaton

from dataset_builder.catalogue.negation import Negation, usual_negation
from dataset_builder.recipes.text import ACCENTS

MATCH_MODES = ("word", "substring")

# Letters and digits, with a trailing "'s" ("baker's chocolate") as part of the word.
_ASCII_WORD = re.compile(r"[a-zA-Z0-9]+(?:'s\b)?")
# In other scripts the marks of vowels and accents belong to the word, as do the joiners between letters. Scripts that
# write no blanks between words give one word per letter, so that phrases are found inside longer runs of letters.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\u30fc"
_WORD = regex.compile(
    rf"[{_UNSPACED}--\p{{M}}]\p{{M}}*|[\p{{L}}\p{{N}}--[{_UNSPACED}]][[\p{{L}}\p{{N}}\p{{M}}\u200c\u200d]--[{_UNSPACED}--\p{{M}}]]*"
    r"(?:['\u2019]s\b)?",
    regex.VERSION1,
)
_WITHOUT_BLANKS = regex.compile(rf"[{_UNSPACED}]")
_POSSESSIVE = re.compile(r"['\u2019]s$")
_CLAUSE_END = re.compile(
    r"[,.;:()\[\]/\n|\u2022\u060c\u061b\u0964\u3001\u3002\uff0c\uff1b\uff1a\uff08\uff09\u300c\u300d\u30fb]"
)
# Letters that Unicode does not decompose into a base letter and an accent.
_LETTERS = str.maketrans({"œ": "oe", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})

# Plurals that no ending explains; "-ves" cannot be a rule: olives, chives, endives and cloves end in it too.
_IRREGULAR = {
    "leaves": "leaf", "loaves": "loaf", "halves": "half", "calves": "calf", "knives": "knife", "geese": "goose",
    "fungi": "fungus", "octopi": "octopus", "cacti": "cactus", "radii": "radius", "teeth": "tooth", "feet": "foot",
}  # fmt: skip
# Plurals that by themselves name another thing than their singular: greens are leaves, whatever their colour. Behind
# another word they are plain plurals: "mustard greens".
_PLURAL_ONLY = {
    "greens": "green",
    "bitters": "bitter",
    "sweets": "sweet",
    "grits": "grit",
    "goods": "good",
    "fries": "fry",
    "crisps": "crisp",
}
_SIBILANT = ("ch", "sh", "x", "ss", "z")

# "low-salt" takes salt away, "reduced balsamic vinegar" is a stronger vinegar: these negate only what labels reduce.
_REDUCERS = frozenset({"low", "lower", "lowered", "reduced", "less"})
_REDUCIBLE = frozenset({"salt", "salted", "salty", "sodium", "sugar", "sweet", "sweetened", "msg"})
# "free-range" and "free of" are not said of what stands before them.
_NOT_AFTER = frozenset({"range", "of", "from"})


class Match(NamedTuple):
    """One phrase found in a text.

    `phrase` is the index of the phrase in the list given to the matcher, `start` and `end` are offsets into the text
    as given, `negated` is true where the text negates it ("unsalted", "sugar-free").
    """

    phrase: int
    start: int
    end: int
    negated: bool


class _Token(NamedTuple):
    key: str
    start: int
    end: int


@lru_cache(maxsize=1 << 16)
def word_key(word: str) -> str:
    """Return the form under which singular and plural, accented and plain, upper and lower case of a word are equal.

    The form is a key and not always a word: "cookie" and "cookies" both become "cooky".

    >>> [word_key(word) for word in ("Berries", "berry", "tomatoes", "purée", "leaves", "olives")]
    ['berry', 'berry', 'tomato', 'puree', 'leaf', 'olive']
    """
    folded = _POSSESSIVE.sub("", word).casefold()
    if not folded.isascii():
        folded = unicodedata.normalize("NFKD", folded.translate(_LETTERS))
        folded = ACCENTS.sub("", folded).replace("\u200c", "").replace("\u200d", "")
    return folded if folded in _PLURAL_ONLY else _singular(_IRREGULAR.get(folded, folded))


def _singular(word: str) -> str:
    if len(word) <= 3 or not word[-1].isalpha():
        return word
    if word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]  # also "hummus" and "asparagus": both sides lose the letter, so they still meet
        if word.endswith("oe") and len(word) > 4:
            word = word[:-1]
    if word.endswith("ie") and len(word) > 3:
        return word[:-2] + "y"
    if word.endswith("e") and word[:-1].endswith(_SIBILANT) and len(word) > 3:
        return word[:-1]
    return word


def phrase_key(phrase: str) -> tuple[str, ...]:
    """Return the word keys of a phrase; hyphens and spaces are equal.

    >>> phrase_key("Sun-dried tomatoes") == phrase_key("sun dried tomato")
    True
    """
    first, *others = [token.key for token in _tokens(phrase)] or [""]
    return (first, *(_PLURAL_ONLY.get(key, key) for key in others)) if first else ()


def clause_end(phrase: str) -> str | None:
    """Return the first mark inside a phrase that no match by words reaches over, such as a comma; None without one.

    >>> clause_end("salt, pepper"), clause_end("salt & pepper."), clause_end("half/half")
    (',', None, '/')
    """
    tokens = _tokens(phrase)
    between = (_CLAUSE_END.search(phrase, one.end, other.start) for one, other in pairwise(tokens))
    return next((mark.group() for mark in between if mark), None)


def is_without_blanks(phrase: str) -> bool:
    """Return whether a phrase is in a script without blanks between words, so that it is found inside longer runs.

    >>> is_without_blanks("砂糖"), is_without_blanks("salt")
    (True, False)
    """
    return not phrase.isascii() and _WITHOUT_BLANKS.search(phrase) is not None


def _tokens(text: str) -> list[_Token]:
    pattern = _ASCII_WORD if text.isascii() else _WORD
    return [_Token(word_key(word[0]), *word.span()) for word in pattern.finditer(text)]


class PhraseMatcher:
    """Finds all phrases of a list in a text in one pass.

    Word mode compares whole words (case, accents, plural and hyphens do not matter); the longest phrase wins, from left
    to right, without overlaps, and a phrase that the text negates is returned with `negated` set. Equal phrases are all
    returned, at the same place.

    Substring mode is plain containment of the phrase as written in the lower-cased text: every phrase that occurs is
    returned once, at its first place, overlaps included, never negated. It exists to reproduce older labelling rules.

    Args:
        phrases: the phrases to find; a `Match` holds their index.
        match: "word" or "substring".
        negation: the words that deny; None for those of the package.

    Raises:
        ValueError: an unknown mode.

    >>> matcher = PhraseMatcher(["salt", "anchovy"])
    >>> [(match.phrase, match.negated) for match in matcher.find("4 anchovies, no added salt")]
    [(1, False), (0, True)]
    """

    def __init__(self, phrases: Sequence[str], match: str = "word", negation: Negation | None = None):
        if match not in MATCH_MODES:
            raise ValueError(f"match is {match!r}; allowed are {', '.join(MATCH_MODES)}")
        self.phrases = tuple(phrases)
        self.match = match
        self._negation = _Denials(usual_negation() if negation is None else negation)
        # A node of the trie maps a word to the next node; its entry None holds the phrases that end there.
        self._trie: dict[Any, Any] = {}
        if match == "word":
            for index, phrase in enumerate(self.phrases):
                node = self._trie
                for word in (key := phrase_key(phrase)):
                    node = node.setdefault(word, {})
                if key:  # nothing but punctuation can never match
                    node[None] = (*node.get(None, ()), index)
        else:
            self._substrings = _SubstringFinder(self.phrases)

    def find(self, text: str) -> list[Match]:
        """Return the matches in order of their start."""
        if self.match == "substring":
            return self._substrings.find(text.lower())
        return list(self._find_words(text))

    def affirmed(self, text: str) -> frozenset[int]:
        """Return the phrases that occur at least once without being negated."""
        if self.match == "substring":
            return self._substrings.inside(text.lower())
        return frozenset(match.phrase for match in self._find_words(text) if not match.negated)

    def _longest(self, keys: Sequence[str], position: int, opening: Sequence[bool]) -> tuple[tuple[int, ...], int]:
        """Return the phrases of the longest match that starts at a token, and the position after it.

        No phrase reaches over a comma: "beef, tomato" is not a beef tomato. `opening` tells which tokens open a clause.
        """
        node: Any = self._trie
        found: tuple[int, ...] = ()
        after = position
        for reach in range(position, len(keys)):
            # Walks down the trie as long as words fit, and remembers the last node at which a phrase ends.
            if reach == position:
                node = node.get(keys[reach])
            else:
                node = None if opening[reach] else node.get(_PLURAL_ONLY.get(keys[reach], keys[reach]))
            if node is None:
                break
            if None in node:
                found, after = node[None], reach + 1
        return found, after

    def _find_words(self, text: str) -> Iterator[Match]:
        tokens = _tokens(text)
        keys = [key for key, _, _ in tokens]
        opening = [False] * len(tokens)
        if _CLAUSE_END.search(text):
            for index in range(1, len(tokens)):
                opening[index] = _CLAUSE_END.search(text, tokens[index - 1].end, tokens[index].start) is not None
        negating = False
        position = 0
        while position < len(tokens):
            # A comma or full stop ends a negation: "no sugar, salt" has salt.
            negating = negating and not opening[position]
            found, after = self._longest(keys, position, opening) if keys[position] in self._trie else ((), position)
            if not found:
                # "unsalted", "nonfat" and "sugarless" deny "salted", "fat" and "sugar".
                for part in self._negation.denied_parts(keys[position]):
                    for phrase in self._trie.get(part, {}).get(None, ()):
                        yield Match(phrase, tokens[position].start, tokens[position].end, negated=True)
                word = keys[position]
                opened = self._negation.opens(keys, position) if word in self._negation.openers else 0
                fills = negating and (word in self._negation.between or word in self._negation.alternatives)
                negating = opened > 0 or fills
                position += opened or 1
                continue
            reduced = position > 0 and after == position + 1
            reduced = reduced and keys[position - 1] in _REDUCERS and keys[position] in _REDUCIBLE
            negated = negating or reduced or self._negation.is_behind(keys, after)
            for phrase in found:
                yield Match(phrase, tokens[position].start, tokens[after - 1].end, negated)
            # "no salt or pepper" goes on negating after the match, "no salt, pepper" does not.
            negating = negated and after < len(keys) and keys[after] in self._negation.alternatives
            position = after


class _Denials:
    """The words that deny, as keys: one key for most words, several for those of scripts without blanks."""

    def __init__(self, negation: Negation):
        # By the first key, as most words of a text are none of these.
        self._before = _by_first_key(negation.before)
        self._after = _by_first_key(negation.after)
        self.openers = frozenset(self._before) | {"free"}
        self.between = frozenset(key for word in negation.between for key in phrase_key(word))
        self.alternatives = frozenset(key for word in negation.alternatives for key in phrase_key(word))
        self._prefixes, self._suffixes = negation.prefix, negation.suffix
        self.denied_parts = lru_cache(maxsize=1 << 14)(self._denied_parts)

    def opens(self, keys: Sequence[str], position: int) -> int:
        """Return how many words from a position on deny what follows them; 0 for none."""
        if keys[position] == "free":  # "free of sugar", "free from salt"; never "free-range"
            return int(position + 1 < len(keys) and keys[position + 1] in ("of", "from"))
        return _length_at(self._before, keys, position)

    def is_behind(self, keys: Sequence[str], after: int) -> bool:
        """Return whether the words from a position on deny what stands before them: "sugar-free"."""
        length = _length_at(self._after, keys, after) if after < len(keys) else 0
        return length > 0 and (after + length == len(keys) or keys[after + length] not in _NOT_AFTER)

    def _denied_parts(self, key: str) -> tuple[str, ...]:
        """Return the words that a word may deny: "salted" and "salt" for "unsalted"."""
        parts = [key[len(prefix) :] for prefix in self._prefixes if key.startswith(prefix)]
        parts += [key[: -len(suffix)] for suffix in self._suffixes if key.endswith(suffix)]
        # "unsalted" denies "salt" too.
        parts += [part[:-2] for part in parts if part.endswith("ed")]
        return tuple(part for part in parts if len(part) > 2)


def _by_first_key(words: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    for key in map(phrase_key, words):
        if key:
            found.setdefault(key[0], []).append(key)
    return found


def _length_at(words: dict[str, list[tuple[str, ...]]], keys: Sequence[str], position: int) -> int:
    known = words.get(keys[position])
    if not known:
        return 0
    return max((len(key) for key in known if tuple(keys[position : position + len(key)]) == key), default=0)


class _SubstringFinder:
    """Plain containment of many phrases, in one pass over the text (Aho and Corasick, 1975)."""

    def __init__(self, phrases: Sequence[str]):
        places: dict[str, list[int]] = {}
        for index, phrase in enumerate(phrases):
            if phrase:
                places.setdefault(phrase, []).append(index)
        # Most phrases stand once; those that stand more often are looked up after the pass, which stays short.
        self._twins = {indices[0]: indices for indices in places.values() if len(indices) > 1}
        automaton = Automaton()
        for phrase, indices in places.items():
            automaton.add_word(phrase, indices[0])
        automaton.make_automaton()
        # An automaton without words refuses to search.
        self._scan = automaton.iter if places else lambda text: ()
        self._lengths = [len(phrase) for phrase in phrases]

    def inside(self, text: str) -> frozenset[int]:
        """Return the phrases contained in a text, by index."""
        found = frozenset([index for _, index in self._scan(text)])
        return found if found.isdisjoint(self._twins) else frozenset(self._with_twins(found))

    def find(self, text: str) -> list[Match]:
        """Return a match for each phrase contained in a text, at its first place."""
        first: dict[int, Match] = {}
        for last, index in self._scan(text):
            # `last` is the position of the last letter, as the automaton reports it.
            for each in self._with_twins((index,)):
                first.setdefault(each, Match(each, last + 1 - self._lengths[each], last + 1, False))
        return sorted(first.values(), key=lambda match: match[1:3])

    def _with_twins(self, found: Iterable[int]) -> Iterator[int]:
        for index in found:
            yield from self._twins.get(index, (index,))
