"""Older operator sets and formats: what is written down to set 17, and what is refused."""

import argparse

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from dataset_builder.errors import BadInputError
from tests.modeling_flavour.family import FAMILY
from trainer_scripts import export
from trainer_scripts.exporting.tracing import trace
from trainer_scripts.exporting.versions import lower, versions
from trainer_scripts.tasks.common.graphs import ClassifierGraph


def given(opset=None, ir_version=None):
    return argparse.Namespace(opset=opset, ir_version=ir_version)


@pytest.mark.parametrize(
    ("name", "opset"), [("fusion-cross_attention", 17), pytest.param("fusion-early", 22, marks=pytest.mark.slow)]
)
def test_a_graph_of_any_operator_set_answers_like_the_model(name, opset, tmp_path):
    model = FAMILY[name].build(text_pooling="mean").eval()
    graph = ClassifierGraph(model)
    batch = {key: value for key, value in FAMILY[name].batch(4).items() if key in graph.inputs}
    wanted = versions(given(opset))
    trace(graph, batch, tmp_path / "model.onnx", *wanted)
    written = onnx.load(tmp_path / "model.onnx")
    assert [(each.domain, each.version) for each in written.opset_import] == [("", opset)]
    assert written.ir_version == {17: 8, 22: 10}[opset]
    onnx.checker.check_model(written)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found = session.run(["logits"], {key: value.numpy() for key, value in batch.items()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, model(**batch).logits.numpy(), atol=1e-4)


def model_of(node, constants=()):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in ("x", "y")]
    graph = helper.make_graph([node], "graph", values[:1], values[1:], list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def test_axes_become_an_attribute_and_new_attributes_go():
    axes = onnx.numpy_helper.from_array(np.array([1]), "axes")
    model = model_of(helper.make_node("ReduceMean", ["x", "axes"], ["y"], noop_with_empty_axes=0), [axes])
    lower(model)
    node = model.graph.node[0]
    assert list(node.input) == ["x"]
    assert {each.name: helper.get_attribute_value(each) for each in node.attribute} == {"axes": [1]}
    model = model_of(helper.make_node("Split", ["x"], ["y"], num_outputs=1))
    lower(model)
    assert not model.graph.node[0].attribute


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("Mish", ["x"], ["y"]), "has no Mish, which this model needs; give --opset 18 or a newer"),
        (helper.make_node("ReduceMax", ["x", "x"], ["y"]), "has no ReduceMax over axes that are computed"),
        (helper.make_node("Resize", ["x"], ["y"], antialias=1), "has no Resize with antialias=1"),
        (helper.make_node("Pad", ["x", "a", "b", "c"], ["y"]), "has no Pad with axes"),
        (helper.make_node("ScatterND", ["x"], ["y"], reduction="max"), "has no ScatterND with reduction"),
    ],
)
def test_what_set_17_cannot_say_is_named(node, message):
    with pytest.raises(BadInputError, match=message):
        lower(model_of(node))


def test_a_format_that_lacks_the_operator_set_is_refused(capsys):
    assert versions(given()) == (20, None)
    assert versions(given(18, 9)) == (18, 9)
    with pytest.raises(BadInputError, match="--ir-version 8 has no operator set 20, which needs 9; raise it, or lower"):
        versions(given(ir_version=8))
    with pytest.raises(SystemExit):
        export.main(["model", "--opset", "9"])
    assert "'9' is no whole number from 17 to 22" in capsys.readouterr().err
