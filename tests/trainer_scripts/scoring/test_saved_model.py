"""A saved model for scoring: its configuration, from a folder or a Hub, and the rows that chose its checkpoint."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import HfApi

from tests.trainer_scripts.conftest import refused, write_dataset
from tests.trainer_scripts.tiny_runs import SMALL, assert_spread_scores_equal, run, run_on_two
from trainer_scripts import compare, export, predict, score
from trainer_scripts.evaluation.predictions import Predictions, read_metrics
from trainer_scripts.scoring.saved_model import load_model, load_selection, load_train, saved_configuration
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training.data import load_training_data
from trainer_scripts.training.vocabulary_record import load_vocabulary_record

MAPPED = ("--columns", '{"title": "name", "flavours": "tags"}', "--label_column", "flavours", "--modality", "text")
MANY = ("--task", "multilabel", "--metric_for_best_model", "samples_f1", "--num_train_epochs", "1")


@pytest.fixture(scope="module")
def unsplit(small_rows, tmp_path_factory) -> Path:
    """Data without a validation split that name their columns otherwise."""
    rows = {split: small_rows[split] for split in ("train", "test")}
    plain = write_dataset(tmp_path_factory.mktemp("plain") / "set", rows)
    folder = tmp_path_factory.mktemp("unsplit") / "set"
    (folder / "data").mkdir(parents=True)
    for split, members in load_dataset(str(plain)).items():
        renamed = members.rename_columns({"title": "name", "flavours": "tags"})
        renamed.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="module")
def carved(unsplit, tmp_path_factory) -> Path:
    """A run, repeated with a second seed, whose selection rows were held out of the training split."""
    return run(tmp_path_factory.mktemp("carved") / "multi", unsplit, *MAPPED, *MANY, "--seeds", "2")


def test_repetitions_share_the_selection_rows_that_the_first_run_held_out(carved, unsplit, tmp_path):
    configuration = parse_configuration(["flavour_fusion_tiny", "--dataset", str(unsplit), *SMALL, *MAPPED, *MANY])
    expected = load_training_data(configuration)
    alone = tmp_path / "alone"
    shutil.copytree(carved / "seed-1", alone)
    assert saved_configuration(str(alone))["seed"] == saved_configuration(str(carved))["seed"] + 1
    for folder in (carved, alone):
        model = load_model(str(folder))
        assert load_selection(model, str(unsplit)).ids == expected.selection.ids
        assert load_train(model, str(unsplit)).ids == expected.train.ids


@pytest.mark.parametrize("judged", [("test", "validation"), ("test",)], ids=["split", "carved"])
def test_rows_that_training_left_out_are_neither_scored_nor_learned_from(small_rows, tmp_path, judged):
    rows = {split: [dict(row) for row in small_rows[split][:20]] for split in ("train", *judged)}
    rows["train"][0]["image"] = rows["test"][3]["image"]
    rows["train"][1]["title"] = rows[judged[-1]][4]["title"]
    if "validation" in judged:
        rows["validation"][2]["dish_id"] = rows["test"][5]["dish_id"]
    dataset = write_dataset(tmp_path / "shared", rows)
    given = ("--shared_rows", "drop", "--modality", "text", "--num_train_epochs", "1", "--max_train_samples", "12")
    folder = run(tmp_path / "run", dataset, *given)
    data = load_training_data(
        parse_configuration(["flavour_fusion_tiny", "--dataset", str(dataset), *SMALL, *given, "--overwrite", "true"])
    )
    assert data.left_out == len(judged) + 1
    model = load_model(str(folder))
    for modality in (None, "fusion"):
        assert load_selection(model, str(dataset), modality=modality).ids == data.selection.ids
        assert load_train(model, str(dataset), modality=modality).ids == data.train.ids
    assert len(data.train) == 12


def test_results_name_the_rows_that_were_held_out_and_thresholds_are_tuned_on_them(carved, unsplit, tmp_path):
    score.main([str(carved), str(unsplit), "--tune_thresholds", "--batch_size", "3", "--out", str(tmp_path)])
    metrics = read_metrics(tmp_path)
    assert metrics["selection_split"] == "train (held out)"
    assert read_metrics(carved)["selection_split"] == "train (held out)"
    assert len(metrics["thresholds"]) == 5


def test_workers_give_the_answers_of_one_process(carved, unsplit, tmp_path, monkeypatch):
    assert_spread_scores_equal(carved, unsplit, tmp_path, monkeypatch, "--tune_thresholds")


@pytest.mark.slow  # three to five processes that load PyTorch
@pytest.mark.parametrize("way", ["local", "ray", "launcher"])
def test_every_engine_gives_the_answers_of_one_process(carved, unsplit, tmp_path, way):
    """The tiny variant, which always runs, is the one above."""
    if way == "ray":
        pytest.importorskip("ray")
    given = [str(carved), str(unsplit), "--batch_size", "4"]
    score.main([*given, "--out", str(tmp_path / "alone")])
    given += ["--out", str(tmp_path / "spread")]
    if way == "launcher":
        ended = run_on_two(score.__file__, *given)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("written to") == 1
    else:
        score.main([*given, "--engine", way, "--processes", "2"])
    first, second = (read_metrics(tmp_path / name) for name in ("alone", "spread"))
    assert first == second
    first, second = (Predictions.load(tmp_path / name) for name in ("alone", "spread"))
    assert np.array_equal(first.probabilities, second.probabilities)


def test_workers_and_a_launcher_exclude_each_other(monkeypatch, capsys, carved, unsplit):
    assert "give --engine ray too" in refused(capsys, score, carved, unsplit, "--address", "10.0.0.1:6379")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "the launcher decides" in refused(capsys, score, carved, unsplit, "--processes", "2")


def test_a_run_without_a_selection_split_is_exported_and_its_bf16_graph_scores_and_predicts(
    carved, unsplit, tmp_path, capsys
):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "graph"
    export.main([str(carved), "--dtype", "bf16", "--max_rows", "12", "--max_loss", "100", "--out", str(out)])
    report = json.loads((out / "export.json").read_text())
    assert list(report["rows"]) == ["train (held out)", "test"]
    assert report["form"] == "onnx bf16"
    sizes = {line["name"]: line["megabytes"] for line in report["measurements"]}
    assert sizes["onnx bf16"] < sizes["onnx fp32"]
    for name, folder in (("torch", carved), ("graph", out)):
        score.main([str(folder), str(unsplit), "--out", str(tmp_path / name)])
    whole, small = (read_metrics(tmp_path / name)["metrics"] for name in ("torch", "graph"))
    assert small["nll"] == pytest.approx(whole["nll"], abs=0.02)
    assert read_metrics(tmp_path / "graph")["selection_split"] == "train (held out)"
    table = tmp_path / "table.csv"
    table.write_text("ImageID,Caption\na.jpg,cake number one\nb.jpg,broth\n")
    predict.main([str(out), str(table), "--out", str(tmp_path / "labels.csv")])
    assert [line.split(",")[0] for line in (tmp_path / "labels.csv").read_text().splitlines()] == [
        "ImageID",
        "a.jpg",
        "b.jpg",
    ]


def test_a_mapping_of_another_data_set_takes_the_place_of_that_of_the_configuration(
    carved, small_dataset, tmp_path, capsys
):
    message = refused(capsys, score, carved, small_dataset)
    assert "has no column 'name' that `columns` maps" in message
    score.main([str(carved), str(small_dataset), "--columns", "{}", "--out", str(tmp_path / "scores")])
    assert read_metrics(tmp_path / "scores")["rows"] == 30
    compare.main([str(carved), str(small_dataset), "--columns", "{}", "--out", str(tmp_path / "comparison")])
    assert json.loads((tmp_path / "comparison" / "comparison.json").read_text())["rows"] == 30
    assert "is no mapping of columns" in refused(capsys, export, carved, "--columns", "title")


def test_a_model_on_a_hub_keeps_its_configuration_and_what_it_was_chosen_on(
    carved, small_dataset, connected_hub, tmp_path, capsys
):
    """What a folder says of its run is said by the same model on a Hub, at the revision that is asked for."""
    api = HfApi()
    api.create_repo("org/multi")
    changed = tmp_path / "changed"
    shutil.copytree(carved, changed, ignore=shutil.ignore_patterns("seed-*"))
    for split, columns in (("test", {"title": "name", "flavours": "tags"}), ("validation", {})):
        configuration = saved_configuration(str(carved)) | {
            "selection_split": split,
            "test_split": "other",
            "columns": columns,
        }
        # The first version on the Hub is as earlier versions of the package wrote it.
        (changed / "configuration.yaml").unlink(missing_ok=True)
        name = "recipe.yaml" if split == "test" else "configuration.yaml"
        (changed / name).write_text(yaml.safe_dump(configuration))
        results = read_metrics(carved) | {"selection_split": split}
        (changed / "metrics.json").write_text(json.dumps(results))
        commit = api.upload_folder(repo_id="org/multi", folder_path=changed)
        api.create_tag("org/multi", tag=f"chosen-on-{split}", revision=commit.oid)
    latest, first = load_model("org/multi"), load_model("org/multi", "chosen-on-test")
    assert latest.arguments == load_model(str(changed)).arguments
    assert (latest.selection_split, latest.arguments.columns) == ("validation", {})
    assert (first.selection_split, first.arguments.columns) == ("test", {"title": "name", "flavours": "tags"})
    assert first.arguments.label_column == "flavours"
    assert load_vocabulary_record("org/multi") == load_vocabulary_record(carved) is not None
    out = ("--out", tmp_path / "out")
    message = refused(capsys, compare, "org/multi@chosen-on-test", small_dataset, "--columns", "{}", *out)
    assert "'test' chose the checkpoints" in message
    compare.main(["org/multi@chosen-on-validation", "org/multi", str(small_dataset), *map(str, out)])
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {"org/multi@chosen-on-validation", "org/multi"} <= set(content["entries"])
    scored = tmp_path / "out" / "org" / "multi@chosen-on-validation"
    assert read_metrics(scored)["model"] == "org/multi@chosen-on-validation"
    table = tmp_path / "table.csv"
    table.write_text("ImageID,Caption\na.jpg,cake\n")
    assert "no-such-tag" in refused(capsys, predict, "org/multi", table, "--revision", "no-such-tag")
    predict.main(["org/multi", str(table), "--revision", "chosen-on-test", "--out", str(tmp_path / "labels.csv")])
    assert (tmp_path / "labels.csv").read_text().startswith("ImageID,Labels\na.jpg,")
