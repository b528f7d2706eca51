"""Views of a picture whose answers are averaged: several scales, mirrored, or windows that slide over it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from dataset_builder.errors import BadInputError
from modeling_flavour.segmentation_heads_flavour import resize

WINDOW_OVERLAP = 1 / 3
# DeepLab decides on cells of 4 to 16 pixels; a finer grid would only interpolate.
LOGIT_STRIDE = 4


@dataclass(frozen=True)
class Views:
    """Views of a picture whose answers are averaged.

    Attributes:
        scales: factors on the input size of the model.
        flip: whether each scale is also read mirrored.
        window: side in pixels of the windows that are slid over the picture at its own size; None shows the model the
            whole picture at once, at the size it was trained for.
        stride: pixels from one window to the next; None lets neighbours share a third.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: int | None = None
    stride: int | None = None

    def __post_init__(self):
        if not self.scales or min(self.scales) <= 0:
            raise BadInputError(f"scales must be positive factors, got {self.scales}")
        if self.window is None and self.stride is not None:
            raise BadInputError("a stride needs a window: give --window too")
        if self.window is not None and (self.window < 1 or not 0 < self.step <= self.window):
            raise BadInputError(
                f"windows of {self.window} pixels, one every {self.stride}, leave gaps; "
                "give a stride from 1 to the side of the window"
            )

    @property
    def step(self) -> int:
        """Pixels from one window to the next."""
        if self.stride is not None:
            return self.stride
        return max(1, round((self.window or 0) * (1 - WINDOW_OVERLAP)))

    @property
    def plain(self) -> bool:
        """Whether the only view is the whole picture at its usual size."""
        return self.scales == (1.0,) and not self.flip and self.window is None

    def describe(self) -> str:
        """Return the views in words, for the record of a result."""
        if self.plain:
            return "the whole picture once"
        seen = "the whole picture" if self.window is None else f"windows of {self.window} px every {self.step} px"
        mirrored = ", mirrored too" if self.flip else ""
        return f"{seen}, scales {', '.join(f'{scale:g}' for scale in self.scales)}{mirrored}, probabilities averaged"


@torch.inference_mode()
def predict_views(
    model: PreTrainedModel, pixels: torch.Tensor, testing: Views
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return log-probabilities of classes on a grid over the picture, and probabilities of ingredients.

    `(batch, classes, rows, columns)`, one place per `LOGIT_STRIDE` pixels, and `(batch, classes - 1)`; either is None
    where the model has no such head. Classes win the same pixels as with enlarged logits.

    Args:
        model: a segmenter in evaluation mode.
        pixels: `(batch, 3, height, width)`, normalised.
        testing: views to average over.
    """
    size = pixels.shape[-2:]
    grid = tuple(-(-side // LOGIT_STRIDE) for side in size)
    # Log-probabilities are averaged as probabilities, so that views of other scale weigh alike.
    masks: list[torch.Tensor] = []
    named: list[torch.Tensor] = []
    for scale in testing.scales:
        seen = pixels if scale == 1 else resize(pixels, tuple(max(1, round(side * scale)) for side in size))
        for mirrored in (False, True) if testing.flip else (False,):
            view = seen.flip(-1) if mirrored else seen
            scores, ingredients = _whole(model, view) if testing.window is None else _sliding(model, view, testing)
            if scores is not None:
                scores = scores.flip(-1) if mirrored else scores
                masks.append(resize(scores.float(), grid).log_softmax(1))
            if ingredients is not None:
                named.append(ingredients.float().sigmoid())
    averaged = None
    if masks:
        averaged = masks[0] if len(masks) == 1 else torch.stack(masks).logsumexp(0) - math.log(len(masks))
    return averaged, (torch.stack(named).mean(0) if named else None)


def _whole(model: PreTrainedModel, pixels: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    output = model(pixels, logit_stride=LOGIT_STRIDE)
    return output.logits, output.ingredient_logits


def _sliding(
    model: PreTrainedModel, pixels: torch.Tensor, testing: Views
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the logits averaged where windows overlap; ingredients are of the whole picture, shrunk to one window."""
    side = testing.window or 0
    # Ingredients are learned from whole pictures, which a window does not show.
    _, ingredients = _whole(model, resize(pixels, (side, side))) if model.config.ingredient_head else (None, None)
    if model.config.head == "none":
        return None, ingredients
    height, width = pixels.shape[-2:]
    # A picture that is smaller than a window is padded, and the answer cut back to its size.
    padded = torch.nn.functional.pad(pixels, (0, max(side - width, 0), 0, max(side - height, 0)))
    total: Any = None
    counted = padded.new_zeros(padded.shape[-2:])
    for top in starts(padded.shape[-2], side, testing.step):
        for left in starts(padded.shape[-1], side, testing.step):
            place = (slice(top, top + side), slice(left, left + side))
            window = (..., *place)
            logits = model(padded[window]).logits.float()
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], *padded.shape[-2:])
            # Where windows overlap, the mean of their logits decides.
            total[window] += logits
            counted[place] += 1
    return (total / counted)[..., :height, :width], ingredients


def starts(length: int, side: int, step: int) -> Iterator[int]:
    """Yield where windows begin so that they cover a side of a picture; the last one ends at its edge.

    >>> list(starts(10, 4, 3)), list(starts(11, 4, 3)), list(starts(4, 4, 3))
    ([0, 3, 6], [0, 3, 6, 7], [0])
    """
    last = max(length - side, 0)
    yield from range(0, last, step)
    yield last
