"""Callbacks of training: the epoch of the samples, one line per evaluation, and the position in a stream."""

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from dataset_builder.messages import echo
from trainer_scripts.data.streaming import StreamSamples
from trainer_scripts.tasks.common.trainer import checkpoint_folder

POSITION = "stream-{rank}.json"


class EpochOfSamples(TrainerCallback):
    """Sets the epoch of the training samples, so that their random variation is new in each epoch."""

    def __init__(self, samples: Any):
        self._samples = samples

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch; an epoch that is resumed in its middle keeps its number."""
        # After the last step of an epoch the fraction may lie a rounding error below the whole number.
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
            echo(
                f"step {state.global_step}/{state.max_steps}  epoch {state.epoch:.1f}  loss {self._loss}  "
                f"{self._metric} {logs[self._metric]:.4f}  eval_loss {logs['eval_loss']:.4f}",
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
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

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Remove it; the checkpoint has been written whole."""
        if args.should_save and self._folder.exists():
            shutil.rmtree(self._folder, ignore_errors=True)


class StreamPosition(TrainerCallback):
    """Saves the position of each process in the stream with every checkpoint, and restores it."""

    def __init__(self, samples: StreamSamples):
        self._samples = samples

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
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

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
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
