"""Caption scores as a metric of `evaluate`, by the definitions of `caption_scores`."""

import datasets
import evaluate

from trainer_scripts.evaluation.scores import CAPTIONS, definitions
from trainer_scripts.tasks.captioning.scores import CAPTION_SCORES, text_scores

_DESCRIPTION = "BLEU-1..4, ROUGE-L, CIDEr-D and variety of generated captions against all captions of each picture."
_KWARGS = """
Args:
    predictions: one caption per picture.
    references: list of captions per picture.
Returns:
""" + "\n".join(f"    {score.name}: {score.definition}." for score in CAPTION_SCORES if score.part == CAPTIONS)


class FlavourCaptioning(evaluate.Metric):
    """All scores of captions as texts."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
        )
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_KWARGS, features=features)

    def _compute(self, predictions: list, references: list, with_definitions: bool = False) -> dict:
        result = text_scores(predictions, references)
        # Scores of tokens need the captioner and are not among the results.
        scores = [score for score in CAPTION_SCORES if score.name in result]
        return {**result, "definitions": definitions(scores)} if with_definitions else result
