"""Refusals of options that a training does not read, computed from the properties of the options."""

from pathlib import Path

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
    modality, parts = configuration.model.modality, options_of(configuration.model)
    _refuse_unread(
        configuration,
        f"modality {modality}",
        {
            name: properties.modalities
            for name, properties in configuration.options.items()
            if properties.modalities and modality not in properties.modalities and name not in parts
        },
    )
    if data.dataset_revision is not None and Path(data.dataset).exists():
        raise BadInputError(
            f"dataset_revision {data.dataset_revision!r}: {data.dataset} is a folder here, which has no revisions; "
            "leave it out"
        )
    if training.early_stopping_patience is not None and training.eval_strategy == IntervalStrategy.NO:
        raise BadInputError(
            "early_stopping_patience counts evaluations, and eval_strategy no makes none; give another eval_strategy, "
            "or early_stopping_patience none"
        )


def refuse_options_of_other_tasks(configuration: Configuration, task: str) -> None:
    """Raise BadInputError for an option that differs from its default and that this task does not read."""
    _refuse_unread(
        configuration,
        task,
        {
            name: properties.tasks
            for name, properties in configuration.options.items()
            if properties.tasks and task not in properties.tasks
        },
    )


def _refuse_unread(configuration: Configuration, where: str, readers: dict[str, tuple[str, ...]]) -> None:
    """Raise BadInputError for the first option with a value other than its default that nothing reads.

    Args:
        configuration: of the run.
        where: task or modality of the run.
        readers: option -> tasks or modalities that read it.
    """
    parts = (configuration.model, configuration.data, configuration.training)
    defaults = {name: item.default for part in parts for name, item in type(part).__dataclass_fields__.items()}
    for name, others in readers.items():
        value = configuration.values[name]
        # An empty mapping or list is as good as the default.
        if value and value != defaults[name]:
            raise BadInputError(
                f"{name} {value!r} does nothing in {where}, it is for {', '.join(others)}; leave it out"
            )
