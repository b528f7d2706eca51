"""Score files of every version are read in one form; a file of the first version is given for each task's shape."""

import json

import numpy as np
import pytest

from dataset_builder.errors import BadInputError
from trainer_scripts.evaluation.intervals import Interval
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.score_file import SCHEMA_VERSION, entry, read_scores
from trainer_scripts.scoring.results import absent_labels, table_of_scores

COMMON = {
    "model": "outputs/one",
    "modality": "image",
    "dataset": "outputs/flavour-sd",
    "split": "test",
    "selection_split": "validation",
    "rows": 3,
    "groups": 2,
    "rows_sha256": "0",
    "definitions": {"accuracy": {"definition": "share of right rows", "sha256": "1"}},
}
CLASSIFIER = {
    **COMMON,
    "task": "classification",
    "train_split": "train",
    "label_names": ["sweet", "salty"],
    "metrics": {"accuracy": 0.5, "map": 0.25},
    "intervals": {"accuracy": [0.4, 0.6]},
}
SEGMENTER = {
    **COMMON,
    "task": "segmentation",
    "testing": "the whole picture once",
    "label_names": ["background", "egg"],
    "metrics": {"miou": {"value": 0.5, "low": 0.4, "high": 0.6}, "dice": {"value": 0.7}},
    "baselines": {"all background": {"miou": 0.1}},
    "per_class": {"egg": {"iou": 0.5}},
    "confusions": [],
    "flavour_map": {"agreement": 0.5},
}
CAPTIONER = {
    **COMMON,
    "task": "captioning",
    "metrics": {"cider": 1.5, "ingredient_f1": 0.5},
    "baselines_and_ablations": {
        "blank pictures": {"cider": 0.1},
        "shuffled pictures": {"cider": 0.2},
        "most frequent caption": {"cider": 0.3},
    },
    "truth": {
        "ingredient_f1": {"value": 0.5, "low": 0.4, "high": 0.6, "p": None},
        "ingredient_f1_lead": {
            "blank pictures": {"value": 0.2, "low": 0.1, "high": 0.3, "p": None},
            "most frequent caption": {"value": 0.1, "low": 0.0, "high": 0.2, "p": None},
        },
        "round_trip": {"rows": 3.0},
    },
    "left_out": None,
    "generation": {"num_beams": 3},
    "health": ["all 3 captions are equal ('A plate.')"],
}


def read(folder, content):
    (folder / "metrics.json").write_text(json.dumps(content))
    return read_scores(folder)


def test_an_old_file_of_a_classifier_gets_its_intervals_into_its_scores(tmp_path):
    content = read(tmp_path, CLASSIFIER)
    assert content["schema_version"] == SCHEMA_VERSION
    assert content["metrics"] == {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}, "map": {"value": 0.25}}
    assert "intervals" not in content
    assert (content["baselines"], content["ablations"], content["details"]) == ({}, {}, {})
    kept = ("label_names", "definitions", "rows_sha256", "train_split", "dataset")
    assert all(content[name] == CLASSIFIER[name] for name in kept)


def test_an_old_file_of_a_segmenter_gets_its_tables_into_details(tmp_path):
    content = read(tmp_path, SEGMENTER)
    assert content["metrics"] == SEGMENTER["metrics"]
    assert content["baselines"] == {"all background": {"miou": {"value": 0.1}}}
    assert content["details"] == {
        name: SEGMENTER[name] for name in ("testing", "per_class", "confusions", "flavour_map")
    }
    assert "per_class" not in content


def test_an_old_file_of_a_captioner_has_baselines_and_ablations_apart(tmp_path):
    content = read(tmp_path, CAPTIONER)
    assert content["metrics"] == {
        "cider": {"value": 1.5},
        "ingredient_f1": {"value": 0.5, "low": 0.4, "high": 0.6},
    }
    assert content["baselines"] == {"most frequent caption": {"cider": {"value": 0.3}}}
    assert content["ablations"] == {
        "image blank": {"cider": {"value": 0.1}},
        "image shuffled": {"cider": {"value": 0.2}},
    }
    assert content["leads"] == {
        "image blank": {"ingredient_f1": {"value": 0.2, "low": 0.1, "high": 0.3}},
        "most frequent caption": {"ingredient_f1": {"value": 0.1, "low": 0.0, "high": 0.2}},
    }
    assert content["details"]["truth"] == {"round_trip": {"rows": 3.0}}
    assert content["details"]["generation"] == {"num_beams": 3}
    assert content["faults"] == CAPTIONER["health"]
    assert content["label_names"] == []
    assert read(tmp_path, {**CAPTIONER, "health": "passed", "truth": None})["faults"] == []


def test_a_file_of_the_present_version_is_read_as_it_is(tmp_path):
    content = read(tmp_path, CAPTIONER)
    assert read(tmp_path, content) == content


def test_a_file_of_a_newer_version_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="has schema version 99, and this package reads up to 2; update"):
        read(tmp_path, {**CLASSIFIER, "schema_version": 99})


def test_a_score_is_written_with_the_limits_that_it_has():
    assert entry(0.5) == {"value": 0.5}
    assert entry(Interval(0.5, 0.4, 0.6)) == {"value": 0.5, "low": 0.4, "high": 0.6}
    assert entry(Interval(0.1, 0.0, 0.2, 0.03))["p"] == 0.03


def test_absent_labels_are_named_for_every_task():
    names = ["background", "egg", "rice"]
    one = Predictions.of_classes(["a", "b"], ["a", "b"], np.array([1, 1]), np.eye(3)[[1, 2]])
    many = Predictions.of_classes(["a"], ["a"], np.array([[0, 1, 0]]), np.full((1, 3), 0.5))
    counts = np.array([[4.0, 0, 0, 5, 1, 0, 5, 1, 0]])
    masks = Predictions(["a"], ["a"], {"masks": (counts, counts)})
    shown = Predictions(["a"], ["a"], {"ingredients": (np.array([[0, 1]]), np.array([[0.2, 0.9]]))})
    assert absent_labels(names, one) == absent_labels(names, many) == ["background", "rice"]
    assert absent_labels(names, masks) == ["rice"]
    assert absent_labels(names, shown) == ["egg"]
    content = {"metrics": {"cider": {"value": 0.0}}, "baselines": {}, "ablations": {}, "rows": 1}
    table = table_of_scores({**content, "absent_labels": ["rice"]})
    assert "absent from these rows, and unless predicted from macro averages: rice" in table
    assert "cider is 0 for a single picture" in table
