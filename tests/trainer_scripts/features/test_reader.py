"""Finished models answer from features as they do from pictures and words, and each row passes a backbone once."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset

from dataset_builder.errors import BadInputError
from tests.trainer_scripts.conftest import make_row, png, write_dataset
from trainer_scripts.evaluation.ablations import drawn_rows, partners
from trainer_scripts.features import engines
from trainer_scripts.features import frozen as features
from trainer_scripts.features import reader as reading
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.captioning.answers import caption_table
from trainer_scripts.tasks.classification.predicting import predict_items
from trainer_scripts.tasks.common import item_pictures
from trainer_scripts.tasks.common.task import Item, PredictionOptions, SavedModel
from trainer_scripts.training.data import load_training_data

TEXT = '{"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, '
TEXT += '"intermediate_size": 16}'
CLASSIFIER = ("--text_config", TEXT, "--tokenizer", "wordpiece")
HEADS = {"text_pooling": "mean", "text_dense_sizes": [], "image_dense_sizes": [], "head_dense_sizes": [8]}
PLACES = {"place_loss_weight": 1.0, "image_pooling": "places"}
CAPTIONER = {"decoder_type": "transformer", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
SEGMENTER = {"head": "deeplabv3plus", "aspp_channels": 16, "aspp_rates": [1, 2], "dropout": 0.0}
KINDS = {
    "fusion": ("flavour_fusion_tiny", {**HEADS, "fusion": "early"}, CLASSIFIER),
    "fusion by token": (
        "flavour_fusion_tiny",
        {**HEADS, "fusion": "cross_attention", "fusion_size": 16, "fusion_heads": 2},
        CLASSIFIER,
    ),
    "map and vector": ("flavour_fusion_tiny", {**HEADS, "fusion": "early", "place_loss_weight": 1.0}, CLASSIFIER),
    "places": ("flavour_fusion_tiny", {**HEADS, "fusion": "early", **PLACES}, CLASSIFIER),
    "several labels": ("multilabel_tiny", {**HEADS, "fusion": "gated"}, CLASSIFIER),
    "transformer captioner": ("captioner_resnet18_transformer_tiny", {**CAPTIONER, "num_attention_heads": 2}, ()),
    "merge captioner": (
        "captioner_xception_merge_lstm_tiny",
        {"decoder_type": "merge", "hidden_size": 16, "place_loss_weight": 1.0},
        (),
    ),
    "segmenter": ("segmentation_deeplabv3_tiny", SEGMENTER, ()),
    "ingredients": ("ingredients_tiny", {"head": "none", "ingredient_head": True, "dropout": 0.0}, ()),
}
VISION = '{"model_type": "timm_wrapper", "architecture": "resnet10t", "model_args": {"stem_width": 8, '
VISION += '"channels": [8, 8, 8, 8]}}'


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Rows with captions, masks and several labels, and validation and test rows of two sizes."""
    rows = {
        split: [make_row(split, index, 32 if index % 2 else 48) for index in range(number)]
        for split, number in (("train", 20), ("validation", 12), ("test", 12))
    }
    return write_dataset(tmp_path_factory.mktemp("read") / "data", rows)


def saved(kind, dataset, folder, *more):
    """An untrained model of a kind as scoring holds it, and its validation rows."""
    name, config, settings = KINDS[kind]
    vision = ("--vision_config", '{"model_type": "timm_wrapper", "architecture": "test_resnet"}')
    vision = vision if kind in ("segmenter", "ingredients") else ("--vision_config", VISION)
    if name == "multilabel_tiny":
        settings = (*settings, "--label_column", "flavours", "--text_column", "title", "--group_column", "dish_id")
        settings += ("--columns", "{}")
    configuration = parse_configuration(
        [name, *settings, *vision, "--config", json.dumps(config), "--dataset", str(dataset), "--image_size", "32",
         "--output_dir", str(folder / "run"), "--features_dir", str(folder / "features"), *more]
    )  # fmt: skip
    torch.manual_seed(0)
    data = load_training_data(configuration)
    model, processor = data.task.build(configuration, data)
    return SavedModel(kind, str(folder), model.eval(), processor, data.task, configuration.data), data.selection


def with_pictures(table, cells):
    """The rows of a table with other pictures."""
    members = [{**row, table.image_column: cell} for row, cell in zip(table.rows, cells, strict=True)]
    return replace(table, rows=Dataset.from_list(members, features=table.rows.features), chosen_from=None)


def assert_equal(ours, theirs):
    assert ours.parts.keys() == theirs.parts.keys()
    for part, (_, answered) in theirs.parts.items():
        if isinstance(answered, list):
            assert ours.parts[part][1] == answered
        else:
            assert np.allclose(ours.parts[part][1], answered, atol=1e-5), part


@pytest.mark.parametrize("frozen", ["true", "false"], ids=["frozen", "fine-tuned"])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_from_features_are_those_from_pictures_and_words(tmp_path, dataset, kind, frozen):
    freeze = ("--freeze_image", frozen) + (("--freeze_text", frozen) if "fusion" in KINDS[kind][0] else ())
    model, table = saved(kind, dataset, tmp_path, *freeze)
    plain = replace(model, keeps=False)
    assert_equal(model.task.answers(model, table, 5), plain.task.answers(plain, table, 5))
    # The rows with swapped pictures as a data set of their own, which no ablation takes part in.
    cells, order = list(table.cells()), partners(table.groups, 0)
    swapped = with_pictures(table, [cells[row] for row in order])
    found = dict(model.task.changes(model, table, 5))
    assert_equal(found["image shuffled"], plain.task.answers(plain, swapped, 5))
    assert (tmp_path / "features").exists() is (frozen == "true" and kind not in ("segmenter", "ingredients"))


@pytest.mark.parametrize("kind", ["fusion", "map and vector", "several labels", "segmenter", "ingredients"])
def test_a_blank_picture_is_one_of_the_mean_colour(tmp_path, dataset, kind):
    model, table = saved(kind, dataset, tmp_path)
    mean = [round(255 * value) for value in model.processor.image_processor.image_mean]
    grey = {"bytes": png(np.full((32, 32, 3), mean, dtype=np.uint8)), "path": None}
    plain = replace(model, keeps=False)
    found = dict(model.task.changes(model, table, 5))["image blank"]
    assert_equal(found, plain.task.answers(plain, with_pictures(table, [grey] * len(table)), 5))


@pytest.mark.parametrize("kind", ["transformer captioner", "merge captioner"])
def test_a_captioner_describes_a_blank_picture_once_for_all_rows(tmp_path, dataset, kind):
    model, table = saved(kind, dataset, tmp_path)
    samples = model.task.evaluation_samples(model.processor, table)
    samples.pictures.decode = lambda row: torch.zeros(3, 32, 32)
    normal = model.processor.image_processor
    normal.image_mean, before = [0.0, 0.0, 0.0], normal.image_mean  # black is zero after normalisation
    captions, expected = caption_table(model.model, samples, 5)
    normal.image_mean = before
    found = dict(model.task.changes(model, table, 5))["image blank"]
    assert found.parts["captions"][1] == captions
    assert np.allclose(found.parts["tokens"][1], expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["fusion", "several labels", "transformer captioner", "merge captioner", "segmenter"])
def test_each_picture_passes_the_backbone_once_with_all_ablations(tmp_path, dataset, kind, monkeypatch):
    model, table = saved(kind, dataset, tmp_path)
    passed = []
    run = model.model.image_encoder.run_backbone

    def counted(pixel_values, **kwargs):
        passed.append(len(pixel_values))
        return run(pixel_values, **kwargs)

    monkeypatch.setattr(model.model.image_encoder, "run_backbone", counted)
    model.ablation_rows = len(table) // 2
    model.task.answers(model, table, 5)
    rows = drawn_rows(table.groups, len(table) // 2)
    names = [name for name, _ in model.task.changes(model, table.select(rows), 5)]
    monkeypatch.undo()
    assert {"image shuffled", "image blank"} <= set(names)
    # The first picture tells shapes, and the blank one is seen.
    assert sum(passed) - len(table) <= 4


def test_what_training_has_stored_is_read_and_parts_of_a_split_too(tmp_path, dataset, monkeypatch):
    model, table = saved("fusion", dataset, tmp_path, "--freeze_image", "true", "--freeze_text", "true")
    first = model.task.answers(model, table, 5)
    loaded = []
    monkeypatch.setattr(features.PictureExtractor, "run", lambda self, rows: loaded.append(rows))
    again = replace(model, kept={})
    assert_equal(again.task.answers(again, table, 5), first)
    part = replace(model, kept={})
    chosen = np.array([7, 2, 3])
    assert np.allclose(part.task.answers(part, table.select(chosen), 5).probabilities, first.probabilities[chosen])
    assert loaded == []


def test_a_folder_that_cannot_be_written_leaves_features_in_memory(tmp_path, dataset):
    (tmp_path / "features").write_text("a file is in the way")
    model, table = saved("fusion", dataset, tmp_path, "--freeze_image", "true", "--freeze_text", "true")
    plain = replace(model, keeps=False)
    assert_equal(model.task.answers(model, table, 5), plain.task.answers(plain, table, 5))


def test_features_that_do_not_fit_leave_the_model_as_it_is(tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(reading, "MOST_BYTES", 10)
    model, table = saved("fusion", dataset, tmp_path)
    samples = model.samples(table)
    assert samples.image_features is None
    plain = replace(model, keeps=False)
    assert_equal(model.task.answers(model, table, 5), plain.task.answers(plain, table, 5))
    found = dict(model.task.changes(model, table, 5))
    assert {"image shuffled", "image blank", "text blank", "image left out"} <= set(found)


@pytest.mark.skipif(not engines.has_onnxruntime(), reason="needs ONNX Runtime and the exporter")
@pytest.mark.parametrize("kind", ["map and vector", "segmenter"])
def test_the_fast_engine_gives_several_outputs_too(tmp_path, dataset, kind, monkeypatch):
    monkeypatch.setattr(engines, "WORTH_A_GRAPH", 1)
    model, table = saved(kind, dataset, tmp_path)
    plain = replace(model, keeps=False)
    assert_equal(model.task.answers(model, table, 5), plain.task.answers(plain, table, 5))
    assert model.reader._engine.by_picture


def items_of(table, folder):
    """The rows of a table as files to predict."""
    folder.mkdir()
    items = []
    for name, cell, text in zip(table.ids, table.cells(), table.texts or [None] * len(table), strict=True):
        (folder / f"{name}.png").write_bytes(cell["bytes"])
        items.append(Item(name, text, folder / f"{name}.png"))
    return items


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@torch.inference_mode()
def test_predictions_from_features_are_those_of_processor_and_model(tmp_path, dataset, graph, monkeypatch):
    if graph:
        pytest.importorskip("onnxscript")
        monkeypatch.setattr(engines, "WORTH_A_GRAPH", 1)
    model, table = saved("map and vector", dataset, tmp_path)
    items = items_of(table, tmp_path / "pictures")
    found, broken = predict_items(model, items, 5, False)
    pictures, texts = [item.picture for item in items], [item.text for item in items]
    logits = model.model(**model.processor(images=pictures, text=texts)).logits
    assert np.allclose(found, logits.softmax(-1).numpy(), atol=1e-5)
    assert broken == []
    # One row lacks its picture and is predicted from its text.
    items[3] = replace(items[3], picture=tmp_path / "nowhere.png")
    found, broken = predict_items(model, items, 5, True)
    alone = model.model(**model.processor(text=[items[3].text])).logits.softmax(-1).numpy()
    assert broken == [items[3].item_id]
    assert np.allclose(found[3], alone[0], atol=1e-5)


def test_predictions_read_what_scoring_has_stored(tmp_path, dataset, monkeypatch):
    model, table = saved("fusion", dataset, tmp_path, "--freeze_image", "true", "--freeze_text", "true")
    scored = model.task.answers(model, table, 5).probabilities
    monkeypatch.setattr(engines.ImageEngine, "batch", lambda *given: pytest.fail("computed anew"))
    again = replace(model, kept={})
    found, _ = predict_items(again, items_of(table, tmp_path / "pictures"), 5, False)
    assert np.allclose(found, scored, atol=1e-5)


@pytest.mark.parametrize("kind", ["merge captioner", "transformer captioner", "segmenter", "ingredients"])
def test_every_task_predicts_files_from_features(tmp_path, dataset, kind):
    model, table = saved(kind, dataset, tmp_path)
    items = items_of(table, tmp_path / "pictures")
    options = PredictionOptions(5, "refuse", None, None, None)
    ours, plain = tmp_path / "ours" / "out.csv", tmp_path / "plain" / "out.csv"
    for out in (ours, plain):
        out.parent.mkdir()
        if out is plain:  # pixels in place of features
            monkey = pytest.MonkeyPatch()
            monkey.setattr(item_pictures, "FlavourPreTrainedModel", type(None))
        message = model.task.predict(model, items, out, options)
        assert message.startswith(f"{len(items)} ")
    monkey.undo()
    assert ours.read_text() == plain.read_text()
    (tmp_path / "pictures" / f"{table.ids[2]}.png").write_bytes(b"no picture")
    with pytest.raises(BadInputError, match=f"row {table.ids[2]}: .* mend or remove it"):
        model.task.predict(model, items, tmp_path / "broken.csv", options)
