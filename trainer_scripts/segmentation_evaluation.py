"""What a segmenter answers on a table: masks at the size of the pictures, counted, and the ingredients they show."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from modeling_flavour.segmentation_heads_flavour import resize
from trainer_scripts.data import Table
from trainer_scripts.pictures import normalise
from trainer_scripts.predictions import Predictions
from trainer_scripts.scores import INGREDIENTS, MASKS, Score
from trainer_scripts.segmentation import MaskSamples
from trainer_scripts.segmentation_scores import confusion_matrix, ingredient_scores, mask_scores, pixel_counts

# A class that covers less of a predicted mask is not called an ingredient.
SMALLEST_AREA = 0.002


@dataclass
class Answers:
    """Answers on a table.

    Attributes:
        counts: `(rows, 3 * classes)` pixels hit, predicted and true of each picture; None without masks.
        confusion: `(classes, classes)` pixels of all pictures by true and predicted class; None without masks.
        probabilities: `(rows, classes - 1)` of each ingredient: from the ingredient head, or 1 and 0 for what the
            predicted mask shows in a model without one.
        shown: `(rows, classes - 1)` what the pictures really show.
        loss: the model's own, mean over rows.
    """

    counts: np.ndarray | None
    confusion: np.ndarray | None
    probabilities: np.ndarray
    shown: np.ndarray
    loss: float

    def scores(self, names: list[str]) -> dict[str, float]:
        """Return every score; `names` are the classes, background first."""
        found = {} if self.counts is None else evaluate(mask_scores(), self.counts, self.counts)
        return found | evaluate(ingredient_scores(names[1:]), self.shown, self.probabilities)

    def predictions(self, table: Table) -> Predictions:
        """Return the answers to the rows of a table, as they are saved and compared."""
        parts: dict[str, tuple[Any, Any]] = {INGREDIENTS: (self.shown, self.probabilities)}
        if self.counts is not None:
            parts[MASKS] = (self.counts, self.counts)
        return Predictions(table.ids, table.groups, parts)


def evaluate(scores: tuple[Score, ...], labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return scores by name."""
    return {score.name: score(labels, probabilities) for score in scores}


def predicted_masks(logits: torch.Tensor, sizes: list[tuple[int, int]]) -> Iterator[torch.Tensor]:
    """Yield the class of every pixel at full size, from logits `(batch, classes, height, width)`.

    Logits are enlarged and then compared, so that edges are as fine as the logits allow.
    """
    for scores, size in zip(logits, sizes, strict=True):
        yield resize(scores[None].float(), size)[0].argmax(0)


@torch.inference_mode()
def answer(model: Any, samples: MaskSamples, batch_size: int, name: str = "") -> Answers:
    """Return the model's answers on all rows of evaluation samples.

    Args:
        model: a segmenter; it is put into evaluation mode and back.
        samples: whole pictures, their masks read as the model's classes.
        batch_size: pictures per batch.
        name: shown beside the progress bar; empty for no bar.
    """
    was_training, device = model.training, model.device
    model.eval()
    normal, classes, config = samples.processor.image_processor, model.config.num_labels, model.config
    has_masks = config.head != "none"
    confusion, counts, probabilities, losses = np.zeros((classes, classes), dtype=np.int64), [], [], []
    for start in tqdm(range(0, len(samples), batch_size), desc=name, leave=False, disable=not name):
        rows = range(start, min(start + batch_size, len(samples)))
        batch = [samples[row] for row in rows]
        pixels = normalise([sample["picture"] for sample in batch], normal.image_mean, normal.image_std)
        labels = {}
        if has_masks:
            labels["labels"] = torch.stack([sample["labels"] for sample in batch]).to(device)
        if config.ingredient_head:
            labels["ingredient_labels"] = torch.stack([sample["ingredient_labels"] for sample in batch]).to(device)
        output = model(pixels.to(device, model.dtype), **labels)
        losses.append(float(output.loss) * len(batch))
        found = []
        if has_masks:
            truths = [samples.masks[row] for row in rows]
            found = list(predicted_masks(output.logits, [(mask.shape[0], mask.shape[1]) for mask in truths]))
            for truth, mask in zip(truths, found, strict=True):
                matrix = confusion_matrix(truth.numpy(), mask.cpu().numpy(), classes, config.ignore_index)
                confusion += matrix
                counts.append(pixel_counts(matrix))
        if config.ingredient_head:
            probabilities.append(output.ingredient_logits.float().sigmoid().cpu().numpy())
        else:
            probabilities.append(np.stack([areas(mask, classes)[1:] >= SMALLEST_AREA for mask in found]))
    model.train(was_training)
    return Answers(
        np.stack(counts) if has_masks else None,
        confusion if has_masks else None,
        np.concatenate(probabilities).astype(np.float32),
        samples.shown,
        sum(losses) / len(samples),
    )


def areas(mask: torch.Tensor, classes: int) -> np.ndarray:
    """Return the share of the picture that each class covers, `(classes,)`."""
    return (torch.bincount(mask.flatten(), minlength=classes) / mask.numel()).cpu().numpy()
