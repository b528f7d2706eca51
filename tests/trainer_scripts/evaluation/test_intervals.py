import math

import numpy as np
import pytest
from scipy.stats import norm

from trainer_scripts.evaluation import intervals
from trainer_scripts.evaluation.intervals import GroupedScores, fit_temperature, holm, scale_temperature
from trainer_scripts.evaluation.scores import Score, classification_scores, multilabel_scores
from trainer_scripts.tasks.captioning.scores import CAPTION_SCORES, METEOR_SCORE
from trainer_scripts.tasks.segmentation.scores import mask_scores, pixel_counts

ACCURACY, MACRO_F1, NLL, ECE = classification_scores("ab")[:4]


def bootstrap(score, labels, probabilities, groups):
    return GroupedScores(groups, {score.part: (labels, probabilities)}).interval(score)


def paired_difference(score, labels, first, second, groups, resamples=2000):
    ours, theirs = (GroupedScores(groups, {score.part: (labels, answer)}) for answer in (first, second))
    return ours.difference(theirs, score, resamples)


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


def test_mean_average_precision_is_resampled_as_it_is_defined():
    generator = np.random.default_rng(7)
    score = next(score for score in multilabel_scores("abc") if score.name == "map")
    truth = (generator.random((40, 3)) < 0.4).astype(int)
    # Few different values, so that there are ties.
    probabilities = generator.integers(0, 8, (40, 3)) / 8
    draws = generator.multinomial(40, np.full(40, 1 / 40), size=5)
    repeated = [np.repeat(np.arange(40), draw) for draw in draws]
    expected = [score(truth[rows], probabilities[rows]) for rows in repeated]
    assert score.weighted(truth, probabilities, draws.astype(float)) == pytest.approx(expected)
    found = bootstrap(score, truth, probabilities, [str(i) for i in range(40)])
    assert found.low < found.value < found.high


def test_a_score_that_cannot_be_resampled_has_no_interval():
    score = Score("odd", "of no sums", None, None, direct=lambda labels, _: float(len(labels)))
    assert bootstrap(score, [0, 1], np.eye(2), ["a", "b"]) is None


def test_many_groups_are_resampled_in_blocks_with_the_same_result(monkeypatch):
    labels, probabilities = two_class(np.random.default_rng(8).random(60) < 0.7)
    groups = [str(i) for i in range(60)]
    other = two_class(np.random.default_rng(9).random(60) < 0.5)[1]
    whole = paired_difference(MACRO_F1, labels, probabilities, other, groups, resamples=100)
    monkeypatch.setattr(intervals, "BLOCK_CELLS", 900)
    monkeypatch.setattr(intervals, "KEPT_CELLS", 0)
    assert paired_difference(MACRO_F1, labels, probabilities, other, groups, resamples=100) == whole


def test_p_values_are_adjusted_for_their_number():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


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


def test_the_interval_of_a_mean_over_rare_classes_holds_its_value():
    # Each of 40 classes lies in one picture of its own and is predicted, wrongly, in the others now and then.
    draw = np.random.default_rng(3)
    confusions = [np.diag(np.eye(41)[[0, row + 1]].sum(0) * 100) for row in range(40)]
    for confusion in confusions:
        confusion[0, draw.integers(1, 41, 3)] += 5
    counts = np.array([pixel_counts(confusion) for confusion in confusions])
    score = next(score for score in mask_scores() if score.name == "miou_food")
    found = bootstrap(score, counts, counts, [str(row) for row in range(40)])
    assert found.low < found.value < found.high


def test_limits_stay_within_the_range_of_the_score():
    labels = np.array([0] * 10 + [1] * 10 + [2] * 10 + [3] * 3 + [4])
    probabilities = np.eye(5)[labels]
    probabilities[0] = np.eye(5)[1]
    groups = [str(row) for row in range(len(labels))]
    scores = {score.name: score for score in classification_scores("abcde")}
    found = bootstrap(scores["macro_f1"], labels, probabilities, groups)
    assert 0.9 < found.value < found.high == 1
    # A likelihood has no such limit; clipped probabilities cost some 16 nats each.
    wrong = bootstrap(scores["nll"], labels, np.eye(5)[(labels + 1) % 5], groups)
    assert wrong.low == pytest.approx(wrong.value) == wrong.high > 10
    best = paired_difference(scores["accuracy"], labels, np.eye(5)[labels], np.eye(5)[(labels + 1) % 5], groups)
    assert (best.low, best.value, best.high) == (1, 1, 1)


def answers_to_try():
    """Truth and probabilities of perfect, tiny and one-sided answers, of one label per row."""
    several = np.array([0] * 20 + [1] * 8 + [2] * 2 + [3])
    draw = np.random.default_rng(4)
    return {
        "perfect": (several, np.eye(4)[several]),
        "perfect, a class absent": (several[:28], np.eye(4)[several[:28]]),
        "one row, right": (np.array([1]), np.eye(4)[[1]]),
        "one row, wrong": (np.array([1]), np.eye(4)[[2]]),
        "two rows": (np.array([1, 2]), np.eye(4)[[1, 1]]),
        "never right": (several, np.eye(4)[(several + 1) % 4]),
        "rare classes": (several, draw.dirichlet(np.ones(4) * 0.3, len(several))),
    }


@pytest.mark.parametrize("case", answers_to_try())
@pytest.mark.parametrize("several", [False, True], ids=["one label", "several"])
def test_intervals_hold_their_value_and_stay_in_range(case, several):
    labels, probabilities = answers_to_try()[case]
    truth = np.eye(4)[labels] if several else labels
    groups = [str(row) for row in range(len(labels))]
    scores = multilabel_scores("abcd") if several else classification_scores("abcd")
    for score in scores:
        found = bootstrap(score, truth, probabilities, groups)
        assert 0 <= found.low <= found.value <= found.high <= score.highest, score.name
        gain = paired_difference(score, truth, probabilities, np.full_like(probabilities, 0.25), groups, 200)
        assert -score.highest <= gain.low <= gain.value <= gain.high <= score.highest, score.name


@pytest.mark.parametrize("score", [*CAPTION_SCORES, METEOR_SCORE, *mask_scores(), *multilabel_scores("ab")])
def test_what_is_no_share_says_how_large_it_may_be(score):
    largest = {"cider", "nll", "cross_entropy", "perplexity", "words"}
    expected = math.inf if score.name in largest else 100 if score.name.startswith("bleu_") else 1
    assert score.highest == expected


def test_limits_of_what_is_never_negative_are_not_negative():
    # The majority's calibration error is near zero; resamples err upwards.
    labels = np.array([0, 1] * 30)
    found = bootstrap(ECE, labels, np.full((60, 2), 0.5), [str(row) for row in range(60)])
    assert found.value == pytest.approx(0, abs=1e-9)
    assert found.low == 0
