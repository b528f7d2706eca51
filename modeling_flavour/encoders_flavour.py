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
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from .loading_flavour import build_backbone


class TextEncoding(NamedTuple):
    """What the text encoder found.

    Attributes:
        pooled: `(batch, output_size)`.
        tokens: `(batch, length, output_size)`; values at padding are meaningless.
        mask: `(batch, length)` bool, true at words.
        hidden_states: Of each layer of the text model, when asked for.
        attentions: Of each layer of the text model, when asked for.
    """

    pooled: Tensor
    tokens: Tensor
    mask: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class ImageEncoding(NamedTuple):
    """What the image backbone found.

    Attributes:
        pooled: `(batch, pooled_size)`; `None` when not asked for.
        tokens: `(batch, places, token_size)`, one per place of the picture.
        feature_map: `(batch, token_size, height, width)`, the same values on their grid.
        hidden_states: Of each stage or layer of the backbone, when asked for.
        attentions: Of each layer of the backbone, when asked for.
        place_logits: `(batch, places, num_place_labels)`, what lies at each place; `None` without a head for it.
    """

    pooled: Tensor | None
    tokens: Tensor
    feature_map: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    place_logits: Tensor | None = None


class LSTMLayer(nn.Module):
    """One LSTM direction with the parameters and the arithmetic of `torch.nn.LSTM`.

    torch.compile refuses `nn.LSTM` itself, hence parameters of its own: the fused kernel in eager mode, ONNX's own
    operator in an ONNX graph, and plain steps over time while another graph is being captured (the length is then fixed
    in the graph).
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden_size))
        self.reset_parameters()

    def reset_parameters(self):
        """The uniform initialisation of `nn.LSTM`."""
        bound = self.hidden_size**-0.5
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs `(batch, length, hidden_size)` of inputs `(batch, length, input_size)`, from zero states."""
        if torch.onnx.is_in_onnx_export():
            return self.onnx_forward(inputs)
        hidden = inputs.new_zeros(inputs.shape[0], self.hidden_size)
        if not torch.compiler.is_compiling():
            weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
            state = (hidden[None], hidden[None])
            # `train=True` (no dropout in it) lets cuDNN give gradients in eval mode too, which explanations need.
            return torch.lstm(inputs, state, weights, True, 1, 0.0, True, False, True)[0]
        cell, outputs = hidden, []
        gates = functional.linear(inputs, self.weight_ih, self.bias_ih + self.bias_hh)
        for step in range(inputs.shape[1]):
            entry, forget, candidate, exit_ = (gates[:, step] + functional.linear(hidden, self.weight_hh)).chunk(4, -1)
            cell = forget.sigmoid() * cell + entry.sigmoid() * candidate.tanh()
            hidden = exit_.sigmoid() * cell.tanh()
            outputs.append(hidden)
        return torch.stack(outputs, dim=1)

    def onnx_forward(self, inputs: Tensor) -> Tensor:
        """The same as one ONNX operator, which orders gates as input, output, forget, cell and counts time first."""
        starts = [gate * self.hidden_size for gate in (0, 3, 1, 2)]
        weight_ih, weight_hh, *biases = (
            torch.cat([block[start : start + self.hidden_size] for start in starts])[None]
            for block in (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        )
        batch, length = inputs.shape[:2]
        outputs = torch.onnx.ops.symbolic(
            "LSTM",
            (inputs.transpose(0, 1), weight_ih, weight_hh, torch.cat(biases, dim=1)),
            {"hidden_size": self.hidden_size},
            dtype=inputs.dtype,
            shape=(length, 1, batch, self.hidden_size),
        )
        return outputs[:, 0].transpose(0, 1)


class BidirectionalLSTM(nn.Module):
    """Stacked bidirectional LSTM over real tokens only, equal to `nn.LSTM` on packed sequences.

    Real tokens are moved to the front and the backward direction starts at the last real one, so that no state ever
    passes over padding, wherever the padding is. Dropout acts between layers.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, dropout: float):
        super().__init__()
        sizes = [input_size] + [2 * hidden_size] * (num_layers - 1)
        self.forward_layers = nn.ModuleList(LSTMLayer(size, hidden_size) for size in sizes)
        self.backward_layers = nn.ModuleList(LSTMLayer(size, hidden_size) for size in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run over `(batch, length, input_size)` with a boolean mask `(batch, length)`; at least one token per row.

        Returns:
            The last states of both directions `(batch, 2 * hidden_size)`, the outputs
            `(batch, length, 2 * hidden_size)` with real tokens first, and their mask.
        """
        lengths = mask.sum(dim=1, keepdim=True)
        steps = torch.arange(mask.shape[1], device=mask.device)[None]
        # Keys below zero at real tokens, of which no two are equal: ONNX knows no stable sorting.
        order = torch.argsort(torch.where(mask, steps - steps[:, -1:] - 1, steps), dim=1)
        states = gather_steps(inputs, order)
        mask = steps < lengths
        mirror = torch.where(mask, lengths - 1 - steps, steps)  # its own inverse
        for number, (ahead, back) in enumerate(zip(self.forward_layers, self.backward_layers, strict=True)):
            if number:
                states = self.dropout(states)
            left = ahead(states)
            right = back(gather_steps(states, mirror))
            states = torch.cat([left, gather_steps(right, mirror)], dim=-1)
        last_left = gather_steps(left, lengths - 1)[:, 0]
        last_right = gather_steps(right, lengths - 1)[:, 0]
        return torch.cat([last_left, last_right], dim=-1), states, mask


def gather_steps(states: Tensor, steps: Tensor) -> Tensor:
    """For each row the states at the given steps: `(batch, length, size)`, `(batch, n)` -> `(batch, n, size)`."""
    return states.gather(1, steps[..., None].expand(-1, -1, states.shape[-1]))


class FlavourTextEncoder(PreTrainedModel):
    """Token ids to one vector per text and one per token."""

    config_class = PreTrainedConfig
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True
    supports_gradient_checkpointing = True
    _no_split_modules = ["BidirectionalLSTM"]

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        if config.text_config is not None:
            self.model = build_backbone(config.text_config)
            size = config.text_config.hidden_size
        else:
            size = config.word_embedding_size
            self.model = nn.Embedding(config.word_vocab_size, size, padding_idx=config.pad_token_id)
        self.lstm = None
        if config.text_pooling == "lstm":
            self.lstm = BidirectionalLSTM(size, config.lstm_hidden_size, config.lstm_layers, config.dropout)
            size = 2 * config.lstm_hidden_size
        self.output_size = size
        self.post_init()

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, LSTMLayer):
            module.reset_parameters()

    def get_input_embeddings(self):
        """The table of token vectors."""
        return self.model if isinstance(self.model, nn.Embedding) else self.model.get_input_embeddings()

    def set_input_embeddings(self, value):
        """Replace the table of token vectors."""
        if isinstance(self.model, nn.Embedding):
            self.model = value
        else:
            self.model.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs,
    ) -> TextEncoding:
        """Encode `input_ids` `(batch, length)` or `inputs_embeds` `(batch, length, size)`.

        `attention_mask` `None` means no padding. A row of padding only is read as one token, so that it stays finite;
        callers replace its encoding.
        """
        source: Any = input_ids if input_ids is not None else inputs_embeds
        mask = source.new_ones(source.shape[:2], dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        mask = mask | (~mask.any(dim=1, keepdim=True) & (torch.arange(mask.shape[1], device=mask.device) == 0))
        hidden_states = attentions = None
        if isinstance(self.model, nn.Embedding):
            tokens = self.model(input_ids) if inputs_embeds is None else inputs_embeds
        else:
            words = {"input_ids": input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
            outputs = self.model(**words, attention_mask=mask.long(), return_dict=True, **kwargs)
            tokens = outputs.last_hidden_state
            hidden_states, attentions = outputs.get("hidden_states"), outputs.get("attentions")
        pooled, tokens, mask = self.pool(tokens, mask)
        return TextEncoding(pooled, tokens, mask, hidden_states, attentions)

    def pool(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One vector per text from its real tokens, as `text_pooling` says."""
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
    head scores what lies at each place, and with `image_pooling="places"` the picture's vector is made of its answers:
    the shares of all labels, averaged over the places and at the place where each is surest (a concept bottleneck, Koh
    et al. 2020). Small things stay visible in it, which an average over all features blurs.
    """

    config_class = PreTrainedConfig
    main_input_name = "pixel_values"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True
    supports_gradient_checkpointing = True

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.model = build_backbone(config.vision_config)
        self.pooled_size, self.token_size, self.prefix_tokens = describe_backbone(self.model)
        self.channels_last = getattr(getattr(self.model, "timm_model", None), "output_fmt", "NCHW") == "NHWC"
        self.pools_places = getattr(config, "image_pooling", "backbone") == "places"
        if labels := getattr(config, "num_place_labels", 0):
            self.place_head = nn.Linear(self.token_size, labels)
        if self.pools_places:
            self.pooled_size = 2 * config.num_place_labels
        self.post_init()

    def forward(self, pixel_values: Tensor, pool: bool = True, **kwargs) -> ImageEncoding:
        """Encode `(batch, 3, height, width)` floats as the processor makes them.

        Args:
            pixel_values: The pictures.
            pool: Whether to compute the pooled vector; a task that reads only places should leave it out.
            **kwargs: `output_hidden_states`, `output_attentions`, passed to the backbone where given.
        """
        kwargs = {name: value for name, value in kwargs.items() if value}
        if self.is_timm:
            kwargs["do_pooling"] = pool and not self.pools_places
        outputs = self.model(pixel_values, return_dict=True, **kwargs)
        states = outputs.last_hidden_state
        tokens, feature_map = self.places(states, pixel_values.shape[-2:])
        place_logits: Any = self.place_head(tokens) if hasattr(self, "place_head") else None
        pooled = None
        if pool and self.pools_places:
            shares = place_logits.float().softmax(-1)
            pooled = torch.cat([shares.mean(1), shares.amax(1)], dim=-1).to(tokens.dtype)
        elif pool:
            pooled = outputs.get("pooler_output")
            if pooled is None:
                pooled = states[:, 0] if self.prefix_tokens else tokens.mean(dim=1)
            pooled = pooled.flatten(1)
        layers, attentions = outputs.get("hidden_states"), outputs.get("attentions")
        return ImageEncoding(pooled, tokens, feature_map, layers, attentions, place_logits)

    def places(self, states: Tensor, picture: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The backbone's last states as one vector per place, in a row and on the grid over the picture."""
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
    """Rows and columns of so many places that cover a picture of the given height and width."""
    rows = round((places * picture[0] / picture[1]) ** 0.5)
    if rows < 1 or rows * (places // rows) != places:
        raise ValueError(f"{places} places form no grid over a picture of {tuple(picture)} pixels.")
    return rows, places // rows


def describe_backbone(model: PreTrainedModel) -> tuple[int, int, int]:
    """Size of the pooled vector, size of one place's vector, and number of tokens before the first place."""
    timm_model = getattr(model, "timm_model", None)
    if timm_model is not None:
        pooled = getattr(timm_model, "head_hidden_size", None) or timm_model.num_features
        return pooled, timm_model.num_features, getattr(timm_model, "num_prefix_tokens", 0) or 0
    names = [name.rsplit(".", 1)[-1] for name, _ in model.named_parameters()]
    prefix = 0
    if "cls_token" in names or "class_embedding" in names:
        prefix = 1 + (getattr(model.config, "num_register_tokens", 0) or 0)
    size = probe_size(model.config)
    return size, size, prefix


def probe_size(config: PreTrainedConfig) -> int:
    """Width of a transformers backbone's output, read off a run without data; configs name it in many ways."""
    config = copy.deepcopy(config)
    config._attn_implementation = "eager"  # other kernels may need a real device
    side = getattr(config, "image_size", None) or 224
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    with torch.device("meta"), torch.no_grad():
        probe = build_backbone(config).eval()
        states = probe(torch.zeros(1, getattr(config, "num_channels", 3), height, width)).last_hidden_state
    return states.shape[1] if states.ndim == 4 else states.shape[-1]
