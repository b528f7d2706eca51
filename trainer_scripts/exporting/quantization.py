"""Smaller graphs: static int8 (activations calibrated on real samples, weights per channel), or compact storage alone.

With compact storage (half precision, or 8 bits with a scale per row) the graph still computes in fp32: each stored
weight is turned back by operators on constants, which onnxruntime does once when it loads the graph. So a compact graph
is as fast as the plain one, on every processor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from dataset_builder.errors import BadInputError
from dataset_builder.progress import progress
from trainer_scripts.exporting.tracing import quiet

if TYPE_CHECKING:
    import onnx

QUANTIZED_OPERATORS = ("Conv", "Gemm", "MatMul")
# Smaller tensors (biases, scales) are a thousandth of a model and the most sensitive part of it.
SMALLEST_STORED = 1024


@dataclass(frozen=True)
class Plan:
    """How much of a graph computes in 8 bits; in each plan all large weights are stored in 8 bits.

    Attributes:
        name: its name in the table.
        operators: operator types that compute in 8 bits.
        spare_sensitive: whether depthwise convolutions, those on a 1 x 1 grid (squeeze and excitation) and the first
            one stay out: they have few weights and lose the most (Nagel et al. 2021, section 4.2).
    """

    name: str
    operators: tuple[str, ...]
    spare_sensitive: bool = False


# From the fastest to the most faithful; the first that keeps the score is taken.
PLANS = (
    Plan("int8", QUANTIZED_OPERATORS),
    Plan("int8 convolutions", ("Conv",), spare_sensitive=True),
    Plan("int8 weights", ()),
)


class CalibrationBatches:
    """Batches of real samples, from which onnxruntime calibrates activations; shows how far it is.

    Args:
        batches: inputs of the graph.
        name: what is calibrated, for the progress bar.
    """

    def __init__(self, batches: Sequence[Mapping[str, Tensor]], name: str):
        rows = sum(len(next(iter(batch.values()))) for batch in batches)
        largest = len(next(iter(batches[0].values()))) if batches else 1
        self._left = progress(batches, name, total=rows, each=largest)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch as arrays, None after the last."""
        batch = next(self._left, None)
        return None if batch is None else {name: value.numpy() for name, value in batch.items()}


def quantize(source: Path, target: Path, plan: Plan, batches: Sequence[Mapping[str, Tensor]]) -> None:
    """Write the int8 form of an fp32 graph.

    Args:
        source: fp32 graph.
        target: the result.
        plan: how much of it computes in 8 bits.
        batches: inputs to calibrate activations on; minimum and maximum are means over the batches, so that one odd
            sample does not stretch the range of all others.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = onnx.load(source)
    # Shapes noted while tracing name dimensions in ways that onnxruntime's own inference contradicts.
    del model.graph.value_info[:]
    if plan.operators and any(node.op_type in plan.operators for node in model.graph.node):
        with quiet():
            quantize_static(
                model,
                target,
                CalibrationBatches(batches, f"calibrating {plan.name}"),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(plan.operators),
                nodes_to_exclude=sensitive_convolutions(model) if plan.spare_sensitive else [],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                # Only products with a constant are quantised; those of two activations stay in float.
                extra_options={"MatMulConstBOnly": True, "CalibMovingAverage": True},
            )
        model = onnx.load(target)
    store_weights(model, "int8")
    onnx.save(model, target)


def sensitive_convolutions(model: "onnx.ModelProto") -> list[str]:
    """Return the names of convolutions that lose much in 8 bits and have few weights."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in inferred.value_info
    }
    kernels = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    names = []
    for number, node in enumerate(convolutions):
        depthwise = kernels.get(node.input[1], [0, 0])[1] == 1
        if number == 0 or depthwise or shapes.get(node.output[0], [])[2:] == [1, 1]:
            names.append(node.name)
    return names


def store_weights(model: "onnx.ModelProto", kind: str) -> int:
    """Store the float weights of a graph as `kind`, in place, and return how many tensors were changed.

    Args:
        model: an `onnx.ModelProto`.
        kind: `fp16`, `bf16`, or `int8`: symmetric, one scale for each output channel of a convolution or matrix
            product and for each row of anything else.
    """
    import onnx

    # Per tensor the operators that read it, and as which of their inputs: they decide which axis has a scale.
    readers: dict[str, list[tuple[str, int]]] = {}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append((node.op_type, position))
    changed = 0
    for initializer in list(model.graph.initializer):
        large = np.prod(initializer.dims, dtype=int) >= SMALLEST_STORED
        if initializer.data_type != onnx.TensorProto.FLOAT or not large or initializer.name not in readers:
            continue
        values = onnx.numpy_helper.to_array(initializer)
        name, stored = initializer.name, f"{initializer.name}_{kind}"
        if kind == "int8":
            codes, scale = quantize_rows(values, reduced_axes(values, readers[name]))
            tensors = {stored: codes, f"{name}_scale": scale}
            nodes = [
                onnx.helper.make_node("Cast", [stored], [f"{name}_float"], to=onnx.TensorProto.FLOAT),
                onnx.helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name]),
            ]
            new = [onnx.numpy_helper.from_array(value, key) for key, value in tensors.items()]
        else:
            half = onnx.TensorProto.FLOAT16 if kind == "fp16" else onnx.TensorProto.BFLOAT16
            new = [half_precision(values, stored, half)]
            nodes = [onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT)]
        model.graph.initializer.remove(initializer)
        model.graph.initializer.extend(new)
        # A graph lists its operators in the order of computation, so those that restore weights come first.
        for position, node in enumerate(nodes):
            model.graph.node.insert(position, node)
        changed += 1
    return changed


def reduced_axes(values: np.ndarray, readers: list[tuple[str, int]]) -> tuple[int, ...]:
    """Return the axes that share a scale: all but that of the output channels, else the last."""
    if all(reader == ("Conv", 1) for reader in readers):
        return tuple(range(1, values.ndim))
    if values.ndim > 1 and all(reader == ("MatMul", 1) for reader in readers):
        return (values.ndim - 2,)
    return (values.ndim - 1,)


def quantize_rows(values: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return 8-bit codes and float scales whose product is the nearest to the values, 0 staying 0."""
    scale = np.abs(values).max(axis=axes, keepdims=True) / 127
    # A row of zeros has any scale.
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.clip(np.round(values / scale), -127, 127).astype(np.int8), scale


def half_precision(values: np.ndarray, name: str, kind: int) -> Any:
    """Return an initializer in half precision, rounded to the nearest even.

    Raises:
        BadInputError: a weight is beyond the range of fp16.
    """
    import onnx

    if kind == onnx.TensorProto.FLOAT16:
        with np.errstate(over="ignore"):
            small = values.astype(np.float16)
        if not np.isfinite(small).all():
            raise BadInputError(
                f"weight {name} has values up to {np.abs(values).max():.3g}, beyond fp16; use --dtype bf16"
            )
        return onnx.numpy_helper.from_array(small, name)
    import torch

    bits = torch.tensor(values).to(torch.bfloat16).view(torch.int16).numpy()
    return onnx.helper.make_tensor(name, kind, values.shape, bits.tobytes(), raw=True)
