"""Rows of the table in their storage form."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataset_builder import columns
from dataset_builder.labelling.rule import Label
from dataset_builder.pictures.illustrator import Picture
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
        """Equal for the rows of one recipe."""
        return f"{self.dish.dish_id}-{self.dish.variant:02d}"

    def row_id(self, picture: int) -> str:
        """Id of the row of one of its pictures."""
        return f"{self.key}-{picture:02d}"


def encode_row(row_id: str, item: LabelledDish, picture: Picture) -> dict[str, Any]:
    """Return one row in the storage form of the table: pictures as bytes, labels as ids."""
    dish, label = item.dish, item.label
    if picture.image is None:
        raise ValueError(f"the picture of {row_id} was given up, so it has no row")
    image = io.BytesIO()
    rgb = picture.image if picture.image.mode == "RGB" else picture.image.convert("RGB")
    rgb.save(image, **JPEG)
    return {
        columns.ID: row_id,
        columns.DISH_ID: dish.dish_id,
        columns.IMAGE: {"bytes": image.getvalue(), "path": None},
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


def mask_png(mask: np.ndarray) -> bytes:
    """Return a `(height, width)` uint8 mask as an 8-bit greyscale PNG.

    Written here (W3C Recommendation "Portable Network Graphics") because Pillow tries all five filters on each row,
    which costs several times the compression itself and gains nothing on areas of one id. Runs are all there is to
    compress.
    """
    height, width = mask.shape
    unfiltered = np.zeros((height, width + 1), np.uint8)  # each row begins with the number of its filter
    unfiltered[:, 1:] = mask
    runs = zlib.compressobj(strategy=zlib.Z_RLE)
    content = runs.compress(unfiltered.tobytes()) + runs.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part)) for name, part in chunks
    )
