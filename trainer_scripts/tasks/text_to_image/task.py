"""Pictures drawn from texts."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import Trainer, TrainerCallback

from dataset_builder.engines.ranks import is_main
from dataset_builder.messages import echo
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.scores import Score
from trainer_scripts.features.frozen import Frozen
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.tasks.common.task import TrainingData
from trainer_scripts.tasks.common.trainer import AveragedWeights
from trainer_scripts.tasks.text_to_image import stored, training
from trainer_scripts.tasks.text_to_image.drawing import DrawingTask, mean_score
from trainer_scripts.tasks.text_to_image.grid import PictureGrid
from trainer_scripts.tasks.text_to_image.samples import (
    PromptSamples,
    prompt_source,
    row_prompts,
    varied_samples,
)

LOSS = mean_score(
    "denoising_loss",
    "mean squared error of what the denoiser predicts, weighted as in training, at one random step per row, which is "
    "the same in each evaluation",
    math.inf,
)


class TextToImageTask(DrawingTask):
    """Latent diffusion: the denoiser of a pipeline, all of it or by adapters, learns the pictures of a data set."""

    name = "text_to_image"
    selection_metric = LOSS.name
    architectures = ("StableDiffusionPipeline", "StableDiffusionXLPipeline", "PixArtAlphaPipeline")

    adapt = staticmethod(training.adapt)

    def build(self, configuration: Configuration, data: TrainingData) -> tuple[Any, Any]:
        """Return the denoiser and what saves its pipeline."""
        model, writer = training.build(configuration, data)
        distinct = {prompt for prompts in row_prompts(data.train, *writer.prompts) for prompt in prompts}
        unread = model.conditions.unread(distinct)
        if unread and is_main():
            echo(f"{unread:,} of {len(distinct):,} prompts are longer than the text encoder reads, which cuts them")
        return model, writer

    def training_samples(self, configuration: Configuration, data: TrainingData, processor: Any) -> PromptSamples:
        """Return the varied samples of the training split."""
        prompts = row_prompts(data.train, *processor.prompts)
        return varied_samples(configuration, data.train, prompts, processor.size)

    def evaluation_samples(self, processor: Any, table: Table) -> PromptSamples:
        """Return samples that are never varied, each with its first prompt."""
        return PromptSamples(table, row_prompts(table, *processor.prompts), processor.size)

    @contextmanager
    def keep_features(self, configuration: Configuration, trainer: Trainer) -> Iterator[Frozen]:
        """Let the samples carry stored latents and text states while a trainer trains."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        was_training = model.training
        model.eval()
        reasons = stored.store(configuration, model, (trainer.train_dataset, trainer.eval_dataset))
        model.train(was_training)
        yield Frozen(tuple({"image", "text"} - set(reasons)), reasons)

    def callbacks(
        self, configuration: Configuration, data: TrainingData, model: Any, averaged: AveragedWeights | None
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
