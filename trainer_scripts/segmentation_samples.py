"""Pictures with their masks: ids checked, both varied together, batches for segmenters."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import Image
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from dataset_builder.columns import MASK, UNKNOWN
from dataset_builder.errors import BadInputError
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.classification import input_size
from trainer_scripts.collators import sample_seed, varied
from trainer_scripts.data import Table, decode_bytes
from trainer_scripts.pictures import MEMORY_LIMIT_BYTES, Pictures, Prepare, normalise
from trainer_scripts.segmentation_classes import shown_classes, source_names


class Masks:
    """The masks of a table, as class ids: `masks[i]` is a uint8 tensor `(height, width)`.

    Args:
        table: rows with masks.
        mapped: per mask id its class; None leaves ids as they are.
        memory_limit: bytes up to which all are kept in memory.
    """

    def __init__(self, table: Table, mapped: Sequence[int] | None = None, memory_limit: int = MEMORY_LIMIT_BYTES // 2):
        self._cells = table.rows.select_columns([MASK]).cast_column(MASK, Image(decode=False))
        self._ids = table.ids
        self.classes = list(range(len(source_names(table.rows)))) if mapped is None else list(mapped)
        self._kept: dict[int, torch.Tensor] = {}
        self._room = memory_limit

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> torch.Tensor:
        if index in self._kept:
            return self._kept[index]
        mask = self._decode(index)
        if mask.nbytes <= self._room:
            self._room -= mask.nbytes
            self._kept[index] = mask
        return mask

    def _decode(self, index: int) -> torch.Tensor:
        cell, name = self._cells[index][MASK], self._ids[index]
        data = decode_bytes(cell, name)
        try:
            ids = np.array(PIL.Image.open(io.BytesIO(data)))
        except (OSError, SyntaxError) as error:
            raise BadInputError(f"row {name}: the mask cannot be read: {error}") from error
        if ids.ndim != 2 or ids.dtype != np.uint8:
            raise BadInputError(f"row {name}: the mask must be an 8-bit picture of one channel, one id per pixel")
        outside = ids[(ids >= len(self.classes)) & (ids != UNKNOWN)]
        if outside.size:
            file = f" ({cell['path']})" if cell.get("path") else ""
            raise BadInputError(
                f"row {name}{file}: the mask holds id {outside[0]}, but ids go from 0 to {len(self.classes) - 1}, and "
                f"{UNKNOWN} where nobody knows"
            )
        table = np.full(UNKNOWN + 1, UNKNOWN, dtype=np.uint8)
        table[: len(self.classes)] = self.classes
        return torch.from_numpy(table[ids])


def nearest(mask: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return a mask `(height, width)` resized to `size`; no id appears that was not there."""
    return functional.resize(mask[None], list(size), interpolation=v2.InterpolationMode.NEAREST_EXACT)[0]


def whole_picture(size: int) -> Prepare:
    """Return a resizing of the whole picture to a square, so that every pixel of the mask gets an answer."""

    def prepare(picture: PIL.Image.Image) -> torch.Tensor:
        return functional.resize(functional.pil_to_tensor(picture), [size, size], antialias=True)

    return prepare


def own_size(picture: PIL.Image.Image) -> torch.Tensor:
    """Return the picture as it is, for windows that slide over it."""
    return functional.pil_to_tensor(picture)


class MaskSamples(Dataset):
    """Pictures with their mask, and the ingredients each shows.

    Args:
        table: rows with masks.
        processor: that of the model.
        mapped: per mask id its class; None leaves ids as they are.
        classes: number of classes, with `mapped`.
        augment: joint variation of picture and mask, or None.
        prepare: how pictures are read; None shrinks the whole picture to the model's input.
        seed: of the variation, together with epoch and row.
    """

    def __init__(
        self,
        table: Table,
        processor: FlavourProcessor,
        mapped: Sequence[int] | None = None,
        classes: int = 0,
        augment: v2.Transform | None = None,
        prepare: Prepare | None = None,
        seed: int = 0,
    ):
        self.table = table
        self.processor = processor
        self.epoch = 0
        self.masks = Masks(table)
        self.shown = table.labels
        self.classes = table.labels.shape[1]
        if mapped is not None:
            self.read_as(mapped, classes)
        self.pictures = Pictures(table, prepare or whole_picture(input_size(processor)))
        self._augment = augment
        self._seed = seed

    def read_as(self, mapped: Sequence[int], classes: int) -> None:
        """Read mask ids as the classes that `mapped` gives them."""
        self.masks = Masks(self.table, mapped)
        self.shown = shown_classes(self.table.labels, mapped, classes)
        self.classes = classes

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = self.pictures[index]
        mask = nearest(self.masks[index], picture.shape[-2:])
        shown = torch.from_numpy(self.shown[index])
        if self._augment is not None:
            draw = sample_seed(self._seed, self.epoch, index)
            picture, mask = varied((tv_tensors.Image(picture), tv_tensors.Mask(mask)), self._augment, draw)
        return {
            "picture": picture.as_subclass(torch.Tensor),
            "labels": mask.as_subclass(torch.Tensor).long(),
            "ingredient_labels": shown,
        }


@dataclass
class MaskCollator:
    """Batches for segmenters.

    Attributes:
        mean: channel means of the image processor.
        std: channel standard deviations of the image processor.
        masks: whether the model learns masks.
        ingredients: whether the model learns ingredients.
        stride: every so many-th pixel of a mask is learned.
    """

    mean: Sequence[float]
    std: Sequence[float]
    masks: bool = True
    ingredients: bool = False
    stride: int = 1

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch that the model's `forward` takes."""
        batch = {"pixel_values": normalise([sample["picture"] for sample in samples], self.mean, self.std)}
        if self.masks:
            # The middle of each cell, which is what the logits on a coarser grid stand for.
            middle = slice(self.stride // 2, None, self.stride)
            batch["labels"] = torch.stack([sample["labels"][middle, middle] for sample in samples])
        if self.ingredients:
            batch["ingredient_labels"] = torch.stack([sample["ingredient_labels"] for sample in samples])
        return batch
