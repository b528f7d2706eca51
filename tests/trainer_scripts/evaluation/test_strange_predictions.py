"""Prediction folders that were damaged or changed by hand are refused in one line that names the file."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder.errors import BadInputError
from tests.conftest import SHARED
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.score_file import read_scores
from trainer_scripts.evaluation.scores import CLASSES

GOOD = {
    "schema_version": 2,
    "model": "m",
    "task": "classification",
    "modality": "fusion",
    "split": "test",
    "rows": 3,
    "groups": 3,
    "rows_sha256": "0" * 64,
    "label_names": ["a", "b"],
    "metrics": {"accuracy": {"value": 0.5, "low": 0.1, "high": 0.9}},
    "baselines": {},
    "ablations": {},
    "leads": {},
    "definitions": {"accuracy": {"definition": "d", "sha256": "0"}},
}


@pytest.fixture
def folder(tmp_path) -> Path:
    probabilities = np.array([[0.1, 0.9], [0.5, 0.5], [1, 0]], np.float32)
    Predictions(["x", "y", "z"], ["x", "y", "z"], {CLASSES: (np.array([0, 1, 1]), probabilities)}).save(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps(GOOD))
    return tmp_path


def test_a_folder_whose_name_looks_like_an_address_is_written_and_read(folder):
    other = folder / "a:b"
    other.mkdir()
    Predictions.load(folder).save(other)
    assert Predictions.load(other).ids == ["x", "y", "z"]


EDITS = {
    "metrics": [5, {"accuracy": 5}, {"accuracy": {"value": "x"}}, {"accuracy": {}}, {"accuracy": {"value": [1]}}],
    "definitions": [5, {"accuracy": 5}, {"accuracy": {}}, [1]],
    "label_names": [5, [1], {"a": 1}],
    "task": [5, None],
    "rows": ["3", None],
    "baselines": [5, {"a": 5}, {"a": {"b": 5}}],
    "leads": [[1], {"a": {"b": {"c": "d"}}}],
    "thresholds": ["x", ["x"]],
    "schema_version": ["x", 99, None],
    "details": [[1]],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in EDITS.items() for value in values])
def test_scores_that_were_changed_by_hand(folder, name, value):
    (folder / "metrics.json").write_text(json.dumps({**GOOD, name: value}))
    with pytest.raises(BadInputError, match=r"metrics\.json"):
        read_scores(folder)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 10**5, '{"a":' * 2000 + "1" + "}" * 2000, "\x00"])
def test_scores_that_are_no_json_object(folder, text):
    (folder / "metrics.json").write_text(text)
    with pytest.raises(BadInputError, match=r"metrics\.json"):
        read_scores(folder)


OLD = {**GOOD, "metrics": {"accuracy": 0.5}, "intervals": {"accuracy": [0.1, 0.9]}}


@pytest.mark.parametrize("intervals", ["a" * 5000, {"accuracy": "aa"}, {"accuracy": [1]}, {"accuracy": 5}, [1]])
def test_scores_of_an_earlier_version_with_other_intervals(folder, intervals):
    old = {name: value for name, value in OLD.items() if name not in ("schema_version", "leads", "ablations")}
    (folder / "metrics.json").write_text(json.dumps({**old, "intervals": intervals}))
    with pytest.raises(BadInputError, match=r"metrics\.json"):
        read_scores(folder)


TABLES = {
    "no answers": {"id": ["x"], "group": ["x"]},
    "no ids": {"label": [0], "probabilities": [[0.5, 0.5]]},
    "ids of numbers": {"id": [1], "group": ["x"], "label": [0], "probabilities": [[0.5, 0.5]]},
    "no group": {"id": ["x"], "group": [None], "label": [0], "probabilities": [[0.5, 0.5]]},
    "no rows": {"id": pa.array([], pa.string()), "group": pa.array([], pa.string()), "label": pa.array([], pa.int64()),
                "probabilities": pa.array([], pa.list_(pa.float32()))},
    "labels of words": {"id": ["x"], "group": ["x"], "label": ["a"], "probabilities": [[0.5, 0.5]]},
    "no label": {"id": ["x"], "group": ["x"], "label": pa.array([None], pa.int64()), "probabilities": [[0.5, 0.5]]},
    "a label beyond": {"id": ["x"], "group": ["x"], "label": [7], "probabilities": [[0.5, 0.5]]},
    "a negative label": {"id": ["x"], "group": ["x"], "label": [-1], "probabilities": [[0.5, 0.5]]},
    "labels beyond": {"id": ["x"], "group": ["x"], "labels": [[7]], "probabilities": [[0.5, 0.5]]},
    "uneven": {"id": ["x", "y"], "group": ["x", "y"], "label": [0, 0], "probabilities": [[0.5, 0.5], [1.0]]},
    "NaN": {"id": ["x"], "group": ["x"], "label": [0], "probabilities": [[float("nan"), 0.5]]},
    "above 1": {"id": ["x"], "group": ["x"], "label": [0], "probabilities": [[9.0, 0.5]]},
    "words": {"id": ["x"], "group": ["x"], "label": [0], "probabilities": ["x"]},
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_predictions_of_another_form(folder, name):
    pq.write_table(pa.table(TABLES[name]), folder / "predictions.parquet")
    with pytest.raises(BadInputError, match=r"predictions\.parquet is no prediction file of score\.py"):
        Predictions.load(folder)


@pytest.mark.parametrize("place", [0, 4, 50, 200, -20, -5])
def test_predictions_with_changed_bytes_are_refused_or_right(folder, place):
    path = folder / "predictions.parquet"
    right, content = Predictions.load(folder), bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    try:
        found = Predictions.load(folder)
    except BadInputError as error:
        assert "predictions.parquet" in str(error)  # noqa: PT017
    else:
        assert found.ids == right.ids or len(found.ids) == len(right.ids)


@pytest.mark.parametrize("number", ["00", "01"])
def test_the_cases_that_failed_before(number):
    folder = SHARED / "cases" / "trust" / "predictions" / number / "b"
    if not folder.is_dir():
        pytest.skip("the folder of cases is not beside this checkout")
    with pytest.raises(BadInputError):
        (read_scores(folder), Predictions.load(folder))
