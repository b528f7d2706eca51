"""Masks as a second teacher: what lies at each place of a training picture."""

import io
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode, Transform, functional

from dataset_builder.columns import INGREDIENT_LABELS, MASK
from dataset_builder.errors import BadInputError
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.arguments import Recipe
from trainer_scripts.collators import Samples, varied
from trainer_scripts.data import Table
from trainer_scripts.pictures import Prepare


def place_names(recipe: Recipe, train: Table) -> list[str]:
    """Return the classes of the masks where the recipe's model tells them apart at each place, else nothing.

    Raises:
        BadInputError: the data set has no masks.
    """
    if not learns_places(recipe) and recipe.model.config.get("image_pooling") != "places":
        return []
    for name in (MASK, INGREDIENT_LABELS):
        if name not in train.rows.column_names:
            raise BadInputError(
                f"place_loss_weight and image_pooling: places need masks, but there is no column {name!r}; "
                "leave them out of config"
            )
    return list(train.rows.features[INGREDIENT_LABELS].feature.names)


def learns_places(recipe: Recipe) -> bool:
    """Whether masks take part in the training of a recipe."""
    return bool(recipe.model.config.get("place_loss_weight"))


def read_masks(table: Table) -> list[torch.Tensor]:
    """Return the masks of a table as uint8 tensors `(height, width)`."""
    cells = table.rows.select_columns([MASK]).cast_column(MASK, Image(decode=False))[MASK]
    return [torch.from_numpy(np.array(PIL.Image.open(io.BytesIO(cell["bytes"])))) for cell in cells]


class PlaceSamples(Samples):
    """Samples that carry their mask too, varied like the picture."""

    def __init__(
        self,
        table: Table,
        processor: FlavourProcessor,
        prepare: Prepare | None,
        augment: Transform,
        seed: int = 0,
        word_dropout: float = 0.0,
    ):
        super().__init__(table, processor, prepare, None, seed, word_dropout)
        self._masks = read_masks(table)
        self._both = augment

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        mask, size = self._masks[index], sample["picture"].shape[-2:]
        if mask.shape != size:  # a large picture is kept smaller
            mask = functional.resize(mask[None], list(size), interpolation=InterpolationMode.NEAREST_EXACT)[0]
        both = (tv_tensors.Image(sample["picture"]), tv_tensors.Mask(mask))
        picture, mask = varied(both, self._both, sample["draw"])
        return {**sample, "picture": picture.as_subclass(torch.Tensor), "mask": mask.as_subclass(torch.Tensor)}
