"""Pictures that must not enter the data set: black, flat, replaced by a safety checker, repeated, off the prompt."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from dataset_builder.boundaries import outside
from dataset_builder.columns import BACKGROUND
from dataset_builder.pictures.near_duplicates import Looks, looks_of
from dataset_builder.recipes.hub_names import pinned

BLACK_LEVEL = 16  # the brightest value of a picture that counts as black, out of 255
FLAT_DEVIATION = 3.0  # standard deviation of the grey values, out of 255; a white plate on white cloth has about 12
DUPLICATE_BITS = 2  # of the 64 bits of the perceptual hash
DUPLICATE_COLOUR = 4.0  # mean difference of the thumbnails, out of 255
_GREY = np.arange(256.0)
_GREY_SQUARED = _GREY**2
CLIP_MINIMUM = 0.2  # cosine of CLIP's picture and text features; matching photographs lie around 0.25 to 0.35


def picture_fault(
    image: Image.Image, flagged: bool = False, mask: np.ndarray | None = None, liquid: bool = False
) -> str | None:
    """Return why one picture is unusable on its own, or None.

    Args:
        image: the picture.
        flagged: whether the pipeline's safety checker put a blank picture in its place.
        mask: ids of the ingredients per pixel, `(height, width)`; None without masks.
        liquid: whether it shows a drink or a sauce in which no ingredient can be seen, so that its mask is empty.
    """
    if flagged:
        return "replaced by the safety checker"
    fault = _looks_empty(image)
    if fault is None and mask is not None and not liquid and not (mask != BACKGROUND).any():
        return "empty plate"
    return fault


def _looks_empty(image: Image.Image) -> str | None:
    # The variance of a part, times its share of the picture, is at most that of the whole: for most pictures a few rows
    # in the middle are enough to show that they are not flat.
    top, rows = image.height // 2, max(1, image.height // 8)
    brightest, variance = _grey(image.crop((0, top, image.width, min(top + rows, image.height))))
    if brightest > BLACK_LEVEL and variance * rows / image.height > 2 * FLAT_DEVIATION**2:
        return None
    brightest, variance = _grey(image)
    if brightest <= BLACK_LEVEL:
        return "black"
    return "flat" if variance < FLAT_DEVIATION**2 else None


def _grey(image: Image.Image) -> tuple[int, float]:
    """Return the largest grey value of a picture, and the variance of all."""
    shares = np.array(image.convert("L").histogram()) / (image.width * image.height)
    return int(np.flatnonzero(shares)[-1]), float(shares @ _GREY_SQUARED - (shares @ _GREY) ** 2)


def alike(one: Looks, other: Looks) -> bool:
    """Whether two pictures of one recipe are so alike that the second teaches nothing.

    Plates of one recipe share layout and colours, so the limits are far below those for pictures of different dishes.
    """
    colour = np.abs(one.thumbnail.astype(np.int16) - other.thumbnail.astype(np.int16)).mean()
    return (one.bits ^ other.bits).bit_count() <= DUPLICATE_BITS and colour <= DUPLICATE_COLOUR


class NearDuplicates:
    """Remembers the looks of the accepted pictures of each recipe."""

    def __init__(self) -> None:
        self._accepted: dict[str, list[tuple[str, Looks]]] = {}

    def fault(self, image: Image.Image, recipe: str, row_id: str) -> str | None:
        """Return which earlier picture of the recipe this one repeats; if none, remember this one and return None."""
        own = looks_of(image)
        for other_id, other in self._accepted.setdefault(recipe, []):
            if alike(own, other):
                return f"near-duplicate of {other_id}"
        self._accepted[recipe].append((row_id, own))
        return None


class OffPrompt:
    """Scores pictures against their prompts with a CLIP model.

    Args:
        name: folder or Hub id of a `CLIPModel` with its processor; `org/model@revision` pins it.
        device: where the model runs.
        minimum: least cosine between picture and prompt features.

    Raises:
        BadInputError: the model cannot be loaded.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu", minimum: float = CLIP_MINIMUM):
        from transformers import CLIPModel, CLIPProcessor

        place, revision = pinned(name)
        given: dict[str, Any] = {} if revision is None else {"revision": revision}
        remedy = "give a folder or the Hub id of a CLIP model with safetensors weights"
        with outside(f"CLIP model {name!r} cannot be loaded", remedy):
            self.processor = CLIPProcessor.from_pretrained(place, trust_remote_code=False, **given)
            self.model = CLIPModel.from_pretrained(place, use_safetensors=True, trust_remote_code=False, **given).eval()
        self.model.to(torch.device(device))
        self.minimum = minimum

    @torch.no_grad()
    def scores(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        """Return the cosine of each picture with its own prompt, -1 to 1."""
        inputs = self.processor(
            text=list(prompts), images=list(images), return_tensors="pt", padding=True, truncation=True
        ).to(self.model.device)
        output = self.model(**inputs)
        return (output.image_embeds * output.text_embeds).sum(dim=-1).tolist()

    def faults(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str | None]:
        """Return for each picture why it is off its prompt, or None."""
        return [
            None if score >= self.minimum else f"off prompt (CLIP score {score:.3f}, at least {self.minimum} asked)"
            for score in self.scores(images, prompts)
        ]
