"""What arguments may hold: ranges of numbers, names of schedule settings, and options that a task does not read."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import inf
from pathlib import Path
from typing import Any

from torch import zeros
from torch.nn import Parameter
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers.trainer_utils import IntervalStrategy, SchedulerType

from dataset_builder.errors import BadInputError


@dataclass(frozen=True)
class Range:
    """Numbers between two limits.

    Attributes:
        low: least number.
        high: largest number.
        above: whether `low` itself is left out.
        below: whether `high` itself is left out.
    """

    low: float
    high: float = inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        )

    def __str__(self) -> str:
        if self.high == inf:
            return f"be {'above' if self.above else 'at least'} {self.low:g}"
        return f"lie in {'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"


NATURAL, COUNT = Range(0), Range(1)
SEED = Range(0, 2**32 - 1)  # as NumPy takes them
POSITIVE = Range(0, above=True)
SHARE, SHARE_BELOW_ONE = Range(0, 1), Range(0, 1, below=True)
RANGES = {
    "color_jitter": NATURAL,
    "crop_scale": Range(0, 1, above=True),
    "crop_scale_most": Range(0, 1, above=True),
    "crop_size": COUNT,
    "data_seed": SEED,
    "dataloader_num_workers": NATURAL,
    "early_stopping_patience": COUNT,
    "ema_decay": SHARE_BELOW_ONE,
    "feature_views": NATURAL,
    "first_caption_share": SHARE,
    "frozen_image_epochs": NATURAL,
    "gradient_accumulation_steps": COUNT,
    "gradient_log_steps": NATURAL,
    "image_learning_rate": NATURAL,
    "image_size": COUNT,
    "label_smoothing_factor": SHARE_BELOW_ONE,
    "learning_rate": NATURAL,
    "mask_stride": COUNT,
    "max_grad_norm": NATURAL,
    "max_length": Range(3),  # begin, one word, end
    "max_mb": POSITIVE,
    "max_train_samples": COUNT,
    "mixup_alpha": NATURAL,
    "num_train_epochs": POSITIVE,
    "per_device_eval_batch_size": COUNT,
    "per_device_train_batch_size": COUNT,
    "rotation": Range(0, 180),
    "save_total_limit": COUNT,
    "seed": SEED,
    "seeds": COUNT,
    "selection_seed": NATURAL,
    "selection_share": Range(0, 1, above=True, below=True),
    "self_critical_draws": NATURAL,
    "stream_block": COUNT,
    "target_share": SHARE,
    "text_learning_rate": NATURAL,
    "trainable_image_layers": NATURAL,
    "vocabulary_size": Range(6),  # one word beside the special tokens
    "warmup_steps": NATURAL,
    "weight_decay": NATURAL,
    "word_dropout": SHARE_BELOW_ONE,
}

_CLASSIFIERS = ("classification", "multilabel")
_MASKS = ("segmentation", "ingredients")
# Options that only some tasks read. The others would train without them and not say so.
READ_BY: dict[str, Sequence[str]] = {
    "captions_per_picture": ("captioning",),
    "confidence_column": _CLASSIFIERS,
    "first_caption_share": ("captioning",),
    "frozen_image_epochs": ("captioning",),
    "generation": ("captioning",),
    "gradient_log_steps": ("segmentation",),
    "image_fit": _CLASSIFIERS,
    "init_segmenter": ("segmentation",),
    "label_filter": _MASKS,
    "label_level": _MASKS,
    "label_smoothing_factor": (*_CLASSIFIERS, "captioning"),
    "letters_only": _CLASSIFIERS,
    "mask_stride": _MASKS,
    "self_critical_draws": ("captioning",),
    "target_column": _CLASSIFIERS,
    "weight_column": _CLASSIFIERS,
    "word_dropout": _CLASSIFIERS,
}


_HALF = "it would leave the saved weights in half precision, and evaluation computes as training does (--precision)"
# What the Trainer offers and this training cannot keep its promises with.
REFUSED = {
    "batch_eval_metrics": "scores are of all rows together",
    "bf16_full_eval": _HALF,
    "do_predict": "score.py scores the test split, predict.py answers a table",
    "fp16_full_eval": _HALF,
    "prediction_loss_only": "scores are told with every checkpoint",
    "push_to_hub": "it sends checkpoints before one is chosen, without processor and card (`hf upload ID FOLDER` "
    "publishes a finished run)",
}


def check_ranges(arguments: Any) -> None:
    """Raise BadInputError that names the first number outside its range; None stands for a default."""
    for item in fields(arguments):
        allowed, value = RANGES.get(item.name), getattr(arguments, item.name)
        if allowed is None or not isinstance(value, int | float):
            continue
        if value not in allowed:
            raise BadInputError(f"{item.name} is {value:g}; it must {allowed}")


def check_crops(least: float, most: float) -> None:
    """Raise BadInputError when the smallest crop is larger than the largest."""
    if least < 1 and least > most:
        raise BadInputError(f"crop_scale is {least:g}, above crop_scale_most {most:g}; it must not be")


def check_schedule(kind: SchedulerType, settings: dict[str, Any]) -> None:
    """Raise BadInputError for a setting that the schedule of the learning rate does not know, or lacks."""
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, get_scheduler

    plateau = kind == SchedulerType.REDUCE_ON_PLATEAU
    schedule: Any = ReduceLROnPlateau if plateau else TYPE_TO_SCHEDULER_FUNCTION[kind]
    own = {"self", "optimizer", "num_warmup_steps", "num_training_steps"}
    parameters = inspect.signature(schedule).parameters
    known = [name for name in parameters if name not in own]
    for name in settings:
        if name not in known:
            raise BadInputError(
                f"lr_scheduler_kwargs: the schedule {kind.value} has no setting {name!r}; "
                f"it has {', '.join(known) or 'none'}"
            )
    try:
        get_scheduler(kind, SGD([Parameter(zeros(1))]), 0, 1, dict(settings))
    except (TypeError, ValueError) as error:
        raise BadInputError(f"lr_scheduler_kwargs: the schedule {kind.value} cannot be made: {error}") from error


def refuse_idle_options(configuration: Any) -> None:
    """Raise BadInputError for an option that no training reads as things are, whatever the task."""
    training = configuration.training
    if training.resume_from_checkpoint is not None:
        raise BadInputError(
            f"resume_from_checkpoint {training.resume_from_checkpoint!r}: a repeated command goes on from the "
            "checkpoints in its output_dir; leave the option out, or start from weights with model_name_or_path"
        )
    for name, why in REFUSED.items():
        if getattr(training, name):
            raise BadInputError(f"{name}: {why}; leave it out")
    if training.train_sampling_strategy == "group_by_length":
        raise BadInputError(
            "train_sampling_strategy group_by_length would prepare every picture to learn how long its text is, and "
            "texts are short here (max_length); leave it out"
        )
    for what in ("logging", "eval", "save"):
        if f"{what}_steps" in configuration.given and getattr(training, f"{what}_strategy") != IntervalStrategy.STEPS:
            raise BadInputError(f"{what}_steps does nothing without --{what}_strategy steps; give both")
    if configuration.data.dataset_revision is not None and Path(configuration.data.dataset).exists():
        raise BadInputError(
            f"dataset_revision {configuration.data.dataset_revision!r}: {configuration.data.dataset} is a folder here, "
            "which has no revisions; leave it out"
        )
    if training.early_stopping_patience is not None and training.eval_strategy == IntervalStrategy.NO:
        raise BadInputError(
            "early_stopping_patience counts evaluations, and eval_strategy no makes none; give another eval_strategy, "
            "or early_stopping_patience none"
        )


def refuse_options_of_other_tasks(configuration: Any, task: str) -> None:
    """Raise BadInputError for an option that differs from its default and that this task does not read."""
    for part in (configuration.model, configuration.data, configuration.training):
        stock = type(part).__dataclass_fields__
        for name, tasks in READ_BY.items():
            if name not in stock or task in tasks:
                continue
            value, default = getattr(part, name), stock[name].default
            if value and value != default:
                raise BadInputError(
                    f"{name} {value!r} does nothing in {task}, it is for {', '.join(tasks)}; leave it out"
                )
