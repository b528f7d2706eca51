"""Scores of multi-label classification, as an `evaluate` module that loads offline by folder path."""

import datasets
import evaluate
import numpy as np

from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.evaluation.scores import check_probabilities, definitions, evaluate_scores, multilabel_scores

_DESCRIPTION = "Samples-, micro-, macro- and per-label F1, mean average precision, cross-entropy and calibration error."
_INPUTS = """
Args:
    predictions: one list of label probabilities per row.
    references: one list of 0/1 per row, of the same length.
    label_names: names of the labels, by default their ids.
    threshold: probability from which a label is predicted.
    best_label_fallback: whether a row in which no label passes gets its most probable one.
Returns:
    the scores by name; with `with_definitions=True` also `definitions`, the text and hash of each.
"""


class FlavourMultilabel(evaluate.Metric):
    """Samples-, micro-, macro- and per-label F1, mean average precision, cross-entropy and calibration error."""

    def _info(self):
        features = datasets.Features(
            {
                "predictions": datasets.Sequence(datasets.Value("float32")),
                "references": datasets.Sequence(datasets.Value("int64")),
            }
        )
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(
        self, predictions, references, label_names=None, threshold=0.5, best_label_fallback=True, with_definitions=False
    ):
        # `evaluate` stores float32; scores are computed in float64 as everywhere else.
        probabilities = np.asarray(predictions, dtype=np.float64)
        check_probabilities(probabilities)
        names = label_names or [str(index) for index in range(probabilities.shape[-1])]
        scores = multilabel_scores(names, Decision(float(threshold), best_label_fallback))
        result = evaluate_scores(scores, np.asarray(references), probabilities)
        return {**result, "definitions": definitions(scores)} if with_definitions else result
