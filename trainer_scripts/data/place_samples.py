"""Samples with masks as additional targets: the class at each place of a training picture."""

from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import Transform

from dataset_builder.columns import INGREDIENT_LABELS, MASK
from dataset_builder.errors import BadInputError
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.masks import Masks, lost_classes, nearest, source_names
from trainer_scripts.data.pictures import Prepare
from trainer_scripts.data.samples import Samples, varied
from trainer_scripts.data.table import Table
from trainer_scripts.settings.arguments import Configuration


def place_names(configuration: Configuration, train: Table) -> list[str]:
    """Return the classes of the masks if the configuration's model classifies each place, else an empty list.

    Raises:
        BadInputError: the data set has no masks.
    """
    if not learns_places(configuration) and configuration.model.config.get("image_pooling") != "places":
        return []
    for name in (MASK, INGREDIENT_LABELS):
        if name not in train.rows.column_names:
            raise BadInputError(
                f"place_loss_weight and image_pooling: places need masks, but there is no column {name!r}; "
                "leave them out of config"
            )
    return source_names(train.rows)


def learns_places(configuration: Configuration) -> bool:
    """Whether masks take part in the training of a configuration."""
    return bool(configuration.model.config.get("place_loss_weight"))


class PlaceSamples(Samples):
    """Samples with their mask, varied together with the picture.

    Args:
        table: rows with masks.
        processor: that of the model.
        prepare: converts a picture to a uint8 tensor.
        augment: joint variation of picture and mask.
        seed: seed of the variation.
        word_dropout: share of words replaced by the unknown token.
        labels_are_classes: whether labels are the classes of the masks; a class that a crop cuts off is then removed
            from the labels.
    """

    masks: Masks

    def __init__(
        self,
        table: Table,
        processor: FlavourProcessor,
        prepare: Prepare | None,
        augment: Transform,
        seed: int = 0,
        word_dropout: float = 0.0,
        labels_are_classes: bool = False,
    ):
        super().__init__(table, processor, prepare, None, seed, word_dropout)
        self.masks = Masks(table)
        self._both = augment
        self._labels_are_classes = labels_are_classes

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        # A large picture is cached at a smaller size than its mask.
        mask = nearest(self.masks[index], sample["picture"].shape[-2:])
        both = (tv_tensors.Image(sample["picture"]), tv_tensors.Mask(mask))
        picture, seen = varied(both, self._both, sample["draw"])
        sample |= {"picture": picture.as_subclass(torch.Tensor), "mask": seen.as_subclass(torch.Tensor)}
        if self._labels_are_classes:
            # The first label is the background, which a crop cannot cut off.
            kept = ~lost_classes(mask, seen, len(sample["labels"])).numpy()
            sample["labels"] = sample["labels"] * np.concatenate([[True], kept])
        return sample
