import hashlib
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torchmetrics.classification import MulticlassCalibrationError, MultilabelAveragePrecision

from trainer_scripts.evaluation import scores as module
from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.evaluation.scores import (
    OVER_PRESENT,
    classification_scores,
    definitions,
    evaluate_scores,
    multilabel_scores,
    present_definitions,
    tuned_thresholds,
)
from trainer_scripts.tasks.segmentation.scores import confusion_matrix, mask_scores, pixel_counts

METRICS = Path(module.__file__).parents[1] / "metrics"
NAMES = ("sweet", "salty", "sour", "bitter", "umami")


def random_classification(seed: int, rows: int = 200, classes: int = 5):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(classes) * 0.5, rows).astype(np.float32)
    labels = np.where(generator.random(rows) < 0.5, probabilities.argmax(1), generator.integers(0, classes, rows))
    return labels, probabilities


def random_multilabel(seed: int, rows: int = 150, labels: int = 6):
    generator = np.random.default_rng(seed)
    truth = (generator.random((rows, labels)) < 0.3).astype(np.int64)
    return truth, np.clip(truth * 0.3 + generator.random((rows, labels)) * 0.7, 0, 1)


@pytest.mark.parametrize("seed", range(3))
def test_classification_scores_equal_scikit_learn_and_torchmetrics(seed):
    labels, probabilities = random_classification(seed)
    found = evaluate_scores(classification_scores(NAMES), labels, probabilities)
    predicted = probabilities.argmax(1)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    f1 = reference.f1_score(labels, predicted, labels=range(5), average=None, zero_division=0)
    assert [found[f"f1_{name}"] for name in NAMES] == pytest.approx(f1)
    assert found["macro_f1"] == pytest.approx(f1.mean())
    assert found["nll"] == pytest.approx(reference.log_loss(labels, probabilities, labels=range(5)), abs=1e-4)
    ece = MulticlassCalibrationError(num_classes=5, n_bins=15)(
        torch.from_numpy(probabilities), torch.from_numpy(labels)
    )
    assert found["ece"] == pytest.approx(float(ece), abs=1e-5)


def test_classification_scores_where_only_one_class_occurs():
    labels, probabilities = np.zeros(4, dtype=int), np.tile([0.9, 0.025, 0.025, 0.025, 0.025], (4, 1))
    found = evaluate_scores(classification_scores(NAMES), labels, probabilities)
    assert found["accuracy"] == 1
    assert found["f1_sweet"] == 1
    assert found["macro_f1"] == 1  # of the one class that is there
    assert found["ece"] == pytest.approx(0.1)


@pytest.mark.parametrize("seed", range(3))
def test_multilabel_scores_equal_scikit_learn_and_torchmetrics(seed):
    truth, probabilities = random_multilabel(seed)
    found = evaluate_scores(multilabel_scores("abcdef", Decision(0.5, False)), truth, probabilities)
    predicted = probabilities >= 0.5
    for average in ("samples", "micro", "macro"):
        expected = reference.f1_score(truth, predicted, average=average, zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(expected)
    expected = MultilabelAveragePrecision(6)(torch.from_numpy(probabilities), torch.from_numpy(truth))
    assert found["map"] == pytest.approx(float(expected), abs=1e-5)
    expected = reference.f1_score(truth, predicted, average=None, zero_division=0)
    assert [found[f"f1_{name}"] for name in "abcdef"] == pytest.approx(expected)


def test_every_macro_average_follows_one_rule():
    """A class that is neither true nor predicted has no share; one that is predicted in vain counts as 0."""
    truth, probabilities = np.eye(4)[[0, 0, 1, 1]], np.eye(4)[[0, 0, 1, 2]]
    several = evaluate_scores(multilabel_scores("abcd"), truth.astype(int), probabilities)
    one = evaluate_scores(classification_scores("abcd"), truth.argmax(1), probabilities)
    counts = pixel_counts(confusion_matrix(truth.argmax(1), probabilities.argmax(1), 4))[None]
    masks = {score.name: score(counts, counts) for score in mask_scores()}
    expected = (1 + 2 / 3 + 0) / 3
    assert [one["macro_f1"], several["macro_f1"], masks["dice"]] == pytest.approx([expected] * 3)
    scores = (*classification_scores("abcd"), *multilabel_scores("abcd"), *mask_scores())
    averages = [score for score in scores if score.name in ("macro_f1", "dice", "dice_food", "miou", "miou_food")]
    assert len(averages) == 6
    assert all(OVER_PRESENT in score.definition for score in averages)


def test_definitions_of_former_versions_are_read_in_the_words_of_this_one():
    for scores, former in (
        (classification_scores("ab"), "plain mean over all 2 classes of the label set"),
        (multilabel_scores("ab"), "plain mean over all 2 labels"),
    ):
        score = next(score for score in scores if score.name == "macro_f1")
        old = {"definition": score.definition.replace(OVER_PRESENT, former), "sha256": "of the former"}
        assert present_definitions({"macro_f1": old}) == definitions([score])
    assert present_definitions(definitions(mask_scores())) == definitions(mask_scores())


def test_multilabel_average_precision_leaves_out_labels_that_never_occur():
    truth, probabilities = np.array([[1, 0], [0, 0]]), np.array([[0.9, 0.4], [0.2, 0.1]])
    assert evaluate_scores(multilabel_scores("ab"), truth, probabilities)["map"] == 1


def test_fallback_takes_the_most_probable_label_and_not_the_first():
    probabilities = np.array([[0.1, 0.4, 0.2], [0.6, 0.7, 0.1]])
    assert Decision()(probabilities).tolist() == [[False, True, False], [True, True, False]]
    assert not Decision(best_label_fallback=False)(probabilities)[0].any()


def test_threshold_is_on_probabilities_and_in_the_definition():
    first, second = multilabel_scores("ab", Decision(0.5)), multilabel_scores("ab", Decision(0.3))
    assert "probability >= 0.5" in first[0].definition
    assert first[0].sha256 != second[0].sha256


def test_a_frequent_label_does_not_hide_in_macro_f1_and_map():
    truth = np.zeros((100, 3), dtype=int)
    truth[:76, 0] = 1
    truth[76:, 1] = 1
    always_first = np.tile([0.9, 0.1, 0.1], (100, 1))
    found = evaluate_scores(multilabel_scores("abc"), truth, always_first)
    assert found["samples_f1"] == pytest.approx(0.76)
    assert found["macro_f1"] < 0.45
    assert found["map"] < 0.6


def test_tuned_thresholds_raise_macro_f1_on_the_rows_they_were_tuned_on():
    truth, probabilities = random_multilabel(5)
    plain = multilabel_scores("abcdef")[2](truth, probabilities)
    tuned = multilabel_scores("abcdef", Decision(tuned_thresholds(truth, probabilities), False))[2](
        truth, probabilities
    )
    assert tuned >= plain


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        (np.zeros(0), np.zeros((0, 5)), "no rows to score"),
        (np.zeros(2), np.zeros((3, 5)), "2 labels against 3 rows"),
        (np.zeros(1), np.full((1, 5), np.nan), "NaN"),
    ],
)
def test_broken_input_is_refused(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        classification_scores(NAMES)[0](labels, probabilities)


@pytest.mark.parametrize("name", ["flavour_classification", "flavour_multilabel"])
def test_metric_modules_load_offline_by_folder_and_give_the_same_figures(name):
    metric = evaluate.load(str(METRICS / name))
    if name == "flavour_classification":
        labels, probabilities = random_classification(0)
        expected = evaluate_scores(classification_scores([str(i) for i in range(5)]), labels, probabilities)
    else:
        labels, probabilities = random_multilabel(0)
        expected = evaluate_scores(multilabel_scores([str(i) for i in range(6)]), labels, probabilities)
    found = metric.compute(predictions=probabilities, references=labels, with_definitions=True)
    definitions = found.pop("definitions")
    assert found == pytest.approx(expected, abs=1e-6)
    for score, entry in definitions.items():
        assert entry["sha256"] == hashlib.sha256(f"{score}: {entry['definition']}".encode()).hexdigest()
