"""The list of all tasks, and the choice of one by name, by the data or by a checkpoint."""

import datasets
from transformers import PreTrainedConfig

from dataset_builder.columns import FLAVOUR
from dataset_builder.errors import BadInputError
from trainer_scripts.data.table import CLASSIFICATION, MULTILABEL, detect_task
from trainer_scripts.tasks.captioning.task import CaptioningTask
from trainer_scripts.tasks.classification.task import ClassificationTask, MultilabelTask
from trainer_scripts.tasks.common.task import Task
from trainer_scripts.tasks.segmentation.task import IngredientsTask, SegmentationTask
from trainer_scripts.tasks.text_to_image.autoencoder import AutoencoderTask
from trainer_scripts.tasks.text_to_image.task import TextToImageTask

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        ClassificationTask(),
        MultilabelTask(),
        CaptioningTask(),
        IngredientsTask(),
        SegmentationTask(),
        TextToImageTask(),
        AutoencoderTask(),
    )
}


def task_named(name: str) -> Task:
    """Return a task by name."""
    if name not in TASKS:
        raise BadInputError(f"there is no task {name!r}; choose one of {', '.join(TASKS)}")
    return TASKS[name]


def choose_task(name: str | None, label_column: str | None, rows: datasets.Dataset) -> tuple[Task, str]:
    """Return the task and its label column; without a name the type of the label column decides.

    Raises:
        BadInputError: an unknown task, a missing column, or a column that does not fit the task.
    """
    column = label_column or (task_named(name).label_column if name else FLAVOUR)
    if column not in rows.column_names:
        raise BadInputError(
            f"the data set has no label column {column!r}; it has {', '.join(rows.column_names)}. "
            "Name the one to learn with --label_column"
        )
    if name is None:
        return TASKS[detect_task(rows, column)], column
    task = task_named(name)
    if task.name in (CLASSIFICATION, MULTILABEL) and detect_task(rows, column) != task.name:
        raise BadInputError(f"task {name} does not fit column {column!r}, which holds {rows.features[column]}")
    return task, column


def task_of(config: PreTrainedConfig) -> Task:
    """Return the task of a checkpoint, by its class and problem type."""
    classes = config.architectures or []
    for task in TASKS.values():
        known = task.architectures or (task.model_class.__name__,)
        if set(known) & set(classes) and task.problem_type in (None, config.problem_type):
            return task
    raise BadInputError(f"a {', '.join(classes) or config.model_type} is no model of this package")
