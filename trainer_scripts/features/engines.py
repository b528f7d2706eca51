"""A frozen image backbone, as fast as the device allows: ONNX Runtime on a CPU where it is installed, else PyTorch."""

import copy
import importlib.util
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modeling_flavour.encoders_flavour import FlavourImageEncoder

# Exporting the graph takes as long as PyTorch needs for about this many pictures.
WORTH_A_GRAPH = 400
# Largest difference between ONNX Runtime's features and PyTorch's, as a share of their largest value.
LARGEST_DIFFERENCE = 1e-5


class Backbone(nn.Module):
    """The features of an image encoder as a module that can be exported."""

    def __init__(self, encoder: FlavourImageEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, pixel_values: Tensor) -> Any:
        """Return `(batch, size)` or `(batch, size, height, width)`; several outputs flattened, side by side."""
        found = self.encoder.features(pixel_values)
        return found if isinstance(found, Tensor) else torch.cat([each.flatten(1) for each in found], dim=1)


@torch.inference_mode()
def feature_shapes(encoder: FlavourImageEncoder, example: Tensor) -> tuple[tuple[int, ...], ...] | None:
    """Return the shapes of the outputs of one normalised picture `(3, height, width)`; None for a single output."""
    found = encoder.features(example[None].to(encoder.device))
    return None if isinstance(found, Tensor) else tuple(tuple(each.shape[1:]) for each in found)


def engine_precision(bf16: bool, device: torch.device) -> str:
    """Return the precision of `ImageEngine`, `bf16` or `fp32`; ONNX Runtime is fast enough without rounding."""
    return "bf16" if bf16 and (device.type != "cpu" or not has_onnxruntime()) else "fp32"


def has_onnxruntime() -> bool:
    """Whether ONNX Runtime and the exporter are installed (`pip install "flavour-fusion[onnx]"`)."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnxruntime", "onnxscript"))


class ImageEngine:
    """Runs a frozen backbone in evaluation mode.

    ONNX Runtime gets single pictures, from as many threads as there are cores: no thread waits for another, which on a
    CPU is faster than batches. PyTorch gets batches.

    Args:
        encoder: the encoder; it is not changed.
        bf16: whether PyTorch may compute in bfloat16.
        pictures: number of pictures to expect.
    """

    def __init__(self, encoder: FlavourImageEncoder, bf16: bool, pictures: int):
        self._backbone = Backbone(encoder).eval()
        self._device = next(encoder.parameters()).device
        self._bf16 = engine_precision(bf16, self._device) == "bf16"
        self._pictures = pictures
        self._session: Any = None
        self._tried = False

    def expect(self, pictures: int) -> None:
        """Expect that many further pictures; a graph that is there already serves them too."""
        self._pictures = pictures

    def prepare(self, example: Tensor) -> None:
        """Export the graph where it pays, from one normalised picture `(3, height, width)`."""
        few = self._pictures < WORTH_A_GRAPH
        if self._tried or few or self._device.type != "cpu" or not has_onnxruntime():
            return
        self._tried = True
        session = onnx_session(self._backbone, example[None])
        expected = self.batch(example[None])
        found = session.run(None, {"pixel_values": example[None].numpy()})[0]
        # An export may go wrong without an error; then PyTorch computes all pictures.
        if np.abs(found - expected).max() <= LARGEST_DIFFERENCE * float(np.abs(expected).max()):
            self._session = session

    @property
    def by_picture(self) -> bool:
        """Whether pictures are computed one by one, each in its own thread."""
        return self._session is not None

    def one(self, picture: Tensor) -> np.ndarray:
        """Return the features of one normalised picture `(3, height, width)`."""
        return self._session.run(None, {"pixel_values": picture[None].numpy()})[0]

    @torch.inference_mode()
    def batch(self, pictures: Tensor) -> np.ndarray:
        """Return the features of normalised pictures `(batch, 3, height, width)`, computed by PyTorch."""
        pictures = pictures.to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            found = self._backbone(pictures)
        return found.float().cpu().numpy()


def onnx_session(backbone: Backbone, example: Tensor) -> Any:
    """Return a session of ONNX Runtime, one thread per call, for pictures of the example's size."""
    import onnxruntime

    # A copy, as the exporter changes the module; contiguous, as graphs have no other memory layout.
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
