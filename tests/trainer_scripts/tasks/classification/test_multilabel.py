"""The multi-label system from the assignment's own files to `Predicted_labels.csv`."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_builder.importers.comp5329 import TEST_HEADER, read_records
from modeling_flavour.processing_flavour import FlavourProcessor
from tests.trainer_scripts.tiny_runs import run
from trainer_scripts import compare, predict, score, train
from trainer_scripts.data.split_guard import text_digest
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.scoring.saved_model import load_model
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.classification.predicting import read_thresholds
from trainer_scripts.tasks.classification.training import input_size, make_processor
from trainer_scripts.training.vocabulary_record import load_vocabulary_record

ROWS = 160


@pytest.fixture(scope="module")
def imported(shared_data, tmp_path_factory) -> Path:
    """The first records of the sample, imported as the command line does it."""
    from dataset_builder.cli import main

    folder = tmp_path_factory.mktemp("comp5329")
    source = shared_data / "comp5329_sample"
    raw = folder / "raw"
    (raw / "data").mkdir(parents=True)
    header, *records = (source / "train.csv").read_text(encoding="utf-8-sig").split("\n")
    (raw / "train.csv").write_text("\n".join([header, *records[:ROWS]]) + "\n")
    for record in records[:ROWS]:
        shutil.copy(source / "data" / record.split(",")[0], raw / "data")
    with pytest.raises(SystemExit) as ended:
        main(["import", "comp5329", str(raw), "--out", str(folder / "set")])
    assert not ended.value.code
    return folder / "set"


@pytest.fixture(scope="module")
def model(imported, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("multilabel") / "tiny"
    small = ("--num_train_epochs", "2", "--image_size", "32", "--precision", "fp32", "--use_cpu", "true")
    train.main(["multilabel_tiny", "--dataset", str(imported), "--output_dir", str(folder), *small])
    return folder


def test_trains_scores_and_predicts_from_the_assignments_files(model, imported, shared_data, tmp_path):
    metrics = read_metrics(model)
    assert metrics["selection_metric"] == "samples_f1"
    assert {"samples_f1", "micro_f1", "macro_f1", "map", "f1_person"} <= set(metrics["selection"])
    score.main([str(model), str(imported), "--out", str(tmp_path / "scores")])
    assert read_metrics(tmp_path / "scores")["metrics"]["samples_f1"]["value"] > 0.4
    source, out = shared_data / "comp5329_sample", tmp_path / "Predicted_labels.csv"
    predict.main([str(model), str(source / "test.csv"), "--images", str(source / "data"), "--out", str(out)])
    with out.open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["ImageID", "Labels"]
    expected = [record.image_id for record in read_records(source / "test.csv", TEST_HEADER)]
    assert [row[0] for row in rows[1:]] == expected
    numbers = {int(number) for row in rows[1:] for number in row[1].split()}
    assert numbers <= set(range(1, 20)) - {12}
    assert all(row[1] for row in rows[1:])


def test_the_vocabulary_holds_training_captions_only(model, imported):
    from datasets import load_dataset

    saw = set(load_vocabulary_record(model)["texts"])
    for split in ("validation", "test"):
        captions = load_dataset(str(imported), split=split)["captions"]
        assert not [caption for caption in captions if text_digest(" ".join(caption)) in saw]


def test_tuned_thresholds_are_saved_named_in_the_definition_and_used(model, imported, shared_data, tmp_path):
    score.main([str(model), str(imported), "--out", str(tmp_path), "--tune_thresholds"])
    thresholds = json.loads((tmp_path / "thresholds.json").read_text())
    assert thresholds.keys() == set(read_metrics(tmp_path)["label_names"])
    assert "own threshold" in read_metrics(tmp_path)["definitions"]["samples_f1"]["definition"]
    assert read_thresholds(load_model(str(model)), tmp_path / "thresholds.json") == tuple(thresholds.values())


def test_comparison_of_multilabel_models_has_trivial_baselines(model, imported, tmp_path):
    compare.main([str(model), str(imported), "--out", str(tmp_path)])
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert {"tiny", "majority", "all labels", "TF-IDF + logistic regression", "colour histogram"} <= set(
        content["entries"]
    )
    assert content["main_score"] == "samples_f1"
    assert "Beside other models" in (model / "README.md").read_text()


def test_full_size_configurations_name_backbones_and_budget():
    efficient, small = (
        parse_configuration([f"multilabel_{name}"]) for name in ("efficientnet_b4_bilstm", "mobilenet_minilm")
    )
    assert efficient.model.max_mb == 100
    assert efficient.model.image_encoder == "timm/efficientnet_b4.ra2_in1k"
    assert efficient.model.tokenizer == "words"
    assert small.model.freeze_text
    assert small.model.freeze_image
    assert small.model.tokenizer is None


def test_a_squashed_picture_keeps_its_edges(tmp_path):
    red_edges = np.zeros((20, 60, 3), dtype=np.uint8)
    red_edges[:, :10], red_edges[:, -10:] = (255, 0, 0), (255, 0, 0)
    seen = {}
    for fit in ("crop", "squash"):
        configuration = parse_configuration(
            ["multilabel_tiny", "--modality", "image", "--image_fit", fit, "--image_size", "32"]
        )
        processor = make_processor(configuration.model, None)
        processor.save_pretrained(tmp_path / fit)
        loaded = FlavourProcessor.from_pretrained(tmp_path / fit)
        assert input_size(loaded) == 32
        pixels = loaded(images=Image.fromarray(red_edges))["pixel_values"]
        assert pixels.shape == (1, 3, 32, 32)
        seen[fit] = float(pixels[0, 0, :, 0].mean() - pixels[0, 0, :, 16].mean())
    assert abs(seen["crop"]) < 0.1
    assert seen["squash"] > 1


def test_the_set_of_highest_expected_f1_is_scored_and_predicted(model, imported, shared_data, tmp_path, capsys):
    for decision in ("threshold", "expected_f1"):
        score.main([str(model), str(imported), "--out", str(tmp_path / decision), "--decision", decision])
    by_threshold, by_set = (read_metrics(tmp_path / name) for name in ("threshold", "expected_f1"))
    assert by_set["decision"] == "expected_f1"
    first, second = (found["definitions"]["samples_f1"]["sha256"] for found in (by_threshold, by_set))
    assert first != second
    assert by_set["metrics"]["map"] == by_threshold["metrics"]["map"]
    with pytest.raises(SystemExit):
        score.main([str(model), str(imported), "--decision", "expected_f1", "--tune_thresholds"])
    assert "leave out --tune_thresholds" in capsys.readouterr().err


def test_scores_go_into_the_models_card_by_themselves(small_dataset, tmp_path):
    folder = run(tmp_path / "picture", small_dataset, "--modality", "image", "--num_train_epochs", "1")
    before = (folder / "README.md").read_text()
    score.main([str(folder), str(small_dataset)])
    assert (folder / "scores" / "test" / "predictions.parquet").is_file()
    assert (folder / "README.md").read_text() != before
