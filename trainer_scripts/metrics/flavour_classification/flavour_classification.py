"""Scores of single-label classification, as an `evaluate` module that loads offline by folder path."""

import datasets
import evaluate
import numpy as np

from trainer_scripts.evaluation.metric_inputs import absent_of, class_ids_of, names_of, probabilities_of
from trainer_scripts.evaluation.scores import classification_scores, definitions, evaluate_scores

_DESCRIPTION = "Accuracy, macro-F1, per-class F1, negative log-likelihood and expected calibration error."
_INPUTS = """
Args:
    predictions: one list of class probabilities per row.
    references: one label id per row.
    label_names: names of the classes, by default their ids.
Returns:
    the scores by name; `absent_labels` where some are true nowhere; with
    `with_definitions=True` also `definitions`, the text and hash of each.
"""


class FlavourClassification(evaluate.Metric):
    """Accuracy, macro-F1, per-class F1, negative log-likelihood and expected calibration error."""

    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.Sequence(datasets.Value("float32")), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(self, predictions, references, label_names=None, with_definitions=False):
        probabilities = probabilities_of(predictions, sum_to_one=True)
        names = names_of(label_names, probabilities.shape[1])
        labels = class_ids_of(references, len(names))
        scores = classification_scores(names)
        absent = absent_of(names, np.bincount(labels, minlength=len(names)))
        result = {**evaluate_scores(scores, labels, probabilities), **absent}
        return {**result, "definitions": definitions(scores)} if with_definitions else result
