"""Refusals of options that a training does not read, computed from the properties of the options."""

from collections.abc import Container
from pathlib import Path
from typing import Literal

from transformers.trainer_utils import IntervalStrategy

from dataset_builder.errors import BadInputError
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.settings.options import options_of


def refuse_idle_options(configuration: Configuration) -> None:
    """Raise BadInputError for an option that this configuration does not read or that training refuses, in any task."""
    data, training, values = configuration.data, configuration.training, configuration.values
    for name, properties in configuration.options.items():
        value = values[name]
        if properties.refused and (value == properties.refused_value if properties.refused_value else value):
            shown = name if value is True else f"{name} {str(value)!r}"
            raise BadInputError(f"{shown}: {properties.refused}; leave it out")
        if properties.needs and name in configuration.given and values[properties.needs[0]] != properties.needs[1]:
            raise BadInputError(f"{name} does nothing without --{' '.join(properties.needs)}; give both")
    # Options of the model are exempt: `--modality text` must suffice to leave the image encoder of a configuration out.
    _refuse_unread(configuration, "modalities", configuration.model.modality, options_of(configuration.model))
    if data.dataset_revision is not None and Path(data.dataset).exists():
        raise BadInputError(
            f"dataset_revision {data.dataset_revision!r}: {data.dataset} is a folder here, which has no revisions; "
            "leave it out"
        )
    if not training.lora_rank and (training.lora_targets or not training.lora_merge):
        given = "lora_targets" if training.lora_targets else "lora_merge"
        raise BadInputError(f"{given} is about adapters, and there are none; give --lora_rank too, or leave it out")
    if training.search_space is not None and not training.search:
        raise BadInputError("search_space does nothing without a search; give --search N too")
    if training.soup and (training.seeds < 2 or not training.lora_merge):
        raise BadInputError(
            "soup is a mean of whole models of several seeds; give --seeds N, at least 2, and merge adapters"
        )
    idle = [name for name in ("unlabelled", "teacher_revision", "teacher_share") if name in configuration.given]
    if training.teacher is None and (idle or data.unlabelled is not None):
        raise BadInputError(f"{(idle or ['unlabelled'])[0]} does nothing without a teacher; give --teacher MODEL too")
    if training.early_stopping_patience is not None and training.eval_strategy == IntervalStrategy.NO:
        raise BadInputError(
            "early_stopping_patience counts evaluations, and eval_strategy no makes none; give another eval_strategy, "
            "or early_stopping_patience none"
        )


def refuse_options_of_other_tasks(configuration: Configuration, task: str) -> None:
    """Raise BadInputError for an option that differs from its default and that this task does not read."""
    _refuse_unread(configuration, "tasks", task)


def _refuse_unread(
    configuration: Configuration,
    readers: Literal["tasks", "modalities"],
    here: str,
    exempt: Container[str] = (),
) -> None:
    """Raise BadInputError for the first option with a value other than its default that nothing reads.

    Args:
        configuration: of the run.
        readers: property of an option that names its readers.
        here: task or modality of the run.
        exempt: options that may be idle.
    """
    parts, values = (configuration.model, configuration.data, configuration.training), configuration.values
    defaults = {name: item.default for part in parts for name, item in type(part).__dataclass_fields__.items()}
    for name, properties in configuration.options.items():
        others, value = getattr(properties, readers), values[name]
        if not others or here in others or name in exempt:
            continue
        # An empty mapping or list is as good as the default.
        if value and value != defaults[name]:
            where = here if readers == "tasks" else f"modality {here}"
            raise BadInputError(
                f"{name} {value!r} does nothing in {where}, it is for {', '.join(others)}; leave it out"
            )
