"""One label, or several labels, per row."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PreTrainedModel

from dataset_builder.columns import FLAVOUR, FLAVOURS, FLAVOURS_PRESENT
from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from modeling_flavour.modeling_flavour import FlavourForClassification
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.table import CLASSIFICATION, MULTILABEL, Table
from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.evaluation.predictions import THRESHOLDS
from trainer_scripts.evaluation.scores import Score, classification_scores, multilabel_scores, tuned_thresholds
from trainer_scripts.features.reader import BackboneReader
from trainer_scripts.settings.arguments import Configuration, DataArguments
from trainer_scripts.tasks.classification import comparing, training
from trainer_scripts.tasks.classification.familiarity import SINGLE_LABEL, learn_abstention, learn_familiarity
from trainer_scripts.tasks.classification.predicting import predict
from trainer_scripts.tasks.common.graphs import ClassifierGraph
from trainer_scripts.tasks.common.task import SavedModel, Scored, ScoredModels, ScoringOptions, Task
from trainer_scripts.tasks.common.trainer import Collator


class ClassifierTask(Task):
    """The common base of both classification tasks."""

    model_class = FlavourForClassification
    graph = ClassifierGraph

    build = staticmethod(training.build)
    training_samples = staticmethod(training.training_samples)
    evaluation_samples = staticmethod(training.evaluation_samples)
    collator = staticmethod(training.collator)
    answers = staticmethod(comparing.answers)
    outputs = staticmethod(comparing.outputs)
    baselines = staticmethod(comparing.baseline_lines)
    changes = staticmethod(comparing.changes)
    conflicting = staticmethod(comparing.conflicting)
    predict = staticmethod(predict)

    def evaluation_collator(self, processor: FlavourProcessor, classes: int, configuration: Configuration) -> Collator:
        """Return the collator without mixup and soft targets, which only training has."""
        return self.collator(processor, classes)

    def complete(
        self,
        model: PreTrainedModel,
        processor: FlavourProcessor,
        train: Table,
        selection: Table,
        share: float,
        reader: BackboneReader | None = None,
    ) -> str | None:
        """Let a fusion know its training rows, and a model of one label when it is not sure, see `familiarity.py`."""
        config = model.config
        if not (config.has_text and config.has_image):
            if config.problem_type != SINGLE_LABEL or learn_abstention(model, processor, selection, reader):
                return None
            return "too few rows to know when the model is not sure: it always answers"
        if not learn_familiarity(model, processor, train, selection, share, reader):
            return "too few rows to know which inputs are familiar: every input is read"
        leaves = "are left out" if config.answers_without_a_part else "are reported alone, without modality_dropout"
        return f"inputs unlike {share:.0%} of the selection rows {leaves} (familiar_share none: read all)"

    def score(self, model: SavedModel, compared: ScoredModels, out: Path, options: ScoringOptions) -> Scored:
        """Return the predictions; baselines that are trained and ablations take long and are left to `compare.py`."""
        return Scored(self.answers(model, compared.test, options.batch_size, model.name))


class ClassificationTask(ClassifierTask):
    """One label per row."""

    name = CLASSIFICATION
    problem_type = "single_label_classification"
    label_column = FLAVOUR
    metric = "flavour_classification"
    selection_metric = "accuracy"

    scores = staticmethod(classification_scores)

    def name_labels(self, rows: datasets.Dataset, column: str, arguments: DataArguments) -> list[str]:
        """Return the label set of training rows.

        Raises:
            BadInputError: there is a single label, and nothing to tell apart.
        """
        names = super().name_labels(rows, column, arguments)
        if len(names) == 1:
            raise BadInputError(f"every row has the label {names[0]!r} in {column!r}; give rows of two labels or more")
        return names

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the softmax over the labels."""
        return logits.softmax(dim=-1)

    def flavours(self, model: SavedModel, table: Table, batch_size: int) -> list[str] | None:
        """Return the most probable flavour of each row, where the labels are flavours."""
        if not set(model.names) <= set(FLAVOURS):
            return None
        best = self.answers(model, table, batch_size, model.name).probabilities.argmax(axis=1)
        return [model.names[index] for index in best]

    def describe_outputs(self) -> dict[str, Any]:
        """Return how logits become a label."""
        return {"logits": "softmax gives probabilities", "decision": "the most probable label"}


class MultilabelTask(ClassifierTask):
    """Several labels per row."""

    name = MULTILABEL
    problem_type = "multi_label_classification"
    label_column = FLAVOURS_PRESENT
    metric = "flavour_multilabel"
    selection_metric = "samples_f1"
    has_label_sets = True

    def scores(self, label_names: Sequence[str]) -> tuple[Score, ...]:
        """Return the scores with the threshold 0.5."""
        return multilabel_scores(label_names)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the sigmoid of each label."""
        return logits.sigmoid()

    def score(self, model: SavedModel, compared: ScoredModels, out: Path, options: ScoringOptions) -> Scored:
        """Return the predictions, and thresholds tuned on the selection split where the options say so."""
        scored = super().score(model, compared, out, options)
        if options.tune_thresholds:
            selection = compared.selection
            answered = self.answers(model, selection, options.batch_size, model.name)
            scored.thresholds = tuned_thresholds(selection.labels, answered.probabilities)
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / THRESHOLDS, dict(zip(model.names, scored.thresholds, strict=True)))
            scored.files = [THRESHOLDS]
        return scored

    def describe_outputs(self) -> dict[str, Any]:
        """Return how logits become a set of labels."""
        return {"logits": "sigmoid gives probabilities", "decision": Decision().describe()}
