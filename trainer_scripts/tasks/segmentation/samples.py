"""Pictures with their masks: ids checked, both varied together, batches for segmenters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import PIL.Image
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.masks import Masks, lost_classes, nearest
from trainer_scripts.data.pictures import Pictures, Prepare, WholePicture, normalise
from trainer_scripts.data.samples import PictureSamples, sample_seed, varied
from trainer_scripts.data.table import Table
from trainer_scripts.tasks.common.starting_points import input_size
from trainer_scripts.tasks.segmentation.classes import shown_classes


def own_size(picture: PIL.Image.Image) -> torch.Tensor:
    """Return the picture as it is, for windows that slide over it."""
    return functional.pil_to_tensor(picture)


class MaskSamples(PictureSamples):
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

    pictures: Pictures
    masks: Masks
    not_stored = "a segmenter reads maps of several layers, which take more disk than computing them anew takes time"

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
        self.pictures = Pictures(table, prepare or WholePicture(input_size(processor)))
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
            whole = mask
            picture, mask = varied((tv_tensors.Image(picture), tv_tensors.Mask(mask)), self._augment, draw)
            # An ingredient that the variation has cut off must not be learned from this sample.
            shown = shown * ~lost_classes(whole, mask, self.classes)
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
            # The middle of each cell, which the logits on a coarser grid stand for.
            middle = slice(self.stride // 2, None, self.stride)
            batch["labels"] = torch.stack([sample["labels"][middle, middle] for sample in samples])
        if self.ingredients:
            batch["ingredient_targets"] = torch.stack([sample["ingredient_labels"] for sample in samples])
        return batch
