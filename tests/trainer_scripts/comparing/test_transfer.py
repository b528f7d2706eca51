"""The same models on a second data set: what is said of them there, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.trainer_scripts.conftest import make_row, refused, write_dataset
from tests.trainer_scripts.tiny_runs import run
from trainer_scripts import compare
from trainer_scripts.comparing.transfer import confusions
from trainer_scripts.evaluation.intervals import GroupedScores
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import CLASSES, classification_scores
from trainer_scripts.scoring.saved_model import load_model, load_table

NAMES = ("sweet", "salty", "sour")


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Two splits of dishes of other names; one has a title of the training rows."""
    rows = {split: [make_row(split, 500 + index) for index in range(15)] for split in ("train", "test")}
    rows["test"][0]["title"] = make_row("train", 3)["title"].upper()
    return write_dataset(tmp_path_factory.mktemp("other") / "photographs", rows)


@pytest.fixture(scope="module")
def compared(small_dataset, other, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("transfer")
    models = [
        str(run(folder / kind, small_dataset, "--num_train_epochs", "1", "--modality", kind))
        for kind in ("fusion", "text")
    ]
    compare.main([*models, str(small_dataset), "--also", str(other), "--out", str(folder / "out")])
    return folder, json.loads((folder / "out" / "comparison.json").read_text())["transfer"]


def test_scores_there_are_those_of_all_rows_of_the_second_data_set(compared, other):
    folder, found = compared
    assert (found["rows"], found["groups"], found["split"], found["titles_in_training"]) == (30, 30, "all splits", 1)
    for name in ("fusion", "text"):
        model = load_model(str(folder / name))
        table = load_table(model, str(other), None)
        answered = model.task.answers(model, table, 64)
        right = (answered.probabilities.argmax(1) == table.labels).mean()
        line = found["models"][name]
        assert line["there"]["value"] == pytest.approx(right)
        assert line["difference"]["value"] == pytest.approx(line["there"]["value"] - line["here"]["value"])
        assert line["difference"]["low"] <= line["difference"]["value"] <= line["difference"]["high"]
        assert sum(each["rows"] for each in line["confusions"]) <= round(30 * (1 - right))
        assert set(line["calibration"]) >= {"temperature", "ece there", "ece there, scaled", "nll there"}
    assert set(found["models"]["fusion"]["without"]) == {"text left out", "image left out"}
    assert found["models"]["text"]["without"] == {}
    assert set(found["differences"]) == {"text"}
    # Of 30 rows, six have each flavour.
    assert found["entries"]["most frequent label there"]["scores"]["accuracy"]["value"] == pytest.approx(0.2)


def test_report_and_card_show_it_under_its_own_heading(compared):
    folder, found = compared
    report = (folder / "out" / "comparison.md").read_text()
    assert "## On photographs\n\nThe same models on 30 rows in 30 groups" in report
    assert "1 of the rows have a title that is in the training rows." in report
    assert "| fusion, image left out |" in report
    card = (folder / "fusion" / "README.md").read_text()
    assert "## On other data: photographs" in card
    assert "## Most common confusions on photographs" in card
    value = found["models"]["fusion"]["there"]
    assert f"| there | {value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}] |" in card


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--also", "DATA"], "is the data set that is compared on; name another, or --also_split"),
        (["--also_split", "test"], "--also_split is about the data set of --also, which is not given"),
        (["--also", "DATA", "--also_split", "train"], "was trained on"),
        (["--also", "OTHER", "--also_split", "exam"], "has no split 'exam'; it has train, test"),
    ],
)
def test_a_second_data_set_that_proves_nothing_is_refused(
    compared, small_dataset, other, tmp_path, capsys, more, message
):
    words = [{"DATA": small_dataset, "OTHER": other}.get(word, word) for word in more]
    given = [compared[0] / "text", small_dataset, *words, "--out", tmp_path]
    assert message in refused(capsys, compare, *given)


def test_predictions_alone_have_no_second_data_set(compared, capsys, tmp_path):
    scores = compared[0] / "out" / "text"
    message = refused(capsys, compare, scores, scores, "--also", "DATA", "--out", tmp_path)
    assert "--also scores models on a second data set; give models" in message


def test_confusions_are_counted_and_the_most_frequent_come_first():
    truth, answer = np.array([0, 0, 0, 1, 1, 2]), np.array([1, 1, 0, 2, 1, 2])
    predictions = Predictions.of_classes(list("abcdef"), list("abcdef"), truth, np.eye(3)[answer])
    assert confusions(predictions, list(NAMES)) == [
        {"truth": "sweet", "answer": "salty", "rows": 2, "share": 2 / 3},
        {"truth": "salty", "answer": "sour", "rows": 1, "share": 0.5},
    ]
    sets = Predictions.of_classes(
        ["a", "b"], ["a", "b"], np.array([[1, 0, 1], [1, 0, 0]]), np.array([[0.9, 0, 0.1], [0, 1, 0]])
    )
    assert {(each["truth"], each["answer"]): each["rows"] for each in confusions(sets, list(NAMES))} == {
        ("sweet", "none"): 1, ("sour", "none"): 1, ("none", "salty"): 1,
    }  # fmt: skip


def test_a_difference_between_two_samples_is_wider_than_either(small_dataset):
    accuracy = classification_scores(NAMES)[0]
    generator = np.random.default_rng(0)

    def scored(rows, right):
        truth = generator.integers(0, 3, rows)
        answer = np.where(generator.random(rows) < right, truth, (truth + 1) % 3)
        return GroupedScores([str(row) for row in range(rows)], {CLASSES: (truth, np.eye(3)[answer])})

    here, there = scored(400, 0.8), scored(100, 0.5)
    found, alone = there.apart(here, accuracy), there.interval(accuracy)
    assert found.value == pytest.approx(there.value(accuracy) - here.value(accuracy))
    assert found.high - found.low > alone.high - alone.low
    # The standard error of independent shares, from the binomial.
    error = np.sqrt(here.value(accuracy) * (1 - here.value(accuracy)) / 400 + 0.25 / 100)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.p is None
