"""What the `evaluate` modules accept: probabilities, class ids, label sets and masks; anything else is named."""

from collections.abc import Sequence
from typing import Any

import numpy as np

TOLERANCE = 1e-2


def probabilities_of(predictions: Sequence[Any], sum_to_one: bool = False) -> np.ndarray:
    """Return probabilities as an array `(rows, classes)`.

    Args:
        predictions: per row a sequence of probabilities, all of one length.
        sum_to_one: whether those of a row share a whole, as a softmax gives them.

    Raises:
        ValueError: there is no row, or rows differ in length or hold something else, such as logits.
    """
    if len(predictions) == 0:
        raise ValueError("no rows to score; give at least one row")
    sizes = [len(row) for row in predictions]
    odd = next((row for row, size in enumerate(sizes) if size != sizes[0] or not size), None)
    if odd is not None:
        raise ValueError(
            f"row {odd} has {sizes[odd]} probabilities, row 0 has {sizes[0]}; give each row one for every class"
        )
    # `evaluate` stores float32; scores are computed in float64 as everywhere else.
    probabilities = np.asarray(predictions, dtype=np.float64)
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities hold NaN or infinity; the model diverged or its input was broken")
    outside = probabilities[(probabilities < 0) | (probabilities > 1)]
    activation = "softmax" if sum_to_one else "sigmoid"
    if outside.size:
        raise ValueError(
            f"predictions must be probabilities between 0 and 1, got {outside.flat[0]:g}; apply a {activation} to "
            "logits"
        )
    totals = probabilities.sum(axis=-1)
    if sum_to_one and not np.allclose(totals, 1, atol=TOLERANCE):
        wrong = totals[~np.isclose(totals, 1, atol=TOLERANCE)].flat[0]
        raise ValueError(
            f"the probabilities of a row must sum to 1, got a sum of {wrong:g}; apply a {activation} to logits"
        )
    return probabilities


def class_ids_of(references: Sequence[Any], classes: int) -> np.ndarray:
    """Return class ids as an array `(rows,)`.

    Raises:
        ValueError: one is the id of no class; a negative one would silently count from the end.
    """
    ids = np.asarray(references, dtype=np.int64)
    wrong = np.flatnonzero((ids < 0) | (ids >= classes))
    if wrong.size:
        raise ValueError(
            f"row {wrong[0]} has the label {ids[wrong[0]]}, but ids go from 0 to {classes - 1}; leave out rows without "
            "a label"
        )
    return ids


def label_sets_of(references: Sequence[Any], labels: int) -> np.ndarray:
    """Return label sets as an array of 0 and 1 `(rows, labels)`.

    Raises:
        ValueError: a row has something else than a 0 or 1 for each label, such as the ids of its labels.
    """
    for row, given in enumerate(references):
        other = next((value for value in given if value not in (0, 1)), None)
        if len(given) != labels or other is not None:
            found = f"{len(given)} numbers" if other is None else f"the number {other}"
            raise ValueError(
                f"row {row} has {found} for {labels} labels; give a 1 for each label it has and a 0 for each other, "
                "not their ids"
            )
    return np.asarray(references, dtype=np.int64)


def mask_of(rows: Sequence[Any], what: str, number: int) -> np.ndarray:
    """Return the class ids of a mask as an array `(height, width)`.

    Args:
        rows: of the mask.
        what: `prediction` or `reference`, for the message.
        number: of the picture, for the message.

    Raises:
        ValueError: its rows differ in length, or it holds numbers that are no ids, such as probabilities.
    """
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise ValueError(f"{what} {number} has rows of {', '.join(map(str, sorted(widths)))} pixels; give a rectangle")
    values = np.asarray(rows, dtype=np.float64)
    if not np.array_equal(values, np.floor(values)):
        wrong = values[values != np.floor(values)].flat[0]
        raise ValueError(f"{what} {number} holds {wrong:g}, which is no class id; take the argmax of class scores")
    return values.astype(np.int64)


def names_of(label_names: Sequence[str] | None, number: int) -> list[str]:
    """Return the names of the classes, by default their ids.

    Raises:
        ValueError: there are more or fewer names than classes.
    """
    names = [str(index) for index in range(number)] if label_names is None else list(label_names)
    if len(names) != number:
        raise ValueError(f"{len(names)} label_names for {number} classes; give one name for each")
    return names


def absent_of(names: Sequence[str], present: np.ndarray) -> dict[str, list[str]]:
    """Return `absent_labels`, which are true nowhere, if any; macro averages leave out those not predicted either.

    Args:
        names: of the classes.
        present: how often each is true, `(classes,)`.
    """
    absent = [name for name, there in zip(names, present, strict=True) if not there]
    return {"absent_labels": absent} if absent else {}
