"""Scores of masks and of the ingredients they show, from counts over the whole data set.

Each picture gives its pixels per class: hits, predicted, true. Scores are formulas on the sums of these over all
pictures, never means of batches, so neither batch size nor order matters.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dataset_builder.columns import BACKGROUND, UNKNOWN
from modeling_flavour.losses_flavour import IGNORED_LABEL
from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.evaluation.scores import (
    GROUP_MASKS,
    INGREDIENTS,
    MASKS,
    OVER_PRESENT,
    Score,
    multilabel_scores,
)
from trainer_scripts.tasks.segmentation.classes import food_groups

MASK_SELECTION = "miou_food"
INGREDIENT_PREFIX = "ingredient_"
GROUP_PREFIX = "group_"
_INGREDIENT_SCORES = ("samples_f1", "micro_f1", "macro_f1", "map", "nll")


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int, unknown: int = UNKNOWN) -> np.ndarray:
    """Return pixels by true class (rows) and predicted class (columns); pixels of unknown truth are left out.

    Args:
        truth: class ids, `unknown` or -100 for pixels without a label.
        predicted: class ids, of the same shape.
        classes: number of classes.
        unknown: id of unknown pixels.

    Raises:
        ValueError: other shapes, or an id outside `0..classes-1`; it is never dropped in silence.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise ValueError(f"truth has shape {truth.shape}, the prediction {predicted.shape}; resize one to the other")
    known = (truth != unknown) & (truth != IGNORED_LABEL)
    pairs = [np.asarray(values[known], dtype=np.int64) for values in (truth, predicted)]
    for what, values in zip(("truth", "prediction"), pairs, strict=True):
        outside = values[(values < 0) | (values >= classes)]
        if len(outside):
            raise ValueError(f"the {what} holds the id {outside[0]}, but ids go from 0 to {classes - 1}")
    # Each pair of classes is one number, so that a single count gives the matrix.
    counted = np.bincount(pairs[0] * classes + pairs[1], minlength=classes * classes)
    return counted.reshape(classes, classes)


def pixel_counts(confusion: np.ndarray) -> np.ndarray:
    """Return `(3 * classes,)`: per class the pixels hit, predicted and true."""
    return np.concatenate([confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)])


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the ratio, NaN where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)


def iou_per_class(sums: np.ndarray) -> np.ndarray:
    """Return intersection over union per class `(..., classes)`; NaN for a class neither true nor predicted."""
    hits, predicted, true = np.split(np.asarray(sums, dtype=np.float64), 3, axis=-1)
    return _ratio(hits, predicted + true - hits)


def dice_per_class(sums: np.ndarray) -> np.ndarray:
    """Return Dice, which is the F1 of pixels, per class; NaN for a class neither true nor predicted."""
    hits, predicted, true = np.split(np.asarray(sums, dtype=np.float64), 3, axis=-1)
    return _ratio(2 * hits, predicted + true)


def accuracy_per_class(sums: np.ndarray) -> np.ndarray:
    """Return the share of each class's true pixels that were found; NaN for a class that never occurs."""
    hits, _, true = np.split(np.asarray(sums, dtype=np.float64), 3, axis=-1)
    return _ratio(hits, true)


def _mean(values: np.ndarray, first: int) -> np.ndarray:
    kept = values[..., first:]
    # A class that is neither true nor predicted has no score and no share in the mean.
    known = np.isfinite(kept)
    return np.where(known, kept, 0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)


def _pixel_accuracy(sums: np.ndarray) -> np.ndarray:
    hits, _, true = np.split(np.asarray(sums, dtype=np.float64), 3, axis=-1)
    return hits.sum(axis=-1) / np.maximum(true.sum(axis=-1), 1)


def _counts(counts: np.ndarray, _: np.ndarray) -> np.ndarray:
    return np.asarray(counts, dtype=np.float64)


def mask_scores() -> tuple[Score, ...]:
    """Return the scores of masks; give `pixel_counts` of every picture as labels and again as probabilities."""
    whole = "one count of pixels over all pictures, unknown pixels left out"
    over = OVER_PRESENT

    def score(name: str, text: str, formula: Callable[[np.ndarray], np.ndarray]) -> Score:
        return Score(name, f"{text}; {whole}", _counts, formula, part=MASKS)

    food = BACKGROUND + 1
    return (
        score("pixel_accuracy", "share of pixels with the right class, background included", _pixel_accuracy),
        score(
            "mean_accuracy",
            "share of a class's pixels that were found; plain mean over the classes that occur, background included",
            lambda sums: _mean(accuracy_per_class(sums), 0),
        ),
        score("miou", f"intersection over union, background included; {over}", lambda s: _mean(iou_per_class(s), 0)),
        score("miou_food", f"intersection over union, no background; {over}", lambda s: _mean(iou_per_class(s), food)),
        score("dice", f"Dice, background included; {over}", lambda sums: _mean(dice_per_class(sums), 0)),
        score("dice_food", f"Dice, no background; {over}", lambda sums: _mean(dice_per_class(sums), food)),
    )


def group_scores(names: Sequence[str]) -> tuple[Score, ...]:
    """Return the scores of masks read as food groups, for classes that are ingredients; none for other classes."""
    if food_groups(names) is None:
        return ()
    read = "classes are food groups, each with the summed probability of its ingredients"
    return tuple(
        replace(score, name=GROUP_PREFIX + score.name, definition=f"{score.definition}; {read}", part=GROUP_MASKS)
        for score in mask_scores()
    )


def ingredient_scores(names: Sequence[str]) -> tuple[Score, ...]:
    """Return the scores of ingredient labels, one rule for all models; labels 0/1 and probabilities `(rows, names)`.

    Args:
        names: classes without the background, which is no ingredient.
    """
    decide = Decision()

    def counts(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        predicted = decide(probabilities)
        return np.stack([(truth > 0) & predicted, predicted, truth > 0], axis=1).sum(axis=2).astype(np.float64)

    known = {score.name: score for score in multilabel_scores(names, decide)}
    shown = [known[name] for name in _INGREDIENT_SCORES]
    rule = f"counted over all rows and labels together; prediction: {decide.describe()}"
    shown += [
        Score(
            "precision",
            f"hits / predicted, {rule}",
            counts,
            lambda sums: np.nan_to_num(_ratio(sums[..., 0], sums[..., 1])),
        ),
        Score("recall", f"hits / true, {rule}", counts, lambda sums: np.nan_to_num(_ratio(sums[..., 0], sums[..., 2]))),
    ]
    return tuple(replace(score, name=INGREDIENT_PREFIX + score.name, part=INGREDIENTS) for score in shown)


def all_background(counts: np.ndarray) -> np.ndarray:
    """Return the pixels hit, predicted and true per class of masks that are background everywhere."""
    hits, predicted, true = np.split(counts.copy(), 3, axis=1)
    # Only the background is predicted, and it is right where it is true.
    hits[:], predicted[:] = 0, 0
    hits[:, 0], predicted[:, 0] = true[:, 0], true.sum(axis=1)
    return np.concatenate([hits, predicted, true], axis=1)


def most_frequent(shown: np.ndarray) -> np.ndarray:
    """Return 1 for as many of the most frequent ingredients as a picture shows on average, 0 for the others."""
    frequent = np.zeros(shown.shape[1])
    frequent[np.argsort(-shown.sum(axis=0), kind="stable")[: max(round(shown.sum(axis=1).mean()), 1)]] = 1
    return frequent


def class_table(names: Sequence[str], counts: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Return IoU, Dice, accuracy and share of true pixels per class from summed counts; None where undefined."""
    true = np.split(np.asarray(counts, dtype=np.float64), 3)[2]
    columns = {
        "iou": iou_per_class(counts),
        "dice": dice_per_class(counts),
        "accuracy": accuracy_per_class(counts),
        "share_of_pixels": true / max(true.sum(), 1),
    }
    return {
        name: {what: None if np.isnan(values[i]) else float(values[i]) for what, values in columns.items()}
        for i, name in enumerate(names)
    }
