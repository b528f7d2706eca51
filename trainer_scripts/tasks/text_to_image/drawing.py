"""What all tasks share whose models make pictures."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from dataset_builder.columns import IMAGE
from dataset_builder.errors import BadInputError
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.lines import Line
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import Score
from trainer_scripts.settings.arguments import Configuration, DataArguments
from trainer_scripts.tasks.common.items import Item, PredictionOptions
from trainer_scripts.tasks.common.task import (
    Outputs,
    SavedModel,
    Scored,
    ScoredModels,
    ScoringOptions,
    Task,
)
from trainer_scripts.tasks.common.trainer import FlavourTrainer
from trainer_scripts.tasks.text_to_image.samples import collate

DRAWS = "a pipeline that draws pictures answers no table"
REMEDY = "draw with `flavour-sd build --pipeline FOLDER`, or with diffusers"


def mean_score(name: str, definition: str, highest: float) -> Score:
    """Return the score that is the mean of what a model returns for each row; lower is better."""
    return Score(
        name,
        f"{definition}; lower is better",
        rows=lambda _, values: np.stack([values, np.ones_like(values)], axis=-1),
        formula=lambda sums: sums[..., 0] / sums[..., 1],
        greater_is_better=False,
        highest=highest,
    )


class DenoiserTrainer(FlavourTrainer):
    """Trainer whose checkpoints hold the weights that training changes, in a file that safetensors can write."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # Convolutions lie channels last in memory, and files hold them as they are numbered.
        state = self.accelerator.unwrap_model(self.model).state_dict() if state_dict is None else state_dict
        super()._save(output_dir, {name: value.contiguous() for name, value in state.items()})


class Writer(ABC):
    """Saves a model where other tasks save a processor, in checkpoints and in the end.

    Attributes:
        size: height and width of the pictures in pixels.
        text_column, image_column: columns that were read; the trainer sets them.
    """

    tokenizer: Any = None
    image_processor: Any = None

    def __init__(self, size: int):
        self.size = size
        self.text_column: str | None = None
        self.image_column: str | None = None

    @abstractmethod
    def save_pretrained(self, folder: Path) -> None:
        """Write the model, and beside it what the card tells."""


class DrawingTask(Task):
    """What all tasks share whose models make pictures: they learn pictures, and answer no rows of a table."""

    label_column = IMAGE
    metric = ""
    trainer_class = DenoiserTrainer
    has_labels = False

    def name_labels(self, rows: datasets.Dataset, column: str, arguments: DataArguments) -> list[str]:
        """Return no labels: pictures are what is learned."""
        return []

    def read_labels(
        self, rows: datasets.Dataset, column: str, names: Sequence[str], ids: Sequence[str], where: str
    ) -> np.ndarray:
        """Return nothing in particular: the pictures themselves are read as they are needed."""
        return np.zeros(len(ids), dtype=np.int64)

    def collator(self, processor: Any, classes: int, configuration: Configuration | None = None) -> Any:
        """Return the collator."""
        return collate

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the losses as they are."""
        return logits

    def answers(self, model: SavedModel, table: Table, batch_size: int, name: str = "") -> Predictions:
        """Refuse: pictures are no answers to rows."""
        raise BadInputError(f"{model.source}: {DRAWS}; {REMEDY}")

    def outputs(self, model: SavedModel, table: Table, options: ScoringOptions) -> Outputs:
        """Refuse: see `answers`."""
        raise BadInputError(f"{model.source}: {DRAWS}; {REMEDY}")

    def baselines(self, compared: ScoredModels) -> list[Line]:
        """Return nothing."""
        return []

    def changes(self, model: SavedModel, table: Table, batch_size: int) -> Iterator[tuple[str, Predictions]]:
        """Yield nothing."""
        yield from ()

    def score(self, model: SavedModel, compared: ScoredModels, out: Path, options: ScoringOptions) -> Scored:
        """Refuse: see `answers`."""
        raise BadInputError(f"{model.source}: {DRAWS}; {REMEDY}")

    def predict(self, model: SavedModel, items: Sequence[Item], out: Path, options: PredictionOptions) -> str:
        """Refuse: see `answers`."""
        raise BadInputError(f"{model.source}: {DRAWS}; {REMEDY}")


def refuse_others(configuration: Configuration, task: str, modality: str) -> None:
    """Raise BadInputError for an option of other models that would do nothing here."""
    model, data, training = configuration.model, configuration.data, configuration.training
    idle = {
        "model_name_or_path (it is --pipeline here)": model.model_name_or_path,
        "text_encoder": model.text_encoder,
        "image_encoder": model.image_encoder,
        "init_image_encoder": model.init_image_encoder,
        "vision_config": model.vision_config,
        "freeze_text": model.freeze_text,
        "freeze_image": model.freeze_image,
        "streaming": data.streaming,
        "mixup_alpha": data.mixup_alpha,
        "class_crops": data.class_crops,
        "balanced_sampling": training.balanced_sampling,
        "class_weights": training.class_weights,
        "soup": training.soup,
        "fsdp": training.fsdp,
        "deepspeed": training.deepspeed,
    }
    for name, value in idle.items():
        if value:
            raise BadInputError(f"{name} is for other tasks, and {task} does not read it; leave it out")
    if model.modality != modality:
        what = "texts and pictures" if modality == "fusion" else "pictures alone"
        raise BadInputError(f"modality {model.modality}: {task} reads {what}; give --modality {modality}")
