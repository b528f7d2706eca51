"""Sentences about pictures."""

from collections.abc import Sequence

import datasets
import torch
from transformers import AutoModelForImageTextToText

from dataset_builder.columns import CAPTIONS
from trainer_scripts.evaluation.scores import Score
from trainer_scripts.settings.arguments import DataArguments
from trainer_scripts.tasks.captioning import comparing, scoring, training
from trainer_scripts.tasks.captioning.scores import CAPTION_SCORES
from trainer_scripts.tasks.captioning.trainer import CaptionTrainer
from trainer_scripts.tasks.captioning.truth import naming_scores
from trainer_scripts.tasks.common.task import Task


class CaptioningTask(Task):
    """Captions of pictures, judged by the reference captions and by the ingredients that are visible."""

    name = "captioning"
    model_class = AutoModelForImageTextToText
    label_column = CAPTIONS
    metric = "flavour_captioning"
    selection_metric = "cider"
    decisive = ("cider", "ingredient_f1")
    trainer_class = CaptionTrainer
    architectures = tuple(each.__name__ for each in training.ARCHITECTURES.values())
    has_labels = False

    read_labels = staticmethod(training.read_captions)
    build = staticmethod(training.build)
    training_samples = staticmethod(training.training_samples)
    evaluation_samples = staticmethod(training.evaluation_samples)
    collator = staticmethod(training.collator)
    answers = staticmethod(comparing.answers)
    outputs = staticmethod(comparing.outputs)
    baselines = staticmethod(comparing.baseline_lines)
    changes = staticmethod(comparing.changes)
    verdicts = staticmethod(comparing.monotony)
    score = staticmethod(scoring.score)
    describe = staticmethod(scoring.describe)
    predict = staticmethod(scoring.predict)

    def name_labels(self, rows: datasets.Dataset, column: str, arguments: DataArguments) -> list[str]:
        """Return no labels: captions have no label set."""
        return []

    def scores(self, label_names: Sequence[str]) -> tuple[Score, ...]:
        """Return the scores of captions and of the tokens that the captioner expects."""
        return CAPTION_SCORES

    def more_scores(self, label_names: Sequence[str]) -> tuple[Score, ...]:
        """Return the scores of the names in captions, for pictures whose ingredients are known."""
        return naming_scores()

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the softmax over the vocabulary."""
        return logits.softmax(dim=-1)
