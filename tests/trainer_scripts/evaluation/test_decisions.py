"""The decision with the highest expected F1, against every set and every outcome of a few labels."""

from itertools import product

import numpy as np
import pytest

from trainer_scripts.evaluation.decisions import Decision, ExpectedF1Decision
from trainer_scripts.evaluation.scores import multilabel_scores


def f1_by_hand(chosen, probabilities):
    """Expected F1 of a set over all outcomes of independent labels."""
    total = 0.0
    for truth in product((0, 1), repeat=len(probabilities)):
        chance = np.prod([p if is_true else 1 - p for p, is_true in zip(probabilities, truth, strict=True)])
        hits = sum(c and t for c, t in zip(chosen, truth, strict=True))
        size = sum(chosen) + sum(truth)
        total += chance * (2 * hits / size if size else 0)
    return total


@pytest.mark.parametrize("seed", range(6))
def test_no_set_has_a_higher_expected_f1(seed):
    rows = np.random.default_rng(seed).beta(0.5, 1, size=(3, 5))
    for probabilities, chosen in zip(rows, ExpectedF1Decision()(rows), strict=True):
        best = max(f1_by_hand(each, probabilities) for each in product((0, 1), repeat=5) if any(each))
        assert f1_by_hand(chosen.tolist(), probabilities) == pytest.approx(best)


def test_it_beats_one_half_where_probabilities_are_true():
    draw = np.random.default_rng(1)
    probabilities = draw.beta(0.4, 1.2, size=(4000, 18))
    truth = (draw.random(probabilities.shape) < probabilities).astype(np.float32)
    values = {}
    for decision in (Decision(), ExpectedF1Decision()):
        score = multilabel_scores([str(i) for i in range(18)], decision)[0]
        values[type(decision)] = score(truth, probabilities)
        assert decision.describe() in score.definition
    assert values[ExpectedF1Decision] > values[Decision] + 0.01


def test_certain_rows_and_no_rows():
    certain = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    assert ExpectedF1Decision()(certain).tolist() == [[False, True, True], [True, False, False]]
    assert ExpectedF1Decision()(np.zeros((0, 3))).shape == (0, 3)
