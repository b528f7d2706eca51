"""Scores of masks: against torchmetrics, independence of batches, the background, ids outside the label set."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassJaccardIndex

import trainer_scripts
from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.evaluation.scores import multilabel_scores
from trainer_scripts.tasks.segmentation.scores import (
    class_table,
    confusion_matrix,
    ingredient_scores,
    iou_per_class,
    mask_scores,
    pixel_counts,
)

CLASSES = 6


@pytest.fixture(scope="module")
def masks():
    """Pictures of very different sizes and contents; class 5 never occurs, class 4 is never predicted."""
    draw = np.random.default_rng(0)
    truth, found = [], []
    for side in (4, 9, 30):
        true = draw.integers(0, 5, (side, side + 2))
        wrong = draw.random(true.shape) < 0.4
        found.append(np.where(wrong, draw.integers(0, 4, true.shape), np.minimum(true, 3)))
        true[draw.random(true.shape) < 0.1] = 255
        truth.append(true)
    return truth, found


def counts_of(truth, found):
    return np.stack([pixel_counts(confusion_matrix(t, p, CLASSES)) for t, p in zip(truth, found, strict=True)])


def test_scores_equal_torchmetrics(masks):
    truth, found = (torch.cat([torch.from_numpy(mask.ravel()) for mask in each]) for each in masks)
    settings = {"num_classes": CLASSES, "ignore_index": 255}
    expected = {
        "pixel_accuracy": MulticlassAccuracy(average="micro", **settings),
        "miou": MulticlassJaccardIndex(average="macro", **settings),
        "dice": MulticlassF1Score(average="macro", **settings),
    }
    counts = counts_of(*masks)
    scores = {score.name: score(counts, counts) for score in mask_scores()}
    for name, metric in expected.items():
        assert scores[name] == pytest.approx(float(metric(found, truth)), abs=1e-6), name
    each = MulticlassJaccardIndex(average="none", **settings)(found, truth).numpy()
    iou = iou_per_class(counts.sum(axis=0))
    assert np.isnan(iou[5])
    np.testing.assert_allclose(iou[:5], each[:5], atol=1e-6)
    assert scores["miou_food"] == pytest.approx(each[1:5].mean(), abs=1e-6)
    recall = MulticlassAccuracy(average="none", **settings)(found, truth).numpy()
    assert scores["mean_accuracy"] == pytest.approx(recall[:5].mean(), abs=1e-6)


def test_the_whole_data_set_is_counted_at_once(masks):
    counts = counts_of(*masks)
    miou = next(score for score in mask_scores() if score.name == "miou")
    of_batches = np.mean([miou(counts[:2], counts[:2]), miou(counts[2:], counts[2:])])
    assert miou(counts, counts) != pytest.approx(of_batches, abs=1e-3)
    assert miou(counts[::-1], counts[::-1]) == pytest.approx(miou(counts, counts))


def test_all_background_scores_nothing_without_the_background():
    truth = np.zeros((10, 10), dtype=int)
    truth[0, 0] = 1
    counts = counts_of([truth], [np.zeros_like(truth)])
    scores = {score.name: score(counts, counts) for score in mask_scores()}
    assert scores["pixel_accuracy"] == 0.99
    assert scores["miou_food"] == scores["dice_food"] == 0


@pytest.mark.parametrize(("truth", "found", "what"), [([[7]], [[0]], "truth"), ([[0]], [[6]], "prediction")])
def test_an_id_outside_the_classes_is_an_error(truth, found, what):
    with pytest.raises(ValueError, match=rf"the {what} holds the id [67], but ids go from 0 to 5"):
        confusion_matrix(np.array(truth), np.array(found), CLASSES)
    with pytest.raises(ValueError, match="resize one to the other"):
        confusion_matrix(np.zeros((2, 2)), np.zeros((2, 3)), CLASSES)


def test_ingredients_are_judged_by_the_rule_of_all_models():
    draw = np.random.default_rng(1)
    truth, probabilities = draw.integers(0, 2, (20, 4)), draw.random((20, 4))
    names = list("abcd")
    mine = {score.name: score(truth, probabilities) for score in ingredient_scores(names)}
    family = {score.name: score(truth, probabilities) for score in multilabel_scores(names)}
    assert mine["ingredient_samples_f1"] == family["samples_f1"]
    predicted = Decision()(probabilities)
    assert mine["ingredient_precision"] == pytest.approx((predicted & (truth > 0)).sum() / predicted.sum())
    assert mine["ingredient_recall"] == pytest.approx((predicted & (truth > 0)).sum() / truth.sum())


def test_metric_module_loads_by_path(masks):
    truth, found = ([mask.tolist() for mask in each] for each in masks)
    folder = Path(trainer_scripts.__file__).parent / "metrics" / "flavour_segmentation"
    metric = evaluate.load(str(folder))
    result = metric.compute(predictions=found, references=truth, num_labels=CLASSES, with_definitions=True)
    counts = counts_of(*masks)
    assert result["per_class"] == class_table([str(i) for i in range(CLASSES)], counts.sum(axis=0))
    assert result["per_class"]["5"]["iou"] is None
    assert "one count of pixels" in result["definitions"]["miou"]["definition"]
