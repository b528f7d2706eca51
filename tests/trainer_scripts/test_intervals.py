import numpy as np
import pytest
from scipy.stats import norm

from trainer_scripts.intervals import bootstrap, fit_temperature, paired_difference, scale_temperature
from trainer_scripts.scores import classification_scores, multilabel_scores

ACCURACY, MACRO_F1, NLL, ECE = classification_scores("ab")[:4]


def two_class(correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels 0 and probabilities that are right where `correct`."""
    right = np.where(correct, 0.8, 0.2)
    return np.zeros(len(correct), dtype=int), np.stack([right, 1 - right], axis=1)


def test_interval_of_accuracy_equals_the_normal_one_for_single_row_groups():
    correct = np.random.default_rng(0).random(500) < 0.7
    found = bootstrap(ACCURACY, *two_class(correct), [str(i) for i in range(500)])
    share = correct.mean()
    half = norm.ppf(0.975) * np.sqrt(share * (1 - share) / 500)
    assert found.value == pytest.approx(share)
    assert found.low == pytest.approx(share - half, abs=0.01)
    assert found.high == pytest.approx(share + half, abs=0.01)


def test_copies_of_a_row_in_one_group_do_not_narrow_the_interval():
    correct = np.random.default_rng(1).random(100) < 0.7
    single = bootstrap(ACCURACY, *two_class(correct), [str(i) for i in range(100)])
    copied = bootstrap(ACCURACY, *two_class(np.repeat(correct, 9)), [str(i // 9) for i in range(900)])
    assert copied.high - copied.low == pytest.approx(single.high - single.low, rel=0.1)


def test_a_model_against_itself_differs_by_nothing():
    labels, probabilities = two_class(np.random.default_rng(2).random(50) < 0.5)
    found = paired_difference(MACRO_F1, labels, probabilities, probabilities, [str(i) for i in range(50)])
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_paired_difference_sees_a_true_gain_and_not_noise():
    generator = np.random.default_rng(3)
    base = generator.random(400) < 0.6
    groups = [str(i) for i in range(400)]
    labels, weak = two_class(base)
    _, strong = two_class(base | (generator.random(400) < 0.3))
    found = paired_difference(ACCURACY, labels, strong, weak, groups)
    assert found.above_zero
    assert found.p < 0.01
    _, other = two_class(generator.random(400) < 0.6)
    assert not paired_difference(ACCURACY, labels, other, weak, groups).p < 0.01


def test_scores_that_are_no_sums_have_no_interval():
    score = next(score for score in multilabel_scores("ab") if score.name == "map")
    assert bootstrap(score, np.eye(2), np.eye(2), ["a", "b"]) is None


def test_temperature_undoes_overconfidence_and_keeps_the_ranking():
    generator = np.random.default_rng(4)
    probabilities = generator.dirichlet([1, 1], 2000)
    labels = (generator.random(2000) > probabilities[:, 0]).astype(int)
    sharp = scale_temperature(probabilities, 1 / 3)
    temperature = fit_temperature(NLL, labels, sharp)
    assert temperature == pytest.approx(3, rel=0.1)
    calibrated = scale_temperature(sharp, temperature)
    assert ECE(labels, calibrated) < ECE(labels, sharp) / 2
    assert (calibrated.argmax(1) == sharp.argmax(1)).all()


def test_temperature_of_multilabel_probabilities():
    probabilities = np.array([[0.9, 0.2]])
    assert scale_temperature(probabilities, 1.0, multilabel=True) == pytest.approx(probabilities)
    assert scale_temperature(probabilities, 2.0, multilabel=True)[0, 0] == pytest.approx(0.75)
