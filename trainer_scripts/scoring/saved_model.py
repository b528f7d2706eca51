"""Saved models, and the rows of a data set as a saved model reads them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import torch
from datasets import concatenate_datasets
from safetensors.torch import load_file
from transformers import PreTrainedModel

from dataset_builder.boundaries import outside
from dataset_builder.errors import BadInputError
from dataset_builder.kinds import check_kind
from model_cards.runs import CONFIGURATION, FORMER_CONFIGURATION, read_configuration
from trainer_scripts.data.plain_table import label_sets, paths_as_pictures
from trainer_scripts.data.split_guard import SplitGuard
from trainer_scripts.data.splits import carve_selection, hold_out, open_dataset, split_rows
from trainer_scripts.data.table import Table, columns_of, compared_columns, make_table, map_columns
from trainer_scripts.evaluation.predictions import METRICS
from trainer_scripts.scoring.onnx_model import DECODER, EXPORT_REPORT, GRAPH, OnnxModel, require_onnx
from trainer_scripts.settings.arguments import DataArguments, JsonMapping
from trainer_scripts.tasks.common.adapters import merged
from trainer_scripts.tasks.common.model_folder import (
    load_config,
    load_processor,
    load_weights,
    model_folder,
    read_record,
)
from trainer_scripts.tasks.common.starting_points import file_of_model
from trainer_scripts.tasks.common.task import SavedModel
from trainer_scripts.tasks.common.trainer import AVERAGED_WEIGHTS
from trainer_scripts.tasks.registry import task_of


def load_model(
    source: str,
    revision: str = "main",
    columns: Mapping[str, str] | None = None,
    allow_outside: bool = False,
) -> SavedModel:
    """Load a checkpoint of this package from a folder or a Hub, or an exported graph from a folder.

    Args:
        source: folder or Hub id.
        revision: of the Hub's.
        columns: column mapping, ours to theirs, of the data it will read; None: that of its configuration.
        allow_outside: whether pictures outside the folder of that data may be opened.

    Raises:
        BadInputError: nothing is there, or it is no model of this package.
    """
    # A Hub id has exactly one slash; anything else can only be a missing folder.
    if not Path(source).exists() and source.count("/") != 1:
        raise BadInputError(f"there is no model at {source!r}; give a folder, or a Hub id such as org/flavour-fusion")
    folder = model_folder(source, revision)
    if (folder / DECODER).is_file():
        raise BadInputError(
            f"{source} holds the graphs of a captioner, which its own caption.py runs; give the folder that it was "
            "exported from"
        )
    config = load_config(folder)
    task = task_of(config)
    graph = Path(source) / GRAPH
    if graph.is_file() and task.graph is not None:
        require_onnx()
        model: PreTrainedModel | OnnxModel = OnnxModel(graph, config, task.graph)
    else:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded = load_weights(task.model_class, folder)
        # A checkpoint of a run with a moving average was chosen by that average, which lies beside its weights.
        averaged = folder / AVERAGED_WEIGHTS
        if averaged.is_file():
            with outside(f"{averaged} cannot be read"):
                loaded.load_state_dict(merged(load_file(averaged)), strict=False)
        model = loaded.eval().to(device)
    processor = load_processor(folder)
    configuration = saved_configuration(source, revision)
    # Of the run that trained the model, or of the export that made the graph.
    results = read_record(folder, METRICS) or read_record(folder, EXPORT_REPORT)
    check_kind(
        "selection_split", results.get("selection_split"), str | None, f"{METRICS} or {EXPORT_REPORT} of {source}"
    )
    # The name stands in tables and file names: the last part of a folder, the whole of a Hub id.
    name = Path(source).resolve().name if Path(source).exists() else source
    if revision != "main" and not Path(source).exists():
        name += f"@{revision}"
    arguments = data_arguments(configuration, f"{CONFIGURATION} of {source}")
    # Whether files outside a data set may be read is for the user of this model to say, not for its configuration.
    arguments = replace(arguments, allow_outside=allow_outside)
    if columns is not None:
        arguments = replace(arguments, columns=JsonMapping(columns))
    return SavedModel(name, source, model, processor, task, arguments, configuration, results)


def data_arguments(configuration: Mapping[str, Any], where: str) -> DataArguments:
    """Return the data arguments in the saved settings of a run.

    Raises:
        BadInputError: one is not of the type that it has in a configuration.
    """
    kinds = get_type_hints(DataArguments)
    known = {name: value for name, value in configuration.items() if name in DataArguments.__dataclass_fields__}
    for name, value in known.items():
        check_kind(name, value, kinds[name], where)
    return DataArguments(**known)


def saved_configuration(source: str, revision: str = "main") -> dict[str, Any]:
    """Return the settings that a model's run saved beside it; {} where there are none."""
    path = file_of_model(source, CONFIGURATION, revision) or file_of_model(source, FORMER_CONFIGURATION, revision)
    return {} if path is None else read_configuration(path.parent) or {}


def load_table(
    model: SavedModel, dataset: str, split: str | None, revision: str | None = None, modality: str | None = None
) -> Table:
    """Return a split with the columns that the model needs; its labels must be those the model knows.

    With `modality` it is read as a model of these inputs would read it. Without a split all are read, one after the
    other.

    Raises:
        BadInputError: a missing split or column, or a label that the model does not know.
    """
    arguments = model.arguments
    where, splits = f"{dataset}, split {split}" if split else dataset, open_dataset(dataset, revision)
    chosen = split_rows(splits, split, dataset) if split else concatenate_datasets(list(splits.values()))
    rows = map_columns(chosen, arguments.columns, where)
    if (modality or model.modality) != "text":
        rows = paths_as_pictures(rows, arguments.image_column, dataset)
    label_column = arguments.label_column or model.task.label_column
    if model.task.has_label_sets:
        rows = label_sets(rows, label_column)
    columns = columns_of(arguments, label_column, modality or model.modality)
    # Columns of soft targets and weights only matter in training.
    columns = replace(columns, target=None, weight=None, confidence=None, dataset=dataset)
    columns = compared_columns(rows, columns, arguments)
    return make_table(rows, columns, model.names, split or "all", where, model.task.read_labels)


def load_train(model: SavedModel, dataset: str, revision: str | None = None, modality: str | None = None) -> Table:
    """Return the rows that a model was trained on, without those that its run left out."""
    arguments = model.arguments
    train = load_table(model, dataset, arguments.train_split, revision, modality)
    # As training does where no split chooses the checkpoint: the same groups, drawn by the same seed.
    if not has_split(dataset, revision, arguments.selection_split):
        train = carve_selection(train, arguments)[0]
    train = _unshared(model, train, dataset, revision, modality)
    return train if arguments.max_train_samples is None else train.first(arguments.max_train_samples)


def load_selection(model: SavedModel, dataset: str, revision: str | None = None, modality: str | None = None) -> Table:
    """Return the rows that chose a model's checkpoint: a split of the data, or rows of the training split."""
    arguments = model.arguments
    if has_split(dataset, revision, arguments.selection_split):
        table = load_table(model, dataset, arguments.selection_split, revision, modality)
    else:
        train = load_table(model, dataset, arguments.train_split, revision, modality)
        table = carve_selection(train, arguments)[1]
    return _unshared(model, table, dataset, revision, modality)


def has_split(dataset: str, revision: str | None, split: str) -> bool:
    """Whether a data set has a split."""
    return split in open_dataset(dataset, revision)


def _unshared(model: SavedModel, table: Table, dataset: str, revision: str | None, modality: str | None) -> Table:
    """Return a table as training left it: with `shared_rows: drop`, without the rows that a later split has too."""
    arguments, guard = model.arguments, SplitGuard()
    if arguments.shared_rows != "drop":
        return table
    # A row that is in several splits stays in the test split, else in the one that chose the checkpoint.
    if has_split(dataset, revision, arguments.test_split):
        hold_out(guard, load_table(model, dataset, arguments.test_split, revision, modality), arguments)
    if table.split == arguments.train_split:
        hold_out(guard, load_selection(model, dataset, revision, modality), arguments)
    return hold_out(guard, table, arguments)
