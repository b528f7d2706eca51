"""Configuration of the flavour classifier: text part, image part, fusion, and the parts that are frozen."""

import difflib
from dataclasses import fields
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_labels_flavour import LabelledConfig

DEFAULT_LABELS = ("sweet", "salty", "sour", "bitter", "umami")

# Keyword arguments that transformers itself passes to a config beyond the declared fields;
# the Trainer sets `use_cache` on every config.
LIBRARY_ARGUMENTS = frozenset((
    "_attn_implementation", "_commit_hash", "_name_or_path", "attn_implementation", "auto_map", "custom_pipelines",
    "experts_implementation", "model_type", "name_or_path", "num_labels", "output_attentions", "quantization_config",
    "tie_word_embeddings", "torch_dtype", "use_cache",
))  # fmt: skip


def reject_unknown_arguments(config_class: type, given: dict[str, Any]) -> None:
    """Refuse keyword arguments that are neither fields of the config nor the library's own.

    The base class would keep them as attributes, so a misspelt option would do nothing without a word.

    Raises:
        TypeError: Names the unknown arguments, the nearest allowed names, and all allowed names.
    """
    allowed = sorted(field.name for field in fields(config_class))
    unknown = [name for name in given if name not in LIBRARY_ARGUMENTS]
    if not unknown:
        return
    near = [match for name in unknown for match in difflib.get_close_matches(name, allowed, n=1)]
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    raise TypeError(
        f"{config_class.__name__} has no field {', '.join(map(repr, unknown))}.{hint} Fields: {', '.join(allowed)}."
    )


def drop_backbone_labels(config: PreTrainedConfig | None) -> None:
    """Empty the label names of a backbone's config: its classifier is not part of the model built from it."""
    if config is None:
        return
    config.id2label, config.label2id = {}, {}
    for name in ("label_names", "num_classes"):
        if name in config.__dict__:
            delattr(config, name)


def complete_labels(config: PreTrainedConfig) -> None:
    """Fill `label2id` from `id2label` where it was not given."""
    if config.label2id is None and config.id2label is not None:
        config.label2id = {name: number for number, name in config.id2label.items()}


def check_ranges(config: Any, at_least_one: tuple[str, ...], below_one: tuple[str, ...]) -> None:
    """Raise ValueError for a field outside its range; `below_one` are shares and probabilities in [0, 1)."""
    for name in at_least_one:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}.")
    for name in below_one:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} must lie in [0, 1), got {getattr(config, name)}.")
    if config.trainable_image_layers < 0 or (config.trainable_image_layers and not config.freeze_image):
        raise ValueError(
            f"trainable_image_layers={config.trainable_image_layers} counts the layers that still train in a frozen "
            "backbone: it must not be negative, and needs freeze_image=True."
        )


@strict
class FlavourConfig(LabelledConfig, PreTrainedConfig):
    r"""Configuration of [`FlavourForClassification`].

    A model has a text part, an image part, or both; leave a part's config `None` to build the model without it.

    Args:
        text_config: Config (or its dictionary with `model_type`) of any encoder that `AutoModel` can build.
        vision_config: Config of any image backbone: `timm_wrapper` or one of transformers' own.
        word_vocab_size: Instead of `text_config`: size of the vocabulary of plain word embeddings.
        word_embedding_size: Size of those embeddings.
        pad_token_id: Padding id of the word embeddings.
        text_pooling: From token vectors to one text vector: final states of a bidirectional LSTM, mean, or first token.
        lstm_hidden_size: Units per direction.
        lstm_layers: Bidirectional layers.
        text_dense_sizes: Dense layers after pooling the text.
        image_dense_sizes: Dense layers after pooling the picture.
        image_pooling: From the places of a picture to one vector: the backbone's own pooling, or `places`, the shares
            of the place labels, averaged over the places and at their highest.
        num_place_labels: Classes of an optional head that classifies each place of the picture; 0 means no head.
        place_loss_weight: Weight of that head's cross-entropy beside the classes' loss, for batches with masks.
        fusion: How two parts meet. `early` concatenates features, `late` adds class scores, `gated` weighs features
            unit by unit (GMU), `cross_attention` lets word and picture tokens attend to each other.
        fusion_size: Width of the gated and cross-attention units.
        fusion_heads: Attention heads of `cross_attention`.
        head_dense_sizes: Dense layers between the fused features (for `late`: each part's features) and the classes.
        dropout: Probability used between all dense layers and LSTM layers.
        feature_norm: Whether the vector of each part is layer-normalised and dropped out before anything reads it:
            backbones give features of very different size, and the larger ones would drown the others.
        modality_dropout: Probability that a complete training sample loses one of its two parts.
        freeze_text: Keep the pretrained text encoder (or the word embeddings) fixed and in eval mode.
        freeze_image: Keep the image backbone fixed and in eval mode.
        trainable_image_layers: With `freeze_image`: number of last layers with weights that still train, in
            eval mode too, so that they normalise with the statistics of pretraining.
        problem_type: `single_label_classification` or `multi_label_classification`.
        label_smoothing: Share of probability spread evenly over the classes. Like the next two, it is a setting of one
            training run and is neither saved with the config nor read from a saved one.
        class_weights: Factor per class on its loss terms.
        class_prior: Share of samples per class; the output bias starts there. `None` starts at zero.
        familiarity: Number of principal axes of each part (`text`, `image`) in what the model knows of its training
            rows; `None` in a model that takes every input as it is. See `Familiarity`.
        abstain_below: Probability of the best class below which the model would rather not answer, if it is asked to
            abstain; `None` where it was never chosen.
        initializer_range: Standard deviation of freshly initialised embeddings and output weights.

    Example:

    ```python
    >>> config = FlavourConfig(word_vocab_size=1000, text_dense_sizes=[64])
    >>> config.num_labels, config.has_text, config.has_image
    (5, True, False)

    ```
    """

    model_type = "flavour_fusion"
    sub_configs_defaults = {
        "text_config": SubConfigSpec(AutoConfig, model_type="bert", optional=True),
        "vision_config": SubConfigSpec(AutoConfig, model_type="timm_wrapper", optional=True),
    }
    keys_to_ignore_at_inference = ["text_embeds", "image_embeds", "text_familiar", "image_familiar"]
    # Where words are embedded without a text model, `resize_token_embeddings` writes here what it did.
    attribute_map = {"vocab_size": "word_vocab_size"}
    run_fields = ("label_smoothing", "class_weights", "class_prior")
    label_fields = ("class_weights", "class_prior")

    text_config: PreTrainedConfig | dict | None = None
    vision_config: PreTrainedConfig | dict | None = None
    word_vocab_size: int | None = None
    word_embedding_size: int = 300
    pad_token_id: int = 0
    text_pooling: Literal["lstm", "mean", "cls"] = "mean"
    lstm_hidden_size: int = 64
    lstm_layers: int = 2
    text_dense_sizes: list[int] | tuple[int, ...] = (256,)
    image_dense_sizes: list[int] | tuple[int, ...] = (1024, 512)
    image_pooling: Literal["backbone", "places"] = "backbone"
    num_place_labels: int = 0
    place_loss_weight: float | int = 1.0
    fusion: Literal["early", "late", "gated", "cross_attention"] = "early"
    fusion_size: int = 256
    fusion_heads: int = 4
    head_dense_sizes: list[int] | tuple[int, ...] = (128, 64)
    dropout: float | int = 0.5
    feature_norm: bool = False
    modality_dropout: float | int = 0.0
    freeze_text: bool = False
    freeze_image: bool = False
    trainable_image_layers: int = 0
    problem_type: Literal["single_label_classification", "multi_label_classification"] = "single_label_classification"
    label_smoothing: float | int = 0.0
    class_weights: list[float | int] | tuple[float | int, ...] | None = None
    class_prior: list[float | int] | tuple[float | int, ...] | None = None
    familiarity: dict[str, int] | None = None
    abstain_below: float | int | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        reject_unknown_arguments(type(self), kwargs)
        # Another number of labels keeps the generic names of transformers.
        if getattr(self, "id2label", None) is None and kwargs.get("num_labels") in (None, len(DEFAULT_LABELS)):
            self.id2label = dict(enumerate(DEFAULT_LABELS))
        # JSON knows no tuples: keep lists, so that a config equals its reloaded self.
        for name in ("text_dense_sizes", "image_dense_sizes", "head_dense_sizes", "class_weights", "class_prior"):
            value = getattr(self, name)
            setattr(self, name, list(value) if isinstance(value, tuple) else value)
        super().__post_init__(**kwargs)
        complete_labels(self)
        drop_backbone_labels(self.text_config)
        drop_backbone_labels(self.vision_config)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields; of a model without a `text_config` none of that name, in which peft looks for words."""
        return {name: value for name, value in super().to_dict().items() if name != "text_config" or value is not None}

    @property
    def has_text(self) -> bool:
        """Whether the model reads text."""
        return self.text_config is not None or self.word_vocab_size is not None

    @property
    def has_image(self) -> bool:
        """Whether the model sees pictures."""
        return self.vision_config is not None

    @property
    def answers_without_a_part(self) -> bool:
        """Whether a fusion was made to answer when its text or its picture is missing."""
        return bool(self.modality_dropout) or self.fusion == "late"

    def validate_architecture(self):
        """Cross-field checks, called by `@strict` after the types were checked."""
        if self.text_config is not None and self.word_vocab_size is not None:
            raise ValueError("text_config and word_vocab_size both describe the text part: give one of them.")
        for name in ("text_dense_sizes", "image_dense_sizes", "head_dense_sizes"):
            if any(size < 1 for size in getattr(self, name)):
                raise ValueError(f"{name} must hold positive layer sizes, got {getattr(self, name)}.")
        sizes = ("word_embedding_size", "lstm_hidden_size", "lstm_layers", "fusion_size", "fusion_heads")
        check_ranges(self, sizes, ("dropout", "modality_dropout", "label_smoothing"))
        if self.num_place_labels < 0 or (self.image_pooling == "places" and not self.num_place_labels):
            raise ValueError(
                f"num_place_labels={self.num_place_labels} must not be negative, and image_pooling='places' needs some."
            )
        if self.fusion == "cross_attention" and self.fusion_size % self.fusion_heads:
            raise ValueError(
                f"fusion_size ({self.fusion_size}) must be a multiple of fusion_heads ({self.fusion_heads})."
            )
        for name in ("class_weights", "class_prior"):
            values = getattr(self, name)
            if values is not None and len(values) != self.num_labels:
                raise ValueError(f"{name} must hold one number per label ({self.num_labels}), got {len(values)}.")
        for part, axes in (self.familiarity or {}).items():
            if part not in ("text", "image") or axes < 1:
                raise ValueError(f"familiarity gives each of text and image a positive number, got {self.familiarity}.")
        if self.class_prior is not None and not all(0 < share < 1 for share in self.class_prior):
            raise ValueError(f"class_prior must hold shares strictly between 0 and 1, got {self.class_prior}.")


FlavourConfig.register_for_auto_class()
