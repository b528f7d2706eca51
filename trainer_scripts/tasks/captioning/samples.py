"""Samples and batches of captioners."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import Transform

from modeling_flavour.losses_flavour import IGNORED_LABEL
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.masks import Masks, nearest
from trainer_scripts.data.pictures import Pictures, Prepare, normalise
from trainer_scripts.data.samples import PictureSamples, place_masks, sample_seed, stacked, varied
from trainer_scripts.data.table import Table
from trainer_scripts.tasks.captioning.text import mirrored, names_no_side


class CaptionSamples(PictureSamples):
    """Training samples: a varied picture and the tokens of one caption that is true of it.

    A flipped picture gets its caption mirrored; one whose caption cannot be is never flipped, and one whose caption
    names a side is never turned. All random choices follow from seed, epoch and row alone.

    Args:
        table: rows with captions as labels.
        processor: whose tokenizer makes the tokens.
        prepare: picture to uint8 tensor.
        augment: variation of the picture that leaves left and right where they are, or None.
        flip: whether to mirror half of the pictures.
        turn: whether to turn pictures by quarters; true only of pictures from above.
        every_caption: one sample per caption; otherwise one per picture, with another random caption in each epoch.
        first_share: how often that random caption is the first one; the other draws are even.
        masks: whether samples carry their mask, varied like the picture.
        numbered: whether samples carry the number of their picture in `references`.
        seed: of the random choices.
    """

    pictures: Pictures
    not_stored_varied = (
        "captions change with their varied pictures; leave out crop_scale, flip, rotation and color_jitter"
    )

    def __init__(
        self,
        table: Table,
        processor: FlavourProcessor,
        prepare: Prepare,
        augment: Transform | None = None,
        flip: bool = False,
        turn: bool = False,
        every_caption: bool = False,
        first_share: float = 0.0,
        masks: bool = False,
        numbered: bool = False,
        seed: int = 0,
    ):
        self.table = table
        self.processor = processor
        self.epoch = 0
        self.pictures = Pictures(table, prepare)
        self.masks = Masks(table) if masks else None
        self.tokens = [tokenize(processor, captions) for captions in table.labels]
        self._mirrored = [self._mirror(processor, captions) for captions in table.labels] if flip else None
        self._turnable = [[names_no_side(caption) for caption in row] for row in table.labels] if turn else None
        self._augment = augment
        self._first_share = first_share
        self._numbered = numbered
        self._seed = seed
        self._samples: list[tuple[int, int | None]] = [(row, None) for row in range(len(table))]
        if every_caption:
            self._samples = [(row, i) for row, captions in enumerate(table.labels) for i in range(len(captions))]

    def references(self) -> list[tuple[str, ...]]:
        """Return the captions of each picture, and then, where pictures are flipped, of each flipped picture."""
        found = [tuple(captions) for captions in self.table.labels]
        if self._mirrored is not None:
            # A caption without a mirrored form is no reference of the flipped picture.
            sides = [tuple(filter(None, map(mirrored, captions))) for captions in found]
            found += [of_one or captions for of_one, captions in zip(sides, found, strict=True)]
        return found

    @staticmethod
    def _mirror(processor: FlavourProcessor, captions: Sequence[str]) -> list[list[int] | None]:
        texts = [mirrored(caption) for caption in captions]
        return [tokenize(processor, [text])[0] if text is not None else None for text in texts]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, number = self._samples[index]
        seed = sample_seed(self._seed, self.epoch, index)
        draw = np.random.default_rng(seed)
        if number is None:
            number = 0 if draw.random() < self._first_share else int(draw.integers(len(self.tokens[row])))
        tokens = self.tokens[row][number]
        # Stored features are those of the unchanged picture, so that neither flips nor masks fit them.
        if self.image_features is not None:
            sample = {"image_features": self.image_features[row], "labels": tokens}
            return {**sample, "row": row} if self._numbered else sample
        picture = self.pictures[row]
        mask = None
        if self.masks is not None:
            # A large picture is kept smaller than its mask.
            mask = tv_tensors.Mask(nearest(self.masks[row], picture.shape[-2:]))
        if self._augment is not None:
            picture, mask = varied((tv_tensors.Image(picture), mask), self._augment, seed)
        other = self._mirrored[row][number] if self._mirrored is not None else None
        flipped = False
        if other is not None and draw.random() < 0.5:
            flipped = True
            picture, tokens = picture.flip(-1), other
            mask = None if mask is None else mask.flip(-1)
        if self._turnable is not None and self._turnable[row][number]:
            quarters = int(draw.integers(4))
            picture = picture.rot90(quarters, (-2, -1))
            mask = None if mask is None else mask.rot90(quarters, (-2, -1))
        sample = {"picture": picture.as_subclass(torch.Tensor), "labels": tokens}
        if self._numbered:
            sample["row"] = row + (len(self.table) if flipped else 0)
        return sample if mask is None else {**sample, "mask": mask.as_subclass(torch.Tensor)}


def tokenize(processor: FlavourProcessor, captions: Sequence[str]) -> list[list[int]]:
    """Return the tokens of each caption with its end token, without the begin token; too long ones lose their end."""
    encoded = processor.tokenizer(list(captions), truncation=True, max_length=processor.max_length)
    # The model itself puts the begin token before the labels when it shifts them.
    return [ids[1:] for ids in encoded["input_ids"]]


@dataclass
class CaptionCollator:
    """Batches for captioners.

    Attributes:
        mean: channel means of the image processor.
        std: channel standard deviations of the image processor.
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `pixel_values` or `image_features`, `labels` padded with -100, and `place_masks` with masks."""
        if "image_features" in samples[0]:
            batch = {"image_features": stacked([sample["image_features"] for sample in samples])}
        else:
            batch = {"pixel_values": normalise([sample["picture"] for sample in samples], self.mean, self.std)}
        batch["labels"] = pad_labels([sample["labels"] for sample in samples])
        if "mask" in samples[0]:
            batch["place_masks"] = place_masks([sample["mask"] for sample in samples])
        if "row" in samples[0]:
            batch["rows"] = torch.tensor([sample["row"] for sample in samples])
        return batch


def pad_labels(sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return token sequences as `(batch, longest)`, filled up with the label that the loss leaves out."""
    labels = torch.full((len(sequences), max(map(len, sequences))), IGNORED_LABEL)
    for row, sequence in enumerate(sequences):
        labels[row, : len(sequence)] = torch.tensor(sequence)
    return labels
