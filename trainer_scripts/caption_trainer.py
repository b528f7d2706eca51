"""The Trainer of captioners: evaluates by generating, and may keep the visual side fixed for the first epochs."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from trainer_scripts.caption_evaluation import all_scores, caption_table
from trainer_scripts.caption_rewards import SelfCritical
from trainer_scripts.caption_scores import CiderD
from trainer_scripts.caption_truth import naming_scores, visible_names
from trainer_scripts.captioning import CaptionSamples
from trainer_scripts.trainer import FlavourTrainer, agreed


class FrozenImageFirst(TrainerCallback):
    """Keeps the image backbone fixed and in evaluation mode for the first epochs, then lets it train.

    Args:
        epochs: how long.
    """

    def __init__(self, epochs: float):
        self.epochs = epochs
        self._frozen_by_config = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Freeze, unless a resumed run is past it."""
        self._frozen_by_config = kwargs["model"].config.freeze_image
        self._set(kwargs["model"], (state.epoch or 0) < self.epochs)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let go once the time has come."""
        if kwargs["model"].config.freeze_image and (state.epoch or 0) + 1e-6 >= self.epochs:
            self._set(kwargs["model"], False)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the model as its recipe describes it."""
        self._set(kwargs["model"], False)

    def _set(self, model: Any, frozen: bool) -> None:
        if self._frozen_by_config:
            return
        # The model itself keeps what its config freezes in evaluation mode.
        model.config.freeze_image = frozen
        model.image_encoder.model.requires_grad_(not frozen)
        if model.training:
            model.train()


class CaptionTrainer(FlavourTrainer):
    """Trainer whose evaluation writes a caption for every picture and scores it against all captions of the picture.

    Args:
        **kwargs: as for `FlavourTrainer`; `eval_dataset` must be `CaptionSamples`.
    """

    def __init__(self, **kwargs: Any):
        arguments = kwargs["args"]
        if arguments.frozen_image_epochs > 0:
            # Gradients of the fixed part are absent at first, which DDP otherwise takes for a fault.
            arguments.ddp_find_unused_parameters = True
        super().__init__(**kwargs)
        self._ciders: dict[int, CiderD] = {}
        if arguments.frozen_image_epochs > 0:
            self.add_callback(FrozenImageFirst(arguments.frozen_image_epochs))
        self._self_critical = None
        if self.args.self_critical_draws:
            samples: Any = self.train_dataset
            self._self_critical = SelfCritical(
                samples.references(), samples.processor.tokenizer, self.args.self_critical_draws
            )
            # This loss is a mean over the batch, which the Trainer divides by accumulated batches.
            self.model_accepts_loss_kwargs = False

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch: of the given words, or of drawn captions where training is self-critical."""
        if self._self_critical is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        captioner = self.accelerator.unwrap_model(model)
        return self._self_critical.loss(model, captioner, inputs["pixel_values"], inputs["rows"])

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Score the model on all rows; every process of a distributed run does so for itself."""
        samples: Any = dataloader.dataset
        assert isinstance(samples, CaptionSamples)
        model = self.accelerator.unwrap_model(self.model)
        references = list(samples.table.labels)
        cider = self._ciders.setdefault(id(samples), CiderD(references))
        captions, expected = caption_table(model, samples, self.args.per_device_eval_batch_size)
        scores = all_scores(captions, expected, references, cider)
        visible = visible_names(samples.table)
        if visible is not None:
            scores |= naming_scores(captions, visible)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        metrics[f"{metric_key_prefix}_loss"] = scores["cross_entropy"]
        return EvalLoopOutput(np.empty(0), None, agreed(metrics), len(samples.table))
