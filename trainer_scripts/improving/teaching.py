"""Distillation: a finished model gives its probabilities to the training rows of another one, and labels further rows.

Hinton et al. 2015 ("Distilling the knowledge in a neural network"), at temperature 1: the target of a row is a mean of
its label and of the teacher's probabilities, that of a row without label is the teacher's alone. Teacher and student
share the labels and nothing else: a teacher that reads texts may teach a model that sees pictures only.

What a teacher thinks of a row is computed once. Of masks and captions it would be too much, so there it looks at each
batch (`tasks.common.teacher`). Rows without masks come in with masks that are unknown everywhere, of which the loss of
masks learns nothing. Rows without captions are refused: a teacher of words tells the next word of a given caption.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
from datasets import Dataset, Features, Image, concatenate_datasets

from dataset_builder.columns import INGREDIENT_LABELS, MASK, UNKNOWN
from dataset_builder.errors import BadInputError
from dataset_builder.messages import echo
from trainer_scripts.data.place_samples import learns_places
from trainer_scripts.data.plain_table import paths_as_pictures
from trainer_scripts.data.splits import hold_out, open_dataset
from trainer_scripts.data.table import Columns, Table, columns_of, make_table, map_columns
from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.scoring.saved_model import load_model
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.settings.options import CLASSIFIERS
from trainer_scripts.tasks.common.task import SavedModel, Task, TrainingData

UNLABELLED = "unlabelled"  # what rows are called that the teacher alone labels, whatever their split is called
BATCH = 64
NAMED = 4


def teach(configuration: Configuration, data: TrainingData) -> TrainingData:
    """Return the data of a run, its training rows with the teacher's probabilities and followed by unlabelled rows.

    Raises:
        BadInputError: the teacher has another task or other labels, or rows cannot be read as it needs them.
    """
    training, arguments = configuration.training, configuration.data
    if training.teacher is None:
        return data
    if arguments.streaming:
        raise BadInputError("teacher reads all training rows beforehand; leave out streaming")
    teacher = load_model(training.teacher, training.teacher_revision or "main", allow_outside=arguments.allow_outside)
    # Captions have no labels, and their words are compared when both models are there.
    known = set(teacher.names) if teacher.task.has_labels else set()
    if teacher.task.name != data.task.name or known != set(data.names):
        theirs, ours = (described(each.task, each.names) for each in (teacher, data))
        raise BadInputError(
            f"teacher: {training.teacher} is a model of {theirs}, and these data are for {ours}; give a teacher of the "
            "same task and labels"
        )
    if data.task.name not in CLASSIFIERS:
        if training.self_critical_draws:
            raise BadInputError("teacher teaches words, and self_critical_draws learns none; leave out one of them")
        data = with_unmasked(configuration, data)
        if training.process_index == 0:
            more = f", {data.unlabelled} rows of {arguments.unlabelled} among them" if data.unlabelled else ""
            echo(f"teacher {teacher.name}: looks at each training batch{more}")
        return replace(data, teacher=teacher)
    splits = open_dataset(arguments.dataset, arguments.dataset_revision)
    rows, where = splits[arguments.train_split], f"{arguments.dataset}, split {arguments.train_split}"
    answered = probabilities(configuration, teacher, rows, data.train.ids, arguments.dataset, where, data.names)
    train, number = with_targets(configuration, data.train, answered, len(data.names)), 0
    if arguments.unlabelled is not None:
        rows, source, where = rows_without_labels(configuration, splits)
        table = read_without_labels(configuration, data, rows, source, where)
        answered = probabilities(configuration, teacher, rows, table.ids, source, where, data.names)
        train, number = joined(train, labelled(table, answered)), len(table)
    if training.process_index == 0:
        more = f", and labels {number} rows of {arguments.unlabelled}" if number else ""
        echo(f"teacher {teacher.name}: gives its probabilities to {len(data.train)} training rows{more}")
    return replace(data, train=train, unlabelled=number)


def with_unmasked(configuration: Configuration, data: TrainingData) -> TrainingData:
    """Return the data of a segmenter's run, its training rows followed by the pictures without masks.

    Raises:
        BadInputError: the student learns captions or names ingredients, of which such rows say nothing.
    """
    if configuration.data.unlabelled is None:
        return data
    if not data.task.reads_masks:
        raise BadInputError(
            "unlabelled: a teacher of captions tells the next word of a caption, and these rows have none; let it "
            "caption them with predict.py, train on the result, or leave unlabelled out"
        )
    model = configuration.model
    if model.config.get("ingredient_head") or model.init_segmenter:
        raise BadInputError(
            "unlabelled rows have no list of ingredients, which an ingredient head learns from; teach a segmenter "
            "without that head, or leave unlabelled out"
        )
    splits = open_dataset(configuration.data.dataset, configuration.data.dataset_revision)
    table = read_without_labels(configuration, data, *rows_without_labels(configuration, splits))
    return replace(data, train=joined(data.train, unmasked(table, data.train)), unlabelled=len(table))


def unmasked(table: Table, like: Table) -> Table:
    """Return rows with masks that are unknown everywhere, in the columns that the rows of `like` have."""
    assert table.image_column is not None
    unknown, number = io.BytesIO(), len(table)
    PIL.Image.new("L", (1, 1), UNKNOWN).save(unknown, "PNG")
    rows: Any = table.rows.select_columns([table.image_column])
    if table.image_column != like.image_column:
        rows = rows.rename_column(table.image_column, like.image_column)
    named = like.rows.features[INGREDIENT_LABELS]
    nothing: Any = Dataset.from_dict(
        {MASK: [{"bytes": unknown.getvalue(), "path": None}] * number, INGREDIENT_LABELS: [[]] * number},
        features=Features({MASK: like.rows.features[MASK], INGREDIENT_LABELS: named}),
    )
    return replace(
        table,
        rows=concatenate_datasets([rows, nothing], axis=1),
        labels=np.zeros((number, like.labels.shape[1]), like.labels.dtype),
    )


def described(task: Task, names: Sequence[str]) -> str:
    """Return a task and its labels in a few words."""
    more = ", ..." if len(names) > NAMED else ""
    return f"{task.name} with {len(names)} labels ({', '.join(names[:NAMED])}{more})" if task.has_labels else task.name


def probabilities(
    configuration: Configuration,
    teacher: SavedModel,
    rows: Dataset,
    ids: Sequence[str],
    dataset: str,
    where: str,
    names: Sequence[str],
) -> np.ndarray:
    """Return what a teacher thinks of rows, `(rows, labels)` float32 with the labels in the order of `names`.

    Args:
        configuration: of the student, which says whether rows may lack a part.
        teacher: reads the columns that it was trained on.
        rows: a split as it is in the data set.
        ids: of the wanted rows.
        dataset: where pictures that are files lie.
        where: names the rows in messages.
        names: labels of the student.

    Raises:
        BadInputError: rows cannot be read as the teacher needs them, or lack the part that it reads.
    """
    arguments, where = teacher.arguments, f"{where}, as the teacher reads it"
    rows = map_columns(rows, arguments.columns, where)
    if teacher.modality != "text":
        rows = paths_as_pictures(rows, arguments.image_column, dataset)
    columns = columns_of(arguments, rows.column_names[0], teacher.modality)
    lacking = configuration.data.missing_parts == "learn"
    columns = replace(
        columns, group=None, target=None, weight=None, confidence=None, dataset=dataset,
        may_lack=lacking and teacher.modality == "fusion",
    )  # fmt: skip
    if lacking and not columns.may_lack:
        _refuse_lacking(teacher, rows, columns, where)
    table = make_table(rows, columns, names, UNLABELLED, where, _no_labels(len(names), teacher.task.has_label_sets))
    places = {row_id: place for place, row_id in enumerate(table.ids)}
    chosen = table.select([places[row_id] for row_id in ids], as_split=True)
    answered = teacher.task.answers(teacher, chosen, BATCH, teacher.name).probabilities
    return answered[:, [teacher.names.index(name) for name in names]]


def _refuse_lacking(teacher: SavedModel, rows: Dataset, columns: Columns, where: str) -> None:
    """Raise BadInputError for rows without the one part that a teacher reads."""
    column = str(columns.text or columns.image)
    if column not in rows.column_names:
        return  # refused with the names of the columns that are there
    kept: Any = rows.select_columns([column])
    if columns.image:
        kept = kept.cast_column(column, Image(decode=False))
    numbers = [number for number, row in enumerate(kept) if not row[column]]
    if numbers:
        raise BadInputError(
            f"{where}: {len(numbers)} of {len(rows)} rows have no {column}, such as row {numbers[0]}, and the teacher "
            f"{teacher.name} reads nothing else; give a teacher of both inputs, or rows that have it"
        )


def _no_labels(number: int, many: bool) -> Any:
    """Return a reader of labels for rows that have none."""

    def read(rows: Dataset, column: str, names: Sequence[str], ids: Sequence[str], where: str) -> np.ndarray:
        return np.zeros((len(ids), number), np.float32) if many else np.zeros(len(ids), np.int64)

    return read


def with_targets(configuration: Configuration, table: Table, answered: np.ndarray, classes: int) -> Table:
    """Return training rows whose soft targets are a mean of what they say themselves and of the teacher's answers."""
    shares = table.labels if table.labels.ndim == 2 else np.eye(classes, dtype=np.float32)[table.labels]
    if table.targets is not None:
        share = configuration.data.target_share
        shares = (1 - share) * shares + share * table.targets
    trust = configuration.training.teacher_share
    return replace(table, targets=((1 - trust) * shares + trust * answered).astype(np.float32))


def rows_without_labels(configuration: Configuration, splits: Any) -> tuple[Dataset, str, str]:
    """Return the rows that `unlabelled` names, the data set that they are of, and their name for messages.

    Raises:
        BadInputError: there are none of that name, or they are a split with another purpose.
    """
    arguments = configuration.data
    name = str(arguments.unlabelled)
    if name in (arguments.train_split, arguments.selection_split, arguments.test_split):
        raise BadInputError(f"unlabelled: {name} is the training, selection or test split; name other rows")
    if name in splits:
        return splits[name], arguments.dataset, f"{arguments.dataset}, split {name}"
    try:
        others = open_dataset(name)
    except BadInputError as error:
        raise BadInputError(
            f"unlabelled: {name!r} is no split of {arguments.dataset} ({', '.join(splits)}), nor a data set: {error}"
        ) from error
    split = next((each for each in (UNLABELLED, arguments.train_split) if each in others), None)
    if split is None and len(others) > 1:
        raise BadInputError(f"unlabelled: {name} has the splits {', '.join(others)}; call the one that is meant train")
    split = split or next(iter(others))
    return others[split], name, f"{name}, split {split}"


def read_without_labels(
    configuration: Configuration, data: TrainingData, rows: Dataset, source: str, where: str
) -> Table:
    """Return rows without labels as the student reads them, without those that are in another split too.

    Raises:
        BadInputError: a column is missing, rows are in another split, or the student learns from masks.
    """
    arguments = configuration.data
    if learns_places(configuration):
        raise BadInputError("unlabelled rows have no masks; set place_loss_weight: 0 in config, or leave them out")
    there = {ours: theirs for ours, theirs in arguments.columns.items() if theirs in rows.column_names}
    rows = map_columns(rows, there, where)
    if configuration.model.modality != "text":
        rows = paths_as_pictures(rows, arguments.image_column, source)
    read: Columns = columns_of(arguments, rows.column_names[0], configuration.model.modality)
    group = read.group if read.group in rows.column_names else None
    read = replace(read, group=group, target=None, weight=None, confidence=None, dataset=source)
    nothing = _no_labels(len(data.names), data.task.has_label_sets or data.task.reads_masks)
    table = make_table(rows, read, data.names, UNLABELLED, where, nothing)
    assert data.guard is not None  # there is one wherever all rows are read
    kept = hold_out(data.guard, table, arguments)
    if len(kept) < len(table) and configuration.training.process_index == 0:
        echo(f"{len(table) - len(kept)} rows of {where} are left out because they are in another split")
    return kept


def labelled(table: Table, answered: np.ndarray) -> Table:
    """Return rows with the teacher's answers as their targets, and its decisions as their labels."""
    many = table.labels.ndim == 2
    labels = Decision()(answered).astype(np.float32) if many else answered.argmax(axis=1)
    return replace(table, labels=labels, targets=answered.astype(np.float32))


def joined(first: Table, more: Table) -> Table:
    """Return training rows followed by others; of their data sets pictures and masks alone are kept."""
    rows: Any = Dataset.from_dict({"id": [*first.ids, *more.ids]})
    kept = [name for name in (first.image_column, MASK, INGREDIENT_LABELS) if name in more.rows.column_names]
    if first.image_column is not None:
        rows = concatenate_datasets([each.rows.select_columns(kept) for each in (first, more)])

    def both(name: str) -> Any:
        values = [getattr(each, name) for each in (first, more)]
        return None if values[0] is None else np.concatenate(values)

    weights = None if first.weights is None else np.concatenate([first.weights, np.ones(len(more), np.float32)])
    return replace(
        first,
        ids=[*first.ids, *more.ids],
        groups=[*first.groups, *more.groups],
        texts=None if first.texts is None else [*first.texts, *(more.texts or [])],
        labels=both("labels"),
        targets=both("targets"),
        weights=weights,
        pictured=both("pictured"),
        rows=rows,
        compared_text=None,
        compared_image=None,
        chosen_from=None,
    )
