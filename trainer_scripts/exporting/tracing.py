"""ONNX graphs of trained models: which tensors go in and out, tracing, and a session that answers like the model."""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataset_builder.errors import BadInputError
from trainer_scripts.data.table import Table
from trainer_scripts.exporting.versions import LEAST_EMITTED, OPSET, finish_file
from trainer_scripts.scoring.onnx_model import OnnxModel
from trainer_scripts.tasks.common.graphs import ModelGraph
from trainer_scripts.tasks.common.task import SavedModel

# Float outputs may differ by this share of their largest value, and so many whole numbers (pixels) may: this is
# the order of additions in two libraries.
FLOAT_TOLERANCE = 1e-3
PIXEL_TOLERANCE = 1e-3


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings of exporter and quantizer in this block; they are about internals of these libraries."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def trace(
    graph: ModelGraph, example: Mapping[str, Tensor], path: Path, opset: int = OPSET, ir_version: int | None = None
) -> None:
    """Write the fp32 ONNX graph of a wrapped model; batch norms are folded and lengths stay free.

    Args:
        graph: the wrapped model, in evaluation mode on the CPU.
        example: a batch of at least two rows.
        path: the file.
        opset: operator set, from 17 on.
        ir_version: format of the file; None leaves that of torch.

    Raises:
        BadInputError: torch cannot trace this model, or the operator set cannot express it.
    """
    inputs = {name: example[name] for name in graph.inputs}
    if 2 in graph.inputs.get("pixel_values", {}):
        # Height and width stay free only where no map of the example has one row or column, or as many of both.
        inputs["pixel_values"] = inputs["pixel_values"].repeat(1, 1, 2, 3)
    with quiet(), torch.no_grad():
        try:
            program: Any = torch.onnx.export(
                # A copy, as the exporter changes the model; contiguous, as graphs have no other layout.
                copy.deepcopy(graph).eval().to(memory_format=torch.contiguous_format),
                kwargs=inputs,
                dynamo=True,
                verbose=False,
                opset_version=max(opset, LEAST_EMITTED),
                input_names=list(inputs),
                output_names=graph.outputs,
                dynamic_shapes=graph.inputs,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise BadInputError(f"torch cannot trace this model: {str(error).splitlines()[0]}") from error
    # Drop the source line of each operator: it names paths of this machine, and is a tenth of a small graph.
    model, nodes = program.model, program.model.graph
    values = [*nodes.inputs, *nodes.initializers.values(), *(value for node in nodes for value in node.outputs)]
    for noted in (model, nodes, *nodes, *values):
        noted.metadata_props.clear()
        noted.doc_string = None
    program.save(path)
    finish_file(path, opset, ir_version)


def input_batches(model: SavedModel, table: Table, inputs: Sequence[str], rows: int, batch_size: int) -> Iterator[dict]:
    """Yield batches of the graph's inputs, made of the first rows of a table as scoring makes them."""
    samples = model.task.evaluation_samples(model.processor, table)
    collate = model.task.collator(model.processor, len(model.names))
    last = min(rows, len(table))
    for start in range(0, last, batch_size):
        batch = collate([samples[row] for row in range(start, min(start + batch_size, last))])
        yield {name: batch[name] for name in inputs}


@torch.inference_mode()
def parity(
    graph: ModelGraph, exported: OnnxModel, batches: Sequence[Mapping[str, Tensor]]
) -> dict[str, dict[str, float]]:
    """Compare a graph with the torch model on real samples.

    Returns:
        Per output: `rows` compared; `largest_difference` and `largest_value` of floats; `differing_share` of integers.
    """
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in graph.outputs}
    for batch in batches:
        # Both get the same tensors: preprocessing is no part of the comparison.
        theirs = exported.run(batch)
        for name, ours in zip(graph.outputs, graph(**batch), strict=True):
            found[name].append((ours, theirs[name]))
    report = {}
    for name, pairs in found.items():
        rows = float(sum(len(ours) for ours, _ in pairs))
        if pairs[0][0].is_floating_point():
            difference = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
            largest = max(float(ours.abs().max()) for ours, _ in pairs)
            report[name] = {"rows": rows, "largest_difference": difference, "largest_value": largest}
        else:
            differing = sum(float((ours != theirs).sum()) for ours, theirs in pairs)
            report[name] = {"rows": rows, "differing_share": differing / sum(ours.numel() for ours, _ in pairs)}
    return report


def check_parity(report: Mapping[str, Mapping[str, float]]) -> None:
    """Raise BadInputError when the outputs of an fp32 graph differ from those of torch by more than the tolerance."""
    for name, found in report.items():
        if "differing_share" in found:
            wrong = found["differing_share"] > PIXEL_TOLERANCE
            seen = f"{found['differing_share']:.2%} of its values differ"
        else:
            # Written with `not`, so that NaN counts as wrong.
            wrong = not found["largest_difference"] <= FLOAT_TOLERANCE * max(1.0, found["largest_value"])
            seen = f"it differs by up to {found['largest_difference']:.2g}"
        if wrong:
            raise BadInputError(
                f"the exported graph does not answer as torch does: output {name} on {found['rows']:.0f} real samples, "
                f"{seen}; nothing was written"
            )
