"""Scores of multi-label classification, as an `evaluate` module that loads offline by folder path."""

import datasets
import evaluate

from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.evaluation.metric_inputs import absent_of, label_sets_of, names_of, probabilities_of
from trainer_scripts.evaluation.scores import definitions, evaluate_scores, multilabel_scores

_DESCRIPTION = "Samples-, micro-, macro- and per-label F1, mean average precision, cross-entropy and calibration error."
_INPUTS = """
Args:
    predictions: one list of label probabilities per row.
    references: one list of 0/1 per row, of the same length.
    label_names: names of the labels, by default their ids.
    threshold: probability from which a label is predicted.
    best_label_fallback: whether a row in which no label passes gets its most probable one.
Returns:
    the scores by name; `absent_labels` where some are true nowhere; with
    `with_definitions=True` also `definitions`, the text and hash of each.
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
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold is {threshold:g}, and probabilities lie between 0 and 1; give one of these")
        probabilities = probabilities_of(predictions)
        names = names_of(label_names, probabilities.shape[1])
        labels = label_sets_of(references, len(names))
        scores = multilabel_scores(names, Decision(float(threshold), best_label_fallback))
        result = {**evaluate_scores(scores, labels, probabilities), **absent_of(names, labels.sum(axis=0))}
        return {**result, "definitions": definitions(scores)} if with_definitions else result
