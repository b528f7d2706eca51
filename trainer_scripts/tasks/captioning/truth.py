"""Are captions of plated pictures true? Names, counts and places are compared with the mask and reference captions.

Only pictures whose mask is known can be judged so. What a caption names is compared with the ingredients of the mask, a
place with the mask's centres, a count with the counts in the exact reference captions (a mask shows no single pieces).
Captions are also turned into pictures again, to measure how much of the label survives.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from dataset_builder.catalogue.ingredients import find_mentions, ingredients_by_name
from dataset_builder.columns import BACKGROUND, FLAVOUR, FLAVOURS, FOOD_GROUPS, INGREDIENT_LABELS, MASK, UNKNOWN
from dataset_builder.labelling.choice import make_labeller
from dataset_builder.pictures.captions import HEAPS, NUMBERS, place
from dataset_builder.plating.pipeline import PlateItem, PlatingPipeline
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.scores import NAMES, Formula, Score

_NUMBER_WORDS = {word: number for number, word in enumerate(NUMBERS)} | {"an": 1, "one": 1, "many": len(NUMBERS)}
# "a plate of olives" and "a bed of rice" count neither olives nor rice.
_MASSES = {phrase.split()[1] for phrases in HEAPS.values() for phrase in phrases} | {"plate", "bowl", "board", "glass"}
_COUNTED = re.compile(rf"\b({'|'.join(_NUMBER_WORDS)})\s+(?:(\w+)\s+of\s+)?$", re.IGNORECASE)
_PLACE = re.compile(r"\b(on the (?:left|right)|in the centre|all over|at the (?:top|bottom)(?: left| right)?)\b", re.I)
_RELATION = re.compile(r"\b(?:is|are) (to the left of|to the right of|above|below)\b", re.IGNORECASE)
_AXES = {"to the left of": ("x", 1), "to the right of": ("x", -1), "above": ("y", 1), "below": ("y", -1)}
ROWS = 64
SIZE = 64


def visible_names(table: Table) -> list[frozenset[str]] | None:
    """Return the names of each row's visible ingredients; None for a table without that column."""
    if INGREDIENT_LABELS not in table.rows.column_names:
        return None
    names = table.rows.features[INGREDIENT_LABELS].feature.names
    return [frozenset(names[number] for number in row) for row in table.rows[INGREDIENT_LABELS]]


def named_in(caption: str) -> frozenset[str]:
    """Return the names of the visible catalogue ingredients that a caption names."""
    return frozenset(mention.ingredient.name for mention in find_mentions(caption) if mention.ingredient.visible)


def groups_of(names: frozenset[str]) -> frozenset[str]:
    """Return the food groups of ingredients."""
    known = ingredients_by_name()
    return frozenset(known[name].group for name in names if known[name].group in FOOD_GROUPS)


def compare(named: Sequence[frozenset[str]], visible: Sequence[frozenset[str]]) -> np.ndarray:
    """Return per row the numbers of hits, named and visible, whether all named are visible, and 1: `(rows, 5)`."""
    pairs = zip(named, visible, strict=True)
    return np.array([[len(ours & true), len(ours), len(true), ours <= true, 1] for ours, true in pairs], dtype=float)


def _ingredient_rows(visible: Sequence[Sequence[str]], captions: Sequence[str]) -> np.ndarray:
    return compare([named_in(caption) for caption in captions], [frozenset(row) for row in visible])


def _group_rows(visible: Sequence[Sequence[str]], captions: Sequence[str]) -> np.ndarray:
    named = [groups_of(named_in(caption)) for caption in captions]
    return compare(named, [groups_of(frozenset(row)) for row in visible])


def _share(*columns: int) -> Formula:
    """Return hits over the mean of these columns."""

    def formula(sums: np.ndarray) -> np.ndarray:
        # Over the mean of named and visible this is F1, over one of them precision or recall.
        below = sum(sums[..., column] for column in columns) / len(columns)
        return np.divide(sums[..., 0], below, out=np.zeros(np.shape(below)), where=below > 0)

    return formula


def naming_scores() -> tuple[Score, ...]:
    """Return the scores of the names in captions, for pictures whose ingredients are known."""
    found = []
    levels = (("ingredient", "catalogue ingredients", _ingredient_rows), ("group", "food groups", _group_rows))
    for level, what, rows in levels:
        counted = f"{what} that captions name and that are visible by the mask, counted over all pictures"
        for score, columns, text in (
            ("precision", (1,), "hits / named"),
            ("recall", (2,), "hits / visible"),
            ("f1", (1, 2), "2 hits / (named + visible)"),
        ):
            found.append(Score(f"{level}_{score}", f"{text}, of {counted}", rows, _share(*columns), part=NAMES))
    found.append(
        Score(
            "only_visible",
            "share of captions that name no catalogue ingredient which is not visible by the mask",
            _ingredient_rows,
            lambda sums: sums[..., 3] / sums[..., 4],
            part=NAMES,
        )
    )
    return tuple(found)


def counts_in(caption: str) -> dict[str, int]:
    """Return ingredient -> number for those that a caption counts; heaps ("a bed of rice") are no counts.

    >>> counts_in("A bed of rice, three slices of cucumber and two eggs on a plate.")
    {'cucumber': 3, 'egg': 2}
    """
    found = {}
    for mention in find_mentions(caption):
        match = _COUNTED.search(caption[: mention.start])
        # "three slices of cucumber" counts, "a plate of olives" does not.
        if match and (match.group(2) or "").lower() not in _MASSES:
            found[mention.ingredient.name] = _NUMBER_WORDS[match.group(1).lower()]
    return found


def places_in(caption: str) -> dict[str, str]:
    """Return the positions that a caption states, by ingredient.

    >>> places_in("The parsley is in the centre and the egg and the rice are all over.")
    {'parsley': 'in the centre', 'egg': 'all over', 'rice': 'all over'}
    """
    found, start = {}, 0
    for match in _PLACE.finditer(caption):
        # "on the left of the rice" is a relation to the rice, no place on the plate.
        if not re.match(r"\s*of\b", caption[match.end() :]):
            for mention in find_mentions(caption):
                if start <= mention.start < match.start():
                    found[mention.ingredient.name] = match.group(1).lower()
        start = match.end()
    return found


def relations_in(caption: str) -> list[tuple[str, str, str]]:
    """Return (one, relation, other) for each relation between two ingredients that a caption states.

    >>> relations_in("The feta is to the left of the olives.")[0][1]
    'to the left of'
    """
    found = []
    for match in _RELATION.finditer(caption):
        before = [mention for mention in find_mentions(caption) if mention.end <= match.start()]
        after = [mention for mention in find_mentions(caption) if mention.start >= match.end()]
        if before and after:
            found.append((before[-1].ingredient.name, match.group(1).lower(), after[0].ingredient.name))
    return found


def items_of_mask(cell: dict, names: Sequence[str]) -> dict[str, PlateItem]:
    """Return where each ingredient of a mask is; `cell` is an undecoded image cell."""
    mask = np.asarray(Image.open(io.BytesIO(cell["bytes"])))
    found = {}
    for number in np.unique(mask):
        if number not in (BACKGROUND, UNKNOWN):
            rows, columns = np.nonzero(mask == number)
            height, width = mask.shape
            found[names[number]] = PlateItem(
                name=names[number],
                group="",
                pieces=1,
                area=len(rows) / mask.size,
                # The middle of a pixel lies half a pixel behind its index.
                x=float((columns.mean() + 0.5) / width),
                y=float((rows.mean() + 0.5) / height),
                spread=float(np.sqrt(rows.var() / height**2 + columns.var() / width**2)),
            )
    return found


def detail_scores(captions: Sequence[str], table: Table) -> dict[str, float]:
    """Return the shares of right counts, places and relations, and how many there were to judge.

    A count is judged where the reference captions count the same visible ingredient; a place or relation where all
    ingredients it names are visible.
    """
    from datasets import Image as ImageFeature

    # Masks are decoded only for the captions that state a place or a relation.
    rows = table.rows.select_columns([MASK]).cast_column(MASK, ImageFeature(decode=False))
    names = table.rows.features[INGREDIENT_LABELS].feature.names
    right, judged = (dict.fromkeys(("counts", "places", "relations"), 0) for _ in range(2))
    for row, caption in enumerate(captions):
        truth = {name: number for reference in table.labels[row] for name, number in counts_in(reference).items()}
        counted = [(name, number) for name, number in counts_in(caption).items() if name in truth]
        outcomes = {"counts": [truth[name] == number for name, number in counted], "places": [], "relations": []}
        # Counts are judged by the references, since a mask does not show single pieces.
        placed, related = places_in(caption), relations_in(caption)
        if placed or related:
            items = items_of_mask(rows[row][MASK], names)
            outcomes["places"] = [place(items[name]) == where for name, where in placed.items() if name in items]
            outcomes["relations"] = [
                _holds(items[one], relation, items[other])
                for one, relation, other in related
                if one in items and other in items
            ]
        for kind, of_kind in outcomes.items():
            right[kind] += sum(of_kind)
            judged[kind] += len(of_kind)
    shares = {f"{kind}_right": right[kind] / judged[kind] for kind in right if judged[kind]}
    return {**shares, **{f"{kind}_judged": float(number) for kind, number in judged.items()}}


def _holds(one: PlateItem, relation: str, other: PlateItem) -> bool:
    axis, sign = _AXES[relation]
    return sign * (getattr(other, axis) - getattr(one, axis)) > 0


def round_trip(captions: Sequence[str], table: Table, rows: int = ROWS) -> dict[str, float]:
    """Return how much of a picture is in the picture that its caption gives, for the first rows of a table.

    Each caption is the prompt of the plating pipeline. The ingredients in the mask of the new picture are compared with
    those of the old one, and the flavour that the labelling rule gives them with the row's label; the same is done
    with the first reference caption, which shows what the way there and back loses by itself.

    Args:
        captions: one per row.
        table: rows whose visible ingredients are known.
        rows: how many are drawn.
    """
    number = min(rows, len(captions))
    visible = (visible_names(table) or [])[:number]
    flavours = [FLAVOURS[label] for label in table.rows[:number][FLAVOUR]] if FLAVOUR in table.rows.column_names else []
    found: dict[str, float] = {"rows": float(number)}
    for name, prompts in (("captions", captions), ("references", [of_one[0] for of_one in table.labels])):
        drawn = [draw(prompt, seed) for seed, prompt in enumerate(prompts[:number])]
        hits, named, shown = compare(drawn, visible).sum(axis=0)[:3]
        found[f"{name}_ingredient_f1"] = float(2 * hits / (named + shown)) if named + shown else 0.0
        if flavours:
            labeller = make_labeller()
            tasted = [labeller.label("", sorted(names)).flavour for names in drawn]
            found[f"{name}_flavour_kept"] = sum(a == b for a, b in zip(tasted, flavours, strict=True)) / number
    return found


def draw(prompt: str, seed: int) -> frozenset[str]:
    """Return the visible ingredients of the picture that the plating pipeline draws from a prompt."""
    output: Any = PlatingPipeline()(prompt, height=SIZE, width=SIZE, generator=torch.Generator().manual_seed(seed))
    return frozenset(item.name for item in output.plates[0].items)
