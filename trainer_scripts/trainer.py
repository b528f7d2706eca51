"""The HF Trainer with what classification needs of its own: targets, learning rates per part, balanced sampling."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import Trainer

from trainer_scripts.callbacks import AveragedWeights
from trainer_scripts.losses import TargetOptions

Loss = Callable[..., torch.Tensor]


class BalancedSampler(Sampler[int]):
    """Draws rows with replacement so that classes come equally often; the draw follows from seed and epoch."""

    def __init__(self, weights: torch.Tensor, seed: int):
        self.weights = weights.double()
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the draw of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        yield from torch.multinomial(self.weights, len(self.weights), replacement=True, generator=generator).tolist()


def row_weights(labels: np.ndarray) -> torch.Tensor:
    """Return the sampling weight of each row: inverse frequency of its class, or of its rarest label."""
    labels = np.asarray(labels)
    if labels.ndim == 1:
        return torch.from_numpy(1 / np.bincount(labels)[labels])
    inverse = 1 / np.maximum(labels.sum(axis=0), 1)
    return torch.from_numpy(np.where(labels.any(axis=1), (labels * inverse).max(axis=1), inverse.min()))


class FlavourTrainer(Trainer):
    """Trainer for classification and multi-label models.

    Args:
        loss: `(logits, labels, targets, weights, options) -> loss`.
        target_options: softening and class weights of the training targets; evaluation uses none.
        learning_rates: parameter-name prefix -> learning rate; all other parameters get `learning_rate`.
        sampling_weights: weight per training row, or None for plain shuffling.
        averaged: moving average of the weights that evaluation uses, or None.
        **kwargs: as for `transformers.Trainer`.
    """

    def __init__(
        self,
        *,
        loss: Loss,
        target_options: TargetOptions,
        learning_rates: dict[str, float] | None = None,
        sampling_weights: torch.Tensor | None = None,
        averaged: AveragedWeights | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        # The loss is a mean over the batch, so the Trainer must divide by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        self._loss = loss
        self._target_options = target_options
        self._learning_rates = learning_rates or {}
        self._sampling_weights = sampling_weights
        self._averaged = averaged
        if averaged is not None:
            self.add_callback(averaged)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the loss, and with `return_outputs` the logits beside it."""
        inputs = dict(inputs)
        labels, targets, weights = inputs.pop("labels"), inputs.pop("targets", None), inputs.pop("weights", None)
        logits = model(**inputs).logits.float()
        if model.training:
            loss = self._loss(logits, labels, targets, weights, self._target_options)
        else:
            loss = self._loss(logits, labels, None, None, TargetOptions())
        return (loss, {"loss": loss, "logits": logits}) if return_outputs else loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate, with the averaged weights where there are any."""
        if self._averaged is None:
            return super().evaluate(*args, **kwargs)
        with self._averaged.in_place(self.model):
            return super().evaluate(*args, **kwargs)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer with a learning rate per part of the model, without decay of biases and norms."""
        if self.optimizer is not None or not self._learning_rates:
            return super().create_optimizer(model)
        chosen = self.model if model is None else model
        decayed = set(self.get_decay_parameter_names(chosen))
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for name, parameter in chosen.named_parameters():
            if parameter.requires_grad:
                decay = self.args.weight_decay if name in decayed else 0.0
                groups.setdefault((self._rate_of(name), decay), []).append(parameter)
        optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, chosen)
        self.optimizer = optimizer_class(
            [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()],
            **options,
        )
        return self.optimizer

    def _rate_of(self, name: str) -> float:
        for prefix, rate in self._learning_rates.items():
            if name.removeprefix("module.").startswith(prefix):
                return rate
        return self.args.learning_rate

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        if self._sampling_weights is None:
            return super()._get_train_sampler(train_dataset)
        return BalancedSampler(self._sampling_weights, self.args.data_seed or self.args.seed)
