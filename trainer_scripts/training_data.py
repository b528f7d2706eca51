"""From a recipe's data arguments to checked training and selection rows."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict

from dataset_builder.errors import BadInputError
from trainer_scripts.arguments import DataArguments, Recipe
from trainer_scripts.data import (
    Columns,
    Table,
    carve_selection,
    check_columns,
    columns_of,
    make_table,
    map_columns,
    open_dataset,
    split_rows,
)
from trainer_scripts.split_guard import SplitGuard, check_split_names
from trainer_scripts.streaming import Stream, streamed
from trainer_scripts.tasks import Task, choose_task


@dataclass
class TrainingData:
    """Everything a run learns from and is chosen by, after the split guard.

    Attributes:
        task: what is learned.
        names: the label set.
        train: training rows.
        selection: rows that choose the checkpoint.
        held_out_texts: split name -> texts that no vocabulary may have seen.
        left_out: training and selection rows that were left out because they are on another side too.
        stream: the training rows where they stream; `train` then holds the first ones.
    """

    task: Task
    names: list[str]
    train: Table
    selection: Table
    held_out_texts: dict[str, list[str]]
    left_out: int = 0
    stream: Stream | None = None


def load_training_data(recipe: Recipe) -> TrainingData:
    """Read and check all splits of a recipe's data set.

    Raises:
        BadInputError: a missing split or column, a label outside the label set, rows shared between splits.
    """
    arguments = recipe.data
    check_split_names(arguments.train_split, arguments.selection_split, arguments.test_split)
    splits = open_dataset(arguments.dataset, arguments.dataset_revision, arguments.streaming)
    rows = _mapped(splits, arguments)
    if arguments.streaming:
        return _streaming(recipe, rows)
    task, columns = choose_columns(recipe, rows[arguments.train_split])
    names = task.name_labels(rows[arguments.train_split], columns.label, arguments)
    # Soft targets and weights shape training only; the other splits need not have them.
    judged = replace(columns, target=None, weight=None, confidence=None)
    tables = {
        split: make_table(
            members,
            columns if split == arguments.train_split else judged,
            names,
            split,
            f"{arguments.dataset}, split {split}",
            task.read_labels,
        )
        for split, members in rows.items()
    }
    if arguments.selection_split not in tables:
        carved = carve_selection(tables[arguments.train_split], arguments.selection_share, recipe.training.seed)
        tables[arguments.train_split], tables[arguments.selection_split] = carved
    return _guarded(tables, task, names, arguments)


def _streaming(recipe: Recipe, rows: dict[str, Any]) -> TrainingData:
    """Return training rows as a stream, and its first ones as a table; the splits that judge are read whole.

    Raises:
        BadInputError: what needs all training rows beforehand, or no selection split.
    """
    arguments, training = recipe.data, recipe.training
    if training.max_steps <= 0:
        raise BadInputError("a stream has no length: give --max_steps with --streaming")
    if training.balanced_sampling:
        raise BadInputError("balanced_sampling draws from all rows at once; leave it out with --streaming")
    if arguments.selection_split not in rows:
        raise BadInputError(f"--streaming needs a selection split; there is no {arguments.selection_split!r}")
    where = {split: f"{arguments.dataset}, split {split}" for split in rows}
    task, columns = choose_columns(recipe, rows[arguments.train_split])
    judged = replace(columns, target=None, weight=None, confidence=None)
    train = streamed(rows.pop(arguments.train_split), where[arguments.train_split])
    names = task.name_labels(train, columns.label, arguments)
    tables, guard = {}, SplitGuard()
    for split in [name for name in (arguments.test_split, arguments.selection_split) if name in rows]:
        held = streamed(rows[split], where[split])
        members = Dataset.from_list(list(held), features=held.features)
        tables[split] = make_table(members, judged, names, split, where[split], task.read_labels)
        guard.hold_out(split, tables[split].keys())
    if arguments.max_train_samples is not None:
        train = train.take(arguments.max_train_samples)
    drop = arguments.shared_rows == "drop"
    place = (where[arguments.train_split], arguments.train_split)
    stream = Stream(train, columns, names, *place, task.read_labels, guard, drop)
    held_out = {split: table.texts or [] for split, table in tables.items()}
    return TrainingData(task, names, stream.head(), tables[arguments.selection_split], held_out, stream=stream)


def choose_columns(recipe: Recipe, rows: Any) -> tuple[Task, Columns]:
    """Return the task and the columns it reads; the task follows from the label column where it is not given."""
    arguments = recipe.data
    task, label_column = choose_task(recipe.training.task, arguments.label_column, rows)
    columns = columns_of(arguments, label_column, recipe.model.modality)
    check_columns(rows, columns, f"{arguments.dataset}, split {arguments.train_split}")
    return task, columns


def _mapped(splits: DatasetDict, arguments: DataArguments) -> dict[str, Any]:
    """Return the splits in use, columns renamed; the test and the selection split may be absent."""
    rows = {}
    for name in (arguments.train_split, arguments.selection_split, arguments.test_split):
        if name == arguments.train_split or name in splits:
            where = f"{arguments.dataset}, split {name}"
            rows[name] = map_columns(split_rows(splits, name, arguments.dataset), arguments.columns, where)
    return rows


def _guarded(tables: dict[str, Table], task: Task, names: list[str], arguments: DataArguments) -> TrainingData:
    guard, left_out = SplitGuard(), 0
    for split in (arguments.test_split, arguments.selection_split, arguments.train_split):
        if split not in tables:
            continue
        keys = list(tables[split].keys())
        if arguments.shared_rows == "drop":
            kept = [row for row, key in enumerate(keys) if not guard.leaks(key)]
            left_out += len(keys) - len(kept)
            if not kept:
                raise BadInputError(f"every row of {split} is on another side too; split the data by group")
            tables[split], keys = tables[split].select(kept), [keys[row] for row in kept]
        guard.hold_out(split, keys)
    train = tables[arguments.train_split]
    if arguments.max_train_samples is not None:
        train = train.select(np.arange(min(arguments.max_train_samples, len(train))))
    held_out = {
        split: tables[split].texts or []
        for split in (arguments.test_split, arguments.selection_split)
        if split in tables
    }
    return TrainingData(task, names, train, tables[arguments.selection_split], held_out, left_out)
