"""Reads the training and selection rows that a configuration names, and checks them."""

from collections.abc import Iterable
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from datasets import Dataset

from dataset_builder.columns import FLAVOURS_PRESENT
from dataset_builder.errors import BadInputError
from dataset_builder.messages import echo
from trainer_scripts.data.plain_table import label_sets, paths_as_pictures
from trainer_scripts.data.split_guard import SplitGuard, check_split_names, normalise_text
from trainer_scripts.data.splits import carve_selection, hold_out, open_dataset, split_rows
from trainer_scripts.data.streaming import Stream, streamed
from trainer_scripts.data.table import (
    MULTILABEL,
    Columns,
    Table,
    check_columns,
    columns_of,
    compared_columns,
    make_table,
    map_columns,
)
from trainer_scripts.settings.arguments import Configuration, DataArguments
from trainer_scripts.settings.checks import refuse_idle_options, refuse_options_of_other_tasks
from trainer_scripts.tasks.common.task import Task, TrainingData
from trainer_scripts.tasks.registry import choose_task

# Other common names of the split that chooses the checkpoint.
SELECTION_NAMES = ("val", "valid", "validate", "dev", "eval", "evaluation")


def load_training_data(configuration: Configuration, with_test: bool = True) -> TrainingData:
    """Read and check all splits of a configuration's data set.

    Args:
        configuration: of the run.
        with_test: whether the test split is read too, to check that nothing of it is in the others.

    Raises:
        BadInputError: a missing split or column, a label outside the label set, rows shared between splits.
    """
    arguments = configuration.data
    refuse_idle_options(configuration)
    check_split_names(arguments.train_split, arguments.selection_split, arguments.test_split)
    splits = open_dataset(arguments.dataset, arguments.dataset_revision, arguments.streaming)
    split_rows(splits, arguments.train_split, arguments.dataset)
    check_named_splits(splits, configuration)
    rows, where = {}, {}
    read = [arguments.train_split, arguments.selection_split, *([arguments.test_split] if with_test else [])]
    for name in read:
        if name in splits:
            where[name] = f"{arguments.dataset}, split {name}"
            # Before any other transformation, which would decode pictures and compress them anew.
            members = streamed(splits[name], where[name]) if arguments.streaming else splits[name]
            rows[name] = map_columns(members, arguments.columns, where[name])
            if configuration.model.modality != "text":
                rows[name] = paths_as_pictures(rows[name], arguments.image_column, arguments.dataset)
    if arguments.streaming:
        _check_streaming(configuration, rows)
    if configuration.training.task == MULTILABEL and not arguments.streaming:
        rows = {name: label_sets(each, arguments.label_column or FLAVOURS_PRESENT) for name, each in rows.items()}
    train = rows[arguments.train_split]
    task, label_column = choose_task(configuration.training.task, arguments.label_column, train)
    refuse_options_of_other_tasks(configuration, task.name)
    columns = columns_of(arguments, label_column, configuration.model.modality)
    check_columns(train, columns, where[arguments.train_split])
    columns = compared_columns(train, columns, arguments)
    names = task.name_labels(train, columns.label, arguments)
    if arguments.streaming:
        return _streaming(arguments, rows, task, columns, names)
    # Soft targets and weights are used in training only; the other splits need not have them.
    held_out = replace(columns, target=None, weight=None, confidence=None)
    tables = {}
    for split, members in rows.items():
        needed = columns if split == arguments.train_split else held_out
        tables[split] = make_table(members, needed, names, split, where[split], task.read_labels)
    if arguments.selection_split not in tables:
        carved = carve_selection(tables[arguments.train_split], arguments)
        tables[arguments.train_split], tables[arguments.selection_split] = carved
        if configuration.training.process_index == 0:
            echo(
                f"there is no split {arguments.selection_split!r}: {len(carved[1])} rows are taken out of "
                f"{arguments.train_split} to choose the checkpoint, {len(carved[0])} are left to train on",
            )
    return _guarded(tables, task, names, arguments)


def _check_streaming(configuration: Configuration, rows: dict[str, Any]) -> None:
    """Raise BadInputError for an option that needs all training rows beforehand, or without a selection split."""
    if configuration.training.max_steps <= 0:
        raise BadInputError("a stream has no length: give --max_steps with --streaming")
    if configuration.training.balanced_sampling:
        raise BadInputError("balanced_sampling draws from all rows at once; leave it out with --streaming")
    selection = configuration.data.selection_split
    if selection not in rows:
        raise BadInputError(f"--streaming needs a selection split; there is no {selection!r}")


def _streaming(
    arguments: DataArguments, rows: dict[str, Any], task: Task, columns: Columns, names: list[str]
) -> TrainingData:
    """Return the training rows as a stream with its first rows as a table; the other splits are read whole."""
    held_out = replace(columns, target=None, weight=None, confidence=None)
    tables, guard = {}, SplitGuard()
    # The test split comes first: rows of the selection split are compared with it.
    for split in [name for name in (arguments.test_split, arguments.selection_split) if name in rows]:
        members = Dataset.from_list(list(rows[split]), features=rows[split].features)
        where = f"{arguments.dataset}, split {split}"
        tables[split] = make_table(members, held_out, names, split, where, task.read_labels)
        guard.hold_out(split, tables[split].keys())
    train = rows[arguments.train_split]
    if arguments.max_train_samples is not None:
        train = train.take(arguments.max_train_samples)
    where = f"{arguments.dataset}, split {arguments.train_split}"
    drop = arguments.shared_rows == "drop"
    stream = Stream(train, columns, names, where, arguments.train_split, task.read_labels, guard, drop)
    head = stream.head()  # gives vocabulary and class shares, which are needed before the stream is read
    texts = held_out_texts(tables, head)
    return TrainingData(task, names, head, tables[arguments.selection_split], texts, stream=stream)


def vocabulary_texts(table: Table) -> list[str]:
    """Return the texts that a tokenizer is trained on: one per row, the captions of a row joined to one text."""
    if table.texts is not None:
        return table.texts
    return ["\n".join(captions) for captions in table.labels] if table.labels.dtype == object else []


def held_out_texts(tables: dict[str, Table], train: Table) -> dict[str, list[str]]:
    """Return per split the texts that occur in no training row, so that no vocabulary may contain them."""
    trained = set(map(normalise_text, vocabulary_texts(train)))
    return {
        split: [text for text in vocabulary_texts(table) if normalise_text(text) not in trained]
        for split, table in tables.items()
        if split != train.split
    }


def check_named_splits(splits: Iterable[str], configuration: Configuration) -> None:
    """Raise BadInputError for a selection or test split that is absent although it was named, or has another name.

    A data set without such a split is accepted where the configuration names none: selection rows are then taken out
    of the training split.
    """
    arguments, present = configuration.data, list(splits)
    free = [name for name in present if name != arguments.train_split]
    for option, usual in (("selection_split", SELECTION_NAMES), ("test_split", ())):
        name = getattr(arguments, option)
        if name in present:
            continue
        default = next(each.default for each in fields(DataArguments) if each.name == option)
        if option in configuration.given or name != default:
            raise BadInputError(
                f"{option}: {arguments.dataset} has no split {name!r}; it has {', '.join(present)}. Name one of them, "
                f"or leave {option} out"
            )
        others = [each for each in free if each not in (arguments.selection_split, arguments.test_split)]
        # A split such as "dev" or a misspelled one is probably meant; training without it would waste it.
        near = [each for each in others if each.lower() in usual] or get_close_matches(name, others, cutoff=0.8)
        if near:
            raise BadInputError(
                f"{option}: {arguments.dataset} has no split {name!r}, but {near[0]!r}; if it is meant, give "
                f"--{option} {near[0]}"
            )


def _guarded(tables: dict[str, Table], task: Task, names: list[str], arguments: DataArguments) -> TrainingData:
    """Return the tables without rows that another split shares; a split earlier in the order keeps its rows."""
    guard, left_out = SplitGuard(), 0
    for split in (arguments.test_split, arguments.selection_split, arguments.train_split):
        if split in tables:
            before = len(tables[split])
            tables[split] = hold_out(guard, tables[split], arguments)
            left_out += before - len(tables[split])
    train = tables[arguments.train_split]
    held_out = held_out_texts(tables, train)
    if arguments.max_train_samples is not None:
        train = train.first(arguments.max_train_samples)
    return TrainingData(task, names, train, tables[arguments.selection_split], held_out, left_out, guard=guard)
