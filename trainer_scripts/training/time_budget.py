"""Training within a number of minutes: the schedule of the learning rate fits the time, and training stops in it."""

import json
import time
from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from dataset_builder.files import write_json
from trainer_scripts.tasks.common.trainer import checkpoint_folder

SPENT = "time_budget.json"


class TimeBudget(TrainerCallback):
    """Stops training when its time is up, after one more evaluation, so that the best model so far is returned.

    The time that the last evaluation and the loading of the best model will take is kept free, as far as earlier
    evaluations tell it. A resumed run goes on with the time that is left. At least one step is taken.

    Args:
        minutes: for features, training and evaluations together.

    Attributes:
        share: of the time that is gone, from 0 to 1; the same in all processes.
    """

    def __init__(self, minutes: float):
        self._minutes = minutes
        self._before = 0.0  # seconds that an interrupted run has used
        self.share = 0.0
        self._started = time.monotonic()
        self._paused = self._started  # when the last step or epoch ended
        self._evaluation = 0.0  # seconds of the longest one

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Count the time that the run used before it was interrupted."""
        kept = checkpoint_folder(args, state) / SPENT
        if state.global_step > 0 and kept.is_file():
            self._before = float(json.loads(kept.read_text(encoding="utf-8"))["seconds"])
        self._look(args)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Write the time that is gone into the checkpoint."""
        if args.should_save:
            write_json(checkpoint_folder(args, state) / SPENT, {"seconds": self._gone()})

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Stop when the time is up."""
        self._paused = time.monotonic()
        self._look(args)
        if self.share >= 1:
            control.should_training_stop = True
            # At the end of an epoch the Trainer evaluates by itself, and twice would be once too often.
            if args.eval_strategy == IntervalStrategy.STEPS:
                control.should_evaluate = control.should_save = control.should_log = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Remember when an evaluation may begin."""
        self._paused = time.monotonic()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Measure the evaluation."""
        self._evaluation = max(self._evaluation, time.monotonic() - self._paused)

    def seconds_left(self) -> float:
        """Return the seconds that are left, 0 when the time is up."""
        return max(0.0, 60 * self._minutes - self._gone())

    def schedule(self, scheduler: LRScheduler, steps: int) -> None:
        """Let the rates of a schedule follow the time where it is ahead of the steps.

        Args:
            scheduler: as transformers makes it; one that follows a score is left as it is.
            steps: number of steps that it was made for.
        """
        if isinstance(scheduler, LambdaLR):
            scheduler.lr_lambdas = [self._timed(rate, steps) for rate in scheduler.lr_lambdas]

    def _timed(self, rate: Callable[[int], float], steps: int) -> Callable[[int], float]:
        # A plain function, which the state of the scheduler leaves out.
        def timed(step: int) -> float:
            return rate(max(step, round(self.share * steps)))

        return timed

    def _gone(self) -> float:
        return self._before + time.monotonic() - self._started

    def _look(self, args: TrainingArguments) -> None:
        # After training the chosen weights are evaluated once more.
        left_free = min(2 * self._evaluation, 0.5 * 60 * self._minutes)
        share = min(1.0, self._gone() / max(60 * self._minutes - left_free, 1e-9))
        if args.world_size > 1:
            # Clocks differ, and all processes must take the same steps at the same rate.
            shared = torch.tensor([share], device=args.device)
            torch.distributed.broadcast(shared, 0)
            share = float(shared)
        self.share = share
