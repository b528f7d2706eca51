"""Ablations, which show whether an input is used: it is shuffled over rows, blanked or left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

TEXT, IMAGE = "text", "image"


def partners(groups: Sequence[str], seed: int) -> np.ndarray:
    """Return for each row a row of another group, each used once; needs no group above half of the rows."""
    shuffled = _shuffled(groups, seed)
    order = np.concatenate(shuffled)
    # Groups are contiguous in `order`: a shift by the largest group leaves none in its own place.
    shift = max(map(len, shuffled))
    result = np.empty(len(order), dtype=int)
    result[order] = np.roll(order, -shift)
    return result


def drawn_rows(groups: Sequence[str], limit: int, seed: int = 0) -> np.ndarray:
    """Return rows of whole groups drawn at random, at most `limit` (one group at least); all where they fit."""
    if len(groups) <= limit:
        return np.arange(len(groups))
    order = _shuffled(groups, seed)
    # As many groups, in the drawn order, as stay within the limit together.
    fitting = max(1, int(np.searchsorted(np.cumsum([len(rows) for rows in order]), limit, side="right")))
    return np.sort(np.concatenate(order[:fitting]))


def _shuffled(groups: Sequence[str], seed: int) -> list[list[int]]:
    """Return the rows of each group, the groups in random order."""
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    names = list(members)
    return [members[names[index]] for index in np.random.default_rng(seed).permutation(len(names))]


@dataclass
class Ablated(Dataset):
    """Samples with one input taken from other rows, or blanked.

    Attributes:
        samples: the samples as they are.
        text_rows: row whose text each sample gets, or None for its own.
        image_rows: row whose picture each sample gets, or None for its own.
        blank_text: tokens in place of every text, or None.
        blank_image: uint8 picture in place of every picture, or None.
    """

    samples: Any
    text_rows: np.ndarray | None = None
    image_rows: np.ndarray | None = None
    blank_text: list[int] | None = None
    blank_image: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        if self.text_rows is not None and self.samples.tokens is not None:
            sample["input_ids"] = self.samples.tokens[self.text_rows[index]]
        if self.image_rows is not None and self.samples.pictures is not None:
            sample["picture"] = self.samples.pictures[int(self.image_rows[index])]
        # Where rows may lack a part, that of another row may be missing too.
        for name, rows in (("text_present", self.text_rows), ("image_present", self.image_rows)):
            if rows is not None and name in sample:
                sample[name] = self.samples[int(rows[index])][name]
        if self.blank_text is not None:
            sample["input_ids"] = self.blank_text
        if self.blank_image is not None:
            sample["picture"] = self.blank_image
        return sample
