"""What scoring, comparing and predicting make of saved segmenters."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataset_builder.errors import BadInputError
from tests.trainer_scripts.conftest import INGREDIENTS, ROWS, make_row, png, refused
from tests.trainer_scripts.tasks.segmentation.conftest import HEADS
from tests.trainer_scripts.tiny_runs import assert_spread_scores_equal
from trainer_scripts import compare, predict, score
from trainer_scripts.scoring.saved_model import load_model, load_table
from trainer_scripts.tasks.segmentation.comparing import pictures_seen
from trainer_scripts.tasks.segmentation.scoring import samples_for


@pytest.mark.parametrize("kind", list(HEADS))
def test_all_three_models_are_scored_by_one_rule(runs, mask_data, tmp_path, kind, capsys):
    score.main([str(runs / kind), str(mask_data), "--out", str(tmp_path)])
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert ("miou_food" in content["metrics"]) == (kind != "ingredients")
    assert (tmp_path / "panels.png").is_file() == (kind != "ingredients")
    rule = content["definitions"]["ingredient_samples_f1"]["definition"]
    assert "probability >= 0.5" in rule
    assert ("per_class" in content["details"]) == (kind != "ingredients")
    if kind != "ingredients":
        assert content["baselines"]["all background"]["miou_food"]["value"] == 0
    assert all((tmp_path / name).is_file() for name in content["files"])
    entry = content["metrics"]["ingredient_samples_f1"]
    assert entry["low"] <= entry["value"] <= entry["high"]
    assert "most frequent ingredients" in capsys.readouterr().out


def test_other_ids_are_not_scored_in_silence(runs, mask_data, tmp_path):
    saved = load_model(str(runs / "segmentation"))
    table = load_table(saved, str(mask_data), "test")
    saved.model.config.source_labels = ["background", "gold"]
    with pytest.raises(BadInputError, match="score it on data with the same ids"):
        samples_for(saved, table)


def test_figures_and_flavours_come_with_the_scores(runs, mask_data, tmp_path):
    score.main([str(runs / "multitask"), str(mask_data), "--out", str(tmp_path), "--scales", "0.75", "1", "--flip"])
    content = json.loads((tmp_path / "metrics.json").read_text())
    for name in ("panels.png", "class_bars.png", "confusion.png", "flavour_map.png"):
        assert Image.open(tmp_path / name).size[0] > 200, name
    assert content["details"]["testing"] == "the whole picture, scales 0.75, 1, mirrored too, probabilities averaged"
    assert content["details"]["flavour_map"]["classifier"] == "ingredient head"
    assert all(pair["true"] != pair["taken_for"] for pair in content["details"]["confusions"])
    rows = list(csv.DictReader((tmp_path / "flavours.csv").open()))
    assert len(rows) == ROWS["test"]
    agreement = sum(row["disagrees"] == "" for row in rows) / len(rows)
    assert content["details"]["flavour_map"]["agreement"] == pytest.approx(agreement)
    assert all((row["flavour"] == row["classifier"]) == (row["disagrees"] == "") for row in rows)
    assert {"accuracy", "agreement"} <= set(content["details"]["flavour_map"])


def test_workers_give_the_masks_of_one_process(runs, mask_data, tmp_path, monkeypatch):
    asked = ["--classifier", str(runs / "ingredients"), "--flip"]
    assert_spread_scores_equal(runs / "segmentation", mask_data, tmp_path, monkeypatch, *asked)


def test_windows_and_another_classifier(runs, mask_data, tmp_path, capsys):
    asked = ["--window", "16", "--stride", "8", "--classifier", str(runs / "ingredients")]
    score.main([str(runs / "segmentation"), str(mask_data), "--out", str(tmp_path), *asked])
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["details"]["testing"].startswith("windows of 16 px every 8 px")
    assert content["details"]["flavour_map"]["classifier"] == str(runs / "ingredients")
    with pytest.raises(SystemExit):
        score.main([str(runs / "segmentation"), str(mask_data), "--classifier", str(runs / "segmentation")])
    assert "knows neither flavours nor ingredients" in capsys.readouterr().err


def test_the_verdict_says_per_task_whether_sharing_helped(runs, mask_data, tmp_path, capsys):
    models = [str(runs / name) for name in ("multitask", "segmentation", "ingredients")]
    compare.main([*models, str(mask_data), "--out", str(tmp_path)])
    content = json.loads((tmp_path / "comparison.json").read_text())
    told = [text for text in content["verdicts"] if "sharing" in text]
    for task, single, score_name in (
        ("masks", "segmentation", "miou_food"),
        ("ingredients", "ingredients", "ingredient_samples_f1"),
    ):
        (line,) = [text for text in told if f"against {single}, " in text and f" {score_name} [" in text]
        assert line.startswith(f"- {task}: ")
        gain = content["differences"][single][score_name]
        helped, hurt = gain["low"] > 0 and gain["p"] < 0.05, gain["high"] < 0 and gain["p"] < 0.05
        words = "sharing HELPED" if helped else "sharing HURT" if hurt else "whether sharing helped CANNOT BE TOLD"
        assert words in line
    assert any("did not learn from equally many pictures" in text for text in content["verdicts"])
    assert any("mean cosine" in text for text in content["verdicts"])
    assert {"all background", "most frequent ingredients"} <= set(content["entries"])


def test_pictures_of_the_start_are_counted(runs):
    own = {kind: pictures_seen(runs / kind) for kind in HEADS}
    assert own["segmentation"] == own["ingredients"] == 6 * ROWS["train"]
    assert own["multitask"] == 12 * ROWS["train"]
    assert pictures_seen(runs / "nowhere") is None


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A table of two pictures of different sizes."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, size in (("one.png", (40, 56)), ("two.png", (64, 48))):
        pixels = np.zeros((*size, 3), dtype=np.uint8)
        pixels[:, : size[1] // 2] = (230, 90, 120)
        (folder / name).write_bytes(png(pixels))
    (folder / "table.csv").write_text("ImageID\none.png\ntwo.png\n")
    return folder


def test_predict_writes_masks_of_the_pictures_own_size(runs, photographs, tmp_path):
    given = [str(runs / "multitask"), str(photographs / "table.csv"), "--images", str(photographs)]
    predict.main([*given, "--out", str(tmp_path / "out.csv")])
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["ImageID"] for row in rows] == ["one.png", "two.png"]
    plates = json.loads((tmp_path / "out.json").read_text())
    names = load_model(str(runs / "multitask")).names
    for row, plate, size in zip(rows, plates, ((56, 40), (48, 64)), strict=True):
        mask = Image.open(tmp_path / plate["mask"])
        assert (mask.size, mask.mode) == (size, "P")
        ids = np.asarray(mask)
        for name, share in plate["areas"].items():
            assert (ids == names.index(name)).mean() == pytest.approx(share, abs=1e-4)
        assert row["Labels"].split("|") == plate["labels"]
        assert len(plate["taste"]) == 5
        assert "agrees" in plate


@pytest.mark.parametrize("kind", ["segmentation", "multitask", "ingredients"])
def test_predict_writes_ingredient_probabilities_and_a_mask_per_id(runs, photographs, tmp_path, kind):
    for folder, name in (("a", "one.png"), ("b", "two.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes((photographs / name).read_bytes())
    (tmp_path / "table.csv").write_text("ImageID\na/x.png\nb/x\n")
    given = [str(tmp_path / "table.csv"), "--images", str(tmp_path), "--out", str(tmp_path / "out.csv")]
    predict.main([str(runs / kind), *given, "--probabilities"])
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert list(rows[0]) == ["ImageID", "Labels", *INGREDIENTS]
    plates = json.loads((tmp_path / "out.json").read_text())
    for row, plate, size in zip(rows, plates, ((56, 40), (48, 64)), strict=True):
        if kind != "ingredients":
            assert Image.open(tmp_path / plate["mask"]).size == size
        if kind != "segmentation":
            for name, value in plate["probabilities"].items():
                assert float(row[name]) == pytest.approx(value, abs=1e-4)
        else:
            # What covers most of a mask is the likeliest class somewhere.
            assert all(float(row[name]) > 0.1 for name in row["Labels"].split("|") if name)
        assert all(0 <= float(row[name]) <= 1 for name in INGREDIENTS)


def test_two_rows_of_one_id_would_share_a_mask(runs, small_dataset, tmp_path, capsys):
    rows = [{"id": "x", "image": make_row("test", number)["image"]} for number in range(2)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    message = refused(capsys, predict, runs / "segmentation", tmp_path / "t.parquet", "--out", tmp_path / "out.csv")
    assert "two rows have the id x, which names their masks" in message


def test_predict_knows_models_without_masks_and_names_broken_pictures(runs, photographs, tmp_path, capsys):
    (photographs / "three.png").write_text("no picture")
    (tmp_path / "table.csv").write_text("ImageID\nthree.png\n")
    given = [str(runs / "ingredients"), "--images", str(photographs), "--out", str(tmp_path / "out.csv")]
    predict.main([given[0], str(photographs / "table.csv"), *given[1:]])
    assert not (tmp_path / "out_masks").exists()
    assert all(row["Labels"] for row in csv.DictReader((tmp_path / "out.csv").open()))
    with pytest.raises(SystemExit) as stop:
        predict.main([given[0], str(tmp_path / "table.csv"), *given[1:]])
    assert stop.value.code == 2
    assert "three.png" in capsys.readouterr().err
