"""Rows to samples to batches: a picture or the latents of it, and one of its texts or what the pipeline reads of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from dataset_builder.columns import INGREDIENTS
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.prompts import render
from trainer_scripts.data.pictures import Pictures, augmentation, normalise, varies
from trainer_scripts.data.samples import PictureSamples, RowFeatures, sample_seed, stacked, varied
from trainer_scripts.data.table import Table
from trainer_scripts.settings.arguments import Configuration

# Pipelines take pictures in -1..1.
MIDDLE, SPREAD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class SquarePicture:
    """The middle square of a picture at `side` pixels, as fine-tuning scripts of diffusers prepare it."""

    side: int

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        """Return `(3, side, side)` uint8."""
        pixels = functional.pil_to_tensor(picture)
        small = functional.resize(pixels, [self.side], interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
        return functional.center_crop(small, [self.side, self.side])


def row_prompts(table: Table, text_column: str, template: str | None) -> list[list[str]]:
    """Return the prompts of each row: its text, each of its captions, or those of a template.

    Raises:
        BadInputError: a row has no text, or the template needs ingredients that the data do not have.
    """
    texts = table.rows[text_column][:]
    if template is None:
        found = [[str(each) for each in (value if isinstance(value, list) else [value])] for value in texts]
    else:
        if INGREDIENTS not in table.rows.column_names:
            raise BadInputError(
                f"prompt_template {template!r} names ingredients, and the rows have no column {INGREDIENTS!r}; map it "
                "with columns, or leave prompt_template out"
            )
        lines = table.rows[INGREDIENTS][:]
        found = [
            [render(template, " ".join(text) if isinstance(text, list) else str(text), list(each or ()))]
            for text, each in zip(texts, lines, strict=True)
        ]
    for row_id, prompts in zip(table.ids, found, strict=True):
        if not any(prompt.strip() for prompt in prompts):
            raise BadInputError(f"row {row_id}: {text_column} is empty; remove the row, or name another --text_column")
    return [[prompt for prompt in prompts if prompt.strip()] for prompts in found]


class PromptSamples(PictureSamples):
    """Samples of one table; the choice of a caption and of empty prompts follows from seed, epoch and row alone.

    Args:
        table: the rows.
        prompts: of each row.
        side: of the pictures in pixels.
        augment: random variation of the pictures; None for none.
        text_dropout: share of the rows that are learned without their prompt, so that guidance has something to compare
            with (Ho & Salimans 2022).
        choose: whether each epoch takes another of several prompts; else the first counts.
        seed: of the run.
    """

    def __init__(
        self,
        table: Table,
        prompts: Sequence[Sequence[str]],
        side: int,
        augment: v2.Transform | None = None,
        text_dropout: float = 0.0,
        choose: bool = False,
        seed: int = 0,
    ):
        self.table = table
        self.epoch = 0
        self.prompts = prompts
        self.pictures = Pictures(table, SquarePicture(side))
        # States of all prompts in a row, the empty one last; where they are set, samples carry them.
        self.text_features: RowFeatures | None = None
        self._first = np.cumsum([0, *map(len, prompts)])
        self._augment = augment
        self._text_dropout = text_dropout
        self._choose = choose
        self._seed = seed
        if augment is not None:
            self.varies, self.variation = True, f"seed {seed}: {augment}"

    def __len__(self) -> int:
        return len(self.table)

    def all_prompts(self) -> list[str]:
        """Return the prompts of all rows in a row, and the empty one."""
        return [prompt for each in self.prompts for prompt in each] + [""]

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = sample_seed(self._seed, self.epoch, index)
        chance = np.random.default_rng(draw)
        number = int(chance.integers(len(self.prompts[index]))) if self._choose else 0
        empty = self._text_dropout > 0 and chance.random() < self._text_dropout
        sample: dict[str, Any] = {"draw": draw}
        if self.text_features is not None:
            place = self._first[-1] if empty else self._first[index] + number
            sample["text"] = self.text_features.of(int(place))
        else:
            sample["prompt"] = "" if empty else self.prompts[index][number]
        if self.image_features is not None:
            sample["moments"] = self.image_features.of(index, self.epoch)
        else:
            sample["picture"] = self.picture(index, self.epoch)
        return sample

    def picture(self, index: int, epoch: int, once: bool = False) -> torch.Tensor:
        """Return the uint8 picture of a row, varied as in an epoch; `once` leaves it out of the cache."""
        picture = super().picture(index, epoch, once)
        if self._augment is None:
            return picture
        return varied(picture, self._augment, sample_seed(self._seed, epoch, index))


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a batch as `TrainedDenoiser` takes it."""
    batch: dict[str, Any] = {
        # Read by nobody: the Trainer takes rows without labels for rows to predict.
        "labels": torch.zeros(len(samples), dtype=torch.long),
        "draw": torch.tensor([sample["draw"] for sample in samples]),
    }
    if "moments" in samples[0]:
        batch["moments"] = stacked([sample["moments"] for sample in samples])
    else:
        batch["pixel_values"] = normalise([sample["picture"] for sample in samples], MIDDLE, SPREAD)
    if "text" in samples[0]:
        batch["text"] = stacked([sample["text"] for sample in samples])
    else:
        batch["prompts"] = [sample["prompt"] for sample in samples]
    return batch


def prompt_source(configuration: Configuration) -> tuple[str, str | None]:
    """Return the column that prompts are read from, and the template that makes prompts of it."""
    return configuration.data.text_column, configuration.model.prompt_template


def varied_samples(
    configuration: Configuration, table: Table, prompts: Sequence[Sequence[str]], side: int
) -> PromptSamples:
    """Return samples for training, varied as the configuration says."""
    data, training = configuration.data, configuration.training
    return PromptSamples(
        table,
        prompts,
        side,
        augmentation(data, side) if varies(data) else None,
        training.text_dropout,
        choose=True,
        seed=training.seed,
    )
