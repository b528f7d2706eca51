"""The output folder of a run: whether it is new, interrupted or finished, and the files written at start and end.

A run that is trained anew (`--overwrite`) is moved aside when the new one starts, after everything that can be checked,
and removed when the new one has its first checkpoint. Where the new one ends before, it is moved back.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from dataset_builder.messages import echo, one_line
from model_cards.cards import write_model_card
from model_cards.runs import CONFIGURATION, FORMER_CONFIGURATION, SPREAD, read_configuration
from trainer_scripts.evaluation.predictions import METRICS, read_metrics
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.tasks.common.trainer import AVERAGED_WEIGHTS, megabytes
from trainer_scripts.training.callbacks import POSITION
from trainer_scripts.training.checkpoints import checkpoints, newest_checkpoint, sound_checkpoint
from trainer_scripts.training.longer import is_finished, is_raised, refuse_longer, why_not_longer


@dataclass(frozen=True)
class RunState:
    """State of an output folder.

    Attributes:
        finished: whether the run ended and wrote its results.
        checkpoint: newest complete checkpoint, from which the run is resumed, or None.
        replaced: whether the folder holds a run that the new one replaces.
    """

    finished: bool
    checkpoint: Path | None
    replaced: bool = False


def inspect_run(configuration: Configuration) -> RunState:
    """Return the state of the output folder; nothing in it is changed.

    With `--overwrite` a finished run, or one by another configuration, is trained anew; an interrupted run by the same
    configuration goes on, as without it. A run whose length alone was raised goes on from its last checkpoint, where
    that leads to the weights of a run that was that long from the start.

    Raises:
        BadInputError: the folder holds something else, a run by another configuration, or only damaged checkpoints.
    """
    folder, overwrite = configuration.output_dir, configuration.training.overwrite
    before = read_configuration(folder)
    if not folder.exists() or not any(folder.iterdir()):
        return RunState(False, None)
    if before is None:
        raise BadInputError(f"{folder} is not empty and holds no run; give another --output_dir")
    finished = is_finished(folder, before)
    now = configuration.as_mapping()
    free = {name for name, properties in configuration.options.items() if properties.resumable}
    # A run of an earlier version lacks the options that came since, and had what is their default.
    usual = configuration.defaults()
    differs = (key for key in {*before, *now} - free if before.get(key, usual.get(key)) != now.get(key, usual.get(key)))
    changed = sorted(differs)
    if overwrite and (finished or changed):
        return RunState(False, None, replaced=True)
    longer = bool(changed) and is_raised(before, now, changed)
    if longer and (reason := why_not_longer(configuration)) is not None:
        refuse_longer(configuration, finished, reason)
    if changed and not longer:
        checkpoint = newest_checkpoint(folder)
        lost = f"that interrupted run and its {checkpoint.name}" if checkpoint is not None else "that run"
        raise BadInputError(
            f"{folder} holds a run by another configuration ({', '.join(changed[:4])} differ); give another "
            "--output_dir, or leave these options as they were, or --overwrite true, which trains anew and removes "
            f"{'that finished run' if finished else lost}"
        )
    # Without optimizer and random state nothing can be resumed: such a run begins anew.
    if configuration.training.save_only_model:
        return RunState(finished, None)
    # Callbacks write their files after the Trainer's own, so a checkpoint without them was interrupted.
    needed = [AVERAGED_WEIGHTS] if configuration.training.ema_decay is not None else []
    needed += [POSITION.format(rank=0)] if configuration.data.streaming else []
    found = checkpoints(folder, needed)
    checkpoint, faults = (None, []) if finished and not longer else sound_checkpoint(found)
    if finished and longer and checkpoint is None and not faults:
        refuse_longer(configuration, finished, "its checkpoints are gone")
    if faults and checkpoint is None:
        raise BadInputError(
            f"the run in {folder} cannot go on: {'; '.join(faults)}; going on without it would lead to other weights. "
            "Put the file back, or remove the checkpoint folders to begin anew"
        )
    if faults and configuration.training.process_index == 0:
        echo(one_line(f"{'; '.join(faults)}; the run goes on from {checkpoint}"), sys.stderr)
    return RunState(finished and not longer, checkpoint)


def aside(folder: Path) -> Path:
    """Return where a run is kept while the one that replaces it has no checkpoint yet."""
    folder = folder.resolve()  # "." has no name
    return folder.with_name(f"{folder.name}.replaced")


@contextmanager
def replacing(configuration: Configuration, state: RunState) -> Iterator[None]:
    """Keep the run that a new one replaces until the new one has a checkpoint; a failure before moves it back."""
    folder, kept = configuration.output_dir, aside(configuration.output_dir)
    if not configuration.training.should_save or not (state.replaced or kept.exists()):
        yield
        return
    if state.replaced and kept.exists() and not holds_work(folder):
        shutil.rmtree(folder)  # a run that was killed before its first checkpoint; the one aside is still the last
    elif state.replaced:
        shutil.rmtree(kept, ignore_errors=True)  # replaced by the run that is here now
        folder.rename(kept)
    try:
        yield
    except BaseException:
        if kept.exists() and not holds_work(folder):
            shutil.rmtree(folder, ignore_errors=True)
            kept.rename(folder)
        raise
    shutil.rmtree(kept, ignore_errors=True)


def holds_work(folder: Path) -> bool:
    """Whether a folder holds a finished run or a checkpoint to go on from."""
    return (folder / METRICS).is_file() or newest_checkpoint(folder) is not None


def check_processes(checkpoint: Path, processes: int) -> None:
    """Raise BadInputError unless as many processes resume a checkpoint as wrote it."""
    writers = len(list(checkpoint.glob("rng_state_*.pth"))) or 1  # each of several keeps its random state
    if writers != processes:
        raise BadInputError(
            f"{checkpoint} was written by {writers} processes and {processes} would go on, each step with other rows; "
            f"launch {writers}, or train anew in another --output_dir"
        )


def start_run(configuration: Configuration) -> None:
    """Create the folder and save the configuration in it."""
    folder = configuration.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIGURATION).write_text(configuration.as_yaml(), encoding="utf-8")
    (folder / FORMER_CONFIGURATION).unlink(missing_ok=True)  # of a run that is resumed with this version


def check_budget(model: nn.Module, max_mb: float | None) -> None:
    """Raise BadInputError when the model is larger than the budget."""
    size = megabytes(model)
    if max_mb is not None and size > max_mb:
        parts = ", ".join(f"{name} {megabytes(part):.1f}" for name, part in model.named_children())
        raise BadInputError(f"the model has {size:.1f} MB, over --max_mb {max_mb:g} ({parts}); choose smaller parts")


def finish_run(folder: Path, results: dict[str, Any], kept: Sequence[int] = ()) -> None:
    """Write the results, fill the card, and remove the checkpoints that are no longer needed.

    Args:
        folder: of the run.
        results: content of `metrics.json`.
        kept: steps of the checkpoints that a longer run goes on from.
    """
    write_json(folder / METRICS, results)
    write_model_card(folder)
    names = [f"{PREFIX_CHECKPOINT_DIR}-{step}" for step in kept]
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if checkpoint.name not in names:
            shutil.rmtree(checkpoint, ignore_errors=True)


def mean_and_spread(values: Sequence[float]) -> dict[str, float]:
    """Return mean, sample standard deviation, minimum and maximum of a score over seeds."""
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)),
        "min": float(min(values)),
        "max": float(max(values)),
    }


def write_spread(runs: list[Configuration]) -> str:
    """Write mean, standard deviation, minimum and maximum of each selection score over runs with different seeds.

    They are saved in the folder of the first run and shown on its card.

    Returns:
        The same figures as lines for the terminal.
    """
    scores = [read_metrics(run.output_dir)["selection"] for run in runs]
    result = {}
    for name in scores[0]:
        result[name] = mean_and_spread([one[name] for one in scores])
    first, seeds = runs[0], [run.training.seed for run in runs]
    write_json(first.output_dir / SPREAD, {"seeds": seeds, "selection": result})
    write_model_card(first.output_dir)
    width = max(map(len, result))
    lines = [
        f"{name:<{width}}  {one['mean']:.4f} +- {one['std']:.4f}  [{one['min']:.4f}, {one['max']:.4f}]"
        for name, one in result.items()
    ]
    what = f"{len(runs)} seeds ({', '.join(map(str, seeds))}) on {first.data.selection_split}"
    return "\n".join([f"{what}: mean +- standard deviation [least, largest]", *lines])
