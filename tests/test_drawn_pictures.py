"""What readers say of drawn pictures, between plates of other dishes and the dishes' own, and distances of pictures."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.trainer_scripts.conftest import make_row, write_dataset
from tests.trainer_scripts.tiny_runs import run

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    rows = {split: [make_row(split, index) for index in range(30)] for split in ("train", "validation", "test")}
    return write_dataset(tmp_path_factory.mktemp("plates") / "flavour-sd", rows)


@pytest.fixture
def drawn_pictures(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("drawn_pictures")


def measured(tool, monkeypatch, drawn, plates, out, *more) -> dict:
    command = ["drawn_pictures", drawn, plates, "--out", out, "--extractor", "package:plates-resnet18", *more]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    assert tool.main() == 0
    return json.loads((out / "drawn_pictures.json").read_text())


def test_plates_themselves_reach_the_ceiling_and_others_do_not(drawn_pictures, plates, tmp_path, monkeypatch, capsys):
    reader = run(tmp_path / "reader", plates, "--modality", "image", "--text_encoder", "none", "--max_steps", "1")

    def row(split, index):
        # Larger, and every second one shows another dish.
        return make_row(split, index, 48) | {"image": make_row(split, index + index % 2, 48)["image"]}

    # One dish is not drawn.
    splits = ("train", "validation", "test")
    drawn = write_dataset(tmp_path / "drawn", {split: [row(split, index) for index in range(29)] for split in splits})
    several = {
        split: [make_row(split, index) | {"title": f"dish {index // 2}"} for index in range(6)] for split in splits
    }
    several, out = write_dataset(tmp_path / "several", several), tmp_path / "out"
    content = measured(drawn_pictures, monkeypatch, drawn, plates, out, "--readers", reader, "--several", several)
    (read,) = content["readers"].values()
    assert read["rows"] == 29
    accuracy = read["scores"]["accuracy"]
    assert accuracy["drawn"]["low"] <= accuracy["drawn"]["value"] <= accuracy["drawn"]["high"]
    assert content["distances"]["frechet"]["drawn"] > 0
    assert content["distances"]["diversity"]["others"] > 0
    assert (out / "sheet.png").is_file()
    assert "reader, accuracy |" in capsys.readouterr().out

    content = measured(drawn_pictures, monkeypatch, plates, plates, tmp_path / "same", "--readers", reader)
    (read,) = content["readers"].values()
    same = read["scores"]["accuracy"]
    assert same["drawn"] == same["own plate"]
    assert content["distances"]["frechet"]["drawn"] == pytest.approx(0, abs=1e-3)


def test_the_frechet_distance_of_shifted_features_is_the_shift_squared(drawn_pictures):
    features = np.random.default_rng(0).normal(size=(500, 3))
    assert drawn_pictures.frechet(features, features + np.array([1.0, 2.0, 0])) == pytest.approx(5, rel=1e-6)
    wide = drawn_pictures.frechet(features, 3 * (features - features.mean(axis=0)) + features.mean(axis=0))
    assert wide == pytest.approx(4 * np.trace(np.cov(features, rowvar=False)), rel=1e-6)


def test_other_dishes_are_refused(drawn_pictures, plates, tmp_path, monkeypatch, capsys):
    rows = {split: [make_row(split, index + 100) for index in range(2)] for split in ("train", "validation", "test")}
    other = write_dataset(tmp_path / "other", rows)
    monkeypatch.setattr(sys, "argv", ["drawn_pictures", str(other), str(plates), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        drawn_pictures.main()
    assert ended.value.code == 2
    assert "draw the same dishes" in capsys.readouterr().err
