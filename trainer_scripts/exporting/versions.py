"""Operator sets and file formats for older runtimes, such as those of Triton Inference Server."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_builder.errors import BadInputError

if TYPE_CHECKING:
    import onnx

# Newest operator set that tracing emits without a conversion afterwards, and that onnxruntime reads since 1.17.
OPSET = 20
# The oldest one that has layer normalisation, and the newest one without attention as one operator, whose masks
# onnxruntime refuses.
OLDEST, NEWEST = 17, 22
# The oldest that torch emits by itself; 17 is reached by `lower`.
LEAST_EMITTED = 18
# Operators of set 18 that take as an input what set 17 takes as an attribute.
REDUCTIONS = frozenset((
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSumSquare",
))  # fmt: skip
# Attributes that are new in set 18, and the values at which set 17 does the same without them.
NEW_ATTRIBUTES: dict[str, dict[str, tuple | None]] = {
    "Resize": {"antialias": (0,), "keep_aspect_ratio_policy": (b"stretch",)},
    "Split": {"num_outputs": None},  # equal parts are what set 17 makes anyway
    "ScatterElements": {"reduction": (b"none", b"add", b"mul")},
    "ScatterND": {"reduction": (b"none", b"add", b"mul")},
}
KEPT = frozenset(("ScatterElements", "ScatterND"))  # their attribute is known to set 17, with fewer values
NEW_OPERATORS = frozenset((
    "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im", "GroupNormalization", "Mish",
))  # fmt: skip


def versions(given: argparse.Namespace) -> tuple[int, int | None]:
    """Return the operator set and the format of the file that a command line asks for; None leaves the usual format.

    With an operator set but no format, the format is the oldest that has this set.

    Raises:
        BadInputError: that format does not have that operator set.
    """
    import onnx

    opset = given.opset or OPSET
    least = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    if given.ir_version is not None and given.ir_version < least:
        raise BadInputError(
            f"--ir-version {given.ir_version} has no operator set {opset}, which needs {least}; "
            f"raise it, or lower --opset (the oldest is {OLDEST})"
        )
    if given.ir_version is not None and given.ir_version > onnx.IR_VERSION:
        raise BadInputError(f"--ir-version {given.ir_version} is newer than this onnx knows ({onnx.IR_VERSION})")
    return opset, given.ir_version or (least if given.opset else None)


def finish_file(path: Path, opset: int, ir_version: int | None) -> None:
    """Bring a written graph to its operator set and format, in place.

    Raises:
        BadInputError: the operator set cannot express the graph.
    """
    import onnx

    model = onnx.load(path)
    stated = next(each.version for each in model.opset_import if each.domain == "")
    if stated > opset and opset < LEAST_EMITTED:
        lower(model)
    elif stated != opset:
        raise BadInputError(f"torch emits operator set {stated} in place of {opset}; give --opset {stated}")
    if ir_version is not None:
        model.ir_version = ir_version
    onnx.save(model, path)


def lower(model: "onnx.ModelProto") -> None:
    """Turn a graph of operator set 18 into one of set 17, in place.

    Raises:
        BadInputError: it uses what set 17 does not have.
    """
    import onnx

    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        for name, same in NEW_ATTRIBUTES.get(node.op_type, {}).items():
            found = next((each for each in node.attribute if each.name == name), None)
            if found is None:
                continue
            if same is not None and onnx.helper.get_attribute_value(found) not in same:
                raise _beyond(f"{node.op_type} with {name}={onnx.helper.get_attribute_value(found)}")
            if node.op_type not in KEPT:
                node.attribute.remove(found)
        if node.op_type in REDUCTIONS:
            _axes_as_attribute(node, constants)
        elif node.op_type == "Pad" and len(node.input) > 3 and node.input[3]:
            raise _beyond("Pad with axes")
        elif node.op_type in NEW_OPERATORS:
            raise _beyond(node.op_type)
    for each in model.opset_import:
        if each.domain == "":
            each.version = 17


def _axes_as_attribute(node: "onnx.NodeProto", constants: dict) -> None:
    import onnx

    for each in [each for each in node.attribute if each.name == "noop_with_empty_axes"]:
        node.attribute.remove(each)
    if len(node.input) < 2:
        return
    if node.input[1] not in constants:
        raise _beyond(f"{node.op_type} over axes that are computed")
    node.attribute.append(onnx.helper.make_attribute("axes", constants[node.input[1]].tolist()))
    del node.input[1:]


def _beyond(what: str) -> BadInputError:
    return BadInputError(f"operator set 17 has no {what}, which this model needs; give --opset 18 or a newer one")
