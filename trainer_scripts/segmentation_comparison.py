"""What segmentation and ingredients bring to a comparison: counted masks, baselines, what the picture is worth.

Models with masks, with an ingredient head, or with both are compared on the scores that they share.
"""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from trainer_scripts.ablations import IMAGE, partners
from trainer_scripts.comparing import BASELINE, Comparing, Line
from trainer_scripts.data import Table
from trainer_scripts.predictions import Predictions
from trainer_scripts.scores import INGREDIENTS, MASKS
from trainer_scripts.segmentation_classes import shown_classes
from trainer_scripts.segmentation_evaluation import answer as answer_all
from trainer_scripts.segmentation_samples import MaskSamples
from trainer_scripts.segmentation_scores import INGREDIENT_PREFIX, MASK_SELECTION
from trainer_scripts.segmentation_scoring import samples_for


def answer(model: Any, table: Table, batch_size: int, name: str = "") -> Predictions:
    """Return the answers of a saved segmenter."""
    return answer_all(model.model, samples_for(model, table), batch_size, name).predictions(table)


def baseline_lines(comparison: Any) -> list[Line]:
    """Return all background, and the ingredients that training pictures show most often."""
    truth, test = comparison.widest.predictions, comparison.test
    found = []
    if MASKS in truth.parts:
        counts = all_background(truth.parts[MASKS][0])
        found.append(
            Line("all background", BASELINE, "none", Predictions(test.ids, test.groups, {MASKS: (counts, counts)}))
        )
    config = comparison.saved[comparison.widest.name].model.config
    labels, mapped = comparison.train.labels, config.class_map
    shown = shown_classes(labels, range(labels.shape[1]) if mapped is None else mapped, config.num_labels)
    constant = np.broadcast_to(most_frequent(shown), truth.parts[INGREDIENTS][0].shape)
    parts = {INGREDIENTS: (truth.parts[INGREDIENTS][0], constant.astype(np.float32))}
    found.append(Line("most frequent ingredients", BASELINE, "none", Predictions(test.ids, test.groups, parts)))
    return found


def all_background(counts: np.ndarray) -> np.ndarray:
    """Return the pixels hit, predicted and true per class of masks that are background everywhere."""
    hits, predicted, true = np.split(counts.copy(), 3, axis=1)
    hits[:], predicted[:] = 0, 0
    hits[:, 0], predicted[:, 0] = true[:, 0], true.sum(axis=1)
    return np.concatenate([hits, predicted, true], axis=1)


def most_frequent(shown: np.ndarray) -> np.ndarray:
    """Return 1 for as many of the most frequent ingredients as a picture shows on average, 0 for the others."""
    frequent = np.zeros(shown.shape[1])
    frequent[np.argsort(-shown.sum(axis=0), kind="stable")[: max(round(shown.sum(axis=1).mean()), 1)]] = 1
    return frequent


class _OtherPictures:
    """The pictures of a table in another order, or one picture for all."""

    def __init__(self, pictures: Any, order: np.ndarray | None, blank: torch.Tensor):
        self._pictures, self._order, self._blank = pictures, order, blank

    def __getitem__(self, row: int) -> torch.Tensor:
        return self._pictures[int(self._order[row])] if self._order is not None else self._blank

    def __len__(self) -> int:
        return len(self._pictures)


def changed(model: Any, table: Table, batch_size: int, seed: int = 0) -> Iterator[tuple[str, Predictions]]:
    """Yield what a segmenter says of the pictures of other dishes, and of blank ones."""
    samples = samples_for(model, table)
    mean = torch.tensor(model.processor.image_processor.image_mean).view(3, 1, 1) * 255
    grey = mean.round().to(torch.uint8).expand_as(samples.pictures[0]).contiguous()
    order = partners(table.groups, seed) if len(set(table.groups)) > 1 else None
    for name, chosen in ((f"{IMAGE} shuffled", order), (f"{IMAGE} blank", None)):
        if name.endswith("shuffled") and order is None:
            continue
        other: MaskSamples = copy.copy(samples)
        other.pictures = _OtherPictures(samples.pictures, chosen, grey)  # type: ignore[assignment]
        yield name, answer_all(model.model, other, batch_size, f"{model.name}, {name}").predictions(table)


COMPARING = Comparing(
    answer=answer,
    decisive=(MASK_SELECTION, f"{INGREDIENT_PREFIX}samples_f1"),
    baselines=baseline_lines,
    changes=changed,
)
