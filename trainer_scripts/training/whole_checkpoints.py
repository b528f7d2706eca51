"""Checkpoint folders that are models of their own: with processor, configuration, scores so far, card and code."""

import json
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dataset_builder.files import write_json
from model_cards.cards import write_model_card
from model_cards.runs import CONFIGURATION
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.evaluation.predictions import METRICS
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.tasks.common.trainer import checkpoint_folder
from trainer_scripts.training.vocabulary_record import VOCABULARY_SOURCE


class WholeCheckpoint(TrainerCallback):
    """Writes beside the weights of each checkpoint what a finished run has, so that a stopped run can be used.

    The Trainer itself saves weights, config and code.

    Args:
        configuration: of the run.
        processor: of the model.
        vocabulary: record of the texts that the tokenizer was trained on, or None.
        results: scores of the last evaluation -> content of `metrics.json`.
    """

    def __init__(
        self,
        configuration: Configuration,
        processor: FlavourProcessor,
        vocabulary: dict[str, Any] | None,
        results: Callable[[dict[str, float]], dict[str, Any]],
    ):
        self._configuration = configuration
        self._processor = processor
        self._vocabulary = vocabulary
        self._results = results

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Complete the checkpoint that has just been written."""
        folder = checkpoint_folder(args, state)
        if not args.should_save or not folder.is_dir():
            return
        self._processor.save_pretrained(folder)
        (folder / CONFIGURATION).write_text(self._configuration.as_yaml(), encoding="utf-8")
        if self._vocabulary is not None:
            (folder / VOCABULARY_SOURCE).write_text(json.dumps(self._vocabulary), encoding="utf-8")
        evaluated = next((line for line in reversed(state.log_history) if "eval_loss" in line), None)
        if evaluated is not None:
            write_json(folder / METRICS, self._results(evaluated))
        write_model_card(folder)
