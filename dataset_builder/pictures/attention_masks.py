"""Ingredient masks from cross-attention: where a text-to-image model attends to each ingredient word.

The idea of word heat maps is that of DAAM (Tang et al., 2023, "What the DAAM: Interpreting Stable Diffusion Using
Cross Attention", arXiv 2210.04885). Hooks read the inputs of the attention layers and compute the attention weights
beside the layer's own computation, so the picture is the same, bit for bit, with and without them.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb

from dataset_builder.catalogue.ingredients import ingredient_id, ingredients
from dataset_builder.catalogue.matching import PhraseMatcher
from dataset_builder.columns import BACKGROUND, UNKNOWN
from dataset_builder.errors import BadInputError

GRID = 64  # side of the grid on which the maps of all layers are summed
LOCALISED = 1.25  # a word whose largest heat is below this many times its mean heat is not localised at all
PRESENT = 0.6  # normalised heat from which a pixel belongs to the word
ABSENT = 0.35  # normalised heat of the hottest word up to which a pixel is background
MARGIN = 0.1  # lead that the hottest word needs over the second


@cache
def _catalogue_matcher() -> tuple[PhraseMatcher, list[str]]:
    named = [(phrase, item.name) for item in ingredients() if item.visible for phrase in (item.name, *item.aliases)]
    return PhraseMatcher([phrase for phrase, _ in named]), [name for _, name in named]


def ingredient_spans(prompt: str) -> dict[int, list[tuple[int, int]]]:
    """Return where the prompt names each visible ingredient: mask id -> (start, end) in characters."""
    matcher, names = _catalogue_matcher()
    spans: dict[int, list[tuple[int, int]]] = {}
    for match in matcher.find(prompt):
        if not match.negated:
            spans.setdefault(ingredient_id(names[match.phrase]), []).append((match.start, match.end))
    return spans


def token_positions(tokenizer: Any, prompt: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return the positions of the tokens that overlap the spans, special tokens left out."""
    offsets = tokenizer(prompt, return_offsets_mapping=True, truncation=True)["offset_mapping"]
    return [
        position
        for position, (first, last) in enumerate(offsets)
        if last > first and any(first < end and last > start for start, end in spans)
    ]


def mask_from_heat(heat: dict[int, np.ndarray], height: int, width: int) -> np.ndarray:
    """Turn word heat maps into a mask of ingredient ids.

    Each map is scaled to 0..1 by its own least and largest value. A pixel belongs to the hottest word when that is
    clearly hot and clearly hotter than the second, to the background when no word is warm, and is unknown otherwise.
    Where no word is localised, nothing is known and every pixel is unknown.

    Args:
        heat: ingredient id -> map of non-negative attention, `(rows, columns)`.
        height: of the mask, in pixels.
        width: of the mask, in pixels.

    Returns:
        `(height, width)` uint8.
    """
    mask = np.full((height, width), UNKNOWN, dtype=np.uint8)
    localised = {word: values for word, values in heat.items() if values.max() >= LOCALISED * values.mean() > 0}
    if not localised:
        return mask
    words = np.array(list(localised), dtype=np.uint8)
    maps = torch.from_numpy(
        np.stack([(v - v.min()) / (v.max() - v.min()) for v in localised.values()]).astype(np.float32)
    )
    # Enlarged before the decision, so that borders follow the heat and not the coarse grid.
    maps = F.interpolate(maps[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    ranked, order = maps.sort(dim=0, descending=True)
    best = ranked[0].numpy()
    second = ranked[1].numpy() if len(words) > 1 else np.zeros_like(best)
    mask[best <= ABSENT] = BACKGROUND
    sure = (best >= PRESENT) & (best - second >= MARGIN)
    mask[sure] = words[order[0].numpy()][sure]
    return mask


class AttentionMasks:
    """Records cross-attention of a pipeline's denoiser and turns it into ingredient masks.

    Works on cross-attention layers (`attn2`: UNets of the Stable Diffusion family, PixArt and other transformers of
    that kind) and on joint attention (Stable Diffusion 3; Flux, whose queries and keys are turned by their positions).
    Of Flux the layers are read that keep words and picture apart, the first third of all.

    Args:
        pipeline: a text-to-image pipeline with `unet` or `transformer`, and a tokenizer that returns offsets.

    Raises:
        BadInputError: the pipeline has no such layers.
    """

    def __init__(self, pipeline: Any):
        denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
        modules = list(denoiser.named_modules()) if denoiser is not None else []
        self._joint = [m for _, m in modules if hasattr(m, "to_q") and getattr(m, "add_k_proj", None) is not None]
        self._cross = [] if self._joint else [m for name, m in modules if name.endswith("attn2") and hasattr(m, "to_q")]
        tokenizer = getattr(pipeline, "tokenizer", None) or getattr(pipeline, "tokenizer_2", None)
        if not (self._cross or self._joint) or not getattr(tokenizer, "is_fast", False):
            raise BadInputError(
                f"{type(pipeline).__name__} has no cross-attention between picture and words that can be read; "
                "leave --masks attention out"
            )
        # (tokenizer, position of its first token among the text tokens that the denoiser sees)
        self._tokenizers = [(tokenizer, 0)]
        if type(denoiser).__name__.startswith("Flux"):  # of the first encoder it sees one vector for the whole prompt
            self._tokenizers = [(pipeline.tokenizer_2, 0)]
        elif self._joint and getattr(pipeline, "tokenizer_3", None) is not None:
            self._tokenizers.append((pipeline.tokenizer_3, pipeline.tokenizer_max_length))
        self._words: list[dict[int, list[int]]] = []
        self._heat: list[dict[int, torch.Tensor]] = []

    @contextmanager
    def recording(self, prompts: Sequence[str]) -> Iterator[None]:
        """Record one call of the pipeline with these prompts, one picture each."""
        self._words = [
            {
                word: [
                    p + first
                    for tokenizer, first in self._tokenizers
                    for p in token_positions(tokenizer, prompt, spans)
                ]
                for word, spans in ingredient_spans(prompt).items()
            }
            for prompt in prompts
        ]
        self._heat = [{} for _ in prompts]
        hooks = [layer.register_forward_pre_hook(self._read, with_kwargs=True) for layer in self._cross + self._joint]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def masks(self, height: int, width: int) -> list[np.ndarray]:
        """Return the masks of the recorded pictures, `(height, width)` uint8 each."""
        return [
            mask_from_heat({word: values.cpu().numpy() for word, values in heat.items()}, height, width)
            for heat in self._heat
        ]

    @torch.no_grad()
    def _read(self, layer: Any, positional: tuple, named: dict[str, Any]) -> None:
        pixels = positional[0] if positional else named["hidden_states"]
        text = positional[1] if len(positional) > 1 else named.get("encoder_hidden_states")
        if text is None:
            return
        rotary = named.get("image_rotary_emb")
        if rotary is not None and not _turns(rotary, pixels, text):
            raise BadInputError(
                "this kind of rotary positions is not that of Flux and cannot be read; leave --masks attention out"
            )
        bias = named.get("attention_mask")
        # With classifier-free guidance the second half of the batch is the one that read the prompt.
        first = len(pixels) - len(self._words)
        for index, words in enumerate(self._words):
            if words:
                row = slice(first + index, first + index + 1)
                weights = _attention(layer, pixels[row], text[row], None if bias is None else bias[row], rotary)
                self._add(index, words, weights)

    def _add(self, index: int, words: dict[int, list[int]], weights: torch.Tensor) -> None:
        """Sum the heat of the words of one picture; `weights` is (pixels, text tokens)."""
        side = math.isqrt(len(weights))
        if side * side != len(weights):
            raise BadInputError("attention masks need square pictures; leave --masks attention out")
        for word, positions in words.items():
            seen = [position for position in positions if position < weights.shape[1]]
            if not seen:  # the text encoder cut the prompt before this word
                continue
            heat = weights[:, seen].sum(dim=1).reshape(1, 1, side, side)
            heat = F.interpolate(heat, size=(GRID, GRID), mode="bilinear", align_corners=False)[0, 0]
            known = self._heat[index].get(word)
            self._heat[index][word] = heat if known is None else known + heat


def _turns(rotary: Any, pixels: torch.Tensor, text: torch.Tensor) -> bool:
    """Whether rotary positions are cosines and sines `(text tokens + pixels, width of a head)`, the text first."""
    pair = isinstance(rotary, tuple) and len(rotary) == 2
    return pair and all(each.shape[:-1] == (text.shape[1] + pixels.shape[1],) for each in rotary)


def _attention(
    layer: Any,
    pixels: torch.Tensor,
    text: torch.Tensor,
    bias: torch.Tensor | None,
    rotary: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Return the attention of pixels to text tokens of one picture, averaged over heads: (pixels, text tokens)."""
    if getattr(layer, "norm_cross", None):
        text = layer.norm_encoder_hidden_states(text)
    joint = getattr(layer, "add_k_proj", None) is not None
    query = _projected(layer, "to_q", "norm_q", pixels)
    if joint:
        text_key = _projected(layer, "add_k_proj", "norm_added_k", text)
        # The order of the keys does not matter to the softmax.
        key = torch.cat([text_key, _projected(layer, "to_k", "norm_k", pixels)], dim=1)
    else:
        key = _projected(layer, "to_k", "norm_k", text)
    if rotary is not None:
        cosines, sines = rotary
        here = text.shape[1]
        query = apply_rotary_emb(query[None], (cosines[here:], sines[here:]))[0]
        key = apply_rotary_emb(key[None], (cosines, sines))[0]
    scores = query.float() @ key.float().transpose(1, 2) / math.sqrt(query.shape[-1])  # (heads, pixels, keys)
    if bias is not None and not joint:
        scores = scores + bias.reshape(1, -1, bias.shape[-1]).float()
    return scores.softmax(dim=-1).mean(dim=0)[:, : text.shape[1]]


def _projected(layer: Any, projection: str, norm: str, values: torch.Tensor) -> torch.Tensor:
    """Return queries or keys per head, `(heads, tokens, width of a head)`, normalised where the layer does so."""
    projected = getattr(layer, projection)(values)
    _, length, width = projected.shape
    heads = projected.reshape(length, layer.heads, width // layer.heads).transpose(0, 1)
    normalise = getattr(layer, norm, None)
    return heads if normalise is None else normalise(heads)
