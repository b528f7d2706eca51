"""The taste lexicon: which words of an ingredient or of a title vote for which flavour.

How the default lexicon came about. Its phrases and first weights were written from culinary knowledge alone and
reached a macro-F1 of .72 against the reference flavours of the catalogue. Then general principles were added,
judged by tables over phrases on one half of the named dishes (chosen by a hash of their id), never by a dish or its
name: the votes of the first four ingredients count twice; seasonings that every kitchen adds count little and traces
not at all; phrases that only hold a taste word ("olive oil", "kidney bean") are shielded by weight 0; starch and
frying oil carry salt. The weights of about twenty groups of ingredients (meats, stocks, vinegars, cured meats and
so on) were set on the same half. That half then stood at .822; the other half, of which only this one total was
watched, at .797; all 1,307 dishes at .810. These figures are of the rule that counts votes.

Names of dishes were added for the rule that weighs evidence: from general knowledge of cooking, then with what the
same half and the tuning half of the real dishes lacked (see `reference`).
"""

import csv
import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from dataset_builder.catalogue.negation import PLACES, Negation, usual_negation
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown

INGREDIENT = "ingredient"
TITLE = "title"
DISH = "dish"
SOURCES = (INGREDIENT, TITLE, DISH)
DEFAULT_LEXICON = Path(__file__).parents[1] / "data" / "lexicon.csv"

_COLUMNS = ("flavour", "source", "phrase")
_WEIGHT = "weight"
# In the column of flavours, this names a line whose phrase denies, and whose source is the place of that word.
NEGATION = "negation"
HEAVIEST = 1_000_000


class LexiconEntry(NamedTuple):
    """One line of a lexicon file: a phrase that votes for a flavour with a weight.

    A phrase of weight 0 only looks as if it had the flavour ("olive oil" is not salty as olives are): as the longest
    match it keeps the shorter phrase inside it from voting.
    """

    line: int
    flavour: str
    source: str
    phrase: str
    weight: int = 1


class Lexicon:
    """The entries of a lexicon file, in the order of the file.

    The file is CSV with the columns `flavour,source,phrase` and, if wanted, `weight` (a whole number, 1 when empty);
    `source` is "ingredient", "title", or "dish" for names of dishes, which only the rule that weighs evidence reads.
    Lines of the flavour "negation" name words that deny, and their source is the place of the word
    (`negation.PLACES`): `negation,before,ohne` or `negation,suffix,frei`. Ties between flavours fall to the one that
    the file names first. Blanks around a phrase belong to it, as substring matching finds them; those of a file that
    writes one after each comma do not.
    """

    def __init__(self, entries: tuple[LexiconEntry, ...], path: Path, denials: tuple[tuple[str, str], ...] = ()):
        self.entries = entries
        self.path = path
        self.denials = denials

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Lexicon":
        """Read a lexicon file; `None` is the one that comes with the package.

        Raises:
            BadInputError: no such file, no CSV with the right columns, no entry, or a line with a wrong value.
        """
        path = DEFAULT_LEXICON if path is None else Path(path)
        if not path.is_file():
            raise BadInputError(f"lexicon {path} is not a file; give a CSV with the columns {','.join(_COLUMNS)}")
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                # Strict, or a quote that is never closed would take the lines after it into one phrase.
                lines = tuple(_read_entries(csv.DictReader(file, strict=True), path))
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadInputError(f"lexicon {path} is not a CSV file in UTF-8: {error}") from error
        entries = tuple(line for line in lines if line.flavour != NEGATION)
        denials = tuple((line.source, line.phrase.strip()) for line in lines if line.flavour == NEGATION)
        if not entries:
            raise BadInputError(f"lexicon {path} has no entry; add lines such as sweet,ingredient,honey")
        return cls(entries, path, denials)

    @cached_property
    def negation(self) -> Negation:
        """The words that deny: those of the file, those of the package where it names none."""
        return Negation.of(self.denials) if self.denials else usual_negation()

    @cached_property
    def flavours(self) -> tuple[str, ...]:
        """All five flavours, those that the file names first in front."""
        named = dict.fromkeys(entry.flavour for entry in self.entries)
        # A dictionary keeps the first position of each name.
        return tuple(dict.fromkeys([*named, *FLAVOURS]))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over what shapes labels: the entries and their order."""
        return _digest(self.entries, self.denials)

    @cached_property
    def digest_of_words(self) -> str:
        """The same without the names of dishes, as builds recorded it before lexicons had them."""
        return _digest(tuple(entry for entry in self.entries if entry.source != DISH), self.denials)

    def of_source(self, source: str) -> tuple[LexiconEntry, ...]:
        """Return the entries for "ingredient", "title" or "dish"."""
        return tuple(entry for entry in self.entries if entry.source == source)


def _digest(entries: tuple[LexiconEntry, ...], denials: tuple[tuple[str, str], ...]) -> str:
    lines = [f"{entry.flavour},{entry.source},{entry.phrase},{entry.weight}\n" for entry in entries]
    lines += [f"{NEGATION},{place},{word}\n" for place, word in denials]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read_entries(reader: csv.DictReader, path: Path) -> Iterator[LexiconEntry]:
    header = [name.strip() for name in reader.fieldnames or ()]
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise BadInputError(
            f"lexicon {path} has the columns {', '.join(map(shown, header[:20])) or 'none'}; "
            f"needed are {', '.join(_COLUMNS)} (and {_WEIGHT} if wanted)"
        )
    reader.fieldnames = header
    for row in reader:
        place = f"lexicon {path}, line {reader.line_num}"
        if None in row:
            raise BadInputError(f"{place} has more cells than the header; put a phrase with a comma into quotes")
        flavour, source, phrase = (row[name] or "" for name in _COLUMNS)
        # A file that writes a blank after each comma does so before the source too.
        if source != source.lstrip():
            phrase = phrase.lstrip()
        flavour, source = flavour.strip(), source.strip()
        if flavour not in (*FLAVOURS, NEGATION):
            raise BadInputError(
                f"{place}: flavour is {shown(flavour)!r}; allowed are {', '.join((*FLAVOURS, NEGATION))}"
            )
        sources = PLACES if flavour == NEGATION else SOURCES
        if source not in sources:
            raise BadInputError(f"{place}: source is {shown(source)!r}; allowed are {', '.join(sources)}")
        if not phrase.strip():
            raise BadInputError(f"{place}: the phrase is empty; write the words that vote for {flavour}")
        weight = (row.get(_WEIGHT) or "").strip() or "1"
        if not weight.isdecimal() or len(weight) > len(str(HEAVIEST)) or int(weight) > HEAVIEST:
            raise BadInputError(f"{place}: weight is {shown(weight)!r}; give a whole number from 0 to {HEAVIEST}")
        yield LexiconEntry(reader.line_num, flavour, source, phrase, int(weight))
