"""Masks of a table: ids checked and mapped to classes, cached in memory where they fit, resized without new ids."""

import io
from collections.abc import Sequence

import numpy as np
import PIL.Image
import torch
from datasets import ClassLabel, Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from dataset_builder.columns import BACKGROUND, INGREDIENT_LABELS, MASK, UNKNOWN
from dataset_builder.errors import BadInputError
from trainer_scripts.data.pixel_cache import Budget, Kept
from trainer_scripts.data.table import Rows, Table, decode_bytes


class Masks(Kept):
    """The masks of a table, as class ids: `masks[i]` is a uint8 tensor `(height, width)`, kept where it fits.

    Args:
        table: rows with masks.
        mapped: class of each mask id; None leaves ids as they are.
        budget: budget of the cached bytes; None for that of the process.
    """

    def __init__(self, table: Table, mapped: Sequence[int] | None = None, budget: Budget | None = None):
        super().__init__(len(table), budget)
        self._cells = table.rows.select_columns([MASK]).cast_column(MASK, Image(decode=False))
        self._ids = table.ids
        self.classes = list(range(len(source_names(table.rows)))) if mapped is None else list(mapped)

    def decode(self, index: int) -> torch.Tensor:
        """Return one mask, decoded from its file.

        Raises:
            BadInputError: the mask cannot be read, is no 8-bit mask, or holds an id outside the label set.
        """
        cell, name = self._cells[index][MASK], self._ids[index]
        data = decode_bytes(cell, name)
        try:
            # Read as stored: a conversion to RGB would change the ids of palette pictures.
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
                f"{UNKNOWN} where the class is unknown"
            )
        table = np.full(UNKNOWN + 1, UNKNOWN, dtype=np.uint8)
        # One lookup maps all 256 values: known ids to classes, everything else to "unknown".
        table[: len(self.classes)] = self.classes
        return torch.from_numpy(table[ids])


def nearest(mask: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return a mask `(height, width)` resized to `size`; no id appears that was not there."""
    return functional.resize(mask[None], list(size), interpolation=v2.InterpolationMode.NEAREST_EXACT)[0]


def lost_classes(before: torch.Tensor, after: torch.Tensor, classes: int) -> torch.Tensor:
    """Return which classes, without the background, a crop has cut off completely, bool `(classes - 1,)`.

    >>> lost_classes(torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1]]), 4)
    tensor([False,  True, False])
    """
    there, left = (
        torch.bincount(mask.reshape(-1), minlength=UNKNOWN + 1)[BACKGROUND + 1 : classes] > 0
        for mask in (before, after)
    )
    return there & ~left


def source_names(rows: Rows) -> list[str]:
    """Return the names of the mask ids, background first.

    Raises:
        BadInputError: the data set does not name its mask ids.
    """
    feature = rows.features.get(INGREDIENT_LABELS)
    inner = getattr(feature, "feature", None)
    if not isinstance(inner, ClassLabel):
        raise BadInputError(f"column {INGREDIENT_LABELS!r} must name the ids of the masks, as a list of class labels")
    return list(inner.names)
