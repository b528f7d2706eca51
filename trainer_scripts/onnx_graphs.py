"""ONNX graphs of trained models: which tensors go in and out, tracing, and a session that answers like the model."""

import copy
import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.utils import ModelOutput

from dataset_builder.errors import BadInputError

GRAPH = "model.onnx"
EXPORT_REPORT = "export.json"
# Newest operator set that tracing emits without a conversion afterwards, and that onnxruntime reads since 1.17.
OPSET = 20
# Float outputs may differ by this share of their largest value, and so many whole numbers (pixels) may: what is left is
# the order of additions in two libraries.
FLOAT_TOLERANCE = 1e-3
PIXEL_TOLERANCE = 1e-3
# A class score so far above 0 that its softmax is 1.
CERTAIN = 100.0

Axes = dict[str, dict[int, str]]


def require_onnx() -> None:
    """Raise BadInputError, with the remedy, unless the three packages that exporting needs are installed."""
    try:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            importlib.import_module(name)
    except ImportError as error:
        raise BadInputError(
            f"exporting needs onnx, onnxscript and onnxruntime ({error}); pip install 'flavour-fusion[onnx]'"
        ) from error


class ClassifierGraph(nn.Module):
    """A classifier as a graph: token ids and picture to class scores."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    @property
    def inputs(self) -> Axes:
        """Names of the inputs the model has, and which of their axes have any length."""
        axes: Axes = {}
        if self.model.config.has_text:
            axes |= {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
        if self.model.config.has_image:
            axes["pixel_values"] = {0: "batch"}
        return axes

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return ["logits"]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Class scores `(batch, num_labels)`."""
        return (self.model(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values).logits,)

    @staticmethod
    def answer(config: Any, found: dict[str, Tensor]) -> ModelOutput:
        """What the torch model would have returned."""
        return ModelOutput(logits=found["logits"])


class SegmenterGraph(nn.Module):
    """A segmenter as a graph: picture to the class of every pixel of it, enlarged inside, and to its ingredients."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    @property
    def inputs(self) -> Axes:
        """Pictures of any size, so that whole photographs can be read."""
        return {"pixel_values": {0: "batch", 2: "height", 3: "width"}}

    @property
    def outputs(self) -> list[str]:
        """`mask` and `ingredient_logits`, each where the model has that head."""
        config = self.model.config
        has = {"mask": config.head != "none", "ingredient_logits": config.ingredient_head}
        return [name for name, present in has.items() if present]

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Class ids `(batch, height, width)` uint8 at the size of the input, and scores `(batch, num_labels - 1)`."""
        output = self.model(pixel_values)
        masks = () if output.logits is None else (output.logits.argmax(dim=1).to(torch.uint8),)
        return (*masks, *(() if output.ingredient_logits is None else (output.ingredient_logits,)))

    @staticmethod
    def answer(config: Any, found: dict[str, Tensor]) -> ModelOutput:
        """What scoring reads of the torch model: certain scores for the classes that the graph chose."""
        logits = None
        if "mask" in found:
            chosen = functional.one_hot(found["mask"].long(), config.num_labels).permute(0, 3, 1, 2).float()
            logits = CERTAIN * chosen
        return ModelOutput(
            logits=logits, ingredient_logits=found.get("ingredient_logits"), loss=torch.tensor(float("nan"))
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of exporter and quantizer, about their own insides, from the user inside this block."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def trace(graph: Any, example: Mapping[str, Tensor], path: Path) -> None:
    """Write the fp32 ONNX graph of a wrapped model; batch norms are folded and lengths stay free.

    Args:
        graph: one of the wrappers above, in evaluation mode on the CPU.
        example: a batch of at least two rows.
        path: the file.

    Raises:
        BadInputError: torch cannot trace this model.
    """
    inputs = {name: example[name] for name in graph.inputs}
    if 2 in graph.inputs.get("pixel_values", {}):
        # Height and width stay free only where no map of the example has one row or column, or as many of both.
        inputs["pixel_values"] = inputs["pixel_values"].repeat(1, 1, 2, 3)
    with quiet(), torch.no_grad():
        try:
            program: Any = torch.onnx.export(
                # A copy, as the exporter writes on what it exports; contiguous, as graphs know no other layout.
                copy.deepcopy(graph).eval().to(memory_format=torch.contiguous_format),
                kwargs=inputs,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=graph.outputs,
                dynamic_shapes=graph.inputs,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise BadInputError(f"torch cannot trace this model: {str(error).splitlines()[0]}") from error
    forget_origin(program.model)
    program.save(path)


def forget_origin(model: Any) -> None:
    """Drop from which line of which file each operator came: paths of this machine, and a tenth of a small graph."""
    graph = model.graph
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    for noted in (model, graph, *graph, *values):
        noted.metadata_props.clear()
        noted.doc_string = None


class OnnxModel:
    """An exported graph behind the calls that scoring makes of a torch model.

    Args:
        path: the ONNX file.
        config: configuration of the model it was made of.
        wrapper: the wrapper it was traced through.
        threads: threads of one call; None takes those of torch.
    """

    training = False
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, path: Path, config: Any, wrapper: Any, threads: int | None = None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes share no base but this one
            raise BadInputError(f"onnxruntime cannot read {path}: {error}") from error
        self.config = config
        self.inputs = [node.name for node in self.session.get_inputs()]
        self.outputs = [node.name for node in self.session.get_outputs()]
        self._answer = wrapper.answer

    def run(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name for a batch that holds the graph's inputs."""
        feeds = {name: np.ascontiguousarray(batch[name].numpy()) for name in self.inputs}
        found = self.session.run(self.outputs, feeds)
        return {name: torch.from_numpy(value) for name, value in zip(self.outputs, found, strict=True)}

    def __call__(self, pixel_values: Tensor | None = None, **others: Any) -> ModelOutput:
        """Answer as the torch model does; the graph needs all of its inputs, and has no use for labels and settings.

        Raises:
            BadInputError: an input is missing, or one was given that the graph does not know.
        """
        given = {**others, "pixel_values": pixel_values}
        inputs = {
            name: value
            for name, value in given.items()
            if isinstance(value, Tensor) and not name.endswith(("labels", "targets", "masks"))
        }
        if set(inputs) != set(self.inputs):
            raise BadInputError(
                f"an exported graph takes exactly {', '.join(self.inputs)}, got {', '.join(inputs)}; "
                "the model that it was made of answers without one of them too"
            )
        return self._answer(self.config, self.run(inputs))

    def eval(self) -> "OnnxModel":
        """A graph is always in evaluation mode."""
        return self

    def train(self, mode: bool = True) -> "OnnxModel":
        """A graph is always in evaluation mode."""
        return self


def input_batches(model: Any, table: Any, inputs: Sequence[str], rows: int, batch_size: int) -> Iterator[dict]:
    """Yield batches of the graph's inputs, made of the first rows of a table as scoring makes them."""
    samples = model.task.evaluation_samples(model.processor, table)
    collate = model.task.collator(model.processor, len(model.names))
    last = min(rows, len(table))
    for start in range(0, last, batch_size):
        batch = collate([samples[row] for row in range(start, min(start + batch_size, last))])
        yield {name: batch[name] for name in inputs}


@torch.inference_mode()
def parity(graph: Any, exported: OnnxModel, batches: Sequence[Mapping[str, Tensor]]) -> dict[str, dict[str, float]]:
    """Compare a graph with the torch model on real samples.

    Returns:
        Per output: `rows` compared; `largest_difference` and `largest_value` of floats; `differing_share` of integers.
    """
    found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in graph.outputs}
    for batch in batches:
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
    """Raise BadInputError when an fp32 graph does not answer as torch does."""
    for name, found in report.items():
        if "differing_share" in found:
            wrong = found["differing_share"] > PIXEL_TOLERANCE
            seen = f"{found['differing_share']:.2%} of its values differ"
        else:
            wrong = not found["largest_difference"] <= FLOAT_TOLERANCE * max(1.0, found["largest_value"])
            seen = f"it differs by up to {found['largest_difference']:.2g}"
        if wrong:
            raise BadInputError(
                f"the exported graph does not answer as torch does: output {name} on {found['rows']:.0f} real samples, "
                f"{seen}; nothing was written"
            )
