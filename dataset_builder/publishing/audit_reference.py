"""The part of an audit that compares labels with what people said of the same dishes."""

import re
from typing import Any

from dataset_builder.catalogue.ingredients import reference_flavours
from dataset_builder.columns import DISH_ID, FLAVOUR, FLAVOURS, ID, INGREDIENTS, TASTE, TITLE
from dataset_builder.labelling.reference import disagreement_text, distance, fingerprint, read_reference
from dataset_builder.labelling.rule import LabelScores, score_labels
from dataset_builder.publishing.audit_reading import Rows

EXAMPLES = 20


def labelled_rows(rows: Rows) -> list[int]:
    """Return the positions of the rows with one of the flavours."""
    return [n for n, flavour in enumerate(rows.columns[FLAVOUR]) if flavour in FLAVOURS] if FLAVOUR in rows else []


def figures_of(scores: LabelScores) -> dict[str, float]:
    """Return coverage, accuracy over all rows, and macro-F1."""
    hits = sum(scores.confusion[n, n] for n in range(len(FLAVOURS)))
    return {"coverage": scores.coverage, "accuracy": float(hits / scores.rows), "macro_f1": scores.macro_f1}


def against_reference(rows: Rows) -> dict[str, Any] | None:
    """Compare the labels with the authors' reference flavours of the dishes that have one.

    A reference belongs to the named dish; a variant has other ingredients and may taste different.
    """
    if DISH_ID not in rows or FLAVOUR not in rows:
        return None
    reference = reference_flavours()
    known = [n for n in labelled_rows(rows) if rows.columns[DISH_ID][n] in reference and not _is_variant(rows, n)]
    if not known:
        return None
    labels = [rows.columns[FLAVOUR][n] for n in known]
    truth = [reference[rows.columns[DISH_ID][n]][0] for n in known]
    scores = score_labels(labels, truth)
    # The weaker criterion: the label is one of the tastes that the authors find present.
    among = sum(label in reference[rows.columns[DISH_ID][n]][1] for n, label in zip(known, labels, strict=True))
    differing = {
        rows.columns[DISH_ID][n]: f"{rows.columns[TITLE][n] if TITLE in rows else rows.columns[DISH_ID][n]}: "
        f"labelled {label}, reference {flavour}"
        for n, label, flavour in zip(known, labels, truth, strict=True)
        if label != flavour
    }
    return {
        "rows": len(known),
        "dishes": len({rows.columns[DISH_ID][n] for n in known}),
        **figures_of(scores),
        "label_among_present": among / len(known),
        "confusion": scores.confusion[:, : len(FLAVOURS)].tolist(),
        "dishes_differing": len(differing),
        "examples": list(differing.values())[:EXAMPLES],
    }


def disagreements(rows: Rows, of_catalogue: bool) -> dict[str, Any] | None:
    """Return the rows on which label, soft label and a person's label are furthest apart; None without soft labels.

    Rows of the catalogue have the authors' reference flavour; others are looked up in the embedded reference labels.
    """
    if FLAVOUR not in rows or TASTE not in rows:
        return None
    catalogue = reference_flavours() if of_catalogue and DISH_ID in rows else {}
    people = {one.fingerprint: one.flavour for one in read_reference()}
    # Pictures of one recipe repeat its labels: each line is shown once.
    apart: dict[str, float] = {}
    judged: set[str] = set()
    for n in labelled_rows(rows):
        if (taste := rows.columns[TASTE][n]) is None:
            continue
        title = (rows.columns[TITLE][n] if TITLE in rows else None) or rows.name(n)
        if catalogue:
            known = catalogue.get(rows.columns[DISH_ID][n])
            reference = known[0] if known and not _is_variant(rows, n) else None
        else:
            lines = (rows.columns[INGREDIENTS][n] if INGREDIENTS in rows else None) or []
            reference = people.get(fingerprint(title, lines))
        flavour = rows.columns[FLAVOUR][n]
        shown = disagreement_text(title, flavour, taste, reference)
        apart[shown] = distance(flavour, taste, reference)
        if reference:
            judged.add(shown)
    furthest = sorted((shown for shown, far in apart.items() if far > 0), key=lambda shown: -apart[shown])
    return {
        "recipes": len(apart),
        "with_reference": len(judged),
        "differing": len(furthest),
        "examples": furthest[:EXAMPLES],
    }


def _is_variant(rows: Rows, position: int) -> bool:
    """Return whether the id of a row, `DISH-VARIANT-PICTURE`, names another variant than the first."""
    end = str(rows.columns[ID][position]).removeprefix(f"{rows.columns[DISH_ID][position]}-") if ID in rows else ""
    return re.fullmatch(r"\d{2}-\d{2}", end) is not None and not end.startswith("00-")
