"""Rows to samples to batches: tokens, picture variation, padding, normalisation, mixup, weights of classes and rows."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset
from torchvision.transforms import v2

from dataset_builder.columns import UNKNOWN
from modeling_flavour.losses_flavour import IGNORED_LABEL
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.masks import Masks
from trainer_scripts.data.pictures import Pictures, Prepare, normalise
from trainer_scripts.data.table import Table

# A picture, or a picture and its mask.
Varied = TypeVar("Varied", bound=torch.Tensor | tuple)


@dataclass
class RowFeatures:
    """Features of the rows of one table, in one or several random views.

    Attributes:
        values: float32, `(views * rows, ...)`, or `(all tokens, size)` with `offsets`.
        rows: number of rows.
        offsets: `(views * rows + 1,)` first token of each row, for rows of different length; else None.
        chosen: rows of the table that are read, in this order; None: all.
        shapes: shapes of the outputs that lie flattened side by side in `values`; None for a single output.
    """

    values: np.ndarray
    rows: int
    offsets: np.ndarray | None = None
    chosen: np.ndarray | None = None
    shapes: tuple[tuple[int, ...], ...] | None = None

    def __len__(self) -> int:
        return self.rows if self.chosen is None else len(self.chosen)

    def select(self, rows: np.ndarray) -> "RowFeatures":
        """Return the features of these rows; nothing is copied."""
        return replace(self, chosen=rows if self.chosen is None else self.chosen[rows])

    @property
    def views(self) -> int:
        """Random views per row; 1 where nothing varies."""
        return (len(self.values) if self.offsets is None else len(self.offsets) - 1) // self.rows

    def of(self, row: int, epoch: int = 0) -> Any:
        """Return the features of one row, in the view of an epoch: a tensor, or a tuple of several outputs."""
        row = row if self.chosen is None else int(self.chosen[row])
        place = (epoch % self.views) * self.rows + row
        if self.offsets is not None:
            return torch.from_numpy(np.array(self.values[self.offsets[place] : self.offsets[place + 1]]))
        found = torch.from_numpy(np.array(self.values[place]))
        if self.shapes is None:
            return found
        parts = found.split([math.prod(shape) for shape in self.shapes])
        return tuple(part.view(shape) for part, shape in zip(parts, self.shapes, strict=True))

    def __getitem__(self, row: int) -> Any:
        return self.of(row)


def stacked(features: Sequence[Any]) -> Any:
    """Return the features of rows as a batch: one tensor, or a tuple of one per output."""
    if isinstance(features[0], tuple):
        return tuple(torch.stack(each) for each in zip(*features, strict=True))
    return torch.stack(list(features))


def on_device(value: Any, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    """Return a tensor, or each of a tuple of them, on a device, and where `dtype` is given as that type."""
    return tuple(each.to(device, dtype) for each in value) if isinstance(value, tuple) else value.to(device, dtype)


class PictureSamples(Dataset):
    """Samples whose pictures the stored features of a frozen backbone may replace.

    Attributes:
        table: the rows.
        pictures: the pictures by row number; None in a model of texts.
        masks: their masks by row number, where samples have them.
        image_features: stored features; where they are set, samples carry them in place of pictures.
        varies: whether pictures change from epoch to epoch.
        variation: seed and steps of that change, as text; None where nothing changes.
        not_stored: why features of these pictures are never stored, or None.
        not_stored_varied: why those of varied pictures are not, or None.
    """

    table: Table
    pictures: Pictures | None = None
    masks: Masks | None = None
    image_features: RowFeatures | None = None
    varies: bool = False
    variation: str | None = None
    not_stored: str | None = None
    not_stored_varied: str | None = None

    def picture(self, index: int, epoch: int, once: bool = False) -> torch.Tensor:
        """Return the uint8 picture of a row as an epoch shows it; `once` leaves it out of the cache."""
        if self.pictures is None:
            raise ValueError("these samples have no pictures")
        return self.pictures.decode(index) if once else self.pictures[index]


class Samples(PictureSamples):
    """Map-style samples of one table: tokens, uint8 picture, label, soft target and weight by row number.

    The random variation of a training picture follows from seed, epoch and row alone, so that a resumed run and one
    with another number of workers or processes see the same pictures.
    """

    def __init__(
        self,
        table: Table,
        processor: FlavourProcessor,
        prepare: Prepare | None,
        augment: v2.Transform | None = None,
        seed: int = 0,
        word_dropout: float = 0.0,
    ):
        self.table = table
        self.epoch = 0
        # Stored outputs of a frozen text backbone; where they are set, samples carry them in place of tokens.
        self.text_features: RowFeatures | None = None
        self._augment = augment
        self._seed = seed
        self._word_dropout = word_dropout
        self._unknown: Any = getattr(processor.tokenizer, "unk_token_id", None)
        self.tokens: list[list[int]] | None = None
        if table.texts is not None and processor.tokenizer is not None:
            self.tokens = tokenize(processor, table.texts)
            if table.pictured is not None:  # a missing text may have no token at all
                self.tokens = [tokens or [processor.tokenizer.pad_token_id or 0] for tokens in self.tokens]
        if prepare is not None and table.image_column is not None:
            self.pictures = Pictures(table, prepare)
        if table.pictured is not None and not table.pictured.all():
            self.not_stored = "some rows lack their picture (missing_parts)"
        if augment is not None:
            self.varies, self.variation = True, f"seed {seed}: {augment}"

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: dict[str, Any] = {"labels": self.table.labels[index]}
        draw = sample_seed(self._seed, self.epoch, index)
        if self.text_features is not None:
            sample["text_features"] = self.text_features.of(index)
        elif self.tokens is not None:
            sample["input_ids"] = self._words(index, draw)
        if self.image_features is not None:
            sample["image_features"] = self.image_features.of(index, self.epoch)
        elif self.pictures is not None:
            sample["picture"] = self.picture(index, self.epoch)
        if self.table.pictured is not None:
            sample["text_present"] = bool((self.table.texts or [])[index].strip())
            sample["image_present"] = bool(self.table.pictured[index])
        if self.table.targets is not None:
            sample["targets"] = self.table.targets[index]
        if self.table.weights is not None:
            sample["weights"] = self.table.weights[index]
        return {**sample, "draw": draw}

    def _words(self, index: int, draw: int) -> list[int]:
        """Return the tokens of a row, some replaced by the unknown token with word dropout (Iyyer et al. 2015)."""
        assert self.tokens is not None
        tokens = self.tokens[index]
        if not self._word_dropout:
            return tokens
        kept = np.random.default_rng(draw).random(len(tokens)) >= self._word_dropout
        return [token if keep else self._unknown for token, keep in zip(tokens, kept, strict=True)]

    def picture(self, index: int, epoch: int, once: bool = False) -> torch.Tensor:
        """Return the uint8 picture of a row, varied as in an epoch; `once` leaves it out of the cache."""
        picture = super().picture(index, epoch, once)
        if self._augment is None:
            return picture
        return varied(picture, self._augment, sample_seed(self._seed, epoch, index))


def tokenize(processor: FlavourProcessor, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text as the processor makes them, without padding."""
    encoded = processor.encode_texts(texts, padding=True)
    # Padding is removed again: batches are padded to their own longest text.
    pairs = zip(encoded["input_ids"], encoded["attention_mask"].bool(), strict=True)
    return [ids[mask].tolist() for ids, mask in pairs]


def place_masks(masks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return masks as the models take them: `(batch, height, width)`, -100 where the class is unknown."""
    stacked = torch.stack(list(masks)).long()
    return stacked.masked_fill(stacked == UNKNOWN, IGNORED_LABEL)


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """Return the random seed of one row in one epoch."""
    return int(np.random.SeedSequence([seed, epoch, index]).generate_state(1, np.uint64)[0] >> 1)


_one_at_a_time = threading.Lock()


def varied(picture: Varied, augment: v2.Transform, seed: int) -> Varied:
    """Return the picture (or picture and mask) varied under `seed`, leaving torch's own random state untouched."""
    # torchvision draws from torch's one generator, which threads share.
    with _one_at_a_time:
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            return augment(picture)
        finally:
            torch.set_rng_state(state)


def padded(sequences: Sequence[Sequence[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids `(batch, longest)` and their mask."""
    longest = max(len(sequence) for sequence in sequences)
    input_ids = torch.full((len(sequences), longest), pad_token_id)
    mask = torch.zeros((len(sequences), longest), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        input_ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return input_ids, mask


@dataclass
class ClassificationCollator:
    """Batches for classification and multi-label models.

    Attributes:
        pad_token_id: fills up short texts.
        mean: channel means of the image processor.
        std: channel standard deviations of the image processor.
        classes: number of labels, for one-hot targets.
        target_share: weight of a row's soft target, where there is one; the rest is on its label.
        mixup: Beta parameter of mixup, 0 for none; only for models that see pictures alone.
    """

    pad_token_id: int = 0
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    std: Sequence[float] = (0.5, 0.5, 0.5)
    classes: int = 0
    target_share: float = 0.0
    mixup: float = 0.0

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch that the model's `forward` takes."""
        batch: dict[str, torch.Tensor] = {}
        if "input_ids" in samples[0]:
            input_ids, mask = padded([sample["input_ids"] for sample in samples], self.pad_token_id)
            batch |= {"input_ids": input_ids, "attention_mask": mask}
        if "text_features" in samples[0]:
            features = [sample["text_features"] for sample in samples]
            # Vectors, one per text, all have one shape; for them the padding below changes nothing.
            batch["text_features"] = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
            if features[0].ndim > 1:  # states of all tokens, `(length, size)`
                lengths = torch.tensor([len(each) for each in features])
                steps = torch.arange(batch["text_features"].shape[1])
                batch["attention_mask"] = (steps[None] < lengths[:, None]).long()
        if "image_features" in samples[0]:
            batch["image_features"] = stacked([sample["image_features"] for sample in samples])
        if "picture" in samples[0]:
            batch["pixel_values"] = normalise([sample["picture"] for sample in samples], self.mean, self.std)
        if "mask" in samples[0]:
            batch["place_masks"] = place_masks([sample["mask"] for sample in samples])
        for name in ("text_present", "image_present"):
            if name in samples[0]:
                batch[name] = torch.tensor([sample[name] for sample in samples])
        batch["labels"] = torch.stack([torch.as_tensor(sample["labels"]) for sample in samples])
        if "weights" in samples[0]:
            batch["sample_weights"] = torch.stack([torch.as_tensor(sample["weights"]) for sample in samples])
        if "targets" in samples[0] and self.target_share > 0:
            targets = torch.stack([torch.as_tensor(sample["targets"]) for sample in samples])
            batch["labels"] = (1 - self.target_share) * self._shares(batch["labels"]) + self.target_share * targets
        if self.mixup > 0:
            # Each picture and target is mixed with its neighbour's (Zhang et al. 2018).
            share = float(np.random.default_rng(samples[0]["draw"]).beta(self.mixup, self.mixup))
            batch["labels"] = self._shares(batch["labels"])
            for name in ("pixel_values", "labels", "sample_weights"):
                if name in batch:
                    batch[name] = share * batch[name] + (1 - share) * batch[name].roll(1, dims=0)
        return batch

    def _shares(self, labels: torch.Tensor) -> torch.Tensor:
        return functional.one_hot(labels, self.classes).float() if labels.ndim == 1 else labels.float()


def class_prior(labels: np.ndarray, classes: int) -> list[float]:
    """Return the share of rows per class, with one row of each class added (Laplace) so that none is 0 or 1.

    Args:
        labels: ids `(rows,)`, or 0/1 `(rows, labels)`.
        classes: number of classes.
    """
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=classes) + 1
        return (counts / counts.sum()).tolist()
    # Each label is a class of its own against "absent", so two rows are added, one of either.
    return ((labels.sum(axis=0) + 1) / (len(labels) + 2)).tolist()


def class_weights(labels: np.ndarray, classes: int) -> list[float]:
    """Return class weights in inverse proportion to frequency, with mean 1 over the rows; 0 for absent classes."""
    counts = np.bincount(labels, minlength=classes) if labels.ndim == 1 else labels.sum(axis=0)
    present = counts > 0
    return np.where(present, counts.sum() / np.maximum(counts, 1) / present.sum(), 0).tolist()


def sampling_weights(labels: np.ndarray) -> np.ndarray:
    """Return the sampling weight of each row: inverse frequency of its class, or of its rarest label."""
    if labels.ndim == 1:
        return 1 / np.bincount(labels)[labels]
    inverse = 1 / np.maximum(labels.sum(axis=0), 1)
    # A row without any label is drawn as rarely as the most frequent label.
    return np.where(labels.any(axis=1), (labels * inverse).max(axis=1), inverse.min())
