"""Reference labels that people gave: of real dishes, and how well labels agree with them, with intervals.

`data/reference_labels.csv` holds 396 dishes of the public-domain-recipes collection (Unlicense), every one with
ingredients, that were labelled by hand from title and ingredients by culinary knowledge before a rule saw them: the
flavour that leads when the dish is eaten, and why in a word. Twelve have none, such as plain rice. Only titles and
fingerprints are stored, so that the scores need the table of recipes. The halves were drawn by a seeded hash within
each flavour: "tuning" was looked at while the default rule was made, "report" was not.

Limits: one person gave the labels, and the same one wrote the words of the rule and had read all titles by then. Words
for dishes that only titles of the report half would have suggested were taken out again.
"""

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.labelling.choice import AnyLabeller
from dataset_builder.labelling.rule import Label, LabelScores, score_labels
from dataset_builder.labelling.soft_labels import SoftLabels
from dataset_builder.recipes.ingredient_lists import parse_ingredients
from dataset_builder.recipes.recipes import RawRecipe

EMBEDDED = Path(__file__).parents[1] / "data" / "reference_labels.csv"
REPORT = "report"

_NEEDED = ("title", "flavour")
_RESAMPLES = 2000
_FINGERPRINT_DIGITS = 12


class Reference(NamedTuple):
    """One dish that a person labelled.

    Attributes:
        title: of the dish.
        flavour: that leads when it is eaten; None where none does.
        fingerprint: of the recipe, see `fingerprint`; empty where the title alone has to find it.
        reason: why, in a word.
        half: "tuning" or "report" in the embedded file; empty where halves are not told apart.
    """

    title: str
    flavour: str | None
    fingerprint: str = ""
    reason: str = ""
    half: str = ""


def fingerprint(title: str, ingredients: Iterable[str]) -> str:
    """Return 12 hexadecimal digits by which a recipe is found again: its title and its longest ingredient line.

    Only letters and digits count, so that neither punctuation nor the notation of the list matters.
    """
    longest = max((_letters(line) for line in ingredients), key=lambda line: (len(line), line), default="")
    return hashlib.sha256(f"{_letters(title)}|{longest}".encode()).hexdigest()[:_FINGERPRINT_DIGITS]


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def read_reference(path: str | Path | None = None) -> list[Reference]:
    """Read reference labels.

    Args:
        path: CSV with the columns `title` and `flavour` (empty for a dish that no flavour leads), and if wanted
            `fingerprint`, `reason` and `half`; None for the embedded file.

    Raises:
        BadInputError: no such file, missing columns, an unknown flavour, or no row.
    """
    path = EMBEDDED if path is None else Path(path)
    if not path.is_file():
        raise BadInputError(f"reference {path} is not a file; give a CSV with the columns {', '.join(_NEEDED)}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(f"reference {path} is not a CSV file in UTF-8: {error}") from error
    if not rows:
        raise BadInputError(f"reference {path} has no row; give title and flavour of some dishes")
    missing = [name for name in _NEEDED if name not in rows[0]]
    if missing:
        raise BadInputError(f"reference {path} has no column {', '.join(missing)}; needed are {', '.join(_NEEDED)}")
    references = []
    for number, row in enumerate(rows, start=2):
        cells = {name: (row.get(name) or "").strip() for name in Reference._fields}
        flavour = cells.pop("flavour") or None
        if flavour not in (None, *FLAVOURS):
            raise BadInputError(
                f"reference {path}, row {number}: flavour is {flavour!r}; allowed are {', '.join(FLAVOURS)}, or "
                "nothing for a dish that none leads"
            )
        references.append(Reference(flavour=flavour, **cells))
    return references


class Judged(NamedTuple):
    """A recipe with its label, its soft scores in the order of `columns.FLAVOURS`, and what a person said."""

    title: str
    label: Label
    soft: tuple[float, ...]
    reference: Reference


def judge(
    recipes: Iterable[RawRecipe], references: Sequence[Reference], labeller: AnyLabeller, soft_labels: SoftLabels
) -> list[Judged]:
    """Label the recipes that have a reference; a recipe whose fingerprint differs is another one."""
    by_fingerprint = {one.fingerprint: one for one in references if one.fingerprint}
    by_title = {_letters(one.title): one for one in references if not one.fingerprint}
    titles = {_letters(one.title) for one in references}
    found: list[tuple[str, Label, Reference]] = []
    for recipe in recipes:
        # Nearly all recipes of a large table leave here, before their ingredients are parsed.
        if (title := _letters(recipe.title)) not in titles:
            continue
        ingredients = parse_ingredients(recipe.ingredients)
        reference = by_fingerprint.get(fingerprint(recipe.title, ingredients)) or by_title.get(title)
        if reference is not None:
            found.append((recipe.title, labeller.label(recipe.title, ingredients), reference))
    scores = soft_labels.scores([label for _, label, _ in found]).tolist() if found else []
    return [
        Judged(title, label, tuple(soft), reference)
        for (title, label, reference), soft in zip(found, scores, strict=True)
    ]


@dataclass(frozen=True)
class Agreement:
    """Agreement of labels with references.

    Attributes:
        scores: point estimates.
        accuracy, macro_f1: 95 % intervals, `(low, high)`; nan where nothing is labelled.
        without: dishes without a leading flavour, which are not scored, and how many of them got no label.
    """

    scores: LabelScores
    accuracy: tuple[float, float]
    macro_f1: tuple[float, float]
    without: tuple[int, int] = (0, 0)


def agreement(labels: Sequence[str | None], references: Sequence[str | None], seed: int = 0) -> Agreement:
    """Score labels against references, with percentile intervals over 2,000 resamples of the dishes.

    Source: Efron and Tibshirani, "An introduction to the bootstrap" (1993), section 13.3.

    Raises:
        ValueError: lists of different length, or no reference with a flavour.
    """
    pairs = list(zip(labels, references, strict=True))
    known = [(label, flavour) for label, flavour in pairs if flavour is not None]
    scores = score_labels([label for label, _ in known], [flavour for _, flavour in known])
    kinds = len(FLAVOURS) + 1  # the last one is "no label"
    column = np.array([len(FLAVOURS) if label is None else FLAVOURS.index(label) for label, _ in known])
    cells = np.array([FLAVOURS.index(flavour) for _, flavour in known]) * kinds + column
    drawn = np.random.default_rng(seed).choice(cells, (_RESAMPLES, len(cells)))
    confusion = np.stack([np.bincount(one, minlength=len(FLAVOURS) * kinds) for one in drawn])
    confusion = confusion.reshape(_RESAMPLES, len(FLAVOURS), kinds)
    hits = np.diagonal(confusion[:, :, :-1], axis1=1, axis2=2)  # (resamples, flavours)
    labelled = confusion[:, :, :-1].sum(axis=(1, 2))
    truth, given = confusion.sum(axis=2), confusion[:, :, :-1].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = hits.sum(axis=1) / labelled
        f1 = 2 * hits / (truth + given)
    # A flavour that a resample of few dishes happens to lack is left out of its mean.
    macro = np.nanmean(np.where(truth > 0, f1, np.nan), axis=1)
    silent = [label is None for label, flavour in pairs if flavour is None]
    return Agreement(scores, _interval(accuracy), _interval(macro), (len(silent), sum(silent)))


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, (2.5, 97.5)) if not np.isnan(values).all() else (np.nan, np.nan)
    return float(low), float(high)


def distance(label: str | None, soft: Sequence[float], reference: str | None) -> float:
    """Return how far label, soft scores and reference are apart: 0 where all three name the same flavour.

    It is the lead of the soft scores' first flavour over the label, plus that over the reference.
    """
    first = max(soft)
    return sum(first - soft[FLAVOURS.index(flavour)] for flavour in (label, reference) if flavour is not None)


def disagreement_text(title: str, label: str | None, soft: Sequence[float], reference: str | None) -> str:
    """Return one line about a row: its label, the first flavour of its soft scores, its reference."""
    first = int(np.argmax(soft))
    judged = f", reference {reference}" if reference else ""
    return f"{title}: label {label or 'none'}, soft {FLAVOURS[first]} {soft[first]:.2f}{judged}"


def agreement_text(name: str, found: Agreement) -> str:
    """Return the scores of one set of dishes as a line, and what was not scored as another."""
    scores = found.scores
    line = (
        f"{name}: {scores.rows:,} dishes, coverage {scores.coverage:.1%}, "
        f"accuracy of the labelled {scores.accuracy:.3f} [{found.accuracy[0]:.3f}, {found.accuracy[1]:.3f}], "
        f"macro-F1 {scores.macro_f1:.3f} [{found.macro_f1[0]:.3f}, {found.macro_f1[1]:.3f}]"
    )
    without, silent = found.without
    return f"{line}; {without} without a leading flavour not scored, {silent} of them not labelled" if without else line


def by_half(judged: Sequence[Judged]) -> Mapping[str, list[Judged]]:
    """Return the recipes by the half of their reference, the report half first."""
    halves: dict[str, list[Judged]] = {}
    for one in sorted(judged, key=lambda one: one.reference.half != REPORT):
        halves.setdefault(one.reference.half, []).append(one)
    return halves
