"""How probabilities become sets of labels: by thresholds, or as the set with the highest expected F1."""

from dataclasses import dataclass

import numpy as np

ROWS_AT_ONCE = 4096
# Names of the decisions on command lines and in metrics.json.
THRESHOLD, EXPECTED_F1 = "threshold", "expected_f1"


@dataclass(frozen=True)
class ExpectedF1Decision:
    """Per row the most probable labels, as many as make the expected F1 of the row largest.

    With labels independent given the row, the best set always consists of the k most probable ones for some k, and its
    expected F1 is a sum over two Poisson-binomial counts (Lewis 1995; Ye et al., ICML 2012, section 3.2). At least one
    label is predicted.
    """

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the predicted sets as a boolean array `(rows, labels)`."""
        probabilities = np.asarray(probabilities, dtype=np.float64)
        parts = [
            best_sets(probabilities[start : start + ROWS_AT_ONCE])
            for start in range(0, len(probabilities), ROWS_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.zeros(probabilities.shape, dtype=bool)

    def describe(self) -> str:
        """Return the rule as text, for the definition of every score that uses it."""
        return "the most probable labels, at least one, as many as make the row's expected F1 largest"


def best_sets(probabilities: np.ndarray) -> np.ndarray:
    """Return the set with the highest expected F1 of each row of `(rows, labels)` probabilities."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    expected = expected_f1(np.take_along_axis(probabilities, order, axis=1))
    # Sorted by probability, the best set consists of the first labels.
    chosen = np.arange(probabilities.shape[1])[None] <= expected.argmax(axis=1)[:, None]
    result = np.zeros(probabilities.shape, dtype=bool)
    np.put_along_axis(result, order, chosen, axis=1)
    return result


def expected_f1(probabilities: np.ndarray) -> np.ndarray:
    """Return the expected F1 of predicting the first k + 1 labels, `(rows, labels)` at place k.

    Args:
        probabilities: `(rows, labels)`, falling from left to right.
    """
    labels = probabilities.shape[1]
    # Chance of each number of true labels among the first k, and among those after them.
    first = counts(probabilities)
    rest = counts(probabilities[:, ::-1])[::-1]
    result = np.empty(probabilities.shape)
    for k in range(1, labels + 1):
        hits, missed = np.arange(k + 1), np.arange(labels - k + 1)
        f1 = 2 * hits[:, None] / (k + hits[:, None] + missed[None])
        # The F1 of each pair of counts, weighted by the chances of both.
        result[:, k - 1] = np.einsum("ra,ab,rb->r", first[k], f1, rest[k])
    return result


def counts(probabilities: np.ndarray) -> list[np.ndarray]:
    """Return for n = 0, 1, ... the chances `(rows, n + 1)` of each number of true labels among the first n."""
    found = [np.ones((len(probabilities), 1))]
    for index in range(probabilities.shape[1]):
        before, chance = found[-1], probabilities[:, index : index + 1]
        after = np.zeros((len(before), before.shape[1] + 1))
        # The next label is either false, or true and raises the number by one.
        after[:, :-1] += before * (1 - chance)
        after[:, 1:] += before * chance
        found.append(after)
    return found


@dataclass(frozen=True)
class Decision:
    """How probabilities become a set of labels.

    Attributes:
        thresholds: one number for all labels, or one per label; a label is predicted when its probability is at
            least its threshold.
        best_label_fallback: whether a row in which no label passes gets its most probable one.
    """

    thresholds: float | tuple[float, ...] = 0.5
    best_label_fallback: bool = True

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the predicted sets as a boolean array `(rows, labels)`."""
        probabilities = np.asarray(probabilities)
        chosen = probabilities >= np.asarray(self.thresholds)
        if self.best_label_fallback:
            empty = ~chosen.any(axis=1)
            chosen[empty, probabilities[empty].argmax(axis=1)] = True
        return chosen

    def describe(self) -> str:
        """Return the rule as text, for the definition of every score that uses it."""
        if isinstance(self.thresholds, float):
            rule = f"probability >= {self.thresholds:g}"
        else:
            rule = "probability >= the label's own threshold, tuned for its F1 on the selection split"
        return rule + (", the most probable label when none passes" if self.best_label_fallback else ", possibly none")
