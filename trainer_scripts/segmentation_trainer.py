"""The Trainer of segmenters: evaluates masks at full size, counted over the whole selection split."""

from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from trainer_scripts.segmentation import MaskSamples
from trainer_scripts.segmentation_evaluation import answer
from trainer_scripts.trainer import FlavourTrainer


class SegmentationTrainer(FlavourTrainer):
    """Trainer whose checkpoint is chosen by scores of all pictures together, never by a mean of batches.

    Args:
        **kwargs: as for `FlavourTrainer`; `eval_dataset` must be `MaskSamples`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        samples, config = self.eval_dataset, self.accelerator.unwrap_model(self.model).config
        if isinstance(samples, MaskSamples) and config.class_map is not None:
            samples.read_as(config.class_map, config.num_labels)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Score the model on all rows; every process of a distributed run does so for itself, with the same result."""
        samples: Any = dataloader.dataset
        model = self.accelerator.unwrap_model(self.model)
        found = answer(model, samples, self.args.per_device_eval_batch_size)
        names = [model.config.id2label[number] for number in sorted(model.config.id2label)]
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.scores(names).items()}
        metrics[f"{metric_key_prefix}_loss"] = found.loss
        return EvalLoopOutput(np.empty(0), None, metrics, len(samples))
