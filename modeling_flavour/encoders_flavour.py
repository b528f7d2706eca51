"""The two encoders: any text model or word embeddings, and any timm or transformers image backbone.

Both hold the pretrained part as `.model`, so a checkpoint's keys read `text_encoder.model.*` and
`image_encoder.model.*` in every model of the family. Nothing here downloads: parts are built from their configs, on any
device.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from .loading_flavour import build_backbone
from .lstm_flavour import BidirectionalLSTM, LSTMLayer, gather_steps


class TextEncoding(NamedTuple):
    """Output of the text encoder.

    Attributes:
        pooled: `(batch, output_size)`.
        tokens: `(batch, length, output_size)`; values at padding are meaningless.
        mask: `(batch, length)` bool, true at real tokens.
        hidden_states: Of each layer of the text model, with `output_hidden_states`.
        attentions: Of each layer of the text model, with `output_attentions`.
    """

    pooled: Tensor
    tokens: Tensor
    mask: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class ImageEncoding(NamedTuple):
    """Output of the image encoder.

    Attributes:
        pooled: `(batch, pooled_size)`; `None` in a model that reads only places.
        tokens: `(batch, places, token_size)`, one vector per place of the picture.
        feature_map: `(batch, token_size, height, width)`, the same values on their grid.
        hidden_states: Of each stage or layer of the backbone, with `output_hidden_states`.
        attentions: Of each layer of the backbone, with `output_attentions`.
        place_logits: `(batch, places, num_place_labels)` scores of the class at each place; `None` without that head.
        stages: Maps `(batch, channels, height, width)` of the early stages that the model reads.
    """

    pooled: Tensor | None
    tokens: Tensor
    feature_map: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    place_logits: Tensor | None = None
    stages: tuple[Tensor, ...] = ()


def readable_mask(source: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the boolean mask of `(batch, length, ...)` tokens; a row of padding only counts as one token."""
    mask = source.new_ones(source.shape[:2], dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    return mask | (~mask.any(dim=1, keepdim=True) & (torch.arange(mask.shape[1], device=mask.device) == 0))


class FlavourTextEncoder(PreTrainedModel):
    """Token ids to one vector per text and one per token.

    Args:
        config: Any config with the text fields of [`FlavourConfig`].
        pooled: Whether the model reads one vector per text rather than one per token.
    """

    config_class = PreTrainedConfig
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True
    supports_gradient_checkpointing = True
    _no_split_modules = ["BidirectionalLSTM"]

    def __init__(self, config: PreTrainedConfig, pooled: bool = True):
        super().__init__(config)
        self.is_table = config.text_config is None  # of word vectors; an adapter may wrap it
        if config.text_config is not None:
            self.model = build_backbone(config.text_config)
            size = config.text_config.hidden_size
        else:
            size = config.word_embedding_size
            self.model = nn.Embedding(config.word_vocab_size, size, padding_idx=config.pad_token_id)
        self.feature_size = size
        self.lstm = None
        if config.text_pooling == "lstm":
            self.lstm = BidirectionalLSTM(size, config.lstm_hidden_size, config.lstm_layers, config.dropout)
            size = 2 * config.lstm_hidden_size
        self.output_size = size
        # An LSTM reads every token, so only a model without one can work from pooled vectors.
        self.pooled = pooled and self.lstm is None
        self.post_init()

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, LSTMLayer):
            module.reset_parameters()

    def get_input_embeddings(self):
        """Return the table of token vectors."""
        return self.model if self.is_table else self.model.get_input_embeddings()

    def set_input_embeddings(self, value):
        """Replace the table of token vectors."""
        if self.is_table:
            self.model = value
        else:
            self.model.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        features: Tensor | None = None,
        **kwargs,
    ) -> TextEncoding:
        """Encode one of `input_ids` `(batch, length)`, `inputs_embeds` `(batch, length, size)` and `features`.

        Args:
            input_ids: Token ids.
            attention_mask: `(batch, length)`, 1 at tokens; `None` means no padding. A row of padding only is read as
                one token, so that it stays finite; callers replace its encoding.
            inputs_embeds: Token vectors instead of ids.
            features: Output of `features` for the same texts; the backbone is then not run.
            **kwargs: `token_type_ids`, `output_hidden_states`, `output_attentions`, passed to the backbone.
        """
        # Pooled features have no tokens left: the text counts as one token.
        if features is not None and features.ndim == 2:
            mask = torch.ones(len(features), 1, dtype=torch.bool, device=features.device)
            return TextEncoding(features, features[:, None], mask)
        source: Any = input_ids if input_ids is not None else inputs_embeds if features is None else features
        mask = readable_mask(source, attention_mask)
        hidden_states = attentions = None
        if features is None:
            tokens, hidden_states, attentions = self.run_backbone(input_ids, mask, inputs_embeds, **kwargs)
        else:
            tokens = features
        pooled, tokens, mask = self.pool(tokens, mask)
        return TextEncoding(pooled, tokens, mask, hidden_states, attentions)

    def run_backbone(
        self, input_ids: Tensor | None, mask: Tensor, inputs_embeds: Tensor | None = None, **kwargs
    ) -> tuple[Tensor, tuple | None, tuple | None]:
        """Return the backbone's token states, and its layers' states and attention weights with the flags for them."""
        if self.is_table:
            return self.model(input_ids) if inputs_embeds is None else inputs_embeds, None, None
        words = {"input_ids": input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
        outputs = self.model(**words, attention_mask=mask.long(), return_dict=True, **kwargs)
        return outputs.last_hidden_state, outputs.get("hidden_states"), outputs.get("attentions")

    def features(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs) -> Tensor:
        """Return the backbone's output as `forward(features=...)` takes it.

        That is `(batch, size)` in a model that reads one vector per text, else `(batch, length, size)`.
        """
        mask = readable_mask(input_ids, attention_mask)
        tokens, *_ = self.run_backbone(input_ids, mask, **kwargs)
        return self.pool(tokens, mask)[0] if self.pooled else tokens

    def check_features(self, features: Tensor) -> None:
        """Raise ValueError for features of a shape that `features` does not give."""
        shapes = (2, 3) if self.pooled else (3,)
        if features.ndim not in shapes or features.shape[-1] != self.feature_size:
            expected = f"(batch, {'' if self.pooled else 'length, '}{self.feature_size})"
            raise ValueError(
                f"text_features must have shape {expected}, got {tuple(features.shape)}: give what encode_text returns."
            )

    def pool(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return one vector per text (by `config.text_pooling`), one per token, and the mask of the tokens."""
        if self.lstm is not None:
            return self.lstm(tokens, mask)
        if self.config.text_pooling == "cls":
            first = mask.long().argmax(dim=1, keepdim=True)
            return gather_steps(tokens, first)[:, 0], tokens, mask
        weights = mask[..., None].to(tokens.dtype)
        return (tokens * weights).sum(dim=1) / weights.sum(dim=1), tokens, mask


class FlavourImageEncoder(PreTrainedModel):
    """Pictures to one vector per picture and one per place.

    Works with any config that has `vision_config`: this family's, whatever the task. With `num_place_labels` a linear
    head classifies each place, and with `image_pooling="places"` the picture's vector is made of its probabilities:
    their mean and their maximum over the places (a concept bottleneck, Koh et al. 2020). Small things stay visible in
    it, which an average over all features blurs.

    Args:
        config: Has `vision_config`.
        pooled: Whether the model reads one vector per picture.
        places: Whether the model reads one vector per place. The head over places needs them in any case.

    Attributes:
        stages: Indices of the backbone's early stages whose maps the model reads; set by the model.
    """

    config_class = PreTrainedConfig
    main_input_name = "pixel_values"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True
    supports_gradient_checkpointing = True

    def __init__(self, config: PreTrainedConfig, pooled: bool = True, places: bool = False):
        super().__init__(config)
        self.model = build_backbone(config.vision_config)
        self.pooled_size, self.token_size, self.prefix_tokens = describe_backbone(self.model)
        self.channels_last = getattr(getattr(self.model, "timm_model", None), "output_fmt", "NCHW") == "NHWC"
        self.pools_places = getattr(config, "image_pooling", "backbone") == "places"
        if labels := getattr(config, "num_place_labels", 0):
            self.place_head = nn.Linear(self.token_size, labels)
        self.pooled = pooled
        self.stages: tuple[int, ...] = ()
        self.feature_size = self.pooled_size
        if self.pools_places:
            self.pooled_size = 2 * config.num_place_labels
        # What `features` returns: the backbone's own pooled vector, its last map, or both.
        self.reads_vector = pooled and not self.pools_places
        self.reads_map = places or hasattr(self, "place_head")
        self.post_init()

    def forward(self, pixel_values: Tensor | None = None, features: Any = None, **kwargs) -> ImageEncoding:
        """Encode pictures, or features of the backbone computed before.

        Args:
            pixel_values: `(batch, 3, height, width)` floats, normalised by the processor.
            features: Output of `features` for the same pictures; the backbone is then not run.
            **kwargs: `output_hidden_states`, `output_attentions`, passed to the backbone where given.
        """
        return self.read_places(
            self.run_backbone(pixel_values, **kwargs) if features is None else self.read_features(features)
        )

    def read_places(self, seen: ImageEncoding) -> ImageEncoding:
        """Return what the backbone makes of pictures, with what the head over places, where there is one, adds."""
        pooled, tokens, feature_map, layers, attentions, _, stages = seen
        place_logits: Any = self.place_head(tokens) if hasattr(self, "place_head") else None
        if self.pooled and self.pools_places:
            shares = place_logits.float().softmax(-1)
            pooled = torch.cat([shares.mean(1), shares.amax(1)], dim=-1).to(tokens.dtype)
        return ImageEncoding(pooled, tokens, feature_map, layers, attentions, place_logits, stages)

    def run_backbone(self, pixel_values: Any, **kwargs) -> ImageEncoding:
        """Return what the backbone alone makes of pictures."""
        # Backbones differ in the flags they accept, so only those that are set are passed on.
        kwargs = {name: value for name, value in kwargs.items() if value}
        if self.stages:
            kwargs["output_hidden_states"] = True
        if self.is_timm:
            kwargs["do_pooling"] = self.reads_vector
        outputs = self.model(pixel_values, return_dict=True, **kwargs)
        states = outputs.last_hidden_state
        tokens, feature_map = self.places(states, pixel_values.shape[-2:])
        pooled = None
        if self.reads_vector:
            pooled = outputs.get("pooler_output")
            if pooled is None:
                # Backbones without a pooler: the class token where there is one, else the mean over the places.
                pooled = states[:, 0] if self.prefix_tokens else tokens.mean(dim=1)
            pooled = pooled.flatten(1)
        layers = outputs.get("hidden_states")
        stages = tuple(layers[number] for number in self.stages)
        return ImageEncoding(pooled, tokens, feature_map, layers, outputs.get("attentions"), None, stages)

    def features(self, pixel_values: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the backbone's outputs that the model reads, as `forward(features=...)` takes them.

        That is the pooled vector `(batch, size)` or the map `(batch, size, height, width)`; in a model that reads
        several, a tuple of the maps of its early stages, the last map and the pooled vector, as far as it reads them.
        """
        # A captioner's encoder overrides `forward`; the backbone's outputs are the same for all.
        seen = self.run_backbone(pixel_values)
        read: list[Any] = list(seen.stages)
        if self.reads_map:
            read.append(seen.feature_map)
        if self.reads_vector:
            read.append(seen.pooled)
        return read[0] if len(read) == 1 else tuple(read)

    def read_features(self, features: Tensor | Sequence[Tensor]) -> ImageEncoding:
        """Return the backbone's outputs that `features` holds.

        Raises:
            ValueError: The features have other shapes than those of `features`.
        """
        given = (features,) if isinstance(features, Tensor) else tuple(features)
        expected: list[tuple[int, int | None]] = [(4, None)] * len(self.stages)
        expected += [(4, self.token_size)] * self.reads_map + [(2, self.feature_size)] * self.reads_vector
        fits = [
            each.ndim == ndim and size in (None, each.shape[1])
            for each, (ndim, size) in zip(given, expected, strict=False)
        ]
        if len(given) != len(expected) or not all(fits):
            shape = {2: "(batch, {})", 4: "(batch, {}, height, width)"}
            wanted = [shape[ndim].format(size or "channels") for ndim, size in expected]
            shapes = [str(tuple(each.shape)) for each in given]
            raise ValueError(
                f"image_features must have shape {' and '.join(wanted)}, got {' and '.join(shapes)}: "
                "give what encode_image returns."
            )
        pooled = given[-1] if self.reads_vector else None
        # A model that reads the pooled vector alone sees the picture as one place.
        feature_map: Any = given[len(self.stages)] if self.reads_map else given[-1][:, :, None, None]
        tokens = feature_map.flatten(2).transpose(1, 2)  # (batch, places, token_size)
        return ImageEncoding(pooled, tokens, feature_map, stages=given[: len(self.stages)])

    def places(self, states: Tensor, picture: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the backbone's last states as one vector per place, in a row and on the grid over the picture."""
        if states.ndim == 3:
            tokens = states[:, self.prefix_tokens :]
            return tokens, tokens.transpose(1, 2).unflatten(2, grid_shape(tokens.shape[1], picture))
        feature_map = states.permute(0, 3, 1, 2) if self.channels_last else states
        return feature_map.flatten(2).transpose(1, 2), feature_map  # (batch, places, token_size) and its grid

    @property
    def is_timm(self) -> bool:
        """Whether the backbone comes from timm."""
        return hasattr(self.model, "timm_model")


def grid_shape(places: int, picture: Sequence[int]) -> tuple[int, int]:
    """Return the rows and columns of a grid of `places` cells over a picture of the given height and width."""
    # Tokens come in one row; the grid has the aspect ratio of the picture.
    rows = round((places * picture[0] / picture[1]) ** 0.5)
    if rows < 1 or rows * (places // rows) != places:
        raise ValueError(f"{places} places form no grid over a picture of {tuple(picture)} pixels.")
    return rows, places // rows


def describe_backbone(model: PreTrainedModel) -> tuple[int, int, int]:
    """Return the size of the pooled vector, that of one place's vector, and the number of tokens before the places."""
    timm_model = getattr(model, "timm_model", None)
    if timm_model is not None:
        pooled = getattr(timm_model, "head_hidden_size", None) or timm_model.num_features
        return pooled, timm_model.num_features, getattr(timm_model, "num_prefix_tokens", 0) or 0
    names = [name.rsplit(".", 1)[-1] for name, _ in model.named_parameters()]
    prefix = 0
    if "cls_token" in names or "class_embedding" in names:
        # Register tokens follow the class token and belong to no place either.
        prefix = 1 + (getattr(model.config, "num_register_tokens", 0) or 0)
    size = probe_size(model.config)
    return size, size, prefix


def probe_size(config: PreTrainedConfig) -> int:
    """Return the width of a transformers backbone's output, measured on the meta device: configs name it variously."""
    config = copy.deepcopy(config)
    config._attn_implementation = "eager"  # other kernels may need a real device
    side = getattr(config, "image_size", None) or 224
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    with torch.device("meta"), torch.no_grad():
        probe = build_backbone(config).eval()
        states = probe(torch.zeros(1, getattr(config, "num_channels", 3), height, width)).last_hidden_state
    return states.shape[1] if states.ndim == 4 else states.shape[-1]
