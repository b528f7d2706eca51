"""Callbacks of training: the epoch of the samples, one line per evaluation, and the position in a stream."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from dataset_builder.messages import echo
from dataset_builder.progress import duration
from trainer_scripts.data.streaming import StreamSamples
from trainer_scripts.tasks.common.trainer import checkpoint_folder
from trainer_scripts.training.time_budget import TimeBudget

POSITION = "stream-{rank}.json"


class EpochOfSamples(TrainerCallback):
    """Sets the epoch of the training samples, so that their random variation is new in each epoch."""

    def __init__(self, samples: Any):
        self._samples = samples

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Set the epoch; an epoch that is resumed in its middle keeps its number."""
        # After the last step of an epoch the fraction may lie a rounding error below the whole number.
        self._samples.epoch = int((state.epoch or 0) + 1e-6)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Log the loss of each epoch too: short epochs end before `logging_steps`, and curves are drawn by epoch."""
        control.should_log = True


class TrainingLines(TrainerCallback):
    """Prints a line at every logged loss: step, loss, rate, time left; and one per evaluation with the chosen score.

    Args:
        metric: name of the chosen score.
        budget: that ends training before the last step, if any.
    """

    def __init__(self, metric: str, budget: TimeBudget | None = None):
        self._metric = metric
        self._budget = budget
        self._loss = "-"  # until the first one is logged
        self._training = True
        self._begun: tuple[float, int] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Note when and where training begins."""
        self._begun = (time.monotonic(), state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Print loss and rate, or an evaluation."""
        logs = logs or {}
        self._loss = f"{logs['loss']:.4f}" if "loss" in logs else self._loss
        if not self._training or not state.is_world_process_zero:
            return
        where = f"step {state.global_step}/{state.max_steps}  epoch {state.epoch or 0:.1f}  loss {self._loss}"
        if self._metric in logs:
            echo(f"{where}  {self._metric} {logs[self._metric]:.4f}  eval_loss {logs['eval_loss']:.4f}")
        elif "loss" in logs:
            rate = f"  rate {logs['learning_rate']:.2e}" if "learning_rate" in logs else ""
            echo(f"{where}{rate}{self._left(state)}")

    def _left(self, state: TrainerState) -> str:
        """Return the speed, and the time that the steps that are left will take at it or are given."""
        if self._begun is None or state.global_step <= self._begun[1]:
            return ""
        speed = (state.global_step - self._begun[1]) / max(time.monotonic() - self._begun[0], 1e-9)
        left = (state.max_steps - state.global_step) / speed
        if self._budget is not None:
            left = min(left, self._budget.seconds_left())
        return f"  {speed:.2g} steps/s, {duration(left)} left"

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Stop printing: evaluations after training are of the chosen checkpoint, not of the current step."""
        self._training = False


class RemoveReplaced(TrainerCallback):
    """Removes the run that this one replaces, once this one has a checkpoint to go on from.

    Args:
        folder: where the replaced run is kept.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Remove it; the checkpoint has been written whole."""
        if args.should_save and self._folder.exists():
            shutil.rmtree(self._folder, ignore_errors=True)


class StreamPosition(TrainerCallback):
    """Saves the position of each process in the stream with every checkpoint, and restores it."""

    def __init__(self, samples: StreamSamples):
        self._samples = samples

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Restore the position of the checkpoint that is resumed."""
        if state.global_step == 0:
            return
        path = self._path(args, state)
        if not path.is_file():
            raise BadInputError(
                f"{path.parent} has no {path.name}; resume a streaming run with the number of processes it had"
            )
        self._samples.load_state_dict(json.loads(path.read_text(encoding="utf-8")))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Save the position of this process."""
        path = self._path(args, state)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The first process writes last, so its file shows that the files of all processes are complete.
        for turn in (False, True):
            if (args.process_index == 0) is turn:
                write_json(path, self._samples.state_dict())
            PartialState().wait_for_everyone()

    @staticmethod
    def _path(args: TrainingArguments, state: TrainerState) -> Path:
        return checkpoint_folder(args, state) / POSITION.format(rank=args.process_index)
