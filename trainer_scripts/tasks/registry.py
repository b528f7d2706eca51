"""The tasks, and the only place where they are told apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import AutoModelForImageTextToText, PreTrainedModel, Trainer

from dataset_builder.columns import CAPTIONS, FLAVOUR, FLAVOURS_PRESENT, MASK
from dataset_builder.errors import BadInputError
from modeling_flavour.modeling_flavour import FlavourForClassification
from modeling_flavour.modeling_flavour_segmentation import FlavourForSegmentation
from trainer_scripts.data.table import CLASSIFICATION, MULTILABEL, detect_task, label_ids, label_names
from trainer_scripts.evaluation.lines import Comparing
from trainer_scripts.evaluation.scores import Score, classification_scores, multilabel_scores
from trainer_scripts.tasks.captioning import comparing as caption_comparison
from trainer_scripts.tasks.captioning import training as captioning
from trainer_scripts.tasks.captioning.scores import caption_score_list
from trainer_scripts.tasks.captioning.scoring import predict_captions, score_captions
from trainer_scripts.tasks.captioning.trainer import CaptionTrainer
from trainer_scripts.tasks.classification import comparing as classification_comparison
from trainer_scripts.tasks.classification import training as classification
from trainer_scripts.tasks.graphs import ClassifierGraph, SegmenterGraph
from trainer_scripts.tasks.segmentation import classes as segmentation_classes
from trainer_scripts.tasks.segmentation import comparing as segmentation_comparison
from trainer_scripts.tasks.segmentation import training as segmentation
from trainer_scripts.tasks.segmentation.predicting import predict_masks
from trainer_scripts.tasks.segmentation.scores import (
    INGREDIENT_PREFIX,
    MASK_SELECTION,
    group_scores,
    ingredient_scores,
    mask_scores,
)
from trainer_scripts.tasks.segmentation.scoring import score_segmenter
from trainer_scripts.tasks.segmentation.trainer import SegmentationTrainer
from trainer_scripts.tasks.trainer import FlavourTrainer, check_finite


@dataclass(frozen=True)
class Task:
    """All that differs between tasks.

    Attributes:
        name: what `--task` takes.
        model_class: class that `from_pretrained` loads.
        problem_type: `config.problem_type` of its checkpoints, None where the class says it all.
        label_column: column that is learned unless another is named.
        metric: folder under `metrics/`.
        selection_metric: score that chooses the checkpoint unless another is named.
        scores: label names -> scores.
        probabilities: logits -> probabilities `(rows, classes)`.
        build: (configuration, data) -> (model, processor).
        training_samples: (configuration, data, processor) -> training samples.
        evaluation_samples: (processor, table) -> samples as the processor itself would make them.
        collator: (processor, number of labels, configuration for training or None) -> collator.
        comparing: what it brings to `compare.py`.
        trainer_class: Trainer of this task.
        name_labels: (training rows, column, data arguments) -> label set; empty for a task without classes.
        read_labels: (rows, column, label set, row ids, where) -> one truth per row.
        architectures: classes of its checkpoints where `model_class` loads several.
        score: (saved model, table, data set, split, folder, batch size) -> text for the terminal, for a task whose
            answers are no class probabilities.
        predict: (saved model, rows, file, batch size) -> text for the terminal, for such a task.
        has_labels: whether there is a label set.
        graph: wrapper that its models are exported in, see `onnx_graphs`; None where they are no single graph.
    """

    name: str
    model_class: type[PreTrainedModel]
    problem_type: str | None
    label_column: str
    metric: str
    selection_metric: str
    scores: Callable[[Sequence[str]], tuple[Score, ...]]
    probabilities: Callable[[torch.Tensor], torch.Tensor]
    build: Callable[..., tuple[PreTrainedModel, Any]]
    training_samples: Callable[..., Dataset]
    evaluation_samples: Callable[..., Dataset]
    collator: Callable[..., Any]
    comparing: Comparing
    trainer_class: Callable[..., Trainer] = FlavourTrainer
    name_labels: Callable[..., list[str]] = label_names
    read_labels: Callable[..., np.ndarray] = label_ids
    architectures: tuple[str, ...] = ()
    score: Callable[..., str] | None = None
    predict: Callable[..., str] | None = None
    has_labels: bool = True
    graph: type[Any] | None = None

    def score_named(self, name: str, label_names: Sequence[str]) -> Score:
        """Return one score by name.

        Raises:
            BadInputError: there is no such score; those there are are named.
        """
        scores = {score.name: score for score in self.scores(label_names)}
        if name not in scores:
            raise BadInputError(f"{self.name} has no score {name!r}; choose one of {', '.join(scores)}")
        return scores[name]

    def compute_metrics(self, label_names: Sequence[str]) -> Callable[[Any], dict[str, float]]:
        """Return the Trainer's metric function: all scores of the evaluated rows."""
        scores = self.scores(label_names)

        def compute(evaluated: Any) -> dict[str, float]:
            probabilities = self.probabilities(torch.as_tensor(evaluated.predictions).float()).numpy()
            check_finite(probabilities)
            return {score.name: score(np.asarray(evaluated.label_ids), probabilities) for score in scores}

        return compute


_CLASSIFIER: dict[str, Any] = {
    "model_class": FlavourForClassification,
    "build": classification.build,
    "training_samples": classification.training_samples,
    "evaluation_samples": classification.evaluation_samples,
    "collator": classification.collator,
    "comparing": classification_comparison.COMPARING,
    "graph": ClassifierGraph,
}

_SEGMENTER: dict[str, Any] = {
    "model_class": FlavourForSegmentation,
    "label_column": MASK,
    "build": segmentation.build,
    "training_samples": segmentation.training_samples,
    "evaluation_samples": segmentation.evaluation_samples,
    "collator": segmentation.collator,
    "comparing": segmentation_comparison.COMPARING,
    "trainer_class": SegmentationTrainer,
    "name_labels": segmentation_classes.class_names,
    "read_labels": segmentation_classes.read_ingredients,
    "score": score_segmenter,
    "predict": predict_masks,
    "graph": SegmenterGraph,
}

TASKS: dict[str, Task] = {
    CLASSIFICATION: Task(
        name=CLASSIFICATION,
        problem_type="single_label_classification",
        label_column=FLAVOUR,
        metric="flavour_classification",
        selection_metric="accuracy",
        scores=classification_scores,
        probabilities=lambda logits: logits.softmax(dim=-1),
        **_CLASSIFIER,
    ),
    MULTILABEL: Task(
        name=MULTILABEL,
        problem_type="multi_label_classification",
        label_column=FLAVOURS_PRESENT,
        metric="flavour_multilabel",
        selection_metric="samples_f1",
        scores=multilabel_scores,
        probabilities=lambda logits: logits.sigmoid(),
        **_CLASSIFIER,
    ),
    "captioning": Task(
        name="captioning",
        model_class=AutoModelForImageTextToText,
        problem_type=None,
        label_column=CAPTIONS,
        metric="flavour_captioning",
        selection_metric="cider",
        scores=caption_score_list,
        probabilities=lambda logits: logits.softmax(dim=-1),
        build=captioning.build,
        training_samples=captioning.training_samples,
        evaluation_samples=captioning.evaluation_samples,
        collator=captioning.collator,
        comparing=caption_comparison.COMPARING,
        has_labels=False,
        trainer_class=CaptionTrainer,
        name_labels=captioning.no_label_names,
        read_labels=captioning.read_captions,
        architectures=tuple(each.__name__ for each in captioning.ARCHITECTURES.values()),
        score=score_captions,
        predict=predict_captions,
    ),
    # A segmenter without masks, so that its ingredients are judged beside those of the others.
    "ingredients": Task(
        name="ingredients",
        problem_type="multi_label_classification",
        metric="flavour_multilabel",
        selection_metric=f"{INGREDIENT_PREFIX}samples_f1",
        scores=lambda names: ingredient_scores(names[1:]),
        probabilities=lambda logits: logits.sigmoid(),
        **_SEGMENTER,
    ),
    "segmentation": Task(
        name="segmentation",
        problem_type=None,
        metric="flavour_segmentation",
        selection_metric=MASK_SELECTION,
        scores=lambda names: mask_scores() + group_scores(names) + ingredient_scores(names[1:]),
        probabilities=lambda logits: logits.softmax(dim=1),
        **_SEGMENTER,
    ),
}


def task_named(name: str) -> Task:
    """Return a task by name."""
    if name not in TASKS:
        raise BadInputError(f"there is no task {name!r}; choose one of {', '.join(TASKS)}")
    return TASKS[name]


def choose_task(name: str | None, label_column: str | None, rows: Any) -> tuple[Task, str]:
    """Return the task and its label column; without a name the type of the label column tells the task.

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


def task_of(config: Any) -> Task:
    """Return the task of a checkpoint, by its class and problem type."""
    classes = config.architectures or []
    for task in TASKS.values():
        known = task.architectures or (task.model_class.__name__,)
        if set(known) & set(classes) and task.problem_type in (None, config.problem_type):
            return task
    raise BadInputError(f"a {', '.join(classes) or config.model_type} is no model of this package")
