"""Rows of the table in their storage form."""

import io
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from dataset_builder import columns
from dataset_builder.building.settings import GENERATED, OWN, BuildSettings
from dataset_builder.labelling.rule import Label
from dataset_builder.pictures.photographs import PHOTOGRAPH
from dataset_builder.pictures.settings import Picture
from dataset_builder.recipes.recipes import Dish

# Full chroma resolution keeps the edges of small coloured pieces; at 95 the loss is below the grain of the pictures.
JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}


@dataclass(frozen=True)
class LabelledDish:
    """One recipe and its label."""

    dish: Dish
    label: Label

    @property
    def key(self) -> str:
        """Id of the recipe, equal for all its rows."""
        return f"{self.dish.dish_id}-{self.dish.variant:02d}"

    def row_id(self, picture: int) -> str:
        """Id of the row of one of its pictures."""
        return f"{self.key}-{picture:02d}"


def row_ids(settings: BuildSettings, item: LabelledDish) -> list[tuple[str, bool]]:
    """Return the ids of the rows of a recipe, and of each whether its picture is a photograph."""
    own = settings.pictures != GENERATED and item.dish.image_path is not None
    drawn = 0 if settings.pictures == OWN else settings.images_per_dish
    photograph_ids = [(f"{item.key}-{PHOTOGRAPH}", True)] if own else []
    return [*photograph_ids, *((item.row_id(number), False) for number in range(drawn))]


def encode_row(row_id: str, item: LabelledDish, picture: Picture) -> dict[str, Any]:
    """Return one row in the storage form of the table: pictures as bytes, labels as ids."""
    dish, label = item.dish, item.label
    if picture.image is None:
        raise ValueError(f"the picture of {row_id} was given up, so it has no row")
    return {
        columns.ID: row_id,
        columns.DISH_ID: dish.dish_id,
        columns.IMAGE: {"bytes": stored_picture(picture.image), "path": None},
        columns.TITLE: dish.title,
        columns.INGREDIENTS: list(dish.ingredients),
        columns.INSTRUCTIONS: dish.instructions,
        columns.CAPTIONS: picture.captions,
        columns.FLAVOUR: columns.FLAVOURS.index(str(label.flavour)),
        columns.FLAVOURS_PRESENT: [columns.FLAVOURS.index(name) for name in label.flavours],
        columns.TASTE: list(label.taste),
        columns.LABEL_SOURCE: label.source,
        columns.LABEL_VOTES: label.votes,
        columns.MASK: None if picture.mask is None else {"bytes": mask_png(picture.mask), "path": None},
        columns.INGREDIENT_LABELS: picture.ingredient_labels,
        columns.GENERATION: picture.generation,
    }


def stored_picture(image: Image.Image) -> bytes:
    """Return a picture as a row stores it."""
    encoded = io.BytesIO()
    (image if image.mode == "RGB" else image.convert("RGB")).save(encoded, **JPEG)
    return encoded.getvalue()


def mask_png(mask: np.ndarray) -> bytes:
    """Return a `(height, width)` uint8 mask as an 8-bit greyscale PNG."""
    encoded = io.BytesIO()
    # Areas of one id are runs: looking for longer matches doubles the time of encoding and saves no bytes.
    Image.fromarray(mask).save(encoded, format="PNG", compress_type=zlib.Z_RLE)
    return encoded.getvalue()
