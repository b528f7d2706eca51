"""Smaller storage of the weights of an ONNX graph: half precision, or 8 bits with a scale per row.

The graph still computes in fp32: each stored weight is turned back by operators on constants, which onnxruntime does
once when it loads the graph. So a compact graph is as fast as the plain one, on every processor.
"""

from typing import Any

import numpy as np

from dataset_builder.errors import BadInputError

STORED = ("fp16", "bf16", "int8")
# Smaller tensors (biases, scales) are a thousandth of a model and the most sensitive part of it.
SMALLEST_STORED = 1024


def store_weights(model: Any, kind: str) -> int:
    """Store the float weights of a graph as `kind`, in place, and return how many tensors were changed.

    Args:
        model: an `onnx.ModelProto`.
        kind: `fp16`, `bf16`, or `int8`: symmetric, one scale for each output channel of a convolution or matrix
            product and for each row of anything else.
    """
    import onnx

    readers = _readers(model.graph)
    changed = 0
    for initializer in list(model.graph.initializer):
        values = _float_values(initializer)
        if values is None or not readers.get(initializer.name):
            continue
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
        for position, node in enumerate(nodes):
            model.graph.node.insert(position, node)
        changed += 1
    return changed


def _float_values(initializer: Any) -> np.ndarray | None:
    """Return a large float32 weight, None for any other tensor."""
    import onnx

    if initializer.data_type != onnx.TensorProto.FLOAT or np.prod(initializer.dims, dtype=int) < SMALLEST_STORED:
        return None
    return onnx.numpy_helper.to_array(initializer)


def _readers(graph: Any) -> dict[str, list[tuple[str, int]]]:
    """Return per tensor the operators that read it, and as which of their inputs."""
    readers: dict[str, list[tuple[str, int]]] = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            readers.setdefault(name, []).append((node.op_type, position))
    return readers


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
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.clip(np.round(values / scale), -127, 127).astype(np.int8), scale


def half_precision(values: np.ndarray, name: str, kind: int) -> Any:
    """Return an initializer in half precision, rounded to the nearest even.

    Raises:
        BadInputError: a weight is beyond what fp16 holds.
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


def graph_megabytes(path: Any) -> float:
    """Return the size of a graph and of its external weights in MB (10^6 bytes)."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) / 1e6
