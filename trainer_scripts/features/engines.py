"""A frozen image backbone, as fast as the device allows: ONNX Runtime on a CPU where it is installed, else PyTorch."""

import copy
import importlib.util
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modeling_flavour.encoders_flavour import FlavourImageEncoder

# Making the graph takes as long as PyTorch needs for about so many pictures.
WORTH_A_GRAPH = 400
# By so much of its largest value may what ONNX Runtime says of a picture differ from what PyTorch says.
LARGEST_DIFFERENCE = 1e-5


class Backbone(nn.Module):
    """Pictures to what a model reads of them: one vector each, or a map."""

    def __init__(self, encoder: FlavourImageEncoder, pooled: bool):
        super().__init__()
        self.encoder = encoder
        self.pooled = pooled

    def forward(self, pixel_values: Tensor) -> Any:
        """Return `(batch, size)` or `(batch, size, height, width)`."""
        # Not the encoder's own forward: a captioner's goes on with layers that train.
        seen = FlavourImageEncoder.forward(self.encoder, pixel_values, pool=self.pooled)
        return seen.pooled if self.pooled else seen.feature_map


def engine_precision(bf16: bool, device: torch.device) -> str:
    """Return `bf16` or `fp32`, what `ImageEngine` computes in; ONNX Runtime is fast enough without rounding."""
    return "bf16" if bf16 and (device.type != "cpu" or not has_onnxruntime()) else "fp32"


def has_onnxruntime() -> bool:
    """Whether ONNX Runtime and the exporter are installed (`pip install "flavour-fusion[onnx]"`)."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnxruntime", "onnxscript"))


class ImageEngine:
    """Runs a frozen backbone in evaluation mode.

    Pictures go through ONNX Runtime one by one, from as many threads as there are cores: nothing waits for anything,
    and on a CPU that beats batches. PyTorch gets batches.

    Args:
        encoder: whose backbone it is; left as it is.
        pooled: whether one vector per picture is wanted, or a map.
        bf16: whether PyTorch may round.
        pictures: how many will come.
    """

    def __init__(self, encoder: FlavourImageEncoder, pooled: bool, bf16: bool, pictures: int):
        self._backbone = Backbone(encoder, pooled).eval()
        self._device = next(encoder.parameters()).device
        self._bf16 = engine_precision(bf16, self._device) == "bf16"
        self._pictures = pictures
        self._session: Any = None

    def prepare(self, example: Tensor) -> None:
        """Make the graph where it pays, from one normalised picture `(3, height, width)`."""
        if self._device.type != "cpu" or self._pictures < WORTH_A_GRAPH or not has_onnxruntime():
            return
        session = onnx_session(self._backbone, example[None])
        expected = self._eager(example[None])
        found = session.run(None, {"pixel_values": example[None].numpy()})[0]
        if np.abs(found - expected).max() <= LARGEST_DIFFERENCE * float(np.abs(expected).max()):
            self._session = session

    @property
    def by_picture(self) -> bool:
        """Whether pictures go one by one, each in its own thread."""
        return self._session is not None

    def one(self, picture: Tensor) -> np.ndarray:
        """Return the features of one normalised picture `(3, height, width)`."""
        return self._session.run(None, {"pixel_values": picture[None].numpy()})[0]

    def batch(self, pictures: Tensor) -> np.ndarray:
        """Return the features of normalised pictures `(batch, 3, height, width)`."""
        return self._eager(pictures)

    @torch.inference_mode()
    def _eager(self, pictures: Tensor) -> np.ndarray:
        pictures = pictures.to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            found = self._backbone(pictures)
        return found.float().cpu().numpy()


def onnx_session(backbone: Backbone, example: Tensor) -> Any:
    """Return a session of ONNX Runtime, one thread per call, for pictures of the example's size."""
    import onnxruntime

    # A copy, as the exporter writes on what it exports; contiguous, as graphs know no other layout.
    plain = copy.deepcopy(backbone).to(memory_format=torch.contiguous_format)
    program: Any = torch.onnx.export(
        plain, (example.contiguous(),), input_names=["pixel_values"], dynamo=True, verbose=False
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)


def cores() -> int:
    """Return how many cores this process may use, shared fairly with the other processes of the run."""
    return max(1, torch.get_num_threads() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
