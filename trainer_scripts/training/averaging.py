"""The mean of the best checkpoints' weights, kept where it scores higher on the rows that choose the checkpoint.

Model soups, Wortsman et al. 2022 ("Model soups: averaging weights of multiple fine-tuned models improves accuracy
without increasing inference time").
"""

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import SAFE_WEIGHTS_NAME

from trainer_scripts.tasks.common.trainer import AVERAGED_WEIGHTS, checkpoint_folder

FOLDER = "best-weights"
WEIGHTS = (AVERAGED_WEIGHTS, SAFE_WEIGHTS_NAME)


class BestWeights(TrainerCallback):
    """Keeps the weights of the best checkpoints when the Trainer removes these.

    Args:
        number: how many.
        metric: name of the score that chooses, with its prefix `eval_`.
        greater_is_better: its direction.
        folder: of the run.
    """

    def __init__(self, number: int, metric: str, greater_is_better: bool, folder: Path):
        self._number = number
        self._metric = metric
        self._sign = 1.0 if greater_is_better else -1.0
        self._folder = folder / FOLDER

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Forget the weights of an earlier run; a run that is resumed goes on with its own."""
        if state.global_step == 0 and args.should_save:
            self.finish()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Keep the weights of this checkpoint while they are among the best."""
        # The moving average is what is evaluated, where there is one.
        folder = checkpoint_folder(args, state)
        weights = next((path for name in WEIGHTS if (path := folder / name).is_file()), None)
        # Weights in several files belong to models that are too large to be averaged here.
        if not args.should_save or weights is None:
            return
        self._folder.mkdir(exist_ok=True)
        _link(weights, self._file(state.global_step))
        for worse in self.best_steps(state)[self._number :]:
            self._file(worse).unlink(missing_ok=True)

    def best_steps(self, state: TrainerState) -> list[int]:
        """Return the steps of the kept checkpoints, the best first; of equal ones the earlier first."""
        scores = {line["step"]: self._sign * line[self._metric] for line in state.log_history if self._metric in line}
        kept = [step for step in scores if self._file(step).is_file()]
        return sorted(kept, key=lambda step: (-scores[step], step))

    def average(self, trainer: Trainer) -> list[int]:
        """Put the mean of the best checkpoints into the model where it scores higher; return the steps of that mean.

        Means of the best two, three, ... are tried. The best single checkpoint stays where none of them is better.

        Args:
            trainer: after training, with the best checkpoint's weights in its model.
        """
        trainer.accelerator.wait_for_everyone()  # until the first process has written its files
        model, steps = trainer.accelerator.unwrap_model(trainer.model), self.best_steps(trainer.state)[: self._number]
        if len(steps) < 2:
            return []
        weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        kind, chosen = {name: value.dtype for name, value in weights.items()}, []
        best = self._score(trainer)
        total: dict[str, Any] = {}
        for number, step in enumerate(steps, start=1):
            for name, value in load_file(self._file(step)).items():
                # Summed in double precision; whole numbers, such as counts of batches, have no mean.
                if value.is_floating_point():
                    total[name] = total.get(name, 0) + value.double()
            if number == 1:
                continue
            mean = {name: (value / number).to(kind[name]) for name, value in total.items() if name in kind}
            model.load_state_dict(mean, strict=False)
            score = self._score(trainer)
            if score > best:
                best, chosen, weights = score, steps[:number], mean
        model.load_state_dict(weights, strict=False)
        return chosen

    def finish(self) -> None:
        """Remove the kept weights."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _score(self, trainer: Trainer) -> float:
        return self._sign * trainer.evaluate()[self._metric]

    def _file(self, step: int) -> Path:
        return self._folder / f"step-{step}.safetensors"


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, which outlives the first; on a file system without links it is copied."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
