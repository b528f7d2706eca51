"""Static int8: activations calibrated on real samples, weights per channel, and how much of the graph takes part."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer_scripts.onnx_graphs import quiet
from trainer_scripts.onnx_weights import store_weights

QUANTIZED_OPERATORS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Plan:
    """How much of a graph computes in 8 bits; in each plan all large weights are stored in 8 bits.

    Attributes:
        name: what the table calls it.
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
    """What onnxruntime reads activations from: batches of real samples, one after the other."""

    def __init__(self, batches: Sequence[Mapping[str, Tensor]]):
        self._batches = batches
        self.rewind()

    def rewind(self) -> None:
        """Start again."""
        self._left: Iterator[Mapping[str, Tensor]] = iter(self._batches)

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

    model = onnx.load(source)
    # Shapes noted while tracing name dimensions in ways that onnxruntime's own inference contradicts.
    del model.graph.value_info[:]
    if plan.operators and any(node.op_type in plan.operators for node in model.graph.node):
        _quantize_operators(model, target, plan, batches)
        model = onnx.load(target)
    store_weights(model, "int8")
    onnx.save(model, target)


def _quantize_operators(model: Any, target: Path, plan: Plan, batches: Sequence[Mapping[str, Tensor]]) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with quiet():
        quantize_static(
            model,
            target,
            CalibrationBatches(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(plan.operators),
            nodes_to_exclude=sensitive_convolutions(model) if plan.spare_sensitive else [],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"MatMulConstBOnly": True, "CalibMovingAverage": True},
        )


def sensitive_convolutions(model: Any) -> list[str]:
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
