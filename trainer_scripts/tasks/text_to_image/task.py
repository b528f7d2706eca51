"""Pictures drawn from texts."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import TrainerCallback

from dataset_builder.columns import IMAGE
from dataset_builder.errors import BadInputError
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.lines import Line
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import Score
from trainer_scripts.features.frozen import Frozen
from trainer_scripts.settings.arguments import Configuration, DataArguments
from trainer_scripts.tasks.common.items import Item, PredictionOptions
from trainer_scripts.tasks.common.task import (
    Outputs,
    SavedModel,
    Scored,
    ScoredModels,
    ScoringOptions,
    Task,
    TrainingData,
)
from trainer_scripts.tasks.text_to_image import stored, training
from trainer_scripts.tasks.text_to_image.grid import PictureGrid
from trainer_scripts.tasks.text_to_image.samples import (
    PromptSamples,
    collate,
    prompt_source,
    row_prompts,
    training_samples,
)
from trainer_scripts.tasks.text_to_image.trainer import DenoiserTrainer

LOSS = Score(
    "denoising_loss",
    "mean squared error of what the denoiser predicts, weighted as in training, at one random step per row, which is "
    "the same in each evaluation; lower is better",
    rows=lambda _, losses: np.stack([losses, np.ones_like(losses)], axis=-1),
    formula=lambda sums: sums[..., 0] / sums[..., 1],
    greater_is_better=False,
    highest=math.inf,
)
DRAWS = "a pipeline that draws pictures answers no table"
REMEDY = "draw with `flavour-sd build --pipeline FOLDER`, or with diffusers"


class TextToImageTask(Task):
    """Latent diffusion: the denoiser of a pipeline, all of it or by adapters, learns the pictures of a data set."""

    name = "text_to_image"
    label_column = IMAGE
    metric = ""
    selection_metric = LOSS.name
    trainer_class = DenoiserTrainer
    has_labels = False
    architectures = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "PixArtAlphaPipeline")

    adapt = staticmethod(training.adapt)

    def build(self, configuration: Configuration, data: TrainingData) -> tuple[Any, Any]:
        """Return the denoiser and what saves its pipeline."""
        return training.build(configuration, data)

    def name_labels(self, rows: datasets.Dataset, column: str, arguments: DataArguments) -> list[str]:
        """Return no labels: pictures are what is learned."""
        return []

    def read_labels(
        self, rows: datasets.Dataset, column: str, names: Sequence[str], ids: Sequence[str], where: str
    ) -> np.ndarray:
        """Return nothing in particular: the pictures themselves are read as they are needed."""
        return np.zeros(len(ids), dtype=np.int64)

    def training_samples(self, configuration: Configuration, data: TrainingData, processor: Any) -> PromptSamples:
        """Return the varied samples of the training split."""
        return training_samples(configuration, data.train, processor.size)

    def evaluation_samples(self, processor: Any, table: Table) -> PromptSamples:
        """Return samples that are never varied, each with its first prompt."""
        return PromptSamples(table, row_prompts(table, *processor.prompts), processor.size)

    def collator(self, processor: Any, classes: int, configuration: Configuration | None = None) -> Any:
        """Return the collator."""
        return collate

    @contextmanager
    def keep_features(self, configuration: Configuration, trainer: Any) -> Iterator[Frozen]:
        """Let the samples carry stored latents and text states while a trainer trains."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        was_training = model.training
        model.eval()
        reasons = stored.store(configuration, model, (trainer.train_dataset, trainer.eval_dataset))
        model.train(was_training)
        yield Frozen(tuple({"image", "text"} - set(reasons)), reasons)

    def callbacks(
        self, configuration: Configuration, data: TrainingData, model: Any, averaged: Any
    ) -> list[TrainerCallback]:
        """Return what draws pictures of selection rows after each evaluation, where the configuration asks for it."""
        given = configuration.training
        if not given.sample_pictures:
            return []
        rows = row_prompts(data.selection.first(given.sample_pictures), *prompt_source(configuration))
        prompts = [prompts[0] for prompts in rows]
        folder = configuration.output_dir
        return [PictureGrid(model, prompts, folder, given.sample_steps, given.sample_guidance, averaged)]

    def save(self, configuration: Configuration, model: Any, processor: Any, results: dict[str, Any]) -> bool:
        """Write the pipeline, or the LoRA weights."""
        processor.finish(configuration.output_dir)
        return True

    def scores(self, label_names: Sequence[str]) -> tuple[Score, ...]:
        """Return the loss of the denoiser, which chooses the checkpoint."""
        return (LOSS,)

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
