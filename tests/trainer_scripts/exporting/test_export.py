"""Exported graphs: equal to torch on real samples, small, described well enough for programs without transformers."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

from dataset_builder import progress
from dataset_builder.errors import BadInputError
from modeling_flavour.modeling_flavour import FlavourForClassification
from tests.trainer_scripts.conftest import refused
from tests.trainer_scripts.tasks.segmentation.conftest import arguments as segmentation_arguments
from tests.trainer_scripts.tiny_runs import run
from trainer_scripts import export, predict, score, train
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.exporting import run as export_run
from trainer_scripts.exporting.quantization import (
    PLANS,
    half_precision,
    quantize,
    quantize_rows,
    reduced_axes,
    sensitive_convolutions,
    store_weights,
)
from trainer_scripts.exporting.tracing import check_parity, input_batches, parity, trace
from trainer_scripts.scoring.saved_model import load_model, load_table
from trainer_scripts.tasks.common.graphs import ClassifierGraph


@pytest.fixture(scope="module")
def model(small_dataset, tmp_path_factory) -> Path:
    """Title and picture to flavour, by BERT, BiLSTM and convolutions; its answers vary from row to row."""
    folder = run(tmp_path_factory.mktemp("export") / "fusion", small_dataset, "--num_train_epochs", "1")
    trained = FlavourForClassification.from_pretrained(folder)
    torch.manual_seed(0)
    for name, parameter in trained.named_parameters():
        if parameter.ndim > 1 and name.startswith(("text_dense", "image_dense", "head", "classifier")):
            torch.nn.init.normal_(parameter, std=0.5)
    trained.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(model) -> Path:
    export.main([str(model), "--format", "onnx", "--quantize", "int8", "--max-loss", "100", "--max-mb", "5"])
    return model / "onnx-int8"


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory) -> Path:
    """The fp32 graph of the model."""
    saved = load_model(str(model))
    graph = ClassifierGraph(saved.model)
    path = tmp_path_factory.mktemp("plain") / "model.onnx"
    table = load_table(saved, saved.arguments.dataset, "validation")
    trace(graph, next(input_batches(saved, table, list(graph.inputs), 4, 4)), path)
    return path


def test_report_has_parity_on_real_samples_size_accuracy_and_latency(exported, model):
    report = json.loads((exported / "export.json").read_text())
    assert report["parity_of_fp32_with_torch"]["logits"]["rows"] == 30
    assert report["parity_of_fp32_with_torch"]["logits"]["largest_difference"] < 1e-4
    lines = {line["name"]: line for line in report["measurements"]}
    assert list(lines["torch fp32"]["scores"]) == ["validation", "test"]
    for split, scores in lines["torch fp32"]["scores"].items():
        assert lines["onnx fp32"]["scores"][split] == pytest.approx(scores, rel=1e-5)
    chosen = lines[report["form"]]
    assert chosen["megabytes"] == pytest.approx((exported / "model.onnx").stat().st_size / 1e6)
    for size in ("1", "32"):
        assert 0 < chosen["latencies"][size]["low"] <= chosen["latencies"][size]["median"]
    assert report["form"] in (exported / "export.md").read_text()
    assert not list(model.glob(".onnx*"))


def test_int8_is_static_and_leaves_no_large_float_weight(exported):
    graph = onnx.load(exported / "model.onnx").graph
    operators = {node.op_type for node in graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "LSTM"} <= operators
    assert "DynamicQuantizeLinear" not in operators
    assert b".py" not in (exported / "model.onnx").read_bytes()  # no path of the machine it was made on
    large = [item for item in graph.initializer if np.prod(item.dims) >= 1024]
    assert large
    assert all(item.data_type != onnx.TensorProto.FLOAT for item in large)


def test_the_graph_reads_batches_and_texts_of_any_length(plain, model):
    saved = load_model(str(model))
    session = onnxruntime.InferenceSession(plain)
    for rows, length in ((1, 3), (5, 11), (3, 17)):
        torch.manual_seed(rows)
        mask = torch.ones(rows, length, dtype=torch.long)
        mask[-1, 2:] = 0
        batch = {
            "input_ids": torch.randint(5, len(saved.processor.tokenizer), (rows, length)),
            "attention_mask": mask,
            "pixel_values": torch.randn(rows, 3, 32, 32),
        }
        with torch.no_grad():
            expected = saved.model(**batch).logits.numpy()
        found = session.run(["logits"], {name: value.numpy() for name, value in batch.items()})[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert rows == 1 or np.ptp(expected, axis=0).max() > 0.01  # a model that says the same of all proves nothing


def test_an_exported_folder_scores_and_predicts_as_a_model(exported, model, small_dataset, tmp_path):
    for name, folder in (("torch", model), ("graph", exported)):
        score.main([str(folder), str(small_dataset), "--out", str(tmp_path / name)])
    report = json.loads((exported / "export.json").read_text())
    chosen = next(line for line in report["measurements"] if line["name"] == report["form"])
    scored = read_metrics(tmp_path / "graph")["metrics"]
    assert {name: entry["value"] for name, entry in scored.items()} == pytest.approx(chosen["scores"]["test"])
    pictures, table = tmp_path / "pictures", tmp_path / "table.csv"
    pictures.mkdir()
    Image.new("RGB", (40, 30), (200, 60, 90)).save(pictures / "a.png")
    table.write_text("ImageID,Caption\na.png,cake number one\n")
    out = tmp_path / "out.csv"
    predict.main([str(exported), str(table), "--images", str(pictures), "--out", str(out)])
    assert out.read_text().startswith("ImageID,Labels\na.png,")


def test_the_description_alone_is_enough_to_use_the_graph(exported, model):
    """PIL, numpy, tokenizers and onnxruntime, told by preprocessor.json, answer as our own processor does."""
    said = json.loads((exported / "preprocessor.json").read_text())
    picture = Image.fromarray(np.random.default_rng(3).integers(0, 255, (48, 60, 3), dtype=np.uint8))
    text = "Pickle number 7, and a word that nobody knows"
    how = said["inputs"]["pixel_values"]
    shortest = how["resize"]["shortest_edge"] / min(picture.size)
    kind = getattr(Image.Resampling, how["interpolation"].upper())
    small = picture.resize([round(side * shortest) for side in picture.size], kind)
    height, width = how["center_crop"]["height"], how["center_crop"]["width"]
    left, top = (small.width - width) // 2, (small.height - height) // 2
    pixels = np.asarray(small.crop((left, top, left + width, top + height)), dtype=np.float32) * how["multiply"]
    pixels = (pixels - np.array(how["subtract_mean"])) / np.array(how["divide_by_std"])
    tokenizer = Tokenizer.from_file(str(exported / said["inputs"]["input_ids"]["tokenizer"]))
    ids = tokenizer.encode(text).ids[: said["inputs"]["input_ids"]["max_length"]]
    feeds = {
        "input_ids": np.array([ids]),
        "attention_mask": np.ones((1, len(ids)), dtype=np.int64),
        "pixel_values": pixels.transpose(2, 0, 1)[None].astype(np.float32),
    }
    found = onnxruntime.InferenceSession(exported / said["graph"]).run(["logits"], feeds)[0]
    saved = load_model(str(exported))
    expected = saved.model(**saved.processor(images=picture, text=text)).logits.numpy()
    np.testing.assert_allclose(found, expected, atol=0.05 * max(1, np.abs(expected).max()))
    assert said["outputs"]["labels"] == saved.names


def test_a_missed_budget_fails_and_writes_nothing(model, plain, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export_run, "trace", lambda graph, example, path, *versions: shutil.copy(plain, path))
    out = tmp_path / "graph"
    message = refused(capsys, export, str(model), "--max-mb", "0.01", "--out", str(out))
    assert "over --max-mb 0.01" in message
    assert not out.exists()
    assert not list(tmp_path.iterdir())


def test_a_lost_score_fails(model, plain, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export_run, "trace", lambda graph, example, path, *versions: shutil.copy(plain, path))
    monkeypatch.setattr(export_run, "PLANS", PLANS[-1:])
    monkeypatch.setattr(export_run, "points_lost", lambda *measured: 0.6)
    out = str(tmp_path / "graph")
    message = refused(capsys, export, str(model), "--quantize", "int8", "--max-loss", "0.5", "--out", out)
    assert "within --max-loss 0.5" in message


def test_weights_alone_are_stored_in_8_bits_without_any_calibration(model, plain, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export_run, "trace", lambda graph, example, path, *versions: shutil.copy(plain, path))
    monkeypatch.setattr(export_run, "quantize", None)
    export.main([str(model), "--dtype", "int8", "--max-loss", "100", "--max-rows", "8"])
    folder = model / "onnx-int8-weights"
    assert json.loads((folder / "export.json").read_text())["form"] == "onnx int8 weights"
    graph = onnx.load(folder / "model.onnx").graph
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in graph.node}
    assert all(item.data_type != onnx.TensorProto.FLOAT for item in graph.initializer if np.prod(item.dims) >= 1024)
    message = refused(capsys, export, str(model), "--quantize", "int8", "--dtype", "int8")
    assert "stores weights in 8 bits already; leave --dtype out" in message


def test_a_graph_that_answers_otherwise_is_refused(model, plain):
    saved = load_model(str(model))
    graph = ClassifierGraph(saved.model)
    job = export_run.Job(saved, graph, {}, plain.parent, None)
    table = load_table(saved, saved.arguments.dataset, "validation")
    batches = list(input_batches(saved, table, list(graph.inputs), 8, 4))
    check_parity(parity(graph, job.load(plain), batches))
    with torch.no_grad():
        saved.model.classifier.bias += 0.1
    with pytest.raises(BadInputError, match="does not answer as torch does"):
        check_parity(parity(graph, job.load(plain), batches))


@pytest.mark.parametrize(("kind", "bound"), [("fp16", 2e-3), ("bf16", 2e-2), ("int8", 5e-2)])
def test_stored_weights_are_smaller_and_compute_in_fp32(plain, model, tmp_path, kind, bound):
    saved = load_model(str(model))
    graph, path = onnx.load(plain), tmp_path / "model.onnx"
    assert store_weights(graph, kind) > 0
    onnx.save(graph, path)
    job = export_run.Job(saved, ClassifierGraph(saved.model), {}, tmp_path, None)
    table = load_table(saved, saved.arguments.dataset, "validation")
    batches = list(input_batches(saved, table, list(job.graph.inputs), 8, 4))
    found = parity(job.graph, job.load(path), batches)["logits"]
    assert 0 < found["largest_difference"] < bound * max(1, found["largest_value"])
    assert path.stat().st_size < plain.stat().st_size


def test_rows_are_coded_to_the_nearest_of_255_levels():
    values = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32) * np.array([[1], [10], [0.01], [0]])
    codes, scale = quantize_rows(values.astype(np.float32), (1,))
    assert codes.dtype == np.int8
    assert (np.abs(codes * scale - values) <= scale / 2 + 1e-7).all()
    assert (np.abs(codes).max(axis=1) == [127, 127, 127, 0]).all()


def test_a_scale_belongs_to_an_output_channel():
    kernel, matrix, table = np.zeros((8, 4, 3, 3)), np.zeros((5, 7)), np.zeros((100, 16))
    assert reduced_axes(kernel, [("Conv", 1)]) == (1, 2, 3)
    assert reduced_axes(matrix, [("MatMul", 1)]) == (0,)
    assert reduced_axes(table, [("Gather", 0)]) == (1,)


def test_weights_beyond_fp16_are_refused():
    with pytest.raises(BadInputError, match="use --dtype bf16"):
        half_precision(np.array([1e6], dtype=np.float32), "weight", onnx.TensorProto.FLOAT16)


def test_sensitive_convolutions_are_the_first_depthwise_and_squeezed_ones(tmp_path):
    config = {"model_type": "timm_wrapper", "architecture": "test_efficientnet"}
    model = FlavourForClassification.from_parts(image=config, image_dense_sizes=[]).eval()
    path = tmp_path / "model.onnx"
    trace(ClassifierGraph(model), {"pixel_values": torch.randn(2, 3, 128, 128)}, path)
    graph = onnx.load(path)
    kernels = {item.name: item for item in graph.graph.initializer}
    nodes = {node.name: node for node in graph.graph.node if node.op_type == "Conv"}
    sensitive = sensitive_convolutions(graph)
    modules = dict(model.named_modules())
    depthwise = [name for name, module in modules.items() if getattr(module, "groups", 1) > 1]
    squeezed = [name for name in modules if name.endswith(("se.conv_reduce", "se.conv_expand"))]
    assert depthwise
    assert squeezed
    assert len(sensitive) == 1 + len(depthwise) + len(squeezed) < len(nodes)
    assert all(name in nodes for name in sensitive)
    assert sum(kernels[nodes[name].input[1]].dims[1] == 1 for name in sensitive) == len(depthwise)


def test_every_plan_answers_and_its_calibration_shows_how_far_it_is(plain, model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS", 0)
    saved = load_model(str(model))
    job = export_run.Job(saved, ClassifierGraph(saved.model), {}, tmp_path, None)
    table = load_table(saved, saved.arguments.dataset, "validation")
    batches = list(input_batches(saved, table, list(job.graph.inputs), 16, 4))
    for plan in PLANS:
        path = tmp_path / f"{plan.name}.onnx"
        quantize(plain, path, plan, batches)
        found = parity(job.graph, job.load(path), batches)["logits"]
        assert found["largest_difference"] < 0.2 * max(1, found["largest_value"])
    said = capsys.readouterr().err
    assert re.search(r"calibrating int8: 50 %, 8 of 16 rows, [\d.,]+ rows/s, .* left", said)
    assert "calibrating int8 convolutions: 100 %, 16 of 16 rows" in said


def test_segmentation_gives_masks_of_the_size_of_the_picture(small_dataset, tmp_path):
    folder = tmp_path / "multitask"
    start = tmp_path / "single"
    train.main(segmentation_arguments("segmentation", small_dataset, start, "--num_train_epochs", "1"))
    train.main(
        segmentation_arguments(
            "multitask", small_dataset, folder, "--init_segmenter", str(start), "--num_train_epochs", "1"
        )
    )
    out = tmp_path / "graph"
    export.main([str(folder), "--out", str(out)])
    saved = load_model(str(folder))
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert [node.name for node in session.get_outputs()] == ["mask", "ingredient_logits"]
    for height, width in ((32, 32), (48, 80)):
        pixels = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            expected = saved.model(pixels)
        mask, scores = session.run(None, {"pixel_values": pixels.numpy()})
        assert mask.shape == (2, height, width)
        assert mask.dtype == np.uint8
        assert (mask == expected.logits.argmax(1).numpy()).mean() > 0.999
        np.testing.assert_allclose(scores, expected.ingredient_logits.numpy(), atol=1e-4)
    lines = {line["name"]: line for line in json.loads((out / "export.json").read_text())["measurements"]}
    ours, theirs = (lines[name]["scores"]["test"]["miou"] for name in ("onnx fp32", "torch fp32"))
    assert ours == pytest.approx(theirs, abs=0.02)  # scoring enlarges logits on a coarser grid than the graph's


def test_the_graph_takes_exactly_its_inputs(exported):
    saved = load_model(str(exported))
    with pytest.raises(ValueError, match="takes exactly"):
        saved.model(pixel_values=torch.zeros(1, 3, 32, 32))


def test_what_cannot_be_exported_is_refused_in_one_line(exported, model, tmp_path, capsys, monkeypatch):
    assert "exported already" in refused(capsys, export, str(exported))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("keep")
    assert "holds no export" in refused(capsys, export, str(model), "--out", str(tmp_path / "full"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "pip install 'flavour-fusion[onnx]'" in refused(capsys, export, str(model))
