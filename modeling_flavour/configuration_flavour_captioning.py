"""Configuration of the two captioners: which backbone sees the picture, which decoder writes the sentence."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_flavour import check_ranges, drop_backbone_labels, reject_unknown_arguments
from .configuration_labels_flavour import LabelledConfig

# `generate` reads its defaults from these, so that a model answers well without any argument.
GENERATION_FIELDS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")


@strict
class FlavourCaptionerConfig(LabelledConfig, PreTrainedConfig):
    r"""Configuration of [`FlavourForTransformerCaptioning`] and [`FlavourForMergeCaptioning`].

    Args:
        vision_config: Config of any image backbone: `timm_wrapper` or one of transformers' own.
        decoder_type: `transformer` attends to the places of the picture at every word; `merge` encodes the words
            without the picture and adds both at the end (Tanti et al. 2017).
        vocab_size: Entries of the tokenizer.
        hidden_size: Width of the decoder: word embeddings, picture features, LSTM units.
        num_hidden_layers: Layers of the transformer decoder; the merge model has one LSTM layer.
        num_attention_heads: Heads of the transformer decoder.
        intermediate_size: Width of its feed-forward blocks.
        max_position_embeddings: Longest caption of the transformer decoder in tokens.
        dropout: Probability on picture features, word embeddings and, in the transformer decoder, on each block.
        pad_token_id: Padding of the tokenizer.
        bos_token_id: Its begin token.
        eos_token_id: Its end token.
        decoder_start_token_id: First token that is fed to the decoder; `None` means the begin token.
        tie_word_embeddings: Whether the output layer shares its weights with the word embeddings.
        label_smoothing: Share of probability spread evenly over the vocabulary in the loss; a setting of one training
            run, which is neither saved with the config nor read from a saved one.
        num_place_labels: Classes of an optional head that classifies each place of the picture; 0 means no head. It
            learns from masks beside the captions, and raises the scores of the words that name the classes it predicts.
        place_loss_weight: Weight of its cross-entropy beside that of the captions.
        freeze_image: Keep the image backbone fixed and in eval mode.
        trainable_image_layers: With `freeze_image`: number of last layers with weights of their own that still train.
        initializer_range: Standard deviation of freshly initialised embeddings and dense layers.

    Example:

    ```python
    >>> config = FlavourCaptionerConfig(
    ...     vision_config={"model_type": "timm_wrapper", "architecture": "resnet18"}, vocab_size=1000
    ... )
    >>> config.decoder_type, config.decoder_start_token_id
    ('transformer', 2)

    ```
    """

    model_type = "flavour_captioner"
    # As of [`FlavourConfig`]: the model reads pictures alone.
    has_text, has_image = False, True
    sub_configs_defaults = {"vision_config": SubConfigSpec(AutoConfig, model_type="timm_wrapper", optional=True)}
    keys_to_ignore_at_inference = ["past_key_values"]
    run_fields = ("label_smoothing",)

    vision_config: PreTrainedConfig | dict | None = None
    decoder_type: Literal["transformer", "merge"] = "transformer"
    vocab_size: int = 4000
    hidden_size: int = 256
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    max_position_embeddings: int = 64
    dropout: float | int = 0.1
    pad_token_id: int = 0
    bos_token_id: int = 2
    eos_token_id: int = 3
    decoder_start_token_id: int | None = None
    tie_word_embeddings: bool = False
    label_smoothing: float | int = 0.0
    num_place_labels: int = 0
    place_loss_weight: float | int = 1.0
    freeze_image: bool = False
    trainable_image_layers: int = 0
    initializer_range: float = 0.02
    is_encoder_decoder: bool = True
    use_cache: bool = True

    def __post_init__(self, **kwargs):
        reject_unknown_arguments(type(self), kwargs)
        if self.decoder_start_token_id is None:
            self.decoder_start_token_id = self.bos_token_id
        super().__post_init__(**kwargs)
        drop_backbone_labels(self.vision_config)

    def validate_architecture(self):
        """Cross-field checks, called by `@strict` after the types were checked."""
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        check_ranges(self, (*sizes, "max_position_embeddings"), ("dropout", "label_smoothing"))
        # Positions take a quarter of the width each for sine and cosine of row and column.
        if self.decoder_type == "transformer" and self.hidden_size % (4 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of 4 times num_attention_heads "
                f"({self.num_attention_heads}): heads share it, and places of the picture are written in quarters."
            )
        for name in GENERATION_FIELDS:
            token = getattr(self, name)
            if token is not None and not 0 <= token < self.vocab_size:
                raise ValueError(f"{name} is {token}, outside the vocabulary of {self.vocab_size} tokens.")
        if self.num_place_labels < 0:
            raise ValueError(f"num_place_labels must not be negative, got {self.num_place_labels}.")
        # Padding is excluded from the loss, so an equal end token would never be learned.
        if self.pad_token_id == self.eos_token_id:
            raise ValueError(
                f"pad_token_id and eos_token_id are both {self.eos_token_id}: no caption would ever learn to end."
            )


FlavourCaptionerConfig.register_for_auto_class()
