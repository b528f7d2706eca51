"""Every classification and multi-label score, defined once: its text, its formula and its value on resampled rows.

A score is a sum over rows, followed by a formula on the sums. That makes one definition serve the plain value, the
bootstrap over groups and the paired tests, without computing any of them a second way.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_builder.labelling.calibration import bin_numbers
from trainer_scripts.evaluation.decisions import Decision, ExpectedF1Decision

CALIBRATION_BINS = 15
# The rule of every macro average, whatever the task: absent classes have no score and no share in the mean.
OVER_PRESENT = "plain mean over the classes that are true or predicted somewhere"
# How earlier versions said that absent classes count as 0.
_OVER_ALL = re.compile(r"plain mean over all \d+ (classes of the label set|labels)")
SMALLEST_PROBABILITY = 1e-7

# The pairs of truth and answer in predictions; each score reads one of them.
CLASSES, INGREDIENTS, MASKS, GROUP_MASKS = "classes", "ingredients", "masks", "group_masks"
CAPTIONS, NAMES, TOKENS = "captions", "names", "tokens"

# Truth or answers of rows: numbers as arrays, texts as sequences.
Values = np.ndarray | Sequence[Any]
RowStatistics = Callable[[Any, Any], np.ndarray]
Formula = Callable[[np.ndarray], np.ndarray]
Weighted = Callable[[Any, Any, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Score:
    """One score with its full definition.

    Attributes:
        name: key in `metrics.json`.
        definition: the averaging, threshold and fallback in words; comparisons check its hash.
        rows: (truth, answer) -> `(rows, k)` statistics, to be summed over rows.
        formula: sums `(..., k)` -> values `(...)`.
        direct: (truth, answer) -> value, for a score that is no formula of sums (then `rows` is None).
        greater_is_better: whether a larger value is the better one.
        part: which pair of truth and answer it reads, see `predictions.Predictions`.
        weighted: (truth, answer, `(resamples, rows)` weights) -> values `(resamples,)`: how a direct score is
            resampled; None for one that has no interval.
        highest: the largest value that there can be, infinity where there is none; no interval goes beyond it.
    """

    name: str
    definition: str
    rows: RowStatistics | None
    formula: Formula | None
    direct: Callable[[Any, Any], float] | None = None
    greater_is_better: bool = True
    part: str = CLASSES
    weighted: Weighted | None = None
    highest: float = 1.0

    @property
    def sha256(self) -> str:
        """Hash of name and definition."""
        return hashlib.sha256(f"{self.name}: {self.definition}".encode()).hexdigest()

    def __call__(self, labels: Values, probabilities: Values) -> float:
        """Return the score of all rows."""
        labels, probabilities = checked(labels, probabilities)
        if self.direct is not None:
            return float(self.direct(labels, probabilities))
        assert self.rows is not None
        assert self.formula is not None
        return float(self.formula(self.rows(labels, probabilities).sum(axis=0)))


def checked(labels: Values, probabilities: Values) -> tuple[Any, Any]:
    """Return truth and answer ready for a score's maths: numbers as arrays, texts as they are.

    Raises:
        ValueError: no rows, unequal numbers of them, or an answer that is no finite number.
    """
    if len(labels) == 0:
        raise ValueError("no rows to score; give at least one row")
    if len(labels) != len(probabilities):
        raise ValueError(f"{len(labels)} labels against {len(probabilities)} rows of probabilities; give one per row")
    # Texts cannot be infinite, and their scores read them as they are.
    if isinstance(probabilities[0], str):
        return labels, probabilities
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities hold NaN or infinity; the model diverged or its input was broken")
    return labels, probabilities


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator != 0)


def f1_from_sums(sums: np.ndarray) -> np.ndarray:
    """Return F1 per class `(..., classes)` from sums of hits, predictions and truths `(..., 3 * classes)`."""
    hits, predicted, true = np.split(sums, 3, axis=-1)
    return _ratio(2 * hits, predicted + true)


def macro_f1_from_sums(sums: np.ndarray) -> np.ndarray:
    """Return the mean F1 `(...)` over the classes that are true or predicted somewhere, from the same sums."""
    _, predicted, true = np.split(sums, 3, axis=-1)
    present = predicted + true > 0
    return _ratio((f1_from_sums(sums) * present).sum(axis=-1), present.sum(axis=-1))


def present_definitions(stated: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return the definitions of a file with those of earlier versions in the words of this one.

    Scores of such files are computed anew from their predictions.
    """
    found = {}
    for name, one in stated.items():
        definition = _OVER_ALL.sub(OVER_PRESENT, one["definition"])
        changed = definition != one["definition"]
        sha256 = hashlib.sha256(f"{name}: {definition}".encode()).hexdigest() if changed else one["sha256"]
        found[name] = {**one, "definition": definition, "sha256": sha256}
    return found


def _one_hot(indices: np.ndarray, classes: int) -> np.ndarray:
    # Row `i` of the identity matrix is the one-hot vector of class `i`.
    return np.eye(classes)[indices.astype(int)]


def _class_counts(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    truth = _one_hot(labels, probabilities.shape[1])
    predicted = _one_hot(probabilities.argmax(axis=1), probabilities.shape[1])
    return np.concatenate([truth * predicted, predicted, truth], axis=1)


def per_row(values: np.ndarray) -> np.ndarray:
    """Return a value per row beside a one, whose sum counts the rows: statistics of `mean_of_rows`."""
    return np.stack([values, np.ones(len(values))], axis=1)


def mean_of_rows(sums: np.ndarray) -> np.ndarray:
    """Return the mean over rows from sums of `per_row`."""
    return sums[..., 0] / sums[..., 1]


def _correct(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return per_row((probabilities.argmax(axis=1) == labels).astype(float))


def _negative_log_likelihood(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    chosen = probabilities[np.arange(len(labels)), labels.astype(int)]
    return per_row(-np.log(np.maximum(chosen, SMALLEST_PROBABILITY)))


def _calibration_rows(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return `(rows, 3 * bins)`: row count, confidence and hits, each in the bin of the row's confidence."""
    bins = _one_hot(bin_numbers(confidence, CALIBRATION_BINS), CALIBRATION_BINS)
    return np.concatenate([bins, bins * confidence[:, None], bins * correct[:, None]], axis=1)


def _top_calibration(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    return _calibration_rows(probabilities.max(axis=1), (probabilities.argmax(axis=1) == labels).astype(float))


def _calibration_error(sums: np.ndarray) -> np.ndarray:
    rows, confidence, correct = np.split(sums, 3, axis=-1)
    return np.abs(confidence - correct).sum(axis=-1) / rows.sum(axis=-1)


def classification_scores(label_names: Sequence[str]) -> tuple[Score, ...]:
    """Return the scores of single-label classification; labels are ids `(rows,)`, probabilities `(rows, classes)`."""
    f1 = "F1 = 2 hits / (predicted + true), 0 when both are 0; prediction: the most probable class"
    scores = [
        Score("accuracy", "share of rows whose largest probability is on the true label", _correct, mean_of_rows),
        Score(
            "macro_f1",
            f"{f1}; {OVER_PRESENT}",
            _class_counts,
            macro_f1_from_sums,
        ),
        Score(
            "nll",
            f"mean of -ln(probability of the true label), probabilities clipped at {SMALLEST_PROBABILITY}",
            _negative_log_likelihood,
            mean_of_rows,
            greater_is_better=False,
            highest=np.inf,
        ),
        Score(
            "ece",
            f"expected calibration error: |mean confidence - accuracy| over {CALIBRATION_BINS} equal-width bins of the "
            "largest probability (upper edge included), weighted by rows",
            _top_calibration,
            _calibration_error,
            greater_is_better=False,
        ),
    ]
    for index, name in enumerate(label_names):
        scores.append(Score(f"f1_{name}", f"{f1}; class {name}", _class_counts, _pick(f1_from_sums, index)))
    return tuple(scores)


def _pick(formula: Formula, index: int) -> Formula:
    return lambda sums: formula(sums)[..., index]


def _average_precision(truth: np.ndarray, probabilities: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    labels = [index for index in range(truth.shape[1]) if truth[:, index].any()]
    if not labels:
        return 0.0
    return float(np.mean([average_precision_score(truth[:, i], probabilities[:, i]) for i in labels]))


def _resampled_average_precision(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return mean average precision under each row of `weights` `(resamples, rows)`; ties share one threshold."""
    found, counted = np.zeros(len(weights)), np.zeros(len(weights))
    for index in range(truth.shape[1]):
        order = np.argsort(-probabilities[:, index], kind="stable")
        scores, true = probabilities[order, index], truth[order, index] > 0
        if not true.any():
            continue
        # Rows with equal scores pass a threshold together: only the last of each tie counts.
        last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
        taken = weights[:, order]
        hits = np.cumsum(taken * true, axis=1)[:, last]
        precision = _ratio(hits, np.cumsum(taken, axis=1)[:, last])
        total = hits[:, -1]
        # Precision at each threshold, weighted by the recall that is gained there.
        gained = np.diff(hits, axis=1, prepend=0)
        found += _ratio((precision * gained).sum(axis=1), total)
        counted += total > 0
    return _ratio(found, counted)


def _binary_calibration(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    rows, labels = truth.shape
    # Each (row, label) pair is in a bin of its own; the bins of a row are added up, as rows are resampled.
    flat = _calibration_rows(probabilities.reshape(-1), truth.reshape(-1).astype(float))
    return flat.reshape(rows, labels, -1).sum(axis=1)


def _binary_cross_entropy(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    clipped = np.clip(probabilities, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    loss = -(truth * np.log(clipped) + (1 - truth) * np.log(1 - clipped)).mean(axis=1)
    return per_row(loss)


def multilabel_scores(
    label_names: Sequence[str], decision: Decision | ExpectedF1Decision | None = None
) -> tuple[Score, ...]:
    """Return the scores of multi-label classification; labels are 0/1 `(rows, labels)`, probabilities alike.

    `decision` turns probabilities into sets and describes how: a `Decision`, 0.5 by default, or an
    `ExpectedF1Decision`.
    """
    decide = decision or Decision()
    rule = f"prediction: {decide.describe()}"

    def counts(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        predicted = decide(probabilities).astype(float)
        return np.concatenate([truth * predicted, predicted, truth.astype(float)], axis=1)

    def row_f1(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        hits, predicted, true = (part.sum(axis=1) for part in np.split(counts(truth, probabilities), 3, axis=1))
        return per_row(_ratio(2 * hits, predicted + true))

    def micro(sums: np.ndarray) -> np.ndarray:
        hits, predicted, true = (part.sum(axis=-1) for part in np.split(sums, 3, axis=-1))
        return _ratio(2 * hits, predicted + true)

    f1 = "F1 = 2 hits / (predicted + true), 0 when both are 0"
    scores = [
        Score("samples_f1", f"mean over rows of the row's {f1}; {rule}", row_f1, mean_of_rows),
        Score("micro_f1", f"{f1}, counted over all rows and labels together; {rule}", counts, micro),
        Score(
            "macro_f1",
            f"{f1}, per label over all rows; {OVER_PRESENT}; {rule}",
            counts,
            macro_f1_from_sums,
        ),
        Score(
            "map",
            "average precision (step-wise area under the precision-recall curve) per label; mean over the labels "
            "with at least one true row",
            None,
            None,
            direct=_average_precision,
            weighted=_resampled_average_precision,
        ),
        Score(
            "nll",
            f"binary cross-entropy, mean over labels and rows, probabilities clipped at {SMALLEST_PROBABILITY}",
            _binary_cross_entropy,
            mean_of_rows,
            greater_is_better=False,
            highest=np.inf,
        ),
        Score(
            "ece",
            f"expected calibration error: |mean probability - share of true| over {CALIBRATION_BINS} equal-width bins "
            "of all (row, label) probabilities (upper edge included), weighted by pairs",
            _binary_calibration,
            _calibration_error,
            greater_is_better=False,
        ),
    ]
    for index, name in enumerate(label_names):
        scores.append(Score(f"f1_{name}", f"{f1}; label {name}; {rule}", counts, _pick(f1_from_sums, index)))
    return tuple(scores)


def tuned_thresholds(truth: np.ndarray, probabilities: np.ndarray) -> tuple[float, ...]:
    """Return per label the threshold with the best F1 of that label; give validation rows, never test rows.

    Raises macro-F1; samples-F1 usually falls a little, so it is an option and 0.5 the default.
    """
    # All thresholds at once, as the counts of a few labels are small.
    grid = np.linspace(0.05, 0.95, 19)
    predicted = probabilities[None] >= grid[:, None, None]  # (thresholds, rows, labels)
    hits = (predicted & (truth[None] > 0)).sum(axis=1)
    f1 = _ratio(2.0 * hits, (predicted.sum(axis=1) + truth.sum(axis=0)[None]).astype(float))
    return tuple(float(grid[index]) for index in f1.argmax(axis=0))


def evaluate_scores(scores: Sequence[Score], labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return every score of all rows by name."""
    return {score.name: score(labels, probabilities) for score in scores}


def definitions(scores: Sequence[Score]) -> dict[str, dict[str, str]]:
    """Return per score its definition and the hash of it, as `metrics.json` holds them."""
    return {score.name: {"definition": score.definition, "sha256": score.sha256} for score in scores}
