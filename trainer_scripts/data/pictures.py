"""Pictures for the models: decoded once, kept in memory as uint8 where they fit, augmented by torchvision."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from transformers import BaseImageProcessor

from dataset_builder.columns import BACKGROUND, UNKNOWN
from dataset_builder.errors import BadInputError
from modeling_flavour.processing_flavour import open_picture
from trainer_scripts.data.pixel_cache import Budget, Kept
from trainer_scripts.data.table import Table, decode_bytes
from trainer_scripts.settings.arguments import DataArguments

# Pictures are kept a little larger than the network's input, so that a random crop still has pixels to choose from.
CROP_MARGIN = 1.5
CROP_RATIO = (0.8, 1.25)
GREY_SIDE = 64

Prepare = Callable[[Image.Image], torch.Tensor]


def readable_picture(data: bytes, row_id: str) -> Image.Image:
    """Return the picture in RGB.

    Raises:
        BadInputError: the bytes are not a readable picture; it is never replaced by a black one.
    """
    try:
        return open_picture(data)
    except ValueError as error:
        raise BadInputError(f"row {row_id}: {error}; replace the picture or remove the row") from error


def evaluation_picture(image_processor: BaseImageProcessor) -> Prepare:
    """Return the processor's own resizing and cropping, without rescaling and normalisation: a uint8 picture."""
    return _AsProcessor(image_processor)


def training_picture(size: int) -> Prepare:
    """Return a resizing that keeps a margin around `size`, for random crops; smaller pictures stay as they are."""
    return _WithMargin(round(size * CROP_MARGIN))


# Classes rather than closures, because their repr identifies the preparation.
class _AsProcessor:
    def __init__(self, image_processor: BaseImageProcessor):
        self._image_processor = image_processor
        self._direct = direct_resizing(image_processor)
        # Two pictures of noise, one upright and one lying, on which any difference in resizing shows.
        draw = np.random.default_rng(0)
        for size in ((97, 61), (331, 513)):
            probe = Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8))
            if self._direct is not None and not torch.equal(self._direct(probe), self._by_processor(probe)):
                self._direct = None

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        return self._by_processor(picture) if self._direct is None else self._direct(picture)

    def _by_processor(self, picture: Image.Image) -> torch.Tensor:
        prepared = self._image_processor([picture], do_rescale=False, do_normalize=False, return_tensors="pt")
        return prepared["pixel_values"][0].round().clamp(0, 255).to(torch.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        return _AsProcessor, (self._image_processor,)

    def __repr__(self) -> str:
        # Which code loads a saved processor says nothing about its pixels.
        steps = {name: value for name, value in self._image_processor.to_dict().items() if name != "auto_map"}
        return json.dumps(steps, sort_keys=True, default=str)


def direct_resizing(image_processor: BaseImageProcessor) -> Prepare | None:
    """Return the resizing and cropping of a common image processor without its checks and conversions.

    None for a processor that does anything else; the caller compares the two on noise first.
    """
    # Measured side by side on one core, JPEGs of 64 to 700 px to 224 px: the processor itself takes 2.7 to 3.7 times as
    # long to resize, and 1.8 to 2.2 times as long with decoding, with bit-equal pixels.
    modes = {2: v2.InterpolationMode.BILINEAR, 3: v2.InterpolationMode.BICUBIC}
    size, crop = getattr(image_processor, "size", None), getattr(image_processor, "crop_size", None)
    mode = modes.get(int(getattr(image_processor, "resample", None) or 0))
    shortest = getattr(size, "shortest_edge", None)
    sides = [shortest] if shortest else [getattr(size, "height", None), getattr(size, "width", None)]
    if mode is None or not all(sides) or not getattr(image_processor, "do_resize", False):
        return None
    cropped = [crop.height, crop.width] if getattr(image_processor, "do_center_crop", False) and crop else None

    def prepare(picture: Image.Image) -> torch.Tensor:
        pixels = functional.resize(functional.pil_to_tensor(picture), sides, interpolation=mode, antialias=True)
        if cropped is None:
            return pixels
        top, left = ((whole - part) // 2 for whole, part in zip(pixels.shape[-2:], cropped, strict=True))
        return functional.crop(pixels, top, left, *cropped)

    return prepare


@dataclass(frozen=True)
class _WithMargin:
    side: int

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        pixels = functional.pil_to_tensor(picture)
        if min(pixels.shape[-2:]) <= self.side:
            return pixels
        return functional.resize(pixels, [self.side], antialias=True)


@dataclass(frozen=True)
class WholePicture:
    """A resizing of the whole picture to a square of `side` pixels, so that every pixel of a mask is predicted."""

    side: int

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        """Return the picture resized."""
        return functional.resize(functional.pil_to_tensor(picture), [self.side, self.side], antialias=True)


class Pictures(Kept):
    """The pictures of one table, prepared: `pictures[i]` is a uint8 tensor `(3, height, width)`.

    All are decoded at the first access, or by `load`, and kept when they fit the budget; otherwise each is decoded on
    access.
    """

    def __init__(self, table: Table, prepare: Prepare, budget: Budget | None = None):
        if table.image_column is None:
            raise ValueError("this table was made without its picture column")
        super().__init__(len(table), budget)
        self._cells = table.rows.select_columns([table.image_column])
        self._column = table.image_column
        self._ids = table.ids
        self._prepare = prepare
        self._pictured = table.pictured

    @property
    def preparation(self) -> str:
        """Description of the steps between the bytes of a picture and its tensor."""
        return repr(self._prepare)

    def decode(self, index: int) -> torch.Tensor:
        """Return one picture, decoded anew; a grey one for a row that lacks its own, which no model looks at."""
        if self._pictured is not None and not self._pictured[index]:
            return self._prepare(Image.new("RGB", (GREY_SIDE, GREY_SIDE), "grey"))
        data = decode_bytes(self._cells[index][self._column], self._ids[index])
        return self._prepare(readable_picture(data, self._ids[index]))

    def __getitem__(self, index: int) -> torch.Tensor:
        if get_worker_info() is None:
            self.load()
        return super().__getitem__(index)


class RandomQuarterTurn(v2.Transform):
    """Turns a picture, and its mask, by a random number of quarters; nothing is interpolated."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the number of quarters."""
        return {"quarters": int(torch.randint(4, ()))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Any:
        """Turn one picture or mask."""
        turned = torch.rot90(inpt, params["quarters"], (-2, -1))
        return tv_tensors.wrap(turned, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else turned


class RandomClassCrop(v2.Transform):
    """Crops a picture with its mask around a random pixel of a random class, and resizes the crop.

    Small and rare classes fill as many crops as large ones, and less of the time goes into the background. A mask
    without any class gets a crop from anywhere.

    Args:
        size: side of the result in pixels.
        scale: least and largest share of the area that a crop keeps.
    """

    def __init__(self, size: int, scale: tuple[float, float]):
        super().__init__()
        self.size = size
        self.scale = scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the crop: where it begins, its height and its width."""
        mask = next(each for each in flat_inputs if isinstance(each, tv_tensors.Mask)).as_subclass(torch.Tensor)
        height, width = mask.shape[-2:]
        area = float(torch.empty(()).uniform_(*self.scale)) * height * width
        # Log-uniform, as in `RandomResizedCrop`: wide and tall crops are equally likely.
        ratio = math.exp(float(torch.empty(()).uniform_(*map(math.log, CROP_RATIO))))
        sides = (min(round((area / ratio) ** 0.5), height), min(round((area * ratio) ** 0.5), width))
        starts = []
        for pixel, side, whole in zip(self._draw_pixel(mask), sides, (height, width), strict=True):
            # The pixel lies anywhere in the inner half of the crop, as far as the picture's edges allow.
            start = pixel - round(side * float(torch.empty(()).uniform_(0.25, 0.75)))
            starts.append(max(0, min(start, whole - side)))
        return {"top": starts[0], "left": starts[1], "height": sides[0], "width": sides[1]}

    @staticmethod
    def _draw_pixel(mask: torch.Tensor) -> tuple[int, int]:
        height, width = mask.shape[-2:]
        ids = mask.reshape(-1)
        # Classes are drawn evenly, whatever their areas; then a pixel of the class.
        counts = torch.bincount(ids, minlength=UNKNOWN + 1)
        counts[BACKGROUND] = counts[UNKNOWN] = 0
        present = counts.nonzero()[:, 0]
        if not len(present):
            return int(torch.randint(height, ())), int(torch.randint(width, ()))
        chosen = present[torch.randint(len(present), ())]
        places = (ids == chosen).nonzero()[:, 0]
        return divmod(int(places[torch.randint(len(places), ())]), width)

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Any:
        """Crop and resize the picture bilinearly, the mask to the nearest id."""
        return self._call_kernel(functional.resized_crop, inpt, **params, size=[self.size, self.size], antialias=True)


def varies(given: DataArguments) -> bool:
    """Return whether training pictures are varied at random."""
    drawn = given.crop_scale < 1 or given.class_crops or given.color_jitter > 0 or given.rotation > 0
    return drawn or given.flip or given.quarter_turns


def augmentation(given: DataArguments, size: int) -> v2.Transform:
    """Return the random variation of one training picture, with its mask where it has one, ending at `size` x `size`.

    Both get the same crop, scale, turn and flip; the picture is interpolated, the mask takes the nearest id, and what a
    turn brings in from outside is unknown.

    Raises:
        BadInputError: crops around classes that keep everything.
    """
    if given.class_crops and given.crop_scale >= 1:
        raise BadInputError("class_crops needs a crop_scale below 1: a crop that keeps everything lies nowhere")
    scale = (given.crop_scale, given.crop_scale_most)
    steps: list[v2.Transform] = []
    if given.rotation > 0:
        outside = {tv_tensors.Mask: UNKNOWN, "others": 0}
        steps.append(v2.RandomRotation(given.rotation, interpolation=v2.InterpolationMode.BILINEAR, fill=outside))
    if given.class_crops:
        steps.append(RandomClassCrop(size, scale))
    elif given.crop_scale < 1:
        steps.append(v2.RandomResizedCrop(size, scale=scale, ratio=CROP_RATIO, antialias=True))
    else:
        steps.append(v2.Resize((size, size), antialias=True))
    if given.flip:
        steps.append(v2.RandomHorizontalFlip())
    if given.quarter_turns:
        steps.append(RandomQuarterTurn())
    if given.color_jitter > 0:
        steps.append(v2.ColorJitter(given.color_jitter, given.color_jitter, given.color_jitter))
    return v2.Compose(steps)


def normalise(pictures: Sequence[torch.Tensor], mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return uint8 pictures of one size as normalised float `(batch, 3, height, width)`, channels last in memory."""
    shape = (-1, 1, 1)
    shift, scale = torch.tensor(mean).view(shape) * 255, torch.tensor(std).view(shape) * 255
    batch = torch.empty(len(pictures), *pictures[0].shape, memory_format=torch.channels_last)
    # One at a time: a picture stays in the cache for all three steps.
    for row, picture in zip(batch, pictures, strict=True):
        row.copy_(picture).sub_(shift).div_(scale)
    return batch
