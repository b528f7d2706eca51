"""What happens around training steps: the epoch of the augmentation, averaged weights, a plain record of the run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

AVERAGED_WEIGHTS = "averaged.safetensors"


class EpochOfSamples(TrainerCallback):
    """Tells the training samples which epoch it is, so that their random variation is new in each."""

    def __init__(self, samples: Any):
        self._samples = samples

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch; one that is resumed in its middle keeps its number."""
        # Just after an epoch's last step the fraction may end a rounding error below the whole number.
        self._samples.epoch = int((state.epoch or 0) + 1e-6)


class LinePerEvaluation(TrainerCallback):
    """Prints one line per evaluation: step, training loss, the score that chooses the checkpoint."""

    def __init__(self, metric: str):
        self._metric = metric
        self._loss = "-"  # until the first one is logged
        self._training = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remember the training loss; print an evaluation."""
        logs = logs or {}
        self._loss = f"{logs['loss']:.4f}" if "loss" in logs else self._loss
        if self._training and self._metric in logs and state.is_world_process_zero:
            print(
                f"step {state.global_step}/{state.max_steps}  epoch {state.epoch:.1f}  loss {self._loss}  "
                f"{self._metric} {logs[self._metric]:.4f}  eval_loss {logs['eval_loss']:.4f}",
                flush=True,
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say no more: what is evaluated now is the checkpoint that was chosen, at whatever step that was."""
        self._training = False


class AveragedWeights(TrainerCallback):
    """Exponential moving average of the weights (Polyak & Juditsky 1992), saved beside each checkpoint.

    Args:
        decay: share of the old average that a step keeps; early steps keep less, (1 + step) / (10 + step).
    """

    def __init__(self, decay: float):
        self.decay = decay
        self._average: dict[str, torch.Tensor] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start from the weights, or from the average of the checkpoint that is resumed."""
        saved = checkpoint_folder(args, state) / AVERAGED_WEIGHTS
        current = _floating(kwargs["model"])
        if state.global_step > 0 and saved.is_file():
            loaded = load_file(saved)
            self._average = {name: loaded[name].to(value) for name, value in current.items()}
        else:
            self._average = {name: value.clone() for name, value in current.items()}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the average a little towards the weights."""
        keep = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        current = _floating(kwargs["model"])
        torch._foreach_lerp_([self._average[name] for name in current], list(current.values()), 1 - keep)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the average into the checkpoint."""
        path = checkpoint_folder(args, state) / AVERAGED_WEIGHTS
        if args.should_save and path.parent.is_dir():
            partial = path.with_suffix(".partial")
            save_file({name: value.contiguous() for name, value in self._average.items()}, partial)
            partial.replace(path)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the average in the model: that of the best checkpoint where the best is loaded, else the last one."""
        average = self._average
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            average = load_file(Path(state.best_model_checkpoint) / AVERAGED_WEIGHTS)
        _assign(kwargs["model"], average)
        self._average = {}

    @contextmanager
    def in_place(self, model: torch.nn.Module) -> Iterator[None]:
        """Put the average into the model for a while, then the weights back."""
        if not self._average:
            yield
            return
        weights = {name: value.clone() for name, value in _floating(model).items()}
        _assign(model, self._average)
        try:
            yield
        finally:
            _assign(model, weights)


def checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Return the folder of the checkpoint at the current step."""
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _floating(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return all floating-point weights and buffers; running statistics are averaged like weights."""
    return {name: value.detach() for name, value in model.state_dict().items() if value.is_floating_point()}


def _assign(model: torch.nn.Module, values: dict[str, torch.Tensor]) -> None:
    state = model.state_dict()
    for name, value in values.items():
        state[name].copy_(value)
