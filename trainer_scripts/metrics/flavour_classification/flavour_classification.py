"""Scores of single-label classification, as an `evaluate` module that loads offline by folder path."""

import datasets
import evaluate
import numpy as np

from trainer_scripts.evaluation.scores import check_probabilities, classification_scores, definitions, evaluate_scores

_DESCRIPTION = "Accuracy, macro-F1, per-class F1, negative log-likelihood and expected calibration error."
_INPUTS = """
Args:
    predictions: one list of class probabilities per row.
    references: one label id per row.
    label_names: names of the classes, by default their ids.
Returns:
    the scores by name; with `with_definitions=True` also `definitions`, the text and hash of each.
"""


class FlavourClassification(evaluate.Metric):
    """Accuracy, macro-F1, per-class F1, negative log-likelihood and expected calibration error."""

    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.Sequence(datasets.Value("float32")), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(self, predictions, references, label_names=None, with_definitions=False):
        # `evaluate` stores float32; scores are computed in float64 as everywhere else.
        probabilities = np.asarray(predictions, dtype=np.float64)
        check_probabilities(probabilities, sum_to_one=True)
        names = label_names or [str(index) for index in range(probabilities.shape[-1])]
        scores = classification_scores(names)
        result = evaluate_scores(scores, np.asarray(references), probabilities)
        return {**result, "definitions": definitions(scores)} if with_definitions else result
