"""Arguments of a run: of its model and of its data; and the configuration that holds them beside those of training."""

import dataclasses
import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from dataset_builder.columns import DISH_ID, IMAGE, TITLE
from dataset_builder.errors import BadInputError
from trainer_scripts.settings.options import (
    CAPTIONS,
    CLASSIFIERS,
    COUNT,
    DRAWING,
    MASKS,
    NATURAL,
    POSITIVE,
    PREDICTING,
    SHARE,
    SHARE_BELOW_ONE,
    Option,
    Range,
    check_ranges,
    option,
    options_of,
)

if TYPE_CHECKING:  # `--help` lists these arguments without loading transformers
    from trainer_scripts.settings.training_arguments import TrainingArguments

DEFAULT_DATASET = "outputs/flavour-sd"
PREFIX = "package:"  # of names of weights that come with a Python package, such as this one
VARIATION, _FROZEN = "variation of training samples", "outputs of frozen encoders"
_OWN_WEIGHTS = "its own weights"


class JsonMapping(dict[str, Any]):
    """A mapping, given as a mapping (YAML) or as a JSON object (command line)."""

    def __init__(self, value: Any = ()):
        if isinstance(value, str):
            value = json.loads(value)
        if not isinstance(value, dict | tuple):
            raise ValueError(f"{value!r} is no mapping")
        super().__init__(value)


@dataclass
class ModelArguments:
    """Which model is built, and what of it is trained."""

    _argument_group_name = "model"

    model_name_or_path: str | None = option(None, "Checkpoint folder or Hub id to go on from; all of it is loaded.")
    model_revision: str | None = option(None, "Revision of Hub weights.")
    modality: Literal["fusion", "text", "image"] = option("fusion", "Inputs of the model; fusion: text and image.")
    text_encoder: str | None = option(
        None,
        "Pretrained text encoder (folder, Hub id or package:NAME); none: text_config from scratch.",
        modalities=("fusion", "text"),
        checkpoint_has=_OWN_WEIGHTS,
    )
    image_encoder: str | None = option(
        None,
        "Pretrained image encoder (folder, Hub id or package:NAME); none: vision_config from scratch.",
        modalities=("fusion", "image"),
        checkpoint_has=_OWN_WEIGHTS,
    )
    text_config: JsonMapping = option(JsonMapping, "Configuration of the text encoder (with model_type), from scratch.")
    vision_config: JsonMapping = option(
        JsonMapping, "Configuration of the image encoder (with model_type), from scratch."
    )
    config: JsonMapping = option(
        JsonMapping,
        "Further fields of the model's configuration (head, dropout, fusion).",
        config_fields=(
            "auxiliary_loss_weight",
            "dropout",
            "ingredient_loss_weight",
            "loss",
            "modality_dropout",
            "place_loss_weight",
        ),
    )
    tokenizer: Literal["wordpiece", "words"] | None = option(
        None, "Kind of tokenizer trained on the training split; none: that of text_encoder."
    )
    vocabulary_size: int = option(
        4000,
        "Largest vocabulary of a trained tokenizer.",
        allowed=Range(6),  # one word beside the special tokens
    )
    max_length: int = option(
        40,
        "Longest text in tokens.",
        allowed=Range(3),  # begin, one word, end
    )
    letters_only: bool = option(False, "Remove everything but letters from texts.", tasks=CLASSIFIERS)
    image_size: int | None = option(None, "Picture size in pixels; none: that of the image encoder.", allowed=COUNT)
    image_fit: Literal["crop", "squash"] = option(
        "crop",
        "Crop the middle as the image encoder does, or squash the whole picture to its square; no edge is lost.",
        tasks=CLASSIFIERS,
    )
    init_image_encoder: str | None = option(
        None, "Checkpoint whose image encoder this model starts from.", modalities=("fusion", "image")
    )
    init_segmenter: str | None = option(
        None,
        "Segmentation: single-task checkpoint whose encoder and head a multi-task model starts from.",
        tasks=("segmentation",),
        checkpoint_has=_OWN_WEIGHTS,
    )
    pipeline: str | None = option(
        None, "Text to image: pipeline of diffusers (folder or Hub id) that is fine-tuned.", tasks=DRAWING
    )
    vae: str | None = option(
        None,
        "Text to image: autoencoder (folder, Hub id or package:NAME) around which a small pipeline is made, in place "
        "of `pipeline`; in the task autoencoder the one that is trained on.",
        tasks=(*DRAWING, "autoencoder"),
    )
    prompt_template: Literal["ingredients", "photo", "title"] | None = option(
        None,
        "Text to image: template of `flavour-sd build` that makes the prompts; none: the texts or captions themselves.",
        tasks=DRAWING,
    )
    generation: JsonMapping = option(
        JsonMapping, "Captioning: defaults of generate(), such as num_beams.", tasks=CAPTIONS
    )
    freeze_text: bool = option(
        False,
        "Keep the pretrained text encoder as it is, in evaluation mode.",
        config_fields=("freeze_text",),
    )
    freeze_image: bool = option(
        False, "Keep the image encoder as it is, in evaluation mode.", config_fields=("freeze_image",)
    )
    trainable_image_layers: int = option(
        0,
        "Number of last layers of a frozen image encoder that are trained all the same.",
        allowed=NATURAL,
        config_fields=("trainable_image_layers",),
    )
    text_layers: int | None = option(
        None,
        "Layers that are kept of a pretrained text encoder, spread evenly; none: all.",
        allowed=COUNT,
        tasks=CLASSIFIERS,
        modalities=("fusion", "text"),
    )
    text_pieces: int | None = option(
        None,
        "Entries that are kept of a pretrained tokenizer, those of the training texts first; none: all.",
        allowed=COUNT,
        tasks=CLASSIFIERS,
        modalities=("fusion", "text"),
    )
    max_mb: float | None = option(
        None, "Refuse, before training, a model larger than this on disk.", allowed=POSITIVE, resumable=True
    )

    def __post_init__(self):
        check_ranges(self)


@dataclass
class DataArguments:
    """Which rows are read, which columns are used, and how pictures are varied."""

    _argument_group_name = "data"

    dataset: str = option(DEFAULT_DATASET, "Folder or Hub id.")
    dataset_revision: str | None = option(None, "Revision of a Hub data set.")
    train_split: str = option("train", "Split that is trained on.")
    selection_split: str = option("validation", "Split that chooses the checkpoint; never the test split.")
    test_split: str = option("test", "Split kept for scoring; training only checks that nothing of it leaks.")
    selection_share: float = option(
        0.1,
        "Share of groups taken from training where the selection split is absent.",
        allowed=Range(0, 1, above=True, below=True),
    )
    selection_seed: int = option(
        0,
        "Seed that draws these groups; separate from seed, so that repeated runs share them.",
        allowed=NATURAL,
    )
    columns: JsonMapping = option(JsonMapping, "Column mapping, ours to theirs: {title: name, flavour: label}.")
    text_column: str = option(TITLE, "Column of the model's text input.")
    image_column: str = option(IMAGE, "Column of the model's image input.")
    allow_outside: bool = option(False, "Open pictures that the rows name outside the folder of the data set.")
    label_column: str | None = option(None, "Column that is learned; none: that of the task.")
    label_level: Literal["ingredient", "group"] = option(
        "ingredient",
        "Segmentation: classes are ingredients, or the food groups they belong to.",
        tasks=MASKS,
        # A segmentation model records how the ids of the masks become its classes.
        config_fields=("class_map", "source_labels"),
    )
    label_filter: list[str] | None = option(
        None, "Segmentation: keep these classes only; pixels of the others count as unknown.", tasks=MASKS
    )
    group_column: str | None = option(DISH_ID, "Column whose equal values never cross splits; none: no such column.")
    target_column: str | None = option(None, "Column of soft targets that sum to 1, such as taste.", tasks=CLASSIFIERS)
    target_share: float = option(0.5, "Weight of the soft target; the rest is on the label.", allowed=SHARE)
    weight_column: str | None = option(None, "Column of sample weights.", tasks=CLASSIFIERS)
    confidence_column: str | None = option(
        None,
        "Column of soft labels, such as taste: the weight of a row is its label's probability there.",
        tasks=CLASSIFIERS,
    )
    shared_rows: Literal["refuse", "drop"] = option(
        "refuse", "Training rows whose picture, text or group is in another split: refuse, or drop and count them."
    )
    missing_parts: Literal["refuse", "learn"] = option(
        "refuse",
        "Rows without a picture or without a text: refuse, or learn from the part there is and count them.",
        tasks=CLASSIFIERS,
        modalities=("fusion",),
    )
    unlabelled: str | None = option(
        None,
        "Further rows that the teacher alone labels: a split of the data set, or another one (folder, table, Hub id).",
        tasks=PREDICTING,
    )
    max_train_samples: int | None = option(None, "Train on this number of first rows only.", allowed=COUNT)
    streaming: bool = option(False, "Read training rows while training, from a folder or a Hub; needs max_steps.")
    stream_block: int = option(256, "Number of streamed rows that are shuffled together.", allowed=COUNT)
    captions_per_picture: Literal["random", "all"] = option(
        "random",
        "Captioning: one random caption per picture and epoch, or every caption as a row of its own.",
        tasks=CAPTIONS,
    )
    first_caption_share: float = option(
        0.0,
        "Captioning: share of random draws that take a picture's first caption, on flavour-sd the one that names all.",
        group=VARIATION,
        allowed=SHARE,
        tasks=CAPTIONS,
    )
    word_dropout: float = option(
        0.0,
        "Share of the words of training texts that are made unknown at random.",
        group=VARIATION,
        allowed=SHARE_BELOW_ONE,
        tasks=CLASSIFIERS,
    )
    crop_scale: float = option(
        1.0,
        "Smallest share of the picture that a random crop keeps; 1: no crops.",
        group=VARIATION,
        allowed=Range(0, 1, above=True),
    )
    crop_size: int | None = option(
        None,
        "Side of training crops in pixels, below image_size to save time; none: image_size.",
        group=VARIATION,
        allowed=COUNT,
    )
    mask_stride: int = option(
        1,
        "Segmentation: learn from every n-th pixel of a mask, to save time; scores always use every pixel.",
        allowed=COUNT,
        tasks=MASKS,
    )
    crop_scale_most: float = option(
        1.0,
        "Largest share of the picture that a random crop keeps.",
        group=VARIATION,
        allowed=Range(0, 1, above=True),
    )
    class_crops: bool = option(
        False,
        "Where the model learns from masks: lay crops around a random class of the mask, so that rare classes are "
        "shown as often.",
        group=VARIATION,
    )
    flip: bool = option(False, "Mirror half of the training pictures.", group=VARIATION)
    quarter_turns: bool = option(
        False,
        "Turn training pictures by random quarters: for plates from above; not where a caption names a side.",
        group=VARIATION,
    )
    rotation: float = option(
        0.0,
        "Largest random turn of a training picture, in degrees either way.",
        group=VARIATION,
        allowed=Range(0, 180),
    )
    color_jitter: float = option(
        0.0, "Strength of random brightness, contrast and saturation.", group=VARIATION, allowed=NATURAL
    )
    mixup_alpha: float = option(
        0.0,
        "Beta parameter of mixup, for image-only models (words cannot be mixed); 0: none.",
        group=VARIATION,
        allowed=NATURAL,
        modalities=("image",),
    )
    frozen_features: Literal["auto", "store", "recompute"] = option(
        "auto",
        "Output of frozen backbones: auto keeps it on disk if possible, store refuses if not, recompute keeps none.",
        group=_FROZEN,
        resumable=True,
    )
    feature_views: int = option(
        0,
        "Number of random views of each training picture whose features are kept where pictures vary; 0: none.",
        group=_FROZEN,
        allowed=NATURAL,
    )
    features_dir: str = option(
        "outputs/features", "Folder of kept features, shared by all runs.", group=_FROZEN, resumable=True
    )

    def __post_init__(self):
        check_ranges(self)
        if self.crop_scale < 1 and self.crop_scale > self.crop_scale_most:
            raise BadInputError(
                f"crop_scale is {self.crop_scale:g}, above crop_scale_most {self.crop_scale_most:g}; it must not be"
            )


@dataclass
class Configuration:
    """One run: its name and its three groups of arguments.

    Attributes:
        given: names of the arguments that the command line gave, as against the configuration file and defaults.
    """

    name: str
    model: ModelArguments
    data: DataArguments
    training: "TrainingArguments"
    given: frozenset[str] = frozenset()

    @property
    def output_dir(self) -> Path:
        """Folder of the run."""
        return Path(str(self.training.output_dir))

    @property
    def options(self) -> dict[str, Option]:
        """Properties of all arguments, by name."""
        return options_of(self.model, self.data, self.training)

    @property
    def values(self) -> dict[str, Any]:
        """Values of all arguments, by name."""
        return {
            item.name: getattr(part, item.name)
            for part in (self.model, self.data, self.training)
            for item in dataclasses.fields(part)
            if item.init
        }

    def as_mapping(self) -> dict[str, Any]:
        """Return every setting of ours, and of the Trainer's those that differ from its defaults or from ours."""
        import transformers  # at hand already, as `training` derives from it

        defaults = {item.name: item.default for item in dataclasses.fields(self.training)}
        # Defaults that we change are written too: a later version may have others.
        stock = {
            item.name: _plain(item.default)
            for item in dataclasses.fields(transformers.TrainingArguments)
            if _plain(item.default) == _plain(defaults[item.name])
        }
        options = self.options  # computed once: it walks all fields
        return {
            name: _plain(value)
            for name, value in self.values.items()
            if not options[name].derived and not (name in stock and _plain(value) == stock[name])
        }

    def changes(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults."""
        defaults = self.defaults()
        # Empty is empty, in whatever form; and evaluations follow from `eval_strategy`.
        return {
            name: value
            for name, value in self.as_mapping().items()
            if value != defaults[name] and (value or defaults[name]) and name != "do_eval"
        }

    def defaults(self) -> dict[str, Any]:
        """Return the default of every argument, as YAML and JSON hold it."""
        parts = (self.model, self.data, self.training)
        missing = dataclasses.MISSING
        found = {
            item.name: _plain(item.default if item.default_factory is missing else item.default_factory())
            for part in parts
            for item in dataclasses.fields(part)
        }
        return {**found, "report_to": []}  # the Trainer's word for it is `none`

    def as_yaml(self) -> str:
        """Return the configuration as a file that `train.py` reads back."""
        return yaml.safe_dump(self.as_mapping(), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    """Return a value as YAML and JSON hold it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)
