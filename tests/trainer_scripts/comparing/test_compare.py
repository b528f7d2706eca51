"""Scoring, comparing and predicting with small trained models, and what each of them refuses."""

import csv
import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Image, load_dataset
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from tests.trainer_scripts.tiny_runs import run
from trainer_scripts import compare, predict, score
from trainer_scripts.comparing.report import compared, usage
from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.evaluation.intervals import Interval
from trainer_scripts.evaluation.predictions import Predictions, read_metrics
from trainer_scripts.evaluation.scores import (
    CAPTIONS,
    INGREDIENTS,
    MASKS,
    TOKENS,
    classification_scores,
    multilabel_scores,
)
from trainer_scripts.evaluation.scores import NAMES as NAMES_PART
from trainer_scripts.scoring.results import save_scores
from trainer_scripts.scoring.saved_model import load_model
from trainer_scripts.tasks.classification.predicting import label_cells
from trainer_scripts.tasks.common.task import PredictionOptions, Scored
from trainer_scripts.tasks.registry import TASKS

NAMES = ("sweet", "salty", "sour", "bitter", "umami")


@pytest.fixture(scope="module")
def models(tmp_path_factory, small_dataset) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    longer = ("--num_train_epochs", "25", "--learning_rate", "0.01", "--label_smoothing_factor", "0")
    longer += ("--image_learning_rate", "0.01", "--early_stopping_patience", "100", "--warmup_steps", "0.1")
    longer += ("--eval_strategy", "steps", "--eval_steps", "20", "--save_strategy", "steps", "--save_steps", "20")
    return {
        modality: run(folder / modality, small_dataset, *longer, "--modality", modality)
        for modality in ("fusion", "text", "image")
    }


@pytest.fixture(scope="module")
def comparison(models, small_dataset, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("comparison")
    compare.main([*map(str, models.values()), str(small_dataset), "--out", str(out)])
    return out


def test_scores_are_those_of_the_predictions(models, small_dataset, tmp_path):
    score.main([str(models["image"]), str(small_dataset), "--out", str(tmp_path)])
    metrics, predictions = read_metrics(tmp_path), Predictions.load(tmp_path)
    assert metrics["split"] == "test"
    assert metrics["rows"] == 30
    assert metrics["metrics"]["accuracy"]["value"] == (predictions.probabilities.argmax(1) == predictions.labels).mean()
    assert metrics["rows_sha256"] == predictions.rows_sha256()
    assert np.allclose(predictions.probabilities.sum(1), 1, atol=1e-5)


def test_data_that_count_the_labels_in_another_order_give_the_same_scores(models, small_dataset, tmp_path):
    rows = load_dataset(str(small_dataset), split="test").cast_column("image", Image(decode=False))
    turned = ClassLabel(names=NAMES[::-1])
    ids = [len(NAMES) - 1 - label for label in rows["flavour"]]
    rows = rows.remove_columns("flavour").add_column("flavour", ids).cast_column("flavour", turned)
    (tmp_path / "set" / "data").mkdir(parents=True)
    rows.to_parquet(tmp_path / "set" / "data" / "test-00000-of-00001.parquet")
    for name, folder in (("as it is", small_dataset), ("turned", tmp_path / "set")):
        score.main([str(models["image"]), str(folder), "--out", str(tmp_path / name)])
    metrics = [read_metrics(tmp_path / name) for name in ("as it is", "turned")]
    assert metrics[0]["metrics"] == metrics[1]["metrics"]
    assert metrics[0]["rows_sha256"] == metrics[1]["rows_sha256"]


def test_comparison_has_models_baselines_intervals_ablations_and_plots(comparison):
    content = json.loads((comparison / "comparison.json").read_text())
    lines = list(content["entries"])
    assert lines[:4] == ["fusion", "text", "image", "majority"]
    assert {
        "TF-IDF + logistic regression",
        "TF-IDF without the rule's words",
        "colour histogram",
        "product of the singles",
    } <= set(lines)
    assert any(line.startswith("rule alone (speaks on") for line in lines)
    for entry in content["entries"].values():
        accuracy = entry["scores"]["accuracy"]
        assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert set(content["differences"]) == set(lines) - {"fusion"}
    assert {"text shuffled", "image blank", "text left out"} <= set(content["ablations"]["fusion"]["scores"])
    assert content["calibration"]["image"]["temperature"] > 0
    assert content["calibration"]["image"]["nll after"]["value"] > 0
    follows = content["ablations"]["fusion"]["follows"]
    assert set(follows) == {"text", "image"}
    assert sum(each["value"] for each in follows.values()) <= 1
    assert set(content["adjusted_p"]) == set(content["differences"])
    assert all(content["adjusted_p"][name] >= gain["accuracy"]["p"] for name, gain in content["differences"].items())
    assert content["cost"]["image"]["MB on disk"] > 0
    assert content["cost"]["fusion"]["parameters"] > content["cost"]["image"]["parameters"]
    assert len(content["definitions"]["accuracy"]["sha256"]) == 64
    plots = {path.name for path in comparison.glob("*.png")}
    assert {"confusion_fusion.png", "reliability.png", "scores.png", "training_curves.png"} <= plots
    markdown = (comparison / "comparison.md").read_text()
    assert "| fusion " in markdown
    assert "colour histogram" in markdown


def test_one_page_holds_verdicts_plots_tables_and_errors_with_their_pictures(comparison):
    page = (comparison / "report.html").read_text()
    assert len(page.encode()) < 5_000_000
    assert not re.search(r"(?:src|href)=.(?:https?:)?//", page), "nothing is fetched"
    described = re.findall(r'<img src="data:image/\w+;base64,[^"]+" alt="([^"]+)"', page)
    assert len(described) == page.count("<img"), "every picture is said in words"
    assert {"Scores", "Reliability"} <= set(described)
    content = json.loads((comparison / "comparison.json").read_text())
    assert all(line.removeprefix("- ") in html.unescape(page) for line in content["verdicts"])
    assert "It answers <strong>" in page
    assert '<th scope="col">' in page


def test_every_answer_stands_in_one_table_by_row(comparison):
    rows = list(csv.DictReader((comparison / "by_row.csv").open()))
    content = json.loads((comparison / "comparison.json").read_text())
    assert len(rows) == content["rows"]
    for name, entry in content["entries"].items():
        right = [row[name] == row["truth"] for row in rows]
        assert [float(row[f"{name}: accuracy"]) for row in rows] == right
        assert np.mean(right) == pytest.approx(entry["scores"]["accuracy"]["value"])


@pytest.fixture(scope="module")
def scored(models, small_dataset) -> dict[str, Path]:
    """Folders of score.py, as somebody else may send them."""
    found = {}
    for name in ("fusion", "text"):
        score.main([str(models[name]), str(small_dataset)])
        found[name] = models[name] / "scores" / "test"
    return found


def test_prediction_files_alone_give_the_same_comparison(comparison, scored, tmp_path):
    compare.main([*map(str, scored.values()), "--out", str(tmp_path)])
    whole = json.loads((comparison / "comparison.json").read_text())
    files = json.loads((tmp_path / "comparison.json").read_text())
    assert set(files["entries"]) == {"fusion", "text"}
    for name in files["entries"]:
        assert files["entries"][name]["scores"] == whole["entries"][name]["scores"]
    assert files["differences"]["text"] == whole["differences"]["text"]
    assert "Only the predictions of fusion, text were given" in (tmp_path / "comparison.md").read_text()


def test_the_card_keeps_the_comparison_when_the_model_is_scored_again(comparison, scored, models):
    card = (models["fusion"] / "README.md").read_text()
    for heading in ("Beside other models", "Whether each input is used", "Calibration", "Cost"):
        assert f"## {heading}" in card, heading
    assert "What it follows when its inputs disagree" in card
    data = ModelCard(card).data
    content = json.loads((comparison / "comparison.json").read_text())
    found = {one.metric_type: one.metric_value for one in data.eval_results if one.dataset_split == "test"}
    assert found["accuracy"] == pytest.approx(content["entries"]["fusion"]["scores"]["accuracy"]["value"], abs=1e-6)
    lines = [line for line in content["verdicts"] if line.startswith("- fusion: ")]
    assert all(line.removeprefix("- ") in card for line in lines)


def copy_of(folder: Path, out: Path, **changed) -> str:
    shutil.copytree(folder, out)
    metrics = json.loads((out / "metrics.json").read_text())
    (out / "metrics.json").write_text(json.dumps({**metrics, **changed}))
    return str(out)


def test_files_alone_keep_the_baselines_that_they_state(scored, tmp_path, capsys):
    stated = {"always sweet": {"accuracy": {"value": 0.99}, "unknown": {"value": 1.0}}}
    files = [copy_of(folder, tmp_path / name, baselines=stated) for name, folder in scored.items()]
    compare.main([*files, "--out", str(tmp_path / "out")])
    entries = json.loads((tmp_path / "out" / "comparison.json").read_text())["entries"]
    assert entries["always sweet"] == {"kind": "baseline", "modality": "", "scores": {"accuracy": 0.99}}
    said = capsys.readouterr().out
    assert "baselines are those that `score.py` found beside fusion" in said
    assert "!!! A BASELINE SCORES HIGHER THAN fusion: always sweet, by accuracy" in said


def test_files_that_contradict_themselves_or_this_version_are_refused(scored, tmp_path, capsys):
    metrics = read_metrics(scored["fusion"])
    flattered = {"metrics": {**metrics["metrics"], "accuracy": {"value": 0.99}}}
    redefined = {"definitions": {**metrics["definitions"], "ece": {"definition": "other", "sha256": "0"}}}
    cases = {
        "its predictions give": copy_of(scored["fusion"], tmp_path / "flattered", **flattered),
        "defines ece as 'other'": copy_of(scored["fusion"], tmp_path / "redefined", **redefined),
        "'validation' chose the checkpoints": copy_of(scored["fusion"], tmp_path / "chosen", split="validation"),
    }
    for message, folder in cases.items():
        with pytest.raises(SystemExit) as ended:
            compare.main([folder, str(scored["text"]), "--out", str(tmp_path / "out")])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_a_baseline_that_is_ahead_and_a_modality_without_use_are_shouted(comparison):
    content = json.loads((comparison / "comparison.json").read_text())
    own = content["entries"]["fusion"]["scores"]["accuracy"]["value"]
    ahead = [
        name
        for name, entry in content["entries"].items()
        if entry["kind"] == "baseline" and entry["scores"]["accuracy"]["value"] > own
    ]
    shouted = [line for line in content["verdicts"] if "A BASELINE SCORES HIGHER THAN fusion" in line]
    assert [any(name in line for line in shouted) for name in ahead] == [True] * len(ahead)
    assert len(shouted) == len(ahead)
    few_rows = Interval(0.1, 0.01, 0.2, p=0.2)
    assert compared(few_rows, classification_scores(NAMES)[0]) == "is NOT SHOWN to differ from"
    assert compared(Interval(0.1, 0.01, 0.2, p=0.01), classification_scores(NAMES)[0]) == "is better than"
    assert compared(Interval(0.1, 0.01, 0.2, p=0.01), classification_scores(NAMES)[2]) == "is WORSE than"


def test_single_models_alone_are_held_against_baselines_of_both_inputs(models, small_dataset, tmp_path):
    out = ["--out", str(tmp_path), "--ablation_rows", "12"]
    compare.main([str(models["text"]), str(models["image"]), str(small_dataset), *out])
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content["tested"] == "text"
    assert {"TF-IDF + logistic regression", "colour histogram", "product of the singles"} <= set(content["entries"])
    assert {report["rows"] for report in content["ablations"].values()} == {12}


def test_several_seeds_show_their_spread_and_not_the_best_of_them(models, small_dataset, tmp_path):
    folder = tmp_path / "image"
    shutil.copytree(models["image"], folder)
    # A second seed that knows nothing: the spread must show it, and the line must stay that of the first.
    shutil.copytree(models["image"], folder / "seed-1", ignore=shutil.ignore_patterns("seed-*", "scores"))
    weights = load_file(folder / "seed-1" / "model.safetensors")
    save_file(
        {name: value * 0 for name, value in weights.items()},
        folder / "seed-1" / "model.safetensors",
        metadata={"format": "pt"},
    )
    compare.main([str(folder), str(small_dataset), "--out", str(tmp_path / "out")])
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    spread = content["seeds"]["image"]["accuracy"]
    assert spread["seeds"] == 2
    assert spread["max"] == content["entries"]["image"]["scores"]["accuracy"]["value"] > spread["min"]
    assert spread["std"] == pytest.approx((spread["max"] - spread["min"]) / 2**0.5)
    card = (folder / "README.md").read_text()
    assert "Spread of accuracy over seeds" in card
    assert card.count("## Scores on validation") == 1


def test_predictions_of_every_task_survive_their_file(tmp_path):
    counts = np.arange(12).reshape(2, 6)
    sums = np.array([[1.5, 2, 3], [0.5, 1, 4]])
    truth = np.array([[1, 0], [0, 1]], dtype=np.float32)
    parts = {
        MASKS: (counts, counts),
        INGREDIENTS: (truth, np.float32([[0.9, 0.2], [0.1, 0.5]])),
        CAPTIONS: ([["a b", "c"], ["d"]], ["a b", ""]),
        NAMES_PART: ([["egg"], []], ["a b", ""]),
        TOKENS: (sums, sums),
    }
    saved = Predictions(["1", "2"], ["x", "x"], parts)
    saved.save(tmp_path)
    loaded = Predictions.load(tmp_path)
    assert loaded.rows_sha256() == saved.rows_sha256()
    for part, pair in parts.items():
        for mine, theirs in zip(pair, loaded.parts[part], strict=True):
            assert np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine == theirs
    other = Predictions(["1", "2"], ["x", "x"], {**parts, MASKS: (counts + 1, counts + 1)})
    assert other.rows_sha256() != saved.rows_sha256()
    # Other hits are another answer on the same truth.
    answered = counts.copy()
    answered[:, 0] = 0
    assert Predictions(["1", "2"], ["x", "x"], {**parts, MASKS: (answered, answered)}).rows_sha256() == (
        saved.rows_sha256()
    )


def test_thresholds_tuned_for_two_models_are_one_rule():
    truth = np.array([[1, 0], [0, 1], [1, 1]])
    first, second = (multilabel_scores("ab", Decision((low, 0.4))) for low in (0.2, 0.3))
    assert first[0].sha256 == second[0].sha256
    assert first[0].sha256 != multilabel_scores("ab")[0].sha256
    probabilities = np.array([[0.25, 0.3], [0.1, 0.9], [0.9, 0.9]])
    assert first[0](truth, probabilities) != second[0](truth, probabilities)


def test_each_model_is_compared_by_the_thresholds_tuned_for_it(models, small_dataset, tmp_path):
    saved = load_model(str(models["text"]))
    saved.task = TASKS["multilabel"]
    generator, rows = np.random.default_rng(0), [str(row) for row in range(40)]
    truth = (generator.random((40, len(NAMES))) < 0.4).astype(int)
    stated, names = {}, ("macro_f1", "samples_f1", "micro_f1", "map", "f1_sweet")
    for name, thresholds in (("one", (0.2, 0.3, 0.4, 0.5, 0.6)), ("two", (0.8, 0.1, 0.7, 0.2, 0.9))):
        saved.source = saved.name = name
        said = Predictions.of_classes(rows, rows, truth, generator.random(truth.shape))
        scored = Scored(said, thresholds=thresholds)
        metrics = save_scores(saved, scored, str(small_dataset), "test", tmp_path / name)["metrics"]
        stated[name] = {score: entry["value"] for score, entry in metrics.items()}
    compare.main([str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "both")])
    content = json.loads((tmp_path / "both" / "comparison.json").read_text())
    for name, entry in content["entries"].items():
        assert {key: entry["scores"][key]["value"] for key in names} == {key: stated[name][key] for key in names}
    gain = content["differences"]["two"]["macro_f1"]
    assert gain["value"] == pytest.approx(stated["one"]["macro_f1"] - stated["two"]["macro_f1"])
    assert gain["low"] < gain["value"] < gain["high"]
    rows_of_file = list(csv.DictReader((tmp_path / "both" / "by_row.csv").open()))
    for name in stated:
        mean = np.mean([float(row[f"{name}: samples_f1"]) for row in rows_of_file])
        assert mean == pytest.approx(stated[name]["samples_f1"], abs=1e-4)


def test_the_picture_model_is_shown_to_use_its_picture(comparison):
    content = json.loads((comparison / "comparison.json").read_text())
    assert any("image: image is used" in line for line in content["verdicts"])


def test_a_modality_that_costs_nothing_when_shuffled_is_called_unused():
    accuracy = classification_scores(NAMES)[0]
    assert usage("text", Interval(0.0, -0.01, 0.02), accuracy).startswith("!!! THE TEXT IS NOT USED")
    assert usage("text", Interval(0.2, 0.1, 0.3), accuracy).startswith("text is used")
    nll = classification_scores(NAMES)[2]
    assert usage("text", Interval(-0.2, -0.3, -0.1), nll).startswith("text is used")


@pytest.mark.parametrize(
    ("split", "message"), [("validation", "'validation' chose the checkpoints"), ("train", "'train' was trained on")]
)
def test_comparing_on_a_split_that_is_not_fresh_is_refused(models, small_dataset, tmp_path, capsys, split, message):
    with pytest.raises(SystemExit) as ended:
        compare.main([str(models["image"]), str(small_dataset), "--split", split, "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def pictures(tmp_path, small_rows) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, row in enumerate(small_rows["test"][:4]):
        (folder / f"{index}.jpg").write_bytes(row["image"]["bytes"])
    return folder


def table(tmp_path: Path, rows: int = 4) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("ImageID,Caption\n" + "".join(f'{i}.jpg,"a "quoted", dish {i}"\n' for i in range(rows)))
    return path


def test_predictions_keep_ids_and_order_of_the_table(models, pictures, tmp_path):
    out = tmp_path / "Predicted_labels.csv"
    predict.main([str(models["fusion"]), str(table(tmp_path)), "--images", str(pictures), "--out", str(out)])
    lines = out.read_text().splitlines()
    assert lines[0] == "ImageID,Labels"
    assert [line.split(",")[0] for line in lines[1:]] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert {line.split(",")[1] for line in lines[1:]} <= set(NAMES)


def test_a_missing_or_broken_picture_is_an_error_or_counted_and_named(models, pictures, tmp_path, capsys):
    (pictures / "2.jpg").write_bytes(b"broken")
    arguments = [
        str(models["fusion"]),
        str(table(tmp_path, 5)),
        "--images",
        str(pictures),
        "--out",
        str(tmp_path / "o.csv"),
    ]
    with pytest.raises(SystemExit) as ended:
        predict.main(arguments)
    assert ended.value.code == 2
    assert "row 2.jpg" in capsys.readouterr().err
    assert not (tmp_path / "o.csv").exists()
    predict.main([*arguments, "--missing_pictures", "text"])
    assert "2 pictures missing or broken, predicted from text alone: 2.jpg, 4.jpg" in capsys.readouterr().err
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 6


def test_labels_of_the_comp5329_set_are_written_as_their_numbers(shared_data, tmp_path):
    from dataset_builder.importers.comp5329 import CATEGORY_IDS

    class Model:
        names = list(CATEGORY_IDS)
        task = TASKS["multilabel"]

    options = PredictionOptions(1, "fail", None, None, None)
    probabilities = np.zeros((2, 18))
    probabilities[0, [0, 2, 7]] = 0.9
    probabilities[1, 11] = 0.2
    assert label_cells(Model(), probabilities, options) == ["1 3 8", "13"]


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        (score.main, ["nowhere", "DATA"], "there is no model at 'nowhere'"),
        (score.main, ["MODEL", "nowhere"], "there is no data set at 'nowhere'"),
        (score.main, ["MODEL", "DATA", "--split", "exam"], "has no split 'exam'; it has train"),
        (predict.main, ["MODEL", "nowhere.csv", "--images", "."], "nowhere.csv does not exist; give a CSV"),
        (predict.main, ["MODEL", "table.csv"], "table.csv does not exist"),
        (compare.main, ["MODEL", "MODEL", "DATA"], "two models have the same name"),
    ],
)
def test_bad_input_is_refused_in_one_line(models, small_dataset, capsys, program, arguments, message):
    places = {"MODEL": str(models["image"]), "DATA": str(small_dataset)}
    with pytest.raises(SystemExit) as ended:
        program([places.get(word, word) for word in arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
