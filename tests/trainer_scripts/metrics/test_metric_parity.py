"""The metric modules of `evaluate` against independent libraries, on random inputs and on the edges of what comes."""

import warnings
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from pycocoevalcap.cider.cider import Cider
from sacrebleu.metrics import BLEU
from sklearn import metrics as sklearn
from torchmetrics.classification import (
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MultilabelF1Score,
)

import trainer_scripts
from trainer_scripts.evaluation.intervals import GroupedScores
from trainer_scripts.evaluation.scores import CAPTIONS, definitions, multilabel_scores
from trainer_scripts.tasks.captioning.scores import CAPTION_SCORES, CiderD, text_scores
from trainer_scripts.tasks.captioning.text import words

METRICS = Path(trainer_scripts.__file__).parent / "metrics"
VOCABULARY = ["a", "the", "two", "egg", "rice", "on", "plate", "with", "olives", "of", "bowl", "left", "3", "half"]


def module(name):
    return evaluate.load(str(METRICS / name))


def soft(generator, rows, classes):
    return generator.dirichlet(np.ones(classes) * 0.6, rows).astype(np.float32)


def classification_cases():
    generator = np.random.default_rng(0)
    random = generator.integers(0, 4, 90), soft(generator, 90, 4)
    one_class = np.full(30, 2), soft(generator, 30, 4)
    never_right = np.zeros(10, dtype=int), np.tile(np.float32([0, 0.5, 0.3, 0.2]), (10, 1))
    one_row = np.array([3]), soft(generator, 1, 4)
    certain = generator.integers(0, 4, 25), np.eye(4, dtype=np.float32)[generator.integers(0, 4, 25)]
    return {
        "random": random,
        "a single class": one_class,
        "never right": never_right,
        "one row": one_row,
        "probabilities of 0 and 1": certain,
    }


@pytest.mark.parametrize("case", classification_cases())
def test_classification_equals_scikit_learn_and_torchmetrics(case):
    labels, probabilities = classification_cases()[case]
    found = module("flavour_classification").compute(predictions=probabilities, references=labels)
    predicted = probabilities.argmax(1)
    assert found["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, predicted))
    f1 = sklearn.f1_score(labels, predicted, labels=range(4), average=None, zero_division=0)
    # A class that is neither true nor predicted has no share in the mean, as by default in both libraries.
    assert found["macro_f1"] == pytest.approx(sklearn.f1_score(labels, predicted, average="macro", zero_division=0))
    macro = MulticlassF1Score(4, average="macro")(torch.from_numpy(probabilities), torch.from_numpy(labels))
    assert found["macro_f1"] == pytest.approx(float(macro), abs=1e-6)
    assert [found[f"f1_{index}"] for index in range(4)] == pytest.approx(f1)
    each = MulticlassF1Score(4, average="none")(torch.from_numpy(probabilities), torch.from_numpy(labels))
    assert [found[f"f1_{index}"] for index in range(4)] == pytest.approx(each.tolist(), abs=1e-6)
    clipped = np.clip(probabilities.astype(np.float64), 1e-7, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn minds rows that sum to 1 + 3e-7
        expected = sklearn.log_loss(labels, clipped, labels=range(4))
    assert found["nll"] == pytest.approx(expected, abs=1e-5)
    # torchmetrics puts a confidence that lies on an edge, such as 1, into the bin above it.
    if case != "probabilities of 0 and 1":
        ece = MulticlassCalibrationError(4, n_bins=15)(torch.from_numpy(probabilities), torch.from_numpy(labels))
        assert found["ece"] == pytest.approx(float(ece), abs=1e-5)


@pytest.mark.parametrize("name", ["flavour_classification", "flavour_multilabel"])
def test_logits_are_refused_where_probabilities_are_expected(name):
    several = name.endswith("multilabel")
    truth = [[1, 0], [0, 1]] if several else [0, 1]
    with pytest.raises(ValueError, match=r"must be probabilities between 0 and 1, got -3.5; apply a s\w+ to logits"):
        module(name).compute(predictions=[[0.5, -3.5], [0.2, 0.8]], references=truth)
    if not several:
        with pytest.raises(ValueError, match=r"must sum to 1, got a sum of 1\.7; apply a softmax to logits"):
            module(name).compute(predictions=[[0.8, 0.9], [0.2, 0.8]], references=truth)


def test_a_single_picture_says_why_cider_is_0():
    with pytest.warns(UserWarning, match="cider is 0 for a single picture"):
        found = module("flavour_captioning").compute(predictions=["a red plate"], references=[["a red plate"]])
    assert found["cider"] == 0


def test_pictures_with_the_same_words_say_why_cider_is_0():
    alike = [["a dog", "a dog"], ["a dog"]]
    with pytest.warns(UserWarning, match="cider is 0 where all pictures have the same words"):
        assert module("flavour_captioning").compute(predictions=["a dog", "cat"], references=alike)["cider"] == 0


def multilabel_cases():
    generator = np.random.default_rng(1)
    random = (generator.random((80, 5)) < 0.3).astype(int), generator.random((80, 5))
    nothing_predicted = (generator.random((20, 5)) < 0.4).astype(int), np.full((20, 5), 0.1)
    nothing_true = np.zeros((10, 5), dtype=int), generator.random((10, 5))
    one_label = np.tile([1, 0, 0, 0, 0], (12, 1)), generator.random((12, 5))
    return {
        "random": random,
        "nothing predicted": nothing_predicted,
        "nothing true": nothing_true,
        "a single label": one_label,
    }


@pytest.mark.parametrize("case", multilabel_cases())
def test_multilabel_equals_scikit_learn_and_torchmetrics(case):
    truth, probabilities = multilabel_cases()[case]
    found = module("flavour_multilabel").compute(predictions=probabilities, references=truth, best_label_fallback=False)
    predicted = probabilities >= 0.5
    for average in ("samples", "micro"):
        expected = sklearn.f1_score(truth, predicted, average=average, zero_division=0)
        assert found[f"{average}_f1"] == pytest.approx(expected), average
    known = [index for index in range(5) if truth[:, index].any() or predicted[:, index].any()]
    expected = sklearn.f1_score(truth[:, known], predicted[:, known], average="macro", zero_division=0) if known else 0
    assert found["macro_f1"] == pytest.approx(expected)
    each = MultilabelF1Score(5, average="none")(torch.from_numpy(probabilities), torch.from_numpy(truth))
    assert [found[f"f1_{index}"] for index in range(5)] == pytest.approx(each.tolist(), abs=1e-6)
    present = [index for index in range(5) if truth[:, index].any()]
    expected = [sklearn.average_precision_score(truth[:, index], probabilities[:, index]) for index in present]
    assert found["map"] == pytest.approx(np.mean(expected) if expected else 0.0)


def mask_cases():
    generator = np.random.default_rng(2)
    random = generator.integers(0, 4, (3, 12, 12)), generator.integers(0, 4, (3, 12, 12))
    random[0][generator.random((3, 12, 12)) < 0.2] = 255
    all_ignored = np.full((2, 6, 6), 255), generator.integers(0, 4, (2, 6, 6))
    one_ignored = random[0].copy(), random[1]
    one_ignored[0][1] = 255
    single = np.full((2, 6, 6), 3), np.full((2, 6, 6), 3)
    return {
        "random": random,
        "all ignored": all_ignored,
        "one picture ignored": one_ignored,
        "a single class": single,
    }


@pytest.mark.parametrize("case", mask_cases())
def test_segmentation_equals_torchmetrics(case):
    truth, predicted = mask_cases()[case]
    found = module("flavour_segmentation").compute(
        predictions=predicted.tolist(), references=truth.tolist(), num_labels=4
    )
    known = truth != 255
    if not known.any():
        assert {found[name] for name in ("miou", "dice", "pixel_accuracy", "mean_accuracy")} == {0.0}
        assert all(entry["iou"] is None for entry in found["per_class"].values())
        return
    assert found["pixel_accuracy"] == pytest.approx((truth == predicted)[known].mean())
    iou = MulticlassJaccardIndex(4, average="none", ignore_index=255)(torch.tensor(predicted), torch.tensor(truth))
    present = [index for index in range(4) if found["per_class"][str(index)]["iou"] is not None]
    assert present == sorted({*truth[known].tolist(), *predicted[known].tolist()})
    assert [found["per_class"][str(index)]["iou"] for index in present] == pytest.approx(
        [float(iou[index]) for index in present], abs=1e-6
    )
    assert found["miou"] == pytest.approx(float(iou[present].mean()), abs=1e-6)
    dice = sklearn.f1_score(truth[known], predicted[known], labels=present, average="macro", zero_division=0)
    assert found["dice"] == pytest.approx(dice)


def caption_cases():
    generator = np.random.default_rng(3)

    def sentence(longest=9):
        return " ".join(generator.choice(VOCABULARY, generator.integers(1, longest)))

    references = [[sentence() for _ in range(generator.integers(1, 6))] for _ in range(25)]
    candidates = [sentence() if generator.random() < 0.6 else of_one[0] for of_one in references]
    return {
        "random": (references, candidates),
        "an empty prediction": (references, ["", *candidates[1:]]),
        "only empty predictions": (references, [""] * len(references)),
        "copies of a reference": (references, [of_one[-1] for of_one in references]),
        "one picture": (references[:1], candidates[:1]),
        "captions shorter than 4 words": ([["rice"], ["two egg"]], ["rice", "rice"]),
        "always the same caption": (references, ["a plate"] * len(references)),
    }


@pytest.mark.parametrize("case", caption_cases())
def test_captions_equal_sacrebleu_and_pycocoevalcap(case):
    references, candidates = caption_cases()[case]
    found = module("flavour_captioning").compute(predictions=candidates, references=references)
    most = max(map(len, references))
    streams = [[of_one[i] if i < len(of_one) else None for of_one in references] for i in range(most)]
    for longest in (1, 4):
        metric = BLEU(lowercase=True, smooth_method="none", max_ngram_order=longest)
        assert found[f"bleu_{longest}"] == pytest.approx(metric.corpus_score(candidates, streams).score, abs=1e-6)
    cider = Cider()
    cut = [" ".join(words(candidate)) for candidate in candidates]
    given = {row: [" ".join(words(caption)) for caption in of_one] for row, of_one in enumerate(references)}
    mean, each = cider.compute_score(given, {row: [caption] for row, caption in enumerate(cut)})
    assert found["cider"] == pytest.approx(float(mean), abs=1e-6)
    np.testing.assert_allclose(CiderD(references).scores(candidates), each, atol=1e-6)


@pytest.mark.parametrize("case", caption_cases())
def test_what_captions_contribute_by_row_adds_up_to_the_scores(case):
    references, candidates = caption_cases()[case]
    expected = text_scores(candidates, references)
    grouped = GroupedScores([str(row) for row in range(len(candidates))], {CAPTIONS: (references, candidates)})
    of_texts = [score for score in CAPTION_SCORES if score.part == CAPTIONS]
    assert {score.name for score in of_texts} == set(expected)
    for score in of_texts:
        assert grouped.value(score) == pytest.approx(expected[score.name], abs=1e-6), score.name
    interval = grouped.interval(next(score for score in of_texts if score.name == "bleu_4"))
    assert 0 <= interval.low <= interval.high <= 100


def test_every_module_gives_definitions_with_their_hash():
    generator = np.random.default_rng(4)
    given = {
        "flavour_classification": (soft(generator, 5, 3), generator.integers(0, 3, 5), {}),
        "flavour_multilabel": (generator.random((5, 3)), generator.integers(0, 2, (5, 3)), {}),
        "flavour_segmentation": ([[[0, 1]]], [[[1, 1]]], {"num_labels": 2}),
        "flavour_captioning": (["a egg"], [["two egg"]], {}),
    }
    assert {path.name for path in METRICS.iterdir() if path.is_dir() and path.name[0] != "_"} == set(given)
    for name, (predictions, references, settings) in given.items():
        result = module(name).compute(predictions=predictions, references=references, with_definitions=True, **settings)
        stated = result.pop("definitions")
        assert all(len(entry["sha256"]) == 64 and entry["definition"] for entry in stated.values())
        assert set(result) - {"per_class", "absent_labels"} <= set(stated), name
    assert definitions(multilabel_scores("ab"))["map"]["sha256"] == multilabel_scores("ab")[3].sha256
