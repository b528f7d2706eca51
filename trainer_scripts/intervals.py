"""Intervals and tests that respect groups: rows of one dish are drawn, or swapped, together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from trainer_scripts.scores import SMALLEST_PROBABILITY, Score

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A value with its interval; `p` is the two-sided p-value of a difference, None for a plain value."""

    value: float
    low: float
    high: float
    p: float | None = None

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.low > 0


def _group_sums(score: Score, labels: np.ndarray, probabilities: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Return the statistics of `score` summed within each group, `(groups, k)`, groups in order of first mention."""
    assert score.rows is not None
    order: dict[str, int] = {}
    index = np.array([order.setdefault(group, len(order)) for group in groups])
    rows = score.rows(np.asarray(labels), np.asarray(probabilities, dtype=np.float64))
    sums = np.zeros((len(order), rows.shape[1]))
    np.add.at(sums, index, rows)
    return sums


def _draws(groups: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each group is drawn in each resample, `(resamples, groups)`."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(np.float64)


def bootstrap(
    score: Score,
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Return the score with its percentile bootstrap interval over groups; None for a score that is no sum."""
    if score.rows is None or score.formula is None:
        return None
    sums = _group_sums(score, labels, probabilities, groups)
    values = score.formula(_draws(len(sums), resamples, seed) @ sums)
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(score.formula(sums.sum(axis=0))), float(low), float(high))


def paired_difference(
    score: Score,
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    groups: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Return `first - second` on the same rows: bootstrap interval over groups, p-value of a swap test over groups.

    The swap test exchanges the two models within each group at random (Efron & Tibshirani 1993, chapter 15) and
    counts how often the difference is at least as far from zero as the observed one.
    """
    if score.rows is None or score.formula is None:
        return None
    a, b = _group_sums(score, labels, first, groups), _group_sums(score, labels, second, groups)
    draws = _draws(len(a), resamples, seed)
    spread = score.formula(draws @ a) - score.formula(draws @ b)
    low, high = np.quantile(spread, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    observed = float(score.formula(a.sum(axis=0)) - score.formula(b.sum(axis=0)))
    swap = np.random.default_rng(seed + 1).integers(0, 2, size=(resamples, len(a))).astype(np.float64)
    keep = 1 - swap
    swapped = score.formula(keep @ a + swap @ b) - score.formula(keep @ b + swap @ a)
    p = (1 + np.count_nonzero(np.abs(swapped) >= abs(observed) - 1e-12)) / (resamples + 1)
    return Interval(observed, float(low), float(high), float(p))


def _logits(probabilities: np.ndarray, multilabel: bool) -> np.ndarray:
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.log(clipped / (1 - clipped)) if multilabel else np.log(clipped)


def scale_temperature(probabilities: np.ndarray, temperature: float, multilabel: bool = False) -> np.ndarray:
    """Return the probabilities after dividing the logits by `temperature` (Guo et al. 2017)."""
    logits = _logits(probabilities, multilabel) / temperature
    if multilabel:
        return 1 / (1 + np.exp(-logits))
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


def fit_temperature(nll: Score, labels: np.ndarray, probabilities: np.ndarray, multilabel: bool = False) -> float:
    """Return the temperature with the least negative log-likelihood; give validation rows, never test rows."""
    found = minimize_scalar(
        lambda log_t: nll(labels, scale_temperature(probabilities, float(np.exp(log_t)), multilabel)),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
    )
    return float(np.exp(found.x))
