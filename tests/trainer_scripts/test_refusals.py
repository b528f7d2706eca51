"""What the command lines beside `train.py` refuse in one line, and what `predict.py` counts rather than hides."""

import json
import shutil
from pathlib import Path

import pytest
from datasets import Dataset
from PIL import Image

from tests.trainer_scripts.conftest import refused
from tests.trainer_scripts.tiny_runs import run
from trainer_scripts import compare, export, predict, score
from trainer_scripts.evaluation.predictions import read_metrics

MANY = ("--task", "multilabel", "--label_column", "flavours", "--metric_for_best_model", "samples_f1")


@pytest.fixture(scope="module")
def places(small_dataset, tmp_path_factory) -> dict[str, str]:
    """A classifier, a model of several labels with tuned thresholds, their scores, and a table with its pictures."""
    folder = tmp_path_factory.mktemp("refusals")
    one = run(folder / "one", small_dataset, "--num_train_epochs", "1", "--modality", "text")
    many = run(folder / "many", small_dataset, "--num_train_epochs", "1", *MANY)
    score.main([str(one), str(small_dataset)])
    score.main([str(many), str(small_dataset), "--tune_thresholds"])
    (folder / "pictures").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (40, 30), (200, 60, 90)).save(folder / "pictures" / name)
    (folder / "table.csv").write_text("name,text\na.png,lemon cake\nb.png,\nc.png\n")
    (folder / "long.csv").write_text("name,text\na.png,cake\nb.png,cake, with lemon\n")
    (folder / "nameless.csv").write_text("name,text\na.png,cake\n,broth\n")
    shutil.copy(small_dataset / "data" / "test-00000-of-00001.parquet", folder / "table.parquet")
    return {
        "DATA": str(small_dataset), "ONE": str(one), "MANY": str(many), "SCORES": str(one / "scores" / "test"),
        "THRESHOLDS": str(many / "scores" / "test" / "thresholds.json"), "PICTURES": str(folder / "pictures"),
        "TABLE": str(folder / "table.csv"),
        "PARQUET": str(folder / "table.parquet"), "OUT": str(folder / "out"),
        "LONG": str(folder / "long.csv"), "NAMELESS": str(folder / "nameless.csv"),
    }  # fmt: skip


def predicted(places, tmp_path: Path, *more: str) -> list[str]:
    """Labels of the three rows of the table by the model of several labels."""
    out = tmp_path / "labels.csv"
    named = ("--images", places["PICTURES"], "--id_column", "name", "--text_column", "text", "--out", str(out))
    predict.main([places["MANY"], places["TABLE"], *named, *more])
    rows = [line.split(",") for line in out.read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == ["a.png", "b.png", "c.png"]
    return [row[1] for row in rows]


COLUMNS = ["--id_column", "name", "--text_column", "text"]


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        (score, ["ONE", "DATA", "--batch_size", "0"], "'0' is no whole number from 1 on"),
        (predict, ["ONE", "TABLE", "--batch_size", "-1"], "'-1' is no whole number from 1 on"),
        (export, ["ONE", "--batch-size", "0"], "'0' is no whole number from 1 on"),
        (export, ["ONE", "--max-rows", "0"], "'0' is no whole number from 2 on"),
        (export, ["ONE", "--quantize", "int8", "--calibration-rows", "0"], "'0' is no whole number from 1 on"),
        (export, ["ONE", "--max-mb", "0"], "'0' is no number above 0"),
        (export, ["ONE", "--max-loss", "-1"], "'-1' is no number from 0 on"),
        (predict, ["ONE", "TABLE", *COLUMNS], "row b.png has no text to predict from; give it one or remove the row"),
        (compare, ["ONE", "DATA", "--ablation_rows", "0"], "'0' is no whole number from 2 on"),
        (predict, ["MANY", "TABLE", "--threshold", "7"], "'7' is no number from 0 to 1"),
        (score, ["ONE", "DATA", "--columns", '["title"]'], "is no mapping of columns such as"),
        (score, ["ONE", "DATA", "--tune_thresholds"], "--tune_thresholds is for several labels per row; one is of"),
        (predict, ["ONE", "TABLE", "--threshold", "0.5"], "--threshold is for several labels per row; one is of task"),
        (predict, ["ONE", "TABLE", "--thresholds", "THRESHOLDS"], "--thresholds is for several labels per row"),
        (predict, ["ONE", "TABLE", "--decision", "expected_f1"], "--decision is for several labels per row"),
        (
            predict,
            ["MANY", "TABLE", "--thresholds", "THRESHOLDS", "--decision", "expected_f1"],
            "needs no thresholds; leave out --thresholds",
        ),
        (
            predict,
            ["MANY", "TABLE", "--thresholds", "THRESHOLDS", "--threshold", "0.5"],
            "--threshold and --thresholds are two rules",
        ),
        (predict, ["ONE", "PARQUET", *COLUMNS], "table.parquet has no column 'name'; it has id, dish_id"),
        (predict, ["ONE", "LONG", *COLUMNS], "long.csv, row 2 has more cells than the header; put its text in quotes"),
        (predict, ["ONE", "NAMELESS", *COLUMNS], "nameless.csv, row 2 has no name; give it one or remove the row"),
        (score, ["ONE", "DATA", "--scales", "1", "-0.5"], "'-0.5' is no number above 0"),
        (compare, ["SCORES", "ONE"], "name the data set last, after the models"),
        (compare, ["ONE"], "/one' is a model"),
        (compare, ["SCORES", "/no/such/set"], "nothing would be read of '/no/such/set'; leave it out"),
        (compare, ["ONE", "SCORES"], "holds predictions of score.py"),
        (compare, ["SCORES", "--split", "test"], "which --split does not change; leave it out"),
        (compare, ["SCORES", "--columns", "{}"], "which --columns does not change; leave it out"),
    ],
)
def test_bad_values_are_refused_in_one_line(places, capsys, program, arguments, message):
    said = refused(capsys, program, *(places.get(word, word) for word in arguments), "--out", places["OUT"])
    assert message in said
    assert not Path(places["OUT"]).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "has no valid entry 'task'"),
        ("[]", "holds no JSON object but list"),
        ("", "is not JSON"),
        ('{"task": "classification", "split": "test", "rows": 1, "rows_sha256": "0"}', "has no valid entry 'metrics'"),
        ('{"task": "cooking"}', "has no valid entry 'split'"),
    ],
)
def test_a_score_file_that_is_none_is_refused_by_name(places, tmp_path, capsys, content, message):
    shutil.copytree(places["SCORES"], tmp_path / "scores")
    (tmp_path / "scores" / "metrics.json").write_text(content)
    said = refused(capsys, compare, str(tmp_path / "scores"), places["SCORES"], "--out", str(tmp_path / "out"))
    assert f"{tmp_path / 'scores' / 'metrics.json'} {message}" in said


def test_one_folder_of_scores_is_a_comparison_that_names_its_data(places, tmp_path):
    compare.main([places["SCORES"], "--out", str(tmp_path)])
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert list(content["entries"]) == ["one"]
    assert (tmp_path / "comparison.md").read_text().startswith(f"# Comparison on {places['DATA']}")


def test_two_folders_of_scores_of_one_model_are_told_apart_by_their_paths(places, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(places["SCORES"], again)
    compare.main([places["SCORES"], str(again), "--out", str(tmp_path / "out")])
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert list(content["entries"]) == ["one", str(again)]
    assert f"one is NOT SHOWN to differ from {again}" in content["verdicts"][0]


def test_rows_without_text_are_answered_counted_and_named(places, tmp_path, capsys):
    assert all(predicted(places, tmp_path))
    assert "2 rows without text, predicted from the picture and an empty one: b.png, c.png" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "tsv"])
def test_a_table_of_any_kind_is_answered_alike(places, tmp_path, kind):
    table, out = tmp_path / f"table.{kind}", tmp_path / "labels.csv"
    rows = [{"name": 7, "text": "lemon cake"}, {"name": 8, "text": "broth"}]
    if kind == "parquet":
        Dataset.from_list([{**row, "text": row["text"].split()} for row in rows]).to_parquet(table)
    elif kind == "jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        table.write_text("name\ttext\n" + "".join(f"{row['name']}\t{row['text']}\n" for row in rows))
    plain = tmp_path / "table.csv"
    plain.write_text("name,text\n7,lemon cake\n8,broth\n")
    answers = []
    for given in (table, plain):
        predict.main([places["ONE"], str(given), *COLUMNS, "--out", str(out)])
        answers.append(out.read_text())
    assert answers[0] == answers[1]
    assert [line.split(",")[0] for line in answers[0].splitlines()] == ["ImageID", "7", "8"]


def test_a_folder_in_the_place_of_the_result_is_refused_before_anything_is_read(places, tmp_path, capsys):
    said = refused(capsys, predict, "nothing/here", "no.csv", "--out", tmp_path)
    assert f"--out {tmp_path} is a folder; name the file that is written" in said


def test_scores_on_other_data_have_a_folder_of_their_own(places, tmp_path):
    own, other = Path(places["SCORES"]), tmp_path / "kitchen"
    before = read_metrics(own)
    shutil.copytree(places["DATA"], other)
    score.main([places["ONE"], str(other)])
    assert read_metrics(own) == before
    assert read_metrics(own.parent / "kitchen" / "test")["dataset"] == str(other)
    card = (Path(places["ONE"]) / "README.md").read_text()
    assert "## Scores on test\n" in card
    assert "## Scores on test of kitchen\n" in card


def test_tuned_thresholds_decide_what_is_predicted(places, tmp_path):
    names = list(read_metrics(Path(places["MANY"]))["label_names"])
    low, high = tmp_path / "low.json", tmp_path / "high.json"
    low.write_text(json.dumps(dict.fromkeys(names, 0.0)))
    high.write_text(json.dumps({name: float(name != "sour") for name in names}))
    assert predicted(places, tmp_path, "--thresholds", str(low)) == ["|".join(names)] * 3
    assert predicted(places, tmp_path, "--thresholds", str(high)) == ["sour"] * 3
    tuned = json.loads(Path(places["THRESHOLDS"]).read_text())
    assert list(tuned) == names
    chosen = predicted(places, tmp_path, "--thresholds", places["THRESHOLDS"])
    assert all(chosen)
    assert predicted(places, tmp_path, "--threshold", "1") != predicted(places, tmp_path, "--threshold", "0")
