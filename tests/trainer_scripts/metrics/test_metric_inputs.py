"""What the metric modules refuse, by name and row, instead of scoring it as something else."""

import numpy as np
import pytest

from tests.trainer_scripts.metrics.test_metric_parity import module

HALF = [[0.5, 0.5]]
SOFT = [[0.2, 0.5]]
REFUSED = {
    "no rows": ("classification", [], [], {}, "no rows to score"),
    "rows of two lengths": ("classification", [[0.5, 0.5], [0.2, 0.3, 0.5]], [0, 1], {}, "row 1 has 3 probabilities"),
    "a row of nothing": ("classification", [[]], [0], {}, "row 0 has 0 probabilities"),
    "not a number": ("classification", [[float("nan"), 0.5]], [0], {}, "hold NaN or infinity"),
    "a label beyond the classes": ("classification", HALF, [2], {}, "row 0 has the label 2, but ids go from 0 to 1"),
    "a label before the classes": ("classification", HALF, [-1], {}, "row 0 has the label -1, but ids"),
    "names of other classes": ("classification", HALF, [0], {"label_names": ["a"]}, "1 label_names for 2 classes"),
    "ids of labels": ("multilabel", SOFT, [[0, 2]], {}, "row 0 has the number 2 for 2 labels"),
    "one id": ("multilabel", SOFT, [[1]], {}, "row 0 has 1 numbers for 2 labels; give a 1 for each label it has"),
    "more labels": ("multilabel", SOFT, [[0, 1, 1]], {}, "row 0 has 3 numbers for 2 labels"),
    "a negative one": ("multilabel", SOFT, [[0, -1]], {}, "row 0 has the number -1"),
    "rows of two lengths, sets": ("multilabel", [[0.2, 0.5], [0.1]], [[0, 1], [1, 0]], {}, "row 1 has 1 probabilities"),
    "a threshold of logits": ("multilabel", SOFT, [[0, 1]], {"threshold": 1.5}, "threshold is 1.5"),
    "names of other labels": ("multilabel", SOFT, [[0, 1]], {"label_names": ["a"]}, "1 label_names for 2 classes"),
    "no masks": ("segmentation", [], [], {"num_labels": 2}, "no masks to score"),
    "probabilities as a mask": ("segmentation", [[[0.4, 1]]], [[[0, 1]]], {"num_labels": 2}, "prediction 0 holds 0.4"),
    "no rectangle": ("segmentation", [[[0, 1], [0]]], [[[0, 1], [0]]], {"num_labels": 2}, "has rows of 1, 2 pixels"),
    "no classes": ("segmentation", [[[0, 1]]], [[[0, 1]]], {"num_labels": 0}, "num_labels is 0"),
    "names of other masks": (
        "segmentation", [[[0, 1]]], [[[0, 1]]], {"num_labels": 2, "label_names": ["a"]}, "1 label_names for 2 classes"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_by_name(case):
    name, predictions, references, settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        module(f"flavour_{name}").compute(predictions=predictions, references=references, **settings)


def test_classes_that_are_true_nowhere_are_named():
    found = module("flavour_classification").compute(predictions=HALF, references=[1], label_names=["a", "b"])
    assert found["absent_labels"] == ["a"]
    found = module("flavour_multilabel").compute(predictions=SOFT, references=[[1, 0]])
    assert found["absent_labels"] == ["1"]
    masks = [np.array([[0, 1]], dtype=np.uint8)]
    found = module("flavour_segmentation").compute(predictions=masks, references=masks, num_labels=3)
    assert found["absent_labels"] == ["2"]
    assert found["miou"] == 1
    found = module("flavour_segmentation").compute(predictions=masks, references=masks, num_labels=2)
    assert "absent_labels" not in found
