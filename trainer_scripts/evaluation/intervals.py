"""Intervals and tests that respect groups: rows of one dish are drawn, or swapped, together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from trainer_scripts.evaluation.scores import SMALLEST_PROBABILITY, Score, checked

RESAMPLES = 2000
# Mean average precision sorts all rows, so it is resampled less often.
DIRECT_RESAMPLES = 500
# Numbers in one block of resamples: 80 MB.
BLOCK_CELLS = 10_000_000
KEPT_CELLS = 2 * BLOCK_CELLS
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

    @property
    def tested(self) -> bool:
        """Whether the paired test, where there is one, is significant at the level of the interval."""
        return self.p is None or self.p < 1 - CONFIDENCE


class GroupedScores:
    """The contributions of one line's answers to each score, summed within groups; intervals and paired tests of them.

    Statistics that several scores share are computed once.

    Args:
        groups: per row its group; the bootstrap draws whole groups.
        parts: part -> (truth, answer), as `predictions.Predictions.parts`.
        own: name -> the score to compute in place of the one of that name: the same definition with this answer's
            own thresholds in it.
    """

    def __init__(
        self, groups: Sequence[str], parts: Mapping[str, tuple[Any, Any]], own: Mapping[str, Score] | None = None
    ):
        order: dict[str, int] = {}
        self.index = np.array([order.setdefault(group, len(order)) for group in groups])
        self.number = len(order)
        self.parts = parts
        self._own = own or {}
        self._sums: dict[Any, np.ndarray] = {}
        self._resampled: dict[Any, np.ndarray] = {}
        self._pairs: dict[str, tuple[Any, Any]] = {}

    def has(self, score: Score) -> bool:
        """Whether there is a truth and an answer that the score reads."""
        return score.part in self.parts

    def pair(self, score: Score) -> tuple[Any, Any]:
        """Return the truth and the answer that a score reads."""
        if score.part not in self._pairs:
            self._pairs[score.part] = checked(*self.parts[score.part])
        return self._pairs[score.part]

    def own(self, score: Score) -> Score:
        """Return the score as this answer's own decision computes it."""
        return self._own.get(score.name, score)

    def value(self, score: Score) -> float:
        """Return the score of all rows."""
        score = self.own(score)
        if score.formula is None or score.rows is None:
            return score(*self.pair(score))
        return float(score.formula(self.sums(score).sum(axis=0)))

    def sums(self, score: Score) -> np.ndarray:
        """Return the statistics of a score summed within groups, `(groups, k)`, in order of first mention."""
        score = self.own(score)
        assert score.rows is not None
        # Scores with the same statistics per row, such as F1 of several classes, share one sum.
        key = (score.part, score.rows)
        if key not in self._sums:
            rows = np.asarray(score.rows(*self.pair(score)), dtype=np.float64)
            self._sums[key] = np.zeros((self.number, rows.shape[1]))
            np.add.at(self._sums[key], self.index, rows)
        return self._sums[key]

    def resampled(self, score: Score, resamples: int, seed: int) -> np.ndarray | None:
        """Return the score of each bootstrap resample of groups, `(resamples,)`; None for one that cannot be resampled.

        The same seed draws the same groups for every answer on the same rows, so differences of these are paired.
        """
        score = self.own(score)
        if score.rows is not None and score.formula is not None:
            key = (score.part, score.rows, resamples, seed)
            if key not in self._resampled:
                sums = self.sums(score)
                # A resample is a vector of how often each group was drawn; its sums are one matrix product.
                blocks = _random(False, self.number, resamples, seed)
                self._resampled[key] = np.concatenate([draws @ sums for draws in blocks])
            return score.formula(self._resampled[key])
        if score.weighted is not None:
            truth, answer = self.pair(score)
            blocks = _random(False, self.number, resamples, seed)
            return np.concatenate([score.weighted(truth, answer, draws[:, self.index]) for draws in blocks])
        return None

    def interval(self, score: Score, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
        """Return the score with its bootstrap interval over groups; None where it cannot be resampled."""
        values = self.resampled(score, _affordable(score, resamples), seed)
        if values is None:
            return None
        value = self.value(score)
        return Interval(value, *_limits(values, value, score.highest))

    def difference(
        self, other: "GroupedScores", score: Score, resamples: int = RESAMPLES, seed: int = 0
    ) -> Interval | None:
        """Return this score minus another's on the same rows: bootstrap interval, and p of a swap test, over groups.

        The swap test exchanges the two answers within each group at random (Efron & Tibshirani 1993, chapter 15) and
        counts how often the difference is at least as far from zero as the observed one. A score that is no formula
        of sums has no p.
        """
        number = _affordable(score, resamples)
        mine, theirs = self.resampled(score, number, seed), other.resampled(score, number, seed)
        if mine is None or theirs is None:
            return None
        value = self.value(score) - other.value(score)
        p = self._swap_test(other, score, resamples, seed + 1) if score.formula is not None else None
        return Interval(value, *_limits(mine - theirs, value, score.highest), p)

    def apart(self, other: "GroupedScores", score: Score, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
        """Return this score minus another's on other rows, with a bootstrap interval; each draws its own groups."""
        number = _affordable(score, resamples)
        # Another seed, so that the draws of two data sets with equally many groups are independent.
        mine, theirs = self.resampled(score, number, seed), other.resampled(score, number, seed + 2)
        if mine is None or theirs is None:
            return None
        value = self.value(score) - other.value(score)
        return Interval(value, *_limits(mine - theirs, value, score.highest))

    def _swap_test(self, other: "GroupedScores", score: Score, resamples: int, seed: int) -> float:
        assert score.formula is not None
        a, b = self.sums(score), other.sums(score)
        total_a, total_b, exchange = a.sum(axis=0), b.sum(axis=0), b - a
        observed = float(score.formula(total_a) - score.formula(total_b))
        further = 0
        for swap in _random(True, self.number, resamples, seed):
            # What leaves one total enters the other.
            moved = swap @ exchange
            swapped = score.formula(total_a + moved) - score.formula(total_b - moved)
            # Equal differences count although their sums were added up in another order.
            further += int(np.count_nonzero(np.abs(swapped) >= abs(observed) - 1e-12))
        # The observed answers are one of the possible exchanges, so that p is never 0.
        return float((1 + further) / (resamples + 1))


def _limits(values: np.ndarray, value: float, highest: float) -> tuple[float, float]:
    """Return percentile limits of resampled values, moved by the bias of resampling (Efron & Tibshirani 1993, 10.2).

    They stay between `-highest` and `highest`, beyond which no value and no difference lies. A mean over classes falls
    where a resample misses the pictures of a rare one: unmoved, limits would lie below it.
    """
    moved = values - (values.mean() - value)
    low, high = np.quantile(moved, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    # What is never below zero, such as a calibration error, has no limit there either.
    lowest = 0.0 if values.min() >= 0 and value >= 0 else -highest
    low, high = np.clip([low, high], lowest, highest)
    # Where all resamples of few rows lie on one side of the value, the interval still holds it.
    return float(min(low, value)), float(max(high, value))


def _affordable(score: Score, resamples: int) -> int:
    """Return the number of resamples; a score that is no formula of sums costs too much for all of them."""
    return resamples if score.formula is not None else min(resamples, DIRECT_RESAMPLES)


def _blocks(swaps: bool, groups: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield blocks `(block, groups)` of random numbers that fit the memory.

    Each number counts how often a group is drawn in a resample; with `swaps` it is 1 where the two answers to a group
    are exchanged, else 0.
    """
    generator = np.random.default_rng(seed)
    most = max(1, min(resamples, BLOCK_CELLS // groups))
    for start in range(0, resamples, most):
        size = min(most, resamples - start)
        if swaps:
            block = generator.integers(0, 2, size=(size, groups))
        else:
            block = generator.multinomial(groups, np.full(groups, 1 / groups), size=size)
        yield block.astype(np.float64)


@lru_cache(maxsize=4)
def _kept(swaps: bool, groups: int, resamples: int, seed: int) -> list[np.ndarray]:
    return list(_blocks(swaps, groups, resamples, seed))


def _random(swaps: bool, groups: int, resamples: int, seed: int) -> Iterable[np.ndarray]:
    """Return `_blocks`, kept for the next line of a comparison where they are not too many."""
    make = _kept if groups * resamples <= KEPT_CELLS else _blocks
    return make(swaps, groups, resamples, seed)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for their number (Holm 1979): each may be read as if it were the only test."""
    found, running = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        # A larger p-value never gets a smaller adjusted one.
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[name]))
        found[name] = running
    return found


def scale_temperature(probabilities: np.ndarray, temperature: float, multilabel: bool = False) -> np.ndarray:
    """Return the probabilities after dividing the logits by `temperature` (Guo et al. 2017)."""
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    if multilabel:
        return 1 / (1 + np.exp(-(np.log(clipped / (1 - clipped)) / temperature)))
    # The logits are known up to a constant per row, which the softmax ignores.
    logits = np.log(clipped) / temperature
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


def fit_temperature(nll: Score, labels: np.ndarray, probabilities: np.ndarray, multilabel: bool = False) -> float:
    """Return the temperature with the least negative log-likelihood; give validation rows, never test rows."""
    # On a logarithmic scale, on which halving and doubling are steps of the same size.
    found = minimize_scalar(
        lambda log_t: nll(labels, scale_temperature(probabilities, float(np.exp(log_t)), multilabel)),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
    )
    return float(np.exp(found.x))
