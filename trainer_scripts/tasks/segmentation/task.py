"""Masks of ingredients, and the ingredients of a picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dataset_builder.columns import MASK
from modeling_flavour.modeling_flavour_segmentation import FlavourForSegmentation
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.evaluation.scores import Score
from trainer_scripts.tasks.common.graphs import SegmenterGraph
from trainer_scripts.tasks.common.task import SavedModel, Task
from trainer_scripts.tasks.segmentation import classes, comparing, predicting, scoring, training
from trainer_scripts.tasks.segmentation.answers import answer, samples_for
from trainer_scripts.tasks.segmentation.scores import (
    INGREDIENT_PREFIX,
    MASK_SELECTION,
    group_scores,
    ingredient_scores,
    mask_scores,
)
from trainer_scripts.tasks.segmentation.tastes import main_flavour, plate_taste, tastes_of
from trainer_scripts.tasks.segmentation.trainer import SegmentationTrainer


class SegmenterTask(Task):
    """The common base of both tasks; a model may have a mask head, an ingredient head, or both."""

    model_class = FlavourForSegmentation
    label_column = MASK
    decisive = (MASK_SELECTION, f"{INGREDIENT_PREFIX}samples_f1")
    trainer_class = SegmentationTrainer
    graph = SegmenterGraph
    reads_masks = True

    name_labels = staticmethod(classes.class_names)
    read_labels = staticmethod(classes.read_ingredients)
    build = staticmethod(training.build)
    training_samples = staticmethod(training.training_samples)
    evaluation_samples = staticmethod(training.evaluation_samples)
    collator = staticmethod(training.collator)
    answers = staticmethod(comparing.answers)
    outputs = staticmethod(scoring.outputs)
    baselines = staticmethod(comparing.baseline_lines)
    changes = staticmethod(comparing.changes)
    verdicts = staticmethod(comparing.sharing_verdicts)
    score = staticmethod(scoring.score)
    describe = staticmethod(scoring.describe)
    predict = staticmethod(predicting.predict)

    def flavours(self, model: SavedModel, table: Table, batch_size: int) -> list[str] | None:
        """Return the flavour of the ingredients that the ingredient head names; None for a model without one."""
        if not model.model.config.ingredient_head:
            return None
        given = model.outputs(table)
        if given is None:
            samples, reader = samples_for(model, table), comparing.reader_of(model)
            given = answer(model.model, samples, batch_size, model.name, reader=reader).outputs()
        named = Decision()(given["probabilities"])
        tastes = tastes_of(model.model.config)
        return [main_flavour(plate_taste(np.concatenate([[0], row]), tastes)) or "none" for row in named]

    def describe_outputs(self) -> dict[str, Any]:
        """Return the meaning of the mask and of the ingredients' logits."""
        return {
            "mask": "uint8 (batch, height, width): class of each pixel, at the size of pixel_values",
            "ingredient_logits": "sigmoid gives the probability of class i + 1 at place i",
        }


class IngredientsTask(SegmenterTask):
    """The ingredients of a picture: a segmenter without masks, so that it is judged beside those with masks."""

    name = "ingredients"
    problem_type = "multi_label_classification"
    metric = "flavour_multilabel"
    selection_metric = f"{INGREDIENT_PREFIX}samples_f1"

    def scores(self, label_names: Sequence[str]) -> tuple[Score, ...]:
        """Return the scores of the ingredients."""
        return ingredient_scores(label_names[1:])

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the sigmoid of each ingredient."""
        return logits.sigmoid()


class SegmentationTask(SegmenterTask):
    """The class of every pixel."""

    name = "segmentation"
    metric = "flavour_segmentation"
    selection_metric = MASK_SELECTION

    def scores(self, label_names: Sequence[str]) -> tuple[Score, ...]:
        """Return the scores of masks by class and by food group, and of the ingredients that they show."""
        return mask_scores() + group_scores(label_names) + ingredient_scores(label_names[1:])

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the softmax over the classes of each pixel."""
        return logits.softmax(dim=1)
