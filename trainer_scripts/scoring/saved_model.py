"""A saved model on a split of a data set: predictions, scores, and the hash of everything that defines them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from dataset_builder.errors import BadInputError
from model_cards.runs import CONFIGURATION, FORMER_CONFIGURATION, read_configuration
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.split_guard import SplitGuard
from trainer_scripts.data.table import (
    Table,
    carve_selection,
    columns_of,
    compared_columns,
    hold_out,
    make_table,
    map_columns,
    open_dataset,
    split_rows,
)
from trainer_scripts.evaluation.predictions import METRICS
from trainer_scripts.scoring.onnx_model import EXPORT_REPORT, GRAPH, OnnxModel, require_onnx
from trainer_scripts.settings.arguments import DataArguments, JsonMapping
from trainer_scripts.tasks.registry import Task, task_of
from trainer_scripts.tasks.starting_points import file_of_model

BATCH_SIZE = 64


@dataclass
class SavedModel:
    """A checkpoint with what scoring needs of it.

    Attributes:
        name: how results call it: the last part of its path.
        source: folder or Hub id.
        model: in evaluation mode, on the device at hand.
        processor: its processor.
        task: its task.
        arguments: data arguments it was trained with, or the defaults.
        configuration: all settings of its run, as saved; {} where it has none.
        results: what its run wrote into `metrics.json`; {} where it has none.
    """

    name: str
    source: str
    model: Any
    processor: FlavourProcessor
    task: Task
    arguments: DataArguments
    configuration: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """Its folder, or its Hub id with the revision: what finds it again."""
        return self.source if Path(self.source).exists() else self.name

    @property
    def selection_split(self) -> str:
        """Name of the rows that chose its checkpoint: a split, or those that its run held out of the training split."""
        return self.results.get("selection_split") or self.arguments.selection_split

    @property
    def names(self) -> list[str]:
        """The label set, in id order."""
        id2label = self.model.config.id2label
        return [id2label[index] for index in sorted(id2label)]

    @property
    def modality(self) -> str:
        """`fusion`, `text` or `image`."""
        config = self.model.config
        return "fusion" if config.has_text and config.has_image else "text" if config.has_text else "image"


def load_model(source: str, revision: str = "main", columns: Mapping[str, str] | None = None) -> SavedModel:
    """Load a checkpoint of this package from a folder or a Hub, or an exported graph from a folder.

    Args:
        source: folder or Hub id.
        revision: of the Hub's.
        columns: column mapping, ours to theirs, of the data it will read; None: that of its configuration.

    Raises:
        BadInputError: nothing is there, or it is no model of this package.
    """
    if not Path(source).exists() and source.count("/") != 1:
        raise BadInputError(f"there is no model at {source!r}; give a folder, or a Hub id such as org/flavour-fusion")
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        task = task_of(config)
        model = _load_weights(source, revision, config, task)
        processor = FlavourProcessor.from_pretrained(source, revision=revision)
        configuration, results = saved_configuration(source, revision), saved_results(source, revision)
    except (OSError, TypeError, ValueError) as error:
        raise BadInputError(f"cannot load a model from {source!r}: {error}") from error
    name = Path(source).resolve().name if Path(source).exists() else source
    if revision != "main" and not Path(source).exists():
        name += f"@{revision}"
    arguments = data_arguments(configuration)
    if columns is not None:
        arguments = replace(arguments, columns=JsonMapping(columns))
    return SavedModel(name, source, model, processor, task, arguments, configuration, results)


def _load_weights(source: str, revision: str, config: Any, task: Task) -> Any:
    """Return the model on the device at hand, or the graph that export.py made of one."""
    graph = Path(source) / GRAPH
    if graph.is_file() and task.graph is not None:
        require_onnx()
        return OnnxModel(graph, config, task.graph)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return task.model_class.from_pretrained(source, revision=revision).eval().to(device)


def saved_configuration(source: str, revision: str = "main") -> dict[str, Any]:
    """Return the settings that a model's run saved beside it; {} where there are none."""
    path = file_of_model(source, CONFIGURATION, revision) or file_of_model(source, FORMER_CONFIGURATION, revision)
    return {} if path is None else read_configuration(path.parent) or {}


def saved_results(source: str, revision: str = "main") -> dict[str, Any]:
    """Return what a model's run wrote into its `metrics.json`, an export into its report; {} where there is neither."""
    path = file_of_model(source, METRICS, revision) or file_of_model(source, EXPORT_REPORT, revision)
    return {} if path is None else json.loads(path.read_text(encoding="utf-8"))


def data_arguments(configuration: Mapping[str, Any]) -> DataArguments:
    """Return the data arguments of a saved configuration, defaults where it names none."""
    known = DataArguments.__dataclass_fields__
    return DataArguments(**{name: value for name, value in configuration.items() if name in known})


def load_table(
    model: SavedModel, dataset: str, split: str, revision: str | None = None, modality: str | None = None
) -> Table:
    """Return a split with the columns that the model needs; its labels must be those the model knows.

    With `modality` it is read as a model of these inputs would read it.

    Raises:
        BadInputError: a missing split or column, or a label that the model does not know.
    """
    arguments = model.arguments
    where = f"{dataset}, split {split}"
    rows = map_columns(split_rows(open_dataset(dataset, revision), split, dataset), arguments.columns, where)
    label_column = arguments.label_column or model.task.label_column
    columns = columns_of(arguments, label_column, modality or model.modality)
    # What shapes training only is not read.
    columns = compared_columns(rows, replace(columns, target=None, weight=None, confidence=None), arguments)
    return make_table(rows, columns, model.names, split, where, model.task.read_labels)


def load_train(model: SavedModel, dataset: str, revision: str | None = None, modality: str | None = None) -> Table:
    """Return the rows that a model was trained on, without those that its run left out."""
    arguments = model.arguments
    train = load_table(model, dataset, arguments.train_split, revision, modality)
    if not _has_split(dataset, revision, arguments.selection_split):
        train = carve_selection(train, arguments)[0]
    train = _unshared(model, train, _held_out(model, dataset, revision, modality, selection=True))
    return train if arguments.max_train_samples is None else train.first(arguments.max_train_samples)


def load_selection(model: SavedModel, dataset: str, revision: str | None = None, modality: str | None = None) -> Table:
    """Return the rows that chose a model's checkpoint: a split of the data, or what its run carved out."""
    arguments = model.arguments
    if _has_split(dataset, revision, arguments.selection_split):
        table = load_table(model, dataset, arguments.selection_split, revision, modality)
    else:
        train = load_table(model, dataset, arguments.train_split, revision, modality)
        table = carve_selection(train, arguments)[1]
    return _unshared(model, table, _held_out(model, dataset, revision, modality, selection=False))


def _has_split(dataset: str, revision: str | None, split: str) -> bool:
    return split in open_dataset(dataset, revision)


def _held_out(
    model: SavedModel, dataset: str, revision: str | None, modality: str | None, selection: bool
) -> Iterator[Table]:
    """Yield the rows that judged a run: those of the test split, then those that chose its checkpoint."""
    if _has_split(dataset, revision, model.arguments.test_split):
        yield load_table(model, dataset, model.arguments.test_split, revision, modality)
    if selection:
        yield load_selection(model, dataset, revision, modality)


def _unshared(model: SavedModel, table: Table, held_out: Iterable[Table]) -> Table:
    """Return a table as training left it: with `shared_rows: drop`, without the rows that are on another side."""
    if model.arguments.shared_rows != "drop":
        return table
    guard = SplitGuard()
    for other in held_out:
        hold_out(guard, other, model.arguments)
    return hold_out(guard, table, model.arguments)
