"""Answers of a segmenter on a table: masks at the size of the pictures, counted, and the ingredients they show."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from dataset_builder.columns import UNKNOWN
from dataset_builder.errors import BadInputError
from dataset_builder.progress import progress
from modeling_flavour.processing_flavour import FlavourProcessor
from modeling_flavour.segmentation_heads_flavour import resize
from trainer_scripts.data.masks import source_names
from trainer_scripts.data.pictures import normalise
from trainer_scripts.data.samples import on_device
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import GROUP_MASKS, INGREDIENTS, MASKS
from trainer_scripts.features.reader import BackboneReader
from trainer_scripts.tasks.common.starting_points import input_size
from trainer_scripts.tasks.common.task import Outputs, SavedModel
from trainer_scripts.tasks.segmentation.classes import food_groups
from trainer_scripts.tasks.segmentation.samples import MaskSamples, own_size
from trainer_scripts.tasks.segmentation.scores import (
    confusion_matrix,
    group_scores,
    ingredient_scores,
    mask_scores,
    pixel_counts,
)
from trainer_scripts.tasks.segmentation.views import LOGIT_STRIDE, Views, predict_views

PLAIN = Views()
# A class that covers less of a predicted mask is not called an ingredient.
SMALLEST_AREA = 0.002
CLASSES_AT_ONCE = 16
# Enlarged scores may lie this far outside of those that they come from.
ROUNDING = 1e-4


@dataclass
class Answers:
    """Answers on a table.

    Attributes:
        counts: `(rows, 3 * classes)` pixels hit, predicted and true of each picture; None without masks.
        confusion: `(classes, classes)` pixels of all pictures by true and predicted class; None without masks.
        probabilities: `(rows, classes - 1)` of each ingredient: from the ingredient head, or 1 and 0 for what the
            predicted mask shows in a model without one.
        shown: `(rows, classes - 1)` 1 for the ingredients that a picture really shows.
        loss: the model's own, mean over rows; NaN where it was not computed.
        areas: `(rows, classes)` share of each predicted mask that a class covers; None without masks.
        group_counts: as `counts`, read as food groups; None without masks or where classes are no ingredients.
    """

    counts: np.ndarray | None
    confusion: np.ndarray | None
    probabilities: np.ndarray
    shown: np.ndarray
    loss: float
    areas: np.ndarray | None = None
    group_counts: np.ndarray | None = None

    def scores(self, names: list[str]) -> dict[str, float]:
        """Return the value of every score; `names` are the classes, background first."""
        values: dict[str, float] = {}
        for scores, counts in ((mask_scores(), self.counts), (group_scores(names), self.group_counts)):
            if counts is not None:
                values |= {score.name: score(counts, counts) for score in scores}
        return values | {each.name: each(self.shown, self.probabilities) for each in ingredient_scores(names[1:])}

    def outputs(self) -> Outputs:
        """Return all but the loss with an entry per row, the confusion with one for all of them."""
        found = {
            "counts": self.counts,
            "confusion": None if self.confusion is None else self.confusion[None],
            "probabilities": self.probabilities,
            "shown": self.shown,
            "areas": self.areas,
            "group_counts": self.group_counts,
        }
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def of_outputs(cls, outputs: Outputs) -> "Answers":
        """Return the answers from their `outputs`, or from the concatenated ones of parts of the rows."""
        whole = {"counts": None, "confusion": None, "loss": float("nan"), **outputs}
        if whole["confusion"] is not None:
            whole["confusion"] = whole["confusion"].sum(axis=0)
        return cls(**whole)

    def predictions(self, table: Table) -> Predictions:
        """Return the answers to the rows of a table, as they are saved and compared."""
        parts: dict[str, tuple[Any, Any]] = {INGREDIENTS: (self.shown, self.probabilities)}
        if self.counts is not None:
            parts[MASKS] = (self.counts, self.counts)
        if self.group_counts is not None:
            parts[GROUP_MASKS] = (self.group_counts, self.group_counts)
        return Predictions(table.ids, table.groups, parts)


def predicted_masks(scores: torch.Tensor, sizes: list[tuple[int, int]]) -> Iterator[torch.Tensor]:
    """Yield the class of every pixel at full size, from logits or log-probabilities `(batch, classes, rows, columns)`.

    Scores are enlarged and then compared, so that edges are as fine as the scores allow; a few classes at a time, as
    all classes of a large photograph would take gigabytes. Most of many classes cannot win any pixel: those are not
    enlarged, which changes no answer.
    """
    for each, size in zip(scores, sizes, strict=True):
        best = torch.full(size, -torch.inf, device=each.device)
        chosen = torch.zeros(size, dtype=torch.long, device=each.device)
        # A running maximum over blocks of classes.
        for block in possible_winners(each.float()).split(CLASSES_AT_ONCE):
            part, places = resize(each[None, block].float(), size)[0].max(0)
            better = part > best
            best, chosen = torch.where(better, part, best), torch.where(better, block[places], chosen)
        yield chosen


def possible_winners(scores: torch.Tensor) -> torch.Tensor:
    """Return the classes, in ascending order, that may score highest somewhere between the places of a grid.

    Between four neighbouring places each class lies between its lowest and its highest score there, so a class whose
    highest is below another one's lowest wins no pixel between them.

    Args:
        scores: `(classes, rows, columns)`.
    """
    highest = lowest = scores
    for side in (-2, -1):
        length = scores.shape[side] - 1
        if length:  # a single row or column has no neighbour
            highest = torch.maximum(highest.narrow(side, 0, length), highest.narrow(side, 1, length))
            lowest = torch.minimum(lowest.narrow(side, 0, length), lowest.narrow(side, 1, length))
    hopeless = highest < lowest.amax(0) - ROUNDING  # NaN is not: a broken model's masks stay what they were
    return (~hopeless).flatten(1).any(1).nonzero()[:, 0]


class PixelCounter:
    """Counts pixels picture by picture: true and predicted class, and the share that each predicted class covers.

    All results are allocated before the first picture: small arrays that are made between large temporary ones would
    keep the process from returning the memory of the large ones.

    Args:
        rows: number of pictures.
        classes: number of classes, after the reading by `groups`.
        groups: per class the coarser class that it is read as; None reads classes as they are.
        unknown: id of unknown pixels.

    Attributes:
        confusion: `(classes, classes)` pixels of all pictures by true and predicted class.
        counts: `(rows, 3 * classes)` of `pixel_counts`.
        areas: `(rows, classes)` shares of the predicted masks.
        counted: pictures so far.
    """

    def __init__(self, rows: int, classes: int, groups: list[int] | None = None, unknown: int = UNKNOWN):
        self.confusion = np.zeros((classes, classes), dtype=np.int64)
        self.counts = np.zeros((rows, 3 * classes), dtype=np.int64)
        self.areas = np.zeros((rows, classes), dtype=np.float32)
        self.counted = 0
        self._groups = groups
        self._unknown = unknown
        self._read = np.arange(UNKNOWN + 1)
        if groups is not None:
            self._read[: len(groups)] = groups

    def add(self, rows: Sequence[int], truths: list[torch.Tensor], scores: torch.Tensor) -> None:
        """Count some pictures.

        Args:
            rows: their numbers.
            truths: class ids `(height, width)` of each picture.
            scores: log-probabilities `(rows, classes, rows, columns)` on any grid; those of one picture count for all.
        """
        classes = len(self.confusion)
        if self._groups is not None:
            merged = scores.new_zeros(len(scores), classes, *scores.shape[2:])
            # Probabilities of ingredients add up to that of their group; logarithms do not.
            merged.index_add_(1, torch.tensor(self._groups, device=scores.device), scores.exp())
            scores = merged.clamp(min=torch.finfo(merged.dtype).tiny).log()
        sizes = [(truth.shape[0], truth.shape[1]) for truth in truths]
        masks: Iterable[torch.Tensor]
        if len(scores) == 1:
            # One answer for all is enlarged once per size.
            by_size = {size: next(predicted_masks(scores, [size])) for size in dict.fromkeys(sizes)}
            masks = [by_size[size] for size in sizes]
        else:
            masks = predicted_masks(scores, sizes)
        for row, truth, mask in zip(rows, truths, masks, strict=True):
            matrix = confusion_matrix(self._read[truth.numpy()], mask.cpu().numpy(), classes, self._unknown)
            self.confusion += matrix
            self.counts[row] = pixel_counts(matrix)
            self.areas[row] = areas(mask, classes)
            self.counted += 1


class Tally:
    """The answers to the rows of some samples, as they come in, and what they add up to.

    Args:
        config: of the segmenter.
        samples: the rows with their true masks.
    """

    def __init__(self, config: PreTrainedConfig, samples: MaskSamples):
        self.samples = samples
        self._fine = PixelCounter(len(samples), config.num_labels, unknown=config.ignore_index)
        groups = food_groups([config.id2label[number] for number in sorted(config.id2label)])
        self._coarse = None
        if groups is not None:
            self._coarse = PixelCounter(len(samples), len(groups[0]), groups[1], config.ignore_index)
        self._probabilities = np.zeros((len(samples), config.num_labels - 1), dtype=np.float32)

    def add(self, rows: Sequence[int], scores: torch.Tensor | None, named: torch.Tensor | None) -> None:
        """Add answers to rows: log-probabilities of classes on a grid, and probabilities of the ingredients.

        Either is None in a model without that head, and may be that of one picture for all rows.
        """
        if scores is not None:
            truths = [self.samples.masks[row] for row in rows]
            for counter in (self._fine, self._coarse):
                if counter is not None:
                    counter.add(rows, truths, scores)
        shown: Any = self._fine.areas[list(rows), 1:] >= SMALLEST_AREA if named is None else named.cpu().numpy()
        self._probabilities[list(rows)] = shown

    def answers(self, loss: float = float("nan")) -> Answers:
        """Return the answers to all rows."""
        fine, coarse = self._fine, self._coarse
        masks = fine.counted > 0
        return Answers(
            fine.counts if masks else None,
            fine.confusion if masks else None,
            self._probabilities,
            self.samples.shown,
            loss,
            fine.areas if masks else None,
            coarse.counts if masks and coarse is not None else None,
        )


@dataclass
class Swapped:
    """Rows of a table that are also answered with the pictures of others, in the same pass.

    Attributes:
        rows: their numbers in the table.
        order: for each of these rows the place among them whose picture it gets.
        tally: of these rows.
    """

    rows: np.ndarray
    order: np.ndarray
    tally: Tally

    def __post_init__(self):
        # Row of the table -> the row of the tally that gets its picture.
        self._receivers = {int(self.rows[source]): receiver for receiver, source in enumerate(self.order)}

    def add(self, rows: Sequence[int], scores: torch.Tensor | None, named: torch.Tensor | None) -> None:
        """Hand the answers to pictures of the table on to the rows that get these pictures."""
        places = [place for place, row in enumerate(rows) if row in self._receivers]
        if places:
            receivers = [self._receivers[rows[place]] for place in places]
            for place, receiver in zip(places, receivers, strict=True):
                part = slice(place, place + 1)
                self.tally.add([receiver], *(None if each is None else each[part] for each in (scores, named)))


def answer(
    model: PreTrainedModel,
    samples: MaskSamples,
    batch_size: int,
    name: str = "",
    testing: Views = PLAIN,
    loss: bool = False,
    reader: BackboneReader | None = None,
    swapped: Swapped | None = None,
) -> Answers:
    """Return the model's answers on all rows of evaluation samples.

    Args:
        model: a segmenter; it is put into evaluation mode and back.
        samples: whole pictures, their masks read as the model's classes; at their own size for sliding windows.
        batch_size: pictures per batch.
        name: shown beside the progress bar; empty for no bar.
        testing: views of each picture that are averaged.
        loss: whether to compute the loss too, on the grid of the answers; other views than the plain one have none.
        reader: computes the backbone's outputs, where whole pictures are seen once; None runs the model as it is.
        swapped: is told the answers too.
    """
    # Evaluations happen in the middle of training too.
    was_training = model.training
    model.eval()
    tally, losses = Tally(model.config, samples), []
    # Pictures of different sizes make no batch.
    step = batch_size if testing.window is None else 1
    batches = [range(start, min(start + step, len(samples))) for start in range(0, len(samples), step)]
    streamed: Any = None
    if reader is not None and testing.plain and not loss:
        streamed = reader.batches(samples, batches)
    for rows in progress(batches, name, total=len(samples), each=step):
        if streamed is not None:
            scores, named, lost = *answer_features(model, next(streamed), samples.processor), float("nan")
        else:
            scores, named, lost = _answer_batch(model, [samples[row] for row in rows], samples, testing, loss)
        losses.append(lost * len(rows))
        for told in (tally, swapped):
            if told is not None:
                told.add(rows, scores, named)
    model.train(was_training)
    return tally.answers(sum(losses) / len(samples))


@torch.inference_mode()
def answer_features(
    model: PreTrainedModel, features: torch.Tensor | tuple[torch.Tensor, ...], processor: FlavourProcessor
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the result of `predict_views` for the plain view, from the backbone's outputs."""
    side = input_size(processor)
    features = on_device(features, model.device)
    output = model(image_features=features, picture_size=(side, side), logit_stride=LOGIT_STRIDE)
    scores = None if output.logits is None else output.logits.float().log_softmax(1)
    return scores, None if output.ingredient_logits is None else output.ingredient_logits.float().sigmoid()


@torch.inference_mode()
def _answer_batch(
    model: PreTrainedModel, batch: list[dict[str, Any]], samples: MaskSamples, testing: Views, loss: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None, float]:
    """Return the result of `predict_views`, and the loss (NaN unless `loss` is set)."""
    normal, device, config = samples.processor.image_processor, model.device, model.config
    pixels = normalise([sample["picture"] for sample in batch], normal.image_mean, normal.image_std)
    pixels = pixels.to(device, model.dtype)
    if not testing.plain or not loss:
        return *predict_views(model, pixels, testing), float("nan")
    labels = {}
    if config.head != "none":
        masks = torch.stack([sample["labels"] for sample in batch])
        # The middle pixel of a cell stands for the cell, as in training; the loss needs no finer grid.
        divides = all(side % LOGIT_STRIDE == 0 for side in masks.shape[-2:])
        middle = slice(LOGIT_STRIDE // 2, None, LOGIT_STRIDE) if divides else slice(None)
        labels["labels"] = masks[:, middle, middle].to(device)
    if config.ingredient_head:
        labels["ingredient_targets"] = torch.stack([sample["ingredient_labels"] for sample in batch]).to(device)
    output = model(pixels, **labels)
    named = None if output.ingredient_logits is None else output.ingredient_logits.float().sigmoid()
    scores = None if output.logits is None else output.logits.float().log_softmax(1)
    return scores, named, float(output.loss)


def areas(mask: torch.Tensor, classes: int) -> np.ndarray:
    """Return the share of the picture that each class covers, `(classes,)`."""
    return (torch.bincount(mask.flatten(), minlength=classes) / mask.numel()).cpu().numpy()


def samples_for(model: SavedModel, table: Table, testing: Views = PLAIN) -> MaskSamples:
    """Return the rows as the model reads them; windows slide over pictures of their own size.

    Raises:
        BadInputError: the masks have other ids than those that the model was trained on.
    """
    config, names = model.model.config, source_names(table.rows)
    # An id would otherwise be scored as the class that had the same number in training.
    if config.source_labels is not None and names != config.source_labels:
        raise BadInputError(
            f"the masks of this data set have {len(names)} ids ({', '.join(names[:4])}, ...), those that "
            f"{model.source} learned from had {len(config.source_labels)} ({', '.join(config.source_labels[:4])}, "
            "...); score it on data with the same ids"
        )
    prepare = None if testing.window is None else own_size
    return MaskSamples(table, model.processor, config.class_map, config.num_labels, prepare=prepare)
