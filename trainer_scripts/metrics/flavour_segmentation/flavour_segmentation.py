"""Scores of segmentation, as an `evaluate` module that loads offline by folder path."""

from typing import Any

import datasets
import evaluate
import numpy as np

from trainer_scripts.evaluation.metric_inputs import absent_of, mask_of, names_of
from trainer_scripts.evaluation.scores import definitions
from trainer_scripts.tasks.segmentation.scores import class_table, confusion_matrix, mask_scores, pixel_counts

_DESCRIPTION = "Pixel accuracy, mean accuracy, mIoU and Dice with and without background, from one confusion matrix."
_INPUTS = """
Args:
    predictions: one mask of class ids per picture.
    references: the true masks, of the same sizes; 255 for unknown pixels.
    num_labels: number of classes, background included.
    label_names: names of the classes, by default their ids.
Returns:
    the scores by name and `per_class`; `absent_labels` where some are true nowhere; with
    `with_definitions=True` also `definitions`.
"""


class FlavourSegmentation(evaluate.Metric):
    """Pixel accuracy, mean accuracy, mIoU and Dice with and without background, from one confusion matrix."""

    def _info(self):
        # Not whole numbers, to which `evaluate` would round probabilities without a word.
        mask = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
        features = datasets.Features({"predictions": mask, "references": mask})
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(self, predictions, references, num_labels, label_names=None, with_definitions=False):
        if len(predictions) == 0:
            raise ValueError("no masks to score; give at least one")
        if num_labels < 1:
            raise ValueError(f"num_labels is {num_labels}; give the number of classes, background included")
        names = names_of(label_names, num_labels)
        # Counts of each picture are kept apart, as masks may differ in size.
        counts = np.stack(
            [
                pixel_counts(
                    confusion_matrix(mask_of(true, "reference", row), mask_of(found, "prediction", row), num_labels)
                )
                for row, (true, found) in enumerate(zip(references, predictions, strict=True))
            ]
        )
        scores = mask_scores()
        result: dict[str, Any] = {score.name: score(counts, counts) for score in scores}
        result["per_class"] = class_table(names, counts.sum(axis=0))
        result |= absent_of(names, np.split(counts.sum(axis=0), 3)[2] > 0)
        return {**result, "definitions": definitions(scores)} if with_definitions else result
