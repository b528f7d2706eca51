"""An exported graph in the place of the model that it was exported from."""

import importlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.utils import ModelOutput

from dataset_builder.errors import BadInputError
from trainer_scripts.tasks.common.graphs import ModelGraph

GRAPH = "model.onnx"
# Those of a captioner, which its own loop runs.
ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
EXPORT_REPORT = "export.json"


def require_onnx() -> None:
    """Raise BadInputError, with the remedy, unless the three packages that exporting needs are installed."""
    try:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            importlib.import_module(name)
    except ImportError as error:
        raise BadInputError(
            f"exporting needs onnx, onnxscript and onnxruntime ({error}); pip install 'flavour-fusion[onnx]'"
        ) from error


PRESENCE = ("text_present", "image_present")


class OnnxModel:
    """An exported graph behind the calls that scoring makes of a torch model.

    Args:
        path: the ONNX file.
        config: that of the model it was made of.
        wrapper: the wrapper it was traced through.
        threads: threads of one call; None takes those of torch.
    """

    # As a torch model in evaluation mode has them.
    training = False
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, path: Path, config: PreTrainedConfig, wrapper: type[ModelGraph], threads: int | None = None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3  # errors only
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes share no base but this one
            raise BadInputError(f"onnxruntime cannot read {path}: {error}") from error
        self.config = config
        self.inputs = [node.name for node in self.session.get_inputs()]
        self.outputs = [node.name for node in self.session.get_outputs()]
        self._answer = wrapper.answer

    def run(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return outputs by name for a batch that holds the graph's inputs."""
        feeds = {name: np.ascontiguousarray(batch[name].numpy()) for name in self.inputs}
        outputs = self.session.run(self.outputs, feeds)
        return {name: torch.from_numpy(value) for name, value in zip(self.outputs, outputs, strict=True)}

    def __call__(self, pixel_values: Tensor | None = None, **others: Tensor | bool | None) -> ModelOutput:
        """Answer as the torch model does; the graph needs all of its inputs, and has no use for labels and settings.

        Raises:
            BadInputError: an input is missing, or one was given that the graph does not know.
        """
        given = {**others, "pixel_values": pixel_values}
        inputs = {
            name: value
            for name, value in given.items()
            # Labels and masks serve the loss, which a graph does not compute.
            if isinstance(value, Tensor) and not name.endswith(("labels", "targets", "masks"))
        }
        for name in PRESENCE:
            if name not in self.inputs and name in inputs and bool(inputs[name].all()):
                del inputs[name]  # every row has the part, as the graph assumes
        if set(inputs) != set(self.inputs):
            raise BadInputError(
                f"an exported graph takes exactly {', '.join(self.inputs)}, got {', '.join(inputs)}; "
                "the model that it was made of answers without one of them too"
            )
        return self._answer(self.config, self.run(inputs))

    def eval(self) -> "OnnxModel":
        """Return the graph, which is always in evaluation mode."""
        return self

    def train(self, mode: bool = True) -> "OnnxModel":
        """Return the graph, which is always in evaluation mode."""
        return self
