"""Ablations, which show whether an input is used: it is shuffled over rows, blanked or left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
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
    """Samples with one input taken from other rows, or replaced by the same one for all.

    Attributes:
        samples: the samples as they are, with inputs or with features in their place.
        text_rows: row whose text each sample gets, or None for its own.
        image_rows: row whose picture each sample gets, or None for its own.
        constant: input or features -> value in place of that of every sample.
    """

    samples: Any
    text_rows: np.ndarray | None = None
    image_rows: np.ndarray | None = None
    constant: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample, given = self.samples[index], self.samples
        for rows, names, values, present in (
            (self.text_rows, ("text_features", "input_ids"), (given.text_features, given.tokens), "text_present"),
            (self.image_rows, ("image_features", "picture"), (given.image_features, given.pictures), "image_present"),
        ):
            if rows is not None:
                name, source = next(pair for pair in zip(names, values, strict=True) if pair[0] in sample)
                sample[name] = source[int(rows[index])]
                # Where rows may lack a part, that of another row may be missing too.
                if present in sample:
                    sample[present] = given[int(rows[index])][present]
        return {**sample, **self.constant}
