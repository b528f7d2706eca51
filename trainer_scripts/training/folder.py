"""The output folder of a run: fresh, interrupted or finished, and what is written into it at the end."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from dataset_builder.errors import BadInputError
from model_cards.cards import write_model_card
from model_cards.runs import CONFIGURATION, SPREAD
from trainer_scripts.evaluation.predictions import METRICS, read_metrics, write_json
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.tasks.common.trainer import AVERAGED_WEIGHTS, megabytes
from trainer_scripts.training.callbacks import POSITION

TRAINER_STATE = "trainer_state.json"
# Settings that do not change what is learned, so that a run may be resumed under others.
_FREE = {
    "overwrite",
    "output_dir",
    "seeds",
    "max_mb",
    "dataloader_num_workers",
    "save_total_limit",
    "use_cpu",
    "features_dir",
}


@dataclass(frozen=True)
class RunState:
    """What an output folder holds.

    Attributes:
        finished: whether the run ended and wrote its results.
        checkpoint: newest complete checkpoint to go on from, or None.
    """

    finished: bool
    checkpoint: Path | None


def inspect_run(configuration: Configuration) -> RunState:
    """Return the state of the output folder, emptied first with `--overwrite`.

    Raises:
        BadInputError: the folder holds something else, or a run by another configuration.
    """
    folder = configuration.output_dir
    if configuration.training.overwrite and (folder / CONFIGURATION).is_file():
        shutil.rmtree(folder)
    if not folder.exists() or not any(folder.iterdir()):
        return RunState(False, None)
    saved = folder / CONFIGURATION
    if not saved.is_file():
        raise BadInputError(f"{folder} is not empty and holds no run; give another --output_dir")
    before, now = yaml.safe_load(saved.read_text(encoding="utf-8")), configuration.as_mapping()
    changed = sorted(key for key in {*before, *now} - _FREE if before.get(key) != now.get(key))
    if changed:
        raise BadInputError(
            f"{folder} holds a run by another configuration ({', '.join(changed[:4])} differ); "
            "give another --output_dir, or --overwrite to train anew there"
        )
    # Checkpoints without optimizer and random state are no place to go on from: such a run begins anew.
    newest = None if configuration.training.save_only_model else newest_checkpoint(folder, written_last(configuration))
    return RunState((folder / METRICS).is_file(), newest)


def check_processes(checkpoint: Path, processes: int) -> None:
    """Raise BadInputError where other processes wrote a checkpoint than those that would go on from it."""
    writers = len(list(checkpoint.glob("rng_state_*.pth"))) or 1  # each of several keeps its random state
    if writers != processes:
        raise BadInputError(
            f"{checkpoint} was written by {writers} processes and {processes} would go on, each step with other rows; "
            f"launch {writers}, or --overwrite to train anew"
        )


def written_last(configuration: Configuration) -> list[str]:
    """Return the files of a checkpoint that come after the Trainer's own: averaged weights, position in the stream."""
    averaged = [AVERAGED_WEIGHTS] if configuration.training.ema_decay is not None else []
    return averaged + ([POSITION.format(rank=0)] if configuration.data.streaming else [])


def newest_checkpoint(folder: Path, needed: Sequence[str] = ()) -> Path | None:
    """Return the checkpoint with the most steps that was written to its end, files of other names included."""
    complete = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if _is_complete(path, needed)]
    return max(complete, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _is_complete(checkpoint: Path, needed: Sequence[str]) -> bool:
    """Whether the Trainer's state, the last of its files, is whole, and what callbacks write after it is there."""
    try:
        json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    return all((checkpoint / name).is_file() for name in needed)


def start_run(configuration: Configuration) -> None:
    """Make the folder and put the configuration into it."""
    configuration.output_dir.mkdir(parents=True, exist_ok=True)
    (configuration.output_dir / CONFIGURATION).write_text(configuration.as_yaml(), encoding="utf-8")


def check_budget(model: Any, max_mb: float | None) -> None:
    """Raise BadInputError when the model is larger than the budget."""
    size = megabytes(model)
    if max_mb is not None and size > max_mb:
        parts = ", ".join(f"{name} {megabytes(part):.1f}" for name, part in model.named_children())
        raise BadInputError(f"the model has {size:.1f} MB, over --max_mb {max_mb:g} ({parts}); choose smaller parts")


def finish_run(folder: Path, results: dict[str, Any]) -> None:
    """Write the results, fill the card, and remove the checkpoints that are no longer needed."""
    write_json(folder / METRICS, results)
    write_model_card(folder)
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def write_spread(runs: list[Configuration]) -> str:
    """Write mean, standard deviation, least and largest of each selection score over repeated runs.

    The first run's folder gets them, and its card shows them.

    Returns:
        The same as lines for the terminal.
    """
    found = [read_metrics(run.output_dir)["selection"] for run in runs]
    result = {}
    for name in found[0]:
        values = np.array([one[name] for one in found])
        result[name] = {
            "mean": float(values.mean()),
            "std": float(values.std(ddof=1)),
            "min": float(values.min()),
            "max": float(values.max()),
        }
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
