"""A saved model on a split of a data set: predictions, scores, and the hash of everything that defines them."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoConfig

from dataset_builder.errors import BadInputError
from model_cards.cards import write_model_card
from model_cards.runs import COMPARISON
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.arguments import DataArguments, JsonMapping
from trainer_scripts.data import (
    MULTILABEL,
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
from trainer_scripts.expected_f1 import EXPECTED_F1, THRESHOLD, ExpectedF1Decision
from trainer_scripts.intervals import GroupedScores
from trainer_scripts.model_files import file_of_model
from trainer_scripts.onnx_graphs import EXPORT_REPORT, GRAPH, OnnxModel, require_onnx
from trainer_scripts.predictions import METRICS, Predictions, write_json
from trainer_scripts.runs import RECIPE
from trainer_scripts.scores import Decision, Score, definitions, multilabel_scores
from trainer_scripts.split_guard import SplitGuard
from trainer_scripts.tasks import Task, task_named, task_of

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
        recipe: all settings of its run, as saved; {} where it has none.
        results: what its run wrote into `metrics.json`; {} where it has none.
    """

    name: str
    source: str
    model: Any
    processor: FlavourProcessor
    task: Task
    arguments: DataArguments
    recipe: Mapping[str, Any] = field(default_factory=dict)
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
        columns: column mapping, ours to theirs, of the data it will read; None: that of its recipe.

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
        recipe, results = saved_recipe(source, revision), saved_results(source, revision)
    except (OSError, TypeError, ValueError) as error:
        raise BadInputError(f"cannot load a model from {source!r}: {error}") from error
    name = Path(source).resolve().name if Path(source).exists() else source
    if revision != "main" and not Path(source).exists():
        name += f"@{revision}"
    arguments = data_arguments(recipe)
    if columns is not None:
        arguments = replace(arguments, columns=JsonMapping(columns))
    return SavedModel(name, source, model, processor, task, arguments, recipe, results)


def _load_weights(source: str, revision: str, config: Any, task: Task) -> Any:
    """Return the model on the device at hand, or the graph that export.py made of one."""
    graph = Path(source) / GRAPH
    if graph.is_file() and task.graph is not None:
        require_onnx()
        return OnnxModel(graph, config, task.graph)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return task.model_class.from_pretrained(source, revision=revision).eval().to(device)


def saved_recipe(source: str, revision: str = "main") -> dict[str, Any]:
    """Return the settings that a model's run saved beside it; {} where there are none."""
    path = file_of_model(source, RECIPE, revision)
    return {} if path is None else yaml.safe_load(path.read_text(encoding="utf-8"))


def saved_results(source: str, revision: str = "main") -> dict[str, Any]:
    """Return what a model's run wrote into its `metrics.json`, an export into its report; {} where there is neither."""
    path = file_of_model(source, METRICS, revision) or file_of_model(source, EXPORT_REPORT, revision)
    return {} if path is None else json.loads(path.read_text(encoding="utf-8"))


def data_arguments(recipe: Mapping[str, Any]) -> DataArguments:
    """Return the data arguments of a saved recipe, defaults where it names none."""
    known = DataArguments.__dataclass_fields__
    return DataArguments(**{name: value for name, value in recipe.items() if name in known})


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


def score_model(model: SavedModel, table: Table, batch_size: int = BATCH_SIZE) -> Predictions:
    """Return the predictions of a model on a table."""
    return model.task.comparing.answer(model, table, batch_size, model.name)


def save_scores(
    model: SavedModel,
    predictions: Predictions,
    dataset: str,
    split: str,
    folder: Path,
    thresholds: Sequence[float] | None = None,
    decision: str = THRESHOLD,
) -> dict[str, Any]:
    """Write `predictions.parquet` and `metrics.json` of a scored model, and return the latter.

    `thresholds`, one per label, stand in for the one of the task, and `decision="expected_f1"` for any threshold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "model": model.reference,
        "task": model.task.name,
        "modality": model.modality,
        "dataset": dataset,
        "split": split,
        "selection_split": model.selection_split,
        "train_split": model.arguments.train_split,
        "rows": len(predictions.ids),
        "groups": len(set(predictions.groups)),
        "rows_sha256": predictions.rows_sha256(),
        "label_names": model.names if model.task.has_labels else [],
    }
    if thresholds is not None:
        content["thresholds"] = list(thresholds)
    if decision != THRESHOLD:
        content["decision"] = decision
    grouped = GroupedScores(predictions.groups, predictions.parts)
    scores = [score for score in scores_of(content) if grouped.has(score)]
    content["metrics"] = {score.name: grouped.value(score) for score in scores}
    intervals = {score.name: grouped.interval(score) for score in scores}
    content["intervals"] = {name: [found.low, found.high] for name, found in intervals.items() if found is not None}
    content["definitions"] = definitions(scores)
    predictions.save(folder)
    write_json(folder / METRICS, content)
    return content


def decision_of(metrics: Mapping[str, Any]) -> Any:
    """Return how the probabilities of a `metrics.json` become sets of labels."""
    if metrics.get("thresholds"):
        return Decision(tuple(metrics["thresholds"]))
    return ExpectedF1Decision() if metrics.get("decision") == EXPECTED_F1 else Decision()


def scores_of(metrics: Mapping[str, Any]) -> tuple[Score, ...]:
    """Return the scores that belong to a `metrics.json`: those of its task, its labels and its decision."""
    task, names = task_named(metrics["task"]), metrics.get("label_names") or []
    if task.name == MULTILABEL:
        return multilabel_scores(names, decision_of(metrics))
    more = task.comparing.more_scores
    return (*task.scores(names), *(more(names) if more is not None else ()))


def scores_of_file(metrics: Mapping[str, Any], name: str) -> tuple[Score, ...]:
    """Return the scores that a `metrics.json` states.

    Raises:
        BadInputError: it defines one of them in another way than this version does.
    """
    stated = metrics.get("definitions", {})
    known = tuple(score for score in scores_of(metrics) if score.name in stated)
    for score in known:
        if stated[score.name]["sha256"] != score.sha256:
            raise BadInputError(
                f"{name} defines {score.name} as {stated[score.name]['definition']!r}, this version as "
                f"{score.definition!r}; score the model anew"
            )
    return known


def weights_on_disk(source: str) -> float | None:
    """Return the MB (10^6 bytes) of a graph or of the weight files in a model's folder; None for one on a Hub."""
    folder = Path(source)
    if not folder.is_dir():
        return None
    files = list(folder.glob(f"{GRAPH}*")) or list(folder.glob("*.safetensors"))
    return sum(path.stat().st_size for path in files) / 1e6 if files else None


def refresh_card(model: SavedModel, comparison: Path | None = None) -> None:
    """Fill the card of a model in a folder of ours anew, so that it shows the latest results.

    A comparison is kept beside the model, so that later cards still show it.
    """
    folder = Path(model.source)
    if (folder / RECIPE).is_file() and (folder / METRICS).is_file():
        if comparison is not None:
            shutil.copyfile(comparison, folder / COMPARISON)
        write_model_card(folder)


def table_of_scores(content: dict[str, Any]) -> str:
    """Return scores as lines of `name value [interval]` for the terminal."""
    width = max(len(name) for name in content["metrics"])
    lines = []
    for name, value in content["metrics"].items():
        interval = content["intervals"].get(name)
        shown = f"  [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
        lines.append(f"{name:<{width}}  {value:.4f}{shown}")
    return "\n".join(lines)
