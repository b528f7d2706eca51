"""Four fusions of text and picture, three of them with learned stand-ins for a missing part.

Every fusion takes the two encodings and two boolean masks `(batch,)` that say which samples have which part. A stand-in
is always part of the graph, because DDP refuses parameters that are not used.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig


def eager_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs) -> tuple[Tensor, Tensor]:
    """Return the attention output and its weights `(batch, heads, queries, keys)`, which fused kernels do not give."""
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        mask = attention_mask[..., : key.shape[-2]]
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class DenseStack(nn.Sequential):
    """Linear and ReLU layers of the given sizes with dropout between them; no sizes make it the identity."""

    def __init__(self, input_size: int, sizes: Sequence[int], dropout: float):
        layers: list[nn.Module] = []
        for size_in, size_out in pairwise([input_size, *sizes]):
            if layers:
                layers.append(nn.Dropout(dropout))
            layers += [nn.Linear(size_in, size_out), nn.ReLU()]
        super().__init__(*layers)
        self.output_size: int = sizes[-1] if sizes else input_size


class EarlyFusion(nn.Module):
    """Feature vectors side by side (Gallo et al., IVCNZ 2020)."""

    def __init__(self, text_size: int, image_size: int):
        super().__init__()
        self.text_stand_in = nn.Parameter(torch.zeros(text_size))
        self.image_stand_in = nn.Parameter(torch.zeros(image_size))
        self.output_size = text_size + image_size

    def complete(self, text: Tensor, image: Tensor, text_present: Tensor, image_present: Tensor):
        """Replace missing parts by their stand-ins."""
        text = torch.where(text_present[:, None], text, self.text_stand_in.to(text.dtype))
        image = torch.where(image_present[:, None], image, self.image_stand_in.to(image.dtype))
        return text, image

    def forward(self, text: Tensor, image: Tensor, text_present: Tensor, image_present: Tensor) -> Tensor:
        """Fuse `(batch, text_size)` and `(batch, image_size)` into `(batch, text_size + image_size)`."""
        return torch.cat(self.complete(text, image, text_present, image_present), dim=-1)


class GatedFusion(EarlyFusion):
    """Gated multimodal unit (Arevalo et al., 2017, eq. 1-4): each unit weighs the text against the picture."""

    def __init__(self, text_size: int, image_size: int, size: int):
        super().__init__(text_size, image_size)
        self.text_projection = nn.Linear(text_size, size)
        self.image_projection = nn.Linear(image_size, size)
        self.gate = nn.Linear(text_size + image_size, size)
        self.output_size = size

    def forward(self, text: Tensor, image: Tensor, text_present: Tensor, image_present: Tensor) -> Tensor:
        """Fuse two feature vectors per sample into one of `size`."""
        text, image = self.complete(text, image, text_present, image_present)
        gate = self.gate(torch.cat([text, image], dim=-1)).sigmoid()
        return gate * self.text_projection(text).tanh() + (1 - gate) * self.image_projection(image).tanh()


class ClassScores(nn.Module):
    """A linear layer without bias that is no `nn.Linear`.

    "All linear layers" of an adapter are then those in front of it, as with the one classifier of any other model:
    peft knows that by its name `classifier`, trains it whole, and fails on layers which it would do both with.
    """

    def __init__(self, input_size: int, num_labels: int):
        super().__init__()
        self.in_features, self.out_features, self.bias = input_size, num_labels, None
        self.weight = nn.Parameter(torch.empty(num_labels, input_size))

    def forward(self, features: Tensor) -> Tensor:
        """Return class scores `(batch, num_labels)`."""
        return nn.functional.linear(features, self.weight)


class LateFusion(nn.Module):
    """Class scores of each part added to the score of the class prior.

    In log space this is the product of experts: each part gives evidence, a missing part gives none, and what is
    left is the prior in `bias`. So it needs no stand-ins.
    """

    def __init__(self, text_size: int, image_size: int, head_sizes: Sequence[int], num_labels: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.text_head = DenseStack(text_size, head_sizes, dropout)
        self.image_head = DenseStack(image_size, head_sizes, dropout)
        self.text_classifier = ClassScores(self.text_head.output_size, num_labels)
        self.image_classifier = ClassScores(self.image_head.output_size, num_labels)
        self.bias = nn.Parameter(torch.zeros(num_labels))

    def forward(self, text: Tensor, image: Tensor, text_present: Tensor, image_present: Tensor) -> Tensor:
        """Return class scores `(batch, num_labels)` from two feature vectors per sample."""
        text_scores = self.text_classifier(self.text_head(self.dropout(text)))
        image_scores = self.image_classifier(self.image_head(self.dropout(image)))
        # A missing part adds nothing to the scores.
        text_scores = text_scores.masked_fill(~text_present[:, None], 0.0)
        image_scores = image_scores.masked_fill(~image_present[:, None], 0.0)
        return text_scores + image_scores + self.bias


class CrossAttentionLayer(nn.Module):
    """One pre-norm attention layer: queries attend to the keys of the other part, then a feed-forward block."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        size = config.fusion_size
        self.config = config  # read at each call: `set_attn_implementation` changes it
        self.query_norm, self.key_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.query, self.key, self.value = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)
        self.output = nn.Linear(size, size)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(size),
            nn.Linear(size, 2 * size),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(2 * size, size),
        )

    def split(self, states: Tensor) -> Tensor:
        """Split the width into heads."""
        return states.unflatten(-1, (self.config.fusion_heads, -1)).transpose(1, 2)  # (batch, heads, tokens, width)

    def forward(self, queries: Tensor, keys: Tensor, key_mask: Tensor) -> Tensor:
        """Return new queries from `(batch, n, size)`, keys `(batch, m, size)` and their boolean mask `(batch, m)`."""
        normed_keys = self.key_norm(keys)
        query = self.split(self.query(self.query_norm(queries)))
        key, value = self.split(self.key(normed_keys)), self.split(self.value(normed_keys))
        mask = key_mask[:, None, None, :]
        # Both branches give equal results; the fused kernel is faster and returns no weights.
        if self.config._attn_implementation == "eager":
            attended, _ = eager_attention(self, query, key, value, mask, scaling=query.shape[-1] ** -0.5)
        else:
            attended = nn.functional.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2)
        queries = queries + self.output(attended.flatten(2))
        return queries + self.feed_forward(queries)


class CrossAttentionFusion(nn.Module):
    """Words attend to picture tokens and picture tokens to words; the means of both are put side by side."""

    def __init__(self, text_size: int, image_size: int, config: PreTrainedConfig):
        super().__init__()
        size = config.fusion_size
        self.text_projection = nn.Linear(text_size, size)
        self.image_projection = nn.Linear(image_size, size)
        self.text_stand_in = nn.Parameter(torch.zeros(size))
        self.image_stand_in = nn.Parameter(torch.zeros(size))
        self.text_to_image = CrossAttentionLayer(config)
        self.image_to_text = CrossAttentionLayer(config)
        self.output_size = 2 * size

    def forward(
        self, text: Tensor, text_mask: Tensor, image: Tensor, text_present: Tensor, image_present: Tensor
    ) -> Tensor:
        """Fuse `(batch, words, text_size)` with its boolean mask and `(batch, places, image_size)`."""
        words = torch.where(text_present[:, None, None], self.text_projection(text), self.text_stand_in.to(text.dtype))
        places = torch.where(
            image_present[:, None, None], self.image_projection(image), self.image_stand_in.to(image.dtype)
        )
        # A missing text counts as one word, the stand-in, so that no row of the mask is empty.
        first = torch.arange(text_mask.shape[1], device=text_mask.device) == 0
        # Spelled in logic, as ONNX runtimes choose between numbers but not between truth values.
        text_mask = (text_present[:, None] & text_mask) | (~text_present[:, None] & first)
        seen = self.text_to_image(words, places, text_mask.new_ones(places.shape[:2]))
        read = self.image_to_text(places, words, text_mask)
        weights = text_mask[..., None].to(seen.dtype)
        text_vector = (seen * weights).sum(1) / weights.sum(1)
        return torch.cat([text_vector, read.mean(1)], dim=-1)


def with_tokens(present: Tensor | None, attention_mask: Tensor | None) -> Tensor | None:
    """Return which samples have a text, `(batch,)` bool: a text without any token counts as missing."""
    if attention_mask is None:
        return present
    read = attention_mask.bool().any(dim=1)
    return read if present is None else present.bool() & read


def presence(given: Tensor | None, features: Tensor | None, known: Tensor) -> Tensor:
    """Return which samples have a part, `(batch,)` bool: none without its features, all if nothing else is given."""
    if features is None:
        return torch.zeros(known.shape[0], dtype=torch.bool, device=known.device)
    if given is None:
        return torch.ones(known.shape[0], dtype=torch.bool, device=known.device)
    return given.bool()


def drop_modalities(text_present: Tensor, image_present: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """Remove one part, text or picture with equal chance, from complete samples with the given probability."""
    draw = torch.rand(text_present.shape, device=text_present.device)
    complete = text_present & image_present
    # One draw decides both, so that no sample loses its text and its picture.
    drop_text = complete & (draw < probability / 2)
    drop_image = complete & (draw >= probability / 2) & (draw < probability)
    return text_present & ~drop_text, image_present & ~drop_image
