"""Runs that are made longer: whether one may go on to more epochs or steps as if they had been planned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.trainer_utils import SaveStrategy, SchedulerType

from dataset_builder.errors import BadInputError
from model_cards.runs import read_json
from trainer_scripts.evaluation.predictions import METRICS
from trainer_scripts.settings.arguments import Configuration

# Schedules whose rate at a step does not depend on how many steps there are.
OPEN = (
    SchedulerType.CONSTANT,
    SchedulerType.CONSTANT_WITH_WARMUP,
    SchedulerType.INVERSE_SQRT,
    SchedulerType.REDUCE_ON_PLATEAU,
)
WARMED = (SchedulerType.CONSTANT_WITH_WARMUP, SchedulerType.INVERSE_SQRT)  # of these, those that read warmup_steps
# The length of a run, and what the Trainer takes where nothing is given.
LENGTH = {"num_train_epochs": 3.0, "max_steps": -1}
PLANNED = "planned"  # in metrics.json: the length that a run was to have


def why_not_longer(configuration: Configuration) -> str | None:
    """Return why a run of this configuration cannot be made longer, None where it can."""
    training: Any = configuration.training
    kind = SchedulerType(training.lr_scheduler_type)
    if kind not in OPEN:
        names = ", ".join(each.value for each in OPEN)
        return f"lr_scheduler_type {kind.value} spreads its rates over all steps (a run can go on with one of {names})"
    warmed = ("warmup_steps",) if kind in WARMED else ()
    for name in (*warmed, "eval_steps", "save_steps"):
        value = getattr(training, name) or 0
        if 0 < value < 1:
            return f"{name} {value:g} is a share of all steps (a run can go on with a number of steps)"
    if training.max_minutes is not None:
        return "max_minutes fits the rates to the time (a run can go on without it)"
    if training.average_best > 1:
        return "average_best has removed the weights that it averaged (a run can go on without it)"
    if training.save_only_model or training.save_strategy == SaveStrategy.NO:
        return "no state of the optimizer was saved (a run can go on with save_strategy epoch or steps)"
    return None


def length_of(settings: Mapping[str, Any]) -> dict[str, float]:
    """Return the length in the settings of a run."""
    return {name: settings.get(name, default) for name, default in LENGTH.items()}


def planned(configuration: Configuration) -> dict[str, Any]:
    """Return the length that a run is to have, for `metrics.json`."""
    return {PLANNED: length_of(configuration.values)}


def is_finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder holds the results of a run with the length that its settings state.

    A run that is being made longer keeps its former results until it has new ones.
    """
    if not (folder / METRICS).is_file():
        return False
    length = read_json(folder / METRICS).get(PLANNED)
    # Runs of earlier versions stated no length, and could not be made longer.
    return length is None or length == length_of(settings)


def is_raised(before: Mapping[str, Any], now: Mapping[str, Any], changed: list[str]) -> bool:
    """Whether settings differ in the length of the run alone, and it is longer now."""
    old, new = length_of(before), length_of(now)
    # Steps that take the place of epochs, or the reverse, may be fewer.
    return all(name in LENGTH and 0 < old[name] < new[name] for name in changed)


def refuse_longer(configuration: Configuration, finished: bool, reason: str) -> None:
    """Raise BadInputError for a run that cannot be made longer, with what can be done in its place."""
    folder = configuration.output_dir
    which = "finished" if finished else "interrupted"
    further = f"to train its model further give --model_name_or_path {folder} and another --output_dir; "
    raise BadInputError(
        f"{folder} holds a {which} run that was to be shorter, and it cannot go on to more: {reason}; "
        f"{further if finished else ''}to have a run of that length train it in another --output_dir, or anew here "
        f"with --overwrite true, which removes that {which} run"
    )
