"""The interface of a task, and the records that it exchanges with training, scoring, comparing and exporting."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import datasets
import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainerCallback

from dataset_builder.errors import BadInputError
from modeling_flavour.base_flavour import FlavourPreTrainedModel
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.split_guard import SplitGuard
from trainer_scripts.data.streaming import Stream
from trainer_scripts.data.table import Table, label_ids, label_names
from trainer_scripts.evaluation.decisions import THRESHOLD
from trainer_scripts.evaluation.lines import Line
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import Score
from trainer_scripts.features.frozen import Frozen, features_once
from trainer_scripts.features.reader import BackboneReader
from trainer_scripts.settings.arguments import Configuration, DataArguments
from trainer_scripts.tasks.common.graphs import ModelGraph
from trainer_scripts.tasks.common.items import Item, PredictionOptions
from trainer_scripts.tasks.common.trainer import AveragedWeights, Collator, FlavourTrainer, check_finite

# What a model gives for some rows, by name: arrays and lists with one entry per row, or one per block of rows.
Outputs: TypeAlias = dict[str, Any]


@dataclass
class TrainingData:
    """The data of a training run, after the split guard.

    Attributes:
        task: task of the run.
        names: the label set.
        train: training rows.
        selection: rows that choose the checkpoint.
        held_out_texts: split name -> texts that no vocabulary may be built from.
        left_out: training and selection rows that were left out because they are on another side too.
        stream: the training rows where they stream; `train` then holds the first ones.
        guard: the rows of all splits, to which further ones are compared; None where training rows stream.
        unlabelled: number of the last training rows, which have no other label than a teacher's.
        teacher: a model that looks at each batch; None where there is none, or its opinion is in the rows already.
    """

    task: "Task"
    names: list[str]
    train: Table
    selection: Table
    held_out_texts: dict[str, list[str]]
    left_out: int = 0
    stream: Stream | None = None
    guard: SplitGuard | None = None
    unlabelled: int = 0
    teacher: "SavedModel | None" = None


@dataclass
class SavedModel:
    """A checkpoint with everything that scoring needs of it.

    Attributes:
        name: how results call it: the last part of its path.
        source: folder or Hub id.
        model: in evaluation mode, on the accelerator where there is one; an `OnnxModel` for an exported graph.
        processor: its processor.
        task: its task.
        arguments: data arguments it was trained with, or the defaults.
        configuration: all settings of its run, as saved; {} where it has none.
        results: what its run wrote into `metrics.json`; {} where it has none.
        keeps: whether samples and features of tables are kept for further passes; without that each pass reads, decodes
            and computes anew, as for a single row.
        kept: what is kept, by its purpose and the table; shared with copies of this object.
        ablation_rows: largest number of rows whose answers to other inputs will be asked for (`changes`), so that a
            task may take them in the same pass; None: not announced.
    """

    name: str
    source: str
    model: PreTrainedModel
    processor: FlavourProcessor
    task: "Task"
    arguments: DataArguments
    configuration: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    keeps: bool = True
    kept: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)
    ablation_rows: int | None = None

    def samples(self, table: Table) -> Any:
        """Return the evaluation samples of a table, the same at each call.

        They carry the features of the backbones in place of pictures and tokens, so that each row passes the backbones
        once, however often the model answers.
        """
        if not self.keeps:
            return self.task.evaluation_samples(self.processor, table)
        # An exported graph takes pictures and words.
        reads_features = isinstance(self.model, FlavourPreTrainedModel)
        key = ("samples", reads_features, id(table))
        if key not in self.kept:
            samples: Any = self.task.evaluation_samples(self.processor, table)
            if reads_features:
                whole = None if table.chosen_from is None else self.kept.get((*key[:2], id(table.chosen_from[0])))
                self.reader.attach(samples, whole and whole[1])
            # The table is kept too, as its id must not pass to another one.
            self.kept[key] = (table, samples)
        return self.kept[key][1]

    def outputs(self, table: Table) -> Outputs | None:
        """Return what several processes found for the rows of a table, see `scoring.spread`; None for nothing."""
        return self.kept.get(("outputs", id(table)), (table, None))[1]

    def keep_outputs(self, table: Table, outputs: Outputs) -> None:
        """Keep what was found for the rows of a table, so that the model need not see them again."""
        self.kept["outputs", id(table)] = (table, outputs)

    @property
    def reader(self) -> BackboneReader:
        """What computes and keeps the features of its backbones."""
        if "reader" not in self.kept:
            pictures, model = self.processor.image_processor, self.model
            assert isinstance(model, FlavourPreTrainedModel)
            normal = None if pictures is None else (list(pictures.image_mean), list(pictures.image_std))
            self.kept["reader"] = BackboneReader(model, Path(self.arguments.features_dir), normal)
        return self.kept["reader"]

    @property
    def reference(self) -> str:
        """Its folder, or its Hub id with the revision: the name under which it can be loaded again."""
        return self.source if Path(self.source).exists() else self.name

    @property
    def selection_split(self) -> str:
        """Name of the rows that chose its checkpoint: a split, or those that its run held out of the training split."""
        # A run that held rows out of the training split has recorded a name for them.
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


class ScoredModels(Protocol):
    """Models scored on the same rows, with the splits of their data: the input of baselines and verdicts."""

    saved: dict[str, SavedModel]
    models: list[Line]
    selection_predictions: dict[str, Predictions]

    @property
    def label_names(self) -> list[str]:
        """The label set."""

    @property
    def scores(self) -> tuple[Score, ...]:
        """All scores that any of the models has."""

    @property
    def main_score(self) -> Score:
        """The score that decides."""

    @property
    def widest_saved(self) -> Line:
        """The line of the saved model with the most parts of predictions."""

    @property
    def test(self) -> Table:
        """The scored rows."""

    @property
    def train(self) -> Table:
        """The training rows, without those that training left out."""

    @property
    def selection(self) -> Table:
        """The rows that chose the checkpoint."""

    @property
    def has_train(self) -> bool:
        """Whether the data has a training split."""

    def line(self, name: str) -> Line:
        """Return the line of a model."""

    def saved_of(self, modality: str) -> SavedModel | None:
        """Return the first saved model with these inputs."""


@dataclass(frozen=True)
class ScoringOptions:
    """Options of `score.py` that only some tasks take; see its help texts."""

    batch_size: int = 64
    tune_thresholds: bool = False
    decision: str = THRESHOLD
    scales: tuple[float, ...] | None = None
    flip: bool = False
    window: int | None = None
    stride: int | None = None
    classifier: str | None = None
    classifier_flavours: Sequence[str] = ()


@dataclass
class Scored:
    """The result of scoring one model, of the same form for every task; `scoring.results` writes it.

    Attributes:
        predictions: rows with truth and answers.
        baselines: lines that need no model of ours, on the same rows.
        ablations: lines of the model with a changed input.
        more: line -> score -> value, of scores that are computed for all lines at once; the model's line is "".
        more_scores: definitions of the scores in `more`.
        details: tables of this task alone, such as scores per class.
        files: names of the figures and tables in the folder of the result.
        faults: reasons why the model is of no use; empty for a healthy one.
        thresholds: one per label where they were tuned.
    """

    predictions: Predictions
    baselines: list[Line] = field(default_factory=list)
    ablations: list[Line] = field(default_factory=list)
    more: dict[str, dict[str, float]] = field(default_factory=dict)
    more_scores: tuple[Score, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    thresholds: tuple[float, ...] | None = None


class Task(ABC):
    """Everything that differs between tasks; `tasks.registry` holds the instances.

    Attributes:
        name: the value of `--task`.
        model_class: class that `from_pretrained` loads.
        problem_type: `config.problem_type` of its checkpoints, None where the class decides alone.
        label_column: column that is learned unless another is named.
        metric: folder under `metrics/`.
        selection_metric: score that chooses the checkpoint unless another is named.
        decisive: names of the scores that verdicts are about, the one that ablations look at first; empty: the score
            that chooses the checkpoint.
        trainer_class: Trainer of this task.
        architectures: classes of its checkpoints where `model_class` loads several.
        graph: wrapper in which its models are exported; None where they are no single graph.
        has_labels: whether there is a label set.
        has_label_sets: whether a row may have several labels, chosen by a decision with thresholds.
        reads_masks: whether pictures may be read in several views, see `ScoringOptions`.
    """

    name: ClassVar[str]
    model_class: ClassVar[type[PreTrainedModel]]
    problem_type: ClassVar[str | None] = None
    label_column: ClassVar[str]
    metric: ClassVar[str]
    selection_metric: ClassVar[str]
    decisive: ClassVar[tuple[str, ...]] = ()
    trainer_class: ClassVar[type[FlavourTrainer]] = FlavourTrainer
    architectures: ClassVar[tuple[str, ...]] = ()
    graph: ClassVar[type[ModelGraph] | None] = None
    has_labels: ClassVar[bool] = True
    has_label_sets: ClassVar[bool] = False
    reads_masks: ClassVar[bool] = False

    # Data and training

    def name_labels(self, rows: datasets.Dataset, column: str, arguments: DataArguments) -> list[str]:
        """Return the label set of training rows; empty for a task without classes."""
        return label_names(rows, column)

    def read_labels(
        self, rows: datasets.Dataset, column: str, names: Sequence[str], ids: Sequence[str], where: str
    ) -> np.ndarray:
        """Return the truth of each row; `where` names the rows in messages."""
        return label_ids(rows, column, names, ids, where)

    @abstractmethod
    def build(self, configuration: Configuration, data: TrainingData) -> tuple[PreTrainedModel, FlavourProcessor]:
        """Return the model and the processor of a configuration, ready for training."""

    @abstractmethod
    def training_samples(
        self, configuration: Configuration, data: TrainingData, processor: FlavourProcessor
    ) -> Dataset:
        """Return the training samples, with the augmentation of the configuration."""

    @abstractmethod
    def evaluation_samples(self, processor: FlavourProcessor, table: Table) -> Dataset:
        """Return samples as the processor itself would make them, never varied."""

    @abstractmethod
    def collator(
        self, processor: FlavourProcessor, classes: int, configuration: Configuration | None = None
    ) -> Collator:
        """Return the collator; with a configuration the one for training."""

    def evaluation_collator(self, processor: FlavourProcessor, classes: int, configuration: Configuration) -> Collator:
        """Return the collator for evaluations during training."""
        return self.collator(processor, classes, configuration)

    def adapt(self, configuration: Configuration, model: Any) -> str | None:
        """Put low-rank adapters into a model and return a line about them; None where those of all models fit."""
        return None

    def keep_features(self, configuration: Configuration, trainer: Trainer) -> AbstractContextManager[Frozen]:
        """Return a context in which the samples of a trainer carry the stored outputs of frozen parts."""
        return features_once(configuration, trainer)

    def callbacks(
        self, configuration: Configuration, data: TrainingData, model: nn.Module, averaged: AveragedWeights | None
    ) -> list[TrainerCallback]:
        """Return callbacks of this task alone; `averaged` is the moving average of the weights, or None."""
        return []

    def save(self, configuration: Configuration, model: nn.Module, processor: Any, results: dict[str, Any]) -> bool:
        """Write a trained model into the folder of its run; False where it is saved as models of transformers are."""
        return False

    def complete(
        self,
        model: PreTrainedModel,
        processor: FlavourProcessor,
        train: Table,
        selection: Table,
        share: float,
        reader: BackboneReader | None = None,
    ) -> str | None:
        """Add to a trained model what is learned of it afterwards, and return a line for the terminal.

        Args:
            model: on its device.
            processor: its processor.
            train: training rows.
            selection: rows that chose the checkpoint.
            share: of the selection rows that shall be familiar.
            reader: gives the outputs of frozen backbones from the store; None runs the backbones.
        """
        return None

    # Scores

    @abstractmethod
    def scores(self, label_names: Sequence[str]) -> tuple[Score, ...]:
        """Return the scores of this task."""

    def more_scores(self, label_names: Sequence[str]) -> tuple[Score, ...]:
        """Return scores beside `scores` that only finished models are given."""
        return ()

    @abstractmethod
    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return probabilities from logits, of the same shape."""

    def score_named(self, name: str, label_names: Sequence[str]) -> Score:
        """Return one score by name.

        Raises:
            BadInputError: there is no such score; the message names those there are.
        """
        scores = {score.name: score for score in self.scores(label_names)}
        if name not in scores:
            raise BadInputError(f"{self.name} has no score {name!r}; choose one of {', '.join(scores)}")
        return scores[name]

    def compute_metrics(self, label_names: Sequence[str]) -> Callable[[EvalPrediction], dict[str, float]]:
        """Return the Trainer's metric function: all scores of the evaluated rows."""
        scores = self.scores(label_names)

        def compute(evaluated: EvalPrediction) -> dict[str, float]:
            # Predictions arrive in the precision of training; scores are computed in fp32 at least.
            probabilities = self.probabilities(torch.as_tensor(evaluated.predictions).float()).numpy()
            check_finite(probabilities)
            return {score.name: score(np.asarray(evaluated.label_ids), probabilities) for score in scores}

        return compute

    # Finished models

    @abstractmethod
    def answers(self, model: SavedModel, table: Table, batch_size: int, name: str = "") -> Predictions:
        """Return the predictions of a saved model; `name` is shown beside the progress bar, empty for no bar."""

    @abstractmethod
    def outputs(self, model: SavedModel, table: Table, options: "ScoringOptions") -> Outputs:
        """Return what `answers` and `score` need of a model for the rows of a table.

        Those of several parts of a table, concatenated by name, are those of the whole.
        """

    @abstractmethod
    def baselines(self, compared: ScoredModels) -> list[Line]:
        """Return lines that need no model of ours, on the scored rows."""

    @abstractmethod
    def changes(self, model: SavedModel, table: Table, batch_size: int) -> Iterator[tuple[str, Predictions]]:
        """Yield a name and the predictions under a changed input.

        Names that start with an input (`text`, `image`) and end with `shuffled` decide whether that input is used.
        """

    def conflicting(self, table: Table, shuffled: Predictions) -> tuple[Predictions, Predictions] | None:
        """Return the rows whose swapped picture has another label, with the labels of their texts and of the pictures.

        None for a task whose models have one input.
        """
        return None

    def verdicts(self, compared: ScoredModels) -> list[str]:
        """Return sentences of this task alone for a comparison, such as whether sharing an encoder helped."""
        return []

    @abstractmethod
    def score(self, model: SavedModel, compared: ScoredModels, out: Path, options: ScoringOptions) -> Scored:
        """Score one model on `compared.test`, and draw the figures of this task into `out`, a folder it makes."""

    def describe(self, details: Mapping[str, Any]) -> list[str]:
        """Return `Scored.details` as lines for the terminal."""
        return []

    def flavours(self, model: SavedModel, table: Table, batch_size: int) -> list[str] | None:
        """Return the flavour that a model gives each row; None for a model without flavours."""
        return None

    @abstractmethod
    def predict(self, model: SavedModel, items: Sequence[Item], out: Path, options: PredictionOptions) -> str:
        """Write the answers to rows without labels, and return a message for the terminal."""

    def describe_outputs(self) -> dict[str, Any]:
        """Return for each output of the exported graph how it becomes an answer."""
        return {}
