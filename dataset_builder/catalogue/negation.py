"""The words with which a text denies what stands beside them: "without sugar", "sugar-free", "ungesalzen"."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NEGATION_FILE = Path(__file__).parents[1] / "data" / "negation.csv"

# before: denies what follows; after: denies what precedes; prefix, suffix: parts of a word that deny the rest of it;
# between: may stand between a denying word and what it denies; or: goes on denying behind a denied word.
PLACES = ("before", "after", "prefix", "suffix", "between", "or")


@dataclass(frozen=True)
class Negation:
    """Words that deny, by the place at which they stand; in lower case.

    Several languages can be together: a word of one is rarely a word of recipes in another.
    """

    before: frozenset[str]
    after: frozenset[str]
    prefix: tuple[str, ...]
    suffix: tuple[str, ...]
    between: frozenset[str]
    alternatives: frozenset[str]

    @classmethod
    def of(cls, words: Iterable[tuple[str, str]]) -> "Negation":
        """Return the negation of (place, word) pairs; `PLACES` are the places."""
        by_place: dict[str, list[str]] = {place: [] for place in PLACES}
        for place, word in words:
            by_place[place].append(word.casefold())
        return cls(
            frozenset(by_place["before"]),
            frozenset(by_place["after"]),
            tuple(dict.fromkeys(by_place["prefix"])),
            tuple(dict.fromkeys(by_place["suffix"])),
            frozenset(by_place["between"]),
            frozenset(by_place["or"]),
        )


@cache
def usual_negation() -> Negation:
    """Return the words of the package, of several languages, for lexicons that have none of their own."""
    with NEGATION_FILE.open(encoding="utf-8", newline="") as file:
        return Negation.of([(row["place"], row["word"]) for row in csv.DictReader(file)])
