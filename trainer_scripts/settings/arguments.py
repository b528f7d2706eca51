"""What a run is made of: the argument dataclasses, and the configuration that holds them."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
import yaml
from transformers.integrations.deepspeed import is_deepspeed_available
from transformers.trainer_utils import SchedulerType
from transformers.utils import strtobool

from dataset_builder.columns import DISH_ID, IMAGE, TITLE
from dataset_builder.errors import BadInputError
from trainer_scripts.settings.checks import check_crops, check_ranges, check_schedule

DEFAULT_DATASET = "outputs/flavour-sd"


class JsonMapping(dict[str, Any]):
    """A mapping, given as a mapping (YAML) or as a JSON object (command line)."""

    def __init__(self, value: Any = ()):
        if isinstance(value, str):
            value = json.loads(value)
        if not isinstance(value, dict | tuple):
            raise ValueError(f"{value!r} is no mapping")
        super().__init__(value)


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class ModelArguments:
    """Which model is built, and what of it is trained."""

    model_name_or_path: str | None = _option(None, "Checkpoint folder or Hub id to go on from; all of it is loaded.")
    model_revision: str | None = _option(None, "Revision of Hub weights.")
    modality: Literal["fusion", "text", "image"] = _option("fusion", "Which inputs the model has.")
    text_encoder: str | None = _option(
        None, "Pretrained text encoder (folder or Hub id); none: text_config from scratch."
    )
    image_encoder: str | None = _option(None, "Pretrained image encoder (folder or Hub id); none: vision_config.")
    text_config: JsonMapping = field(
        default_factory=JsonMapping,
        metadata={"help": "Configuration of the text encoder (with model_type), from scratch."},
    )
    vision_config: JsonMapping = field(
        default_factory=JsonMapping,
        metadata={"help": "Configuration of the image encoder (with model_type), from scratch."},
    )
    config: JsonMapping = field(
        default_factory=JsonMapping,
        metadata={"help": "Further fields of the model's configuration (head, dropout, fusion)."},
    )
    tokenizer: Literal["wordpiece", "words"] | None = _option(
        None, "Tokenizer trained on the training split; none: that of text_encoder."
    )
    vocabulary_size: int = _option(4000, "Largest vocabulary of a trained tokenizer.")
    max_length: int = _option(40, "Longest text in tokens.")
    letters_only: bool = _option(False, "Drop everything but letters from texts.")
    image_size: int | None = _option(None, "Picture size in pixels; none: that of the image encoder.")
    image_fit: Literal["crop", "squash"] = _option(
        "crop", "Crop the middle as the image encoder does, or squash the whole picture to its square; no edge is lost."
    )
    init_image_encoder: str | None = _option(None, "Checkpoint whose image encoder this model starts from.")
    init_segmenter: str | None = _option(
        None, "Segmentation: single-task checkpoint whose encoder and head a multi-task model starts from."
    )
    generation: JsonMapping = field(
        default_factory=JsonMapping, metadata={"help": "Captioning: defaults of generate(), such as num_beams."}
    )
    freeze_text: bool = _option(False, "Keep the pretrained text encoder as it is, in evaluation mode.")
    freeze_image: bool = _option(False, "Keep the image encoder as it is, in evaluation mode.")
    trainable_image_layers: int = _option(0, "Of a frozen image encoder, the last so many layers that still train.")
    max_mb: float | None = _option(None, "Refuse, before training, a model larger than this on disk.")

    def __post_init__(self):
        check_ranges(self)


@dataclass
class DataArguments:
    """Which rows are read, which columns are used, and how pictures are varied."""

    dataset: str = _option(DEFAULT_DATASET, "Folder or Hub id.")
    dataset_revision: str | None = _option(None, "Revision of a Hub data set.")
    train_split: str = _option("train", "Split that is trained on.")
    selection_split: str = _option("validation", "Split that chooses the checkpoint; never the test split.")
    test_split: str = _option("test", "Split kept for scoring; training only checks that nothing of it leaks.")
    selection_share: float = _option(0.1, "Share of groups taken from training where the selection split is absent.")
    selection_seed: int = _option(0, "Seed that draws these groups; other than seed, so that repeated runs share them.")
    columns: JsonMapping = field(
        default_factory=JsonMapping, metadata={"help": "Column mapping, ours to theirs: {title: name, flavour: label}."}
    )
    text_column: str = _option(TITLE, "Column the model reads.")
    image_column: str = _option(IMAGE, "Column the model sees.")
    label_column: str | None = _option(None, "Column that is learned; none: that of the task.")
    label_level: Literal["ingredient", "group"] = _option(
        "ingredient", "Segmentation: classes are ingredients, or the food groups they belong to."
    )
    label_filter: list[str] | None = field(
        default=None,
        metadata={"help": "Segmentation: keep these classes only; pixels of the others count as unknown."},
    )
    group_column: str | None = _option(DISH_ID, "Column whose equal values never cross splits; none: there is none.")
    target_column: str | None = _option(None, "Column of soft targets that sum to 1, such as taste.")
    target_share: float = _option(0.5, "Weight of the soft target; the rest is on the label.")
    weight_column: str | None = _option(None, "Column of sample weights.")
    confidence_column: str | None = _option(
        None, "Column of soft labels, such as taste: each row weighs as much as its label is sure there."
    )
    shared_rows: Literal["refuse", "drop"] = _option(
        "refuse", "Training rows whose picture, text or group is on another side: refuse, or drop and count them."
    )
    max_train_samples: int | None = _option(None, "Train on the first so many rows only.")
    streaming: bool = _option(False, "Read training rows while training, from a folder or a Hub; needs max_steps.")
    stream_block: int = _option(256, "Streamed rows that are shuffled together.")
    captions_per_picture: Literal["random", "all"] = _option(
        "random", "Captioning: one random caption per picture and epoch, or every caption as a row of its own."
    )
    first_caption_share: float = _option(
        0.0,
        "Captioning: share of random draws that take a picture's first caption, on flavour-sd the one that names all.",
    )
    word_dropout: float = _option(0.0, "Share of the words of training texts that are made unknown at random.")
    crop_scale: float = _option(1.0, "Smallest share of the picture that a random crop keeps; 1: no crops.")
    crop_size: int | None = _option(
        None,
        "Side of training crops in pixels, below image_size to save time; none: image_size.",
    )
    mask_stride: int = _option(
        1, "Segmentation: learn from every so many-th pixel of a mask, to save time; scores always use every pixel."
    )
    crop_scale_most: float = _option(1.0, "Largest share of the picture that a random crop keeps.")
    class_crops: bool = _option(
        False, "Where masks teach: lay crops around a random class of the mask, so that rare ones are seen as often."
    )
    flip: bool = _option(False, "Mirror half of the training pictures.")
    quarter_turns: bool = _option(
        False,
        "Turn training pictures by random quarters: for plates from above; not where a caption names a side.",
    )
    rotation: float = _option(0.0, "Largest random turn of a training picture, in degrees either way.")
    color_jitter: float = _option(0.0, "Strength of random brightness, contrast and saturation.")
    mixup_alpha: float = _option(0.0, "Beta parameter of mixup, for image-only models; 0: none.")
    frozen_features: Literal["auto", "store", "recompute"] = _option(
        "auto",
        "Output of frozen backbones: auto keeps it on disk if possible, store refuses if not, recompute keeps none.",
    )
    feature_views: int = _option(
        0, "Random views of each training picture that are kept where pictures vary; 0: none are."
    )
    features_dir: str = _option("outputs/features", "Folder of kept features, shared by all runs.")

    def __post_init__(self):
        check_ranges(self)
        check_crops(self.crop_scale, self.crop_scale_most)


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    """The Trainer's own arguments, and what this trainer adds."""

    # The checkpoint is always chosen by evaluations, so both happen at the same steps.
    eval_strategy: str = _option("epoch", "When to evaluate: epoch or steps.")
    save_strategy: str = _option("epoch", "When to save; the same as eval_strategy.")
    logging_strategy: str = _option("epoch", "When to log the training loss: epoch or steps.")
    load_best_model_at_end: bool = _option(True, "Keep the checkpoint with the best selection score.")
    save_total_limit: int | None = _option(2, "Checkpoints kept while training.")
    restore_callback_states_from_checkpoint: bool = _option(True, "Early stopping goes on counting where it was.")
    ddp_find_unused_parameters: bool | None = _option(False, "No part of our models is left out of the loss.")
    dataloader_pin_memory: bool = _option(torch.cuda.is_available(), "Pin memory for the copy to a GPU.")
    remove_unused_columns: bool = _option(False, "The collator makes exactly what the model takes.")
    task: str | None = _option(None, "classification, multilabel, ...; none: told from the label column.")
    bf16: bool = _option(False, "The same as --precision bf16.")
    use_cpu: bool = _option(False, "Train on the CPU even where there is a GPU.")
    fp16: bool = _option(False, "The same as --precision fp16.")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = _option(
        "auto", "auto: that of `accelerate launch`, else bf16 where the device gains from it."
    )
    text_learning_rate: float | None = _option(None, "Learning rate of the text encoder; none: learning_rate.")
    image_learning_rate: float | None = _option(None, "Learning rate of the image encoder; none: learning_rate.")
    early_stopping_patience: int | None = _option(None, "Stop after so many evaluations without a better one.")
    class_weights: bool = _option(False, "Weight classes by inverse frequency.")
    gradient_log_steps: int = _option(
        0, "Multi-task: log every so many steps whether the two losses pull the encoder the same way; 0: never."
    )
    frozen_image_epochs: float = _option(0.0, "Captioning: keep the image encoder fixed for the first so many epochs.")
    self_critical_draws: int = _option(
        0, "Captioning: train for CIDEr on so many drawn captions per picture, from 2; 0: train on the given words."
    )
    balanced_sampling: bool = _option(False, "Draw training rows so that classes come equally often.")
    prior_bias: bool = _option(True, "Start the output bias at the log-odds of the training split.")
    ema_decay: float | None = _option(None, "Average the weights over steps with this decay and evaluate the average.")
    seeds: int = _option(1, "Train so many times, with seed, seed + 1, ..., and report the spread.")
    overwrite: bool = _option(False, "Train again in a folder that holds a finished run.")

    def __post_init__(self):
        check_ranges(self)
        asked = self.deepspeed or strtobool(os.environ.get("ACCELERATE_USE_DEEPSPEED", "false"))
        if asked and not is_deepspeed_available():
            raise ValueError(
                "a DeepSpeed configuration is given, and deepspeed is not installed; `pip install deepspeed`, "
                "or train without it"
            )
        self._choose_precision()
        given: Any = self
        named = given.metric_for_best_model, given.greater_is_better
        super().__post_init__()
        # The Trainer puts "loss" where nothing is given, and takes the launcher's precision where fp32 is asked for.
        self.metric_for_best_model, self.greater_is_better = named
        if self.precision == "fp32":
            self.mixed_precision = "no"
        settings: Any = self.lr_scheduler_kwargs or {}
        check_schedule(SchedulerType(self.lr_scheduler_type), settings)

    def _choose_precision(self) -> None:
        """Set `fp16` and `bf16` by `precision`, or it by them."""
        if self.fp16 and self.bf16:
            raise BadInputError("fp16 and bf16 are two precisions; give one of them")
        if self.fp16 or self.bf16:
            self.precision = "fp16" if self.fp16 else "bf16"
        chosen: str = self.precision
        if chosen == "auto":
            chosen = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
            if chosen == "no" and bf16_gains(self.use_cpu):
                chosen = "bf16"
        self.fp16, self.bf16 = chosen == "fp16", chosen == "bf16"
        if self.bf16 and not torch.cuda.is_available():
            self.use_cpu = True  # the Trainer takes bf16 on a CPU only when it is told to use the CPU


ARGUMENT_CLASSES: tuple[Any, ...] = (ModelArguments, DataArguments, TrainingArguments)


@dataclass
class Configuration:
    """One run: its name and its three groups of arguments.

    Attributes:
        given: names of the arguments that the command line gave, as against the configuration file and defaults.
    """

    name: str
    model: ModelArguments
    data: DataArguments
    training: TrainingArguments
    given: frozenset[str] = frozenset()

    @property
    def output_dir(self) -> Path:
        """Folder of the run."""
        return Path(str(self.training.output_dir))

    def as_mapping(self) -> dict[str, Any]:
        """Return every setting of ours, and of the Trainer's those that differ from its defaults or from ours."""
        defaults = {f.name: f.default for f in dataclasses.fields(TrainingArguments)}
        stock = {
            f.name: f.default
            for f in dataclasses.fields(transformers.TrainingArguments)
            if _plain(f.default) == _plain(defaults[f.name])
        }
        settings: dict[str, Any] = {}
        for part in (self.model, self.data, self.training):
            for item in dataclasses.fields(part):
                value = getattr(part, item.name)
                if not item.init or (item.name in stock and _plain(value) == _plain(stock[item.name])):
                    continue
                if item.name not in _DERIVED:
                    settings[item.name] = _plain(value)
        return settings

    def as_yaml(self) -> str:
        """Return the configuration as a file that `train.py` reads back."""
        return yaml.safe_dump(self.as_mapping(), sort_keys=False, allow_unicode=True)


# The Trainer fills these in by itself on each machine; `precision` stands for `bf16` and `fp16`.
_DERIVED = {
    "bf16",
    "fp16",
    "accelerator_config",
    "fsdp_config",
    "logging_nan_inf_filter",
    "local_rank",
    "ddp_timeout",
    "hub_token",
}


def _plain(value: Any) -> Any:
    """Return a value as YAML and JSON hold it."""
    if isinstance(value, transformers.utils.ExplicitEnum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def bf16_gains(cpu_only: bool = False) -> bool:
    """Whether bf16 is faster than float32 here: a GPU that computes in it, or a CPU with bf16 instructions."""
    if torch.cuda.is_available() and not cpu_only:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return "amx_bf16" in _cpu_flags() or "avx512_bf16" in _cpu_flags()


def _cpu_flags() -> frozenset[str]:
    """Return the CPU's feature flags; empty where the system does not list them."""
    information = Path("/proc/cpuinfo")
    if not information.is_file():
        return frozenset()
    for line in information.read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()
