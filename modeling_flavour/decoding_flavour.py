"""The two decoders: a causal transformer that attends to the places of the picture, and an LSTM merged with it."""

import torch
from torch import Tensor, nn
from transformers import Cache, EncoderDecoderCache, PreTrainedConfig
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .fusion_flavour import eager_attention
from .lstm_flavour import LSTMDecoder, LSTMState


def grid_positions(height: int, width: int, size: int, like: Tensor) -> Tensor:
    """Return sines and cosines of row and column of each place of a grid, `(height * width, size)`.

    A quarter of the width each for sine and cosine of either axis, as in DETR (Carion et al. 2020), appendix A.4. The
    coordinates run from 0 to 1 over the picture whatever its size, so that "left" means the same at any size.

    Args:
        height: Rows of the grid.
        width: Columns of the grid.
        size: Width of the result, a multiple of 4.
        like: Tensor whose device and dtype the result gets.
    """
    waves = 2 * torch.pi * 2 ** torch.linspace(-1, 4, size // 4, device=like.device)
    rows = (torch.arange(height, device=like.device) + 0.5) / height
    columns = (torch.arange(width, device=like.device) + 0.5) / width
    rows, columns = rows[:, None] * waves, columns[:, None] * waves
    by_row = torch.cat([rows.sin(), rows.cos()], dim=-1)[:, None].expand(-1, width, -1)
    by_column = torch.cat([columns.sin(), columns.cos()], dim=-1)[None].expand(height, -1, -1)
    return torch.cat([by_row, by_column], dim=-1).flatten(0, 1).to(like.dtype)


class DecoderAttention(nn.Module):
    """Attention of words to earlier words, or of words to places of the picture, with cached keys and values."""

    def __init__(self, config: PreTrainedConfig, layer: int, is_cross: bool):
        super().__init__()
        size = config.hidden_size
        self.config = config
        self.layer = layer
        self.is_cross = is_cross
        self.is_causal = not is_cross
        self.head_size = size // config.num_attention_heads
        self.query, self.key, self.value = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)
        self.output = nn.Linear(size, size)

    def forward(
        self,
        states: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `(batch, words, size)` to itself or to `memory` `(batch, places, size)`."""
        query = self.split(self.query(states))
        key, value = self.keys_and_values(states if memory is None else memory, past_key_values)
        # Fused kernels return no weights, so output_attentions needs the eager form.
        name = "eager" if output_attentions else self.config._attn_implementation
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention)
        dropout = self.config.dropout if self.training else 0.0
        mixed, weights = attend(
            self, query, key, value, mask, scaling=self.head_size**-0.5, dropout=dropout, is_causal=None
        )
        return self.output(mixed.flatten(2)), weights

    def split(self, states: Tensor) -> Tensor:
        """Split the width into heads."""
        return states.unflatten(-1, (-1, self.head_size)).transpose(1, 2)  # (batch, heads, tokens, head size)

    def keys_and_values(self, source: Tensor, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """Return keys and values, from the cache where they are stored already."""
        if cache is None:
            return self.split(self.key(source)), self.split(self.value(source))
        # Places of the picture do not change from word to word, so their keys and values are computed once.
        if self.is_cross and cache.is_updated.get(self.layer):
            stored = cache.cross_attention_cache.layers[self.layer]
            return stored.keys, stored.values
        part = cache.cross_attention_cache if self.is_cross else cache.self_attention_cache
        key, value = part.update(self.split(self.key(source)), self.split(self.value(source)), self.layer)
        if self.is_cross:
            cache.is_updated[self.layer] = True
        return key, value


class DecoderLayer(GradientCheckpointingLayer):
    """One pre-norm layer: self-attention to the words, cross-attention to the places, feed-forward block."""

    def __init__(self, config: PreTrainedConfig, layer: int):
        super().__init__()
        size = config.hidden_size
        self.word_norm, self.picture_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.word_attention = DecoderAttention(config, layer, is_cross=False)
        self.picture_attention = DecoderAttention(config, layer, is_cross=True)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(size),
            nn.Linear(size, config.intermediate_size),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.intermediate_size, size),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        states: Tensor,
        memory: Tensor,
        mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return new states `(batch, words, size)` and, with `output_attentions`, the weights over words and places."""
        mixed, words = self.word_attention(
            self.word_norm(states), None, mask, past_key_values, output_attentions=output_attentions
        )
        states = states + self.dropout(mixed)
        mixed, places = self.picture_attention(
            self.picture_norm(states), memory, None, past_key_values, output_attentions=output_attentions
        )
        states = states + self.dropout(mixed)
        return states + self.dropout(self.feed_forward(states)), words, places


class TransformerDecoder(nn.Module):
    """Word ids to states, each seeing the words before it and the whole picture."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(config, number) for number in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(
        self,
        embedded: Tensor,
        memory: Tensor,
        attention_mask: Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, list[Tensor], list[Tensor | None], list[Tensor | None]]:
        """Decode word vectors `(batch, words, size)` with picture features `(batch, places, size)`.

        Returns:
            The final states, the states of the embeddings and every layer, and each layer's weights over words and over
            places.

        Raises:
            ValueError: The caption is longer than `config.max_position_embeddings`.
        """
        seen = cache.get_seq_length() if cache is not None else 0
        length = seen + embedded.shape[1]
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"The caption has {length} tokens, but the model knows {self.config.max_position_embeddings} "
                "positions; give a smaller max_length."
            )
        # Words that follow a cache continue its positions.
        steps = torch.arange(seen, length, device=embedded.device)
        if attention_mask is not None and attention_mask.ndim == 2:
            # Padding before the words takes no position.
            steps = (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, seen:length]
        states = self.dropout(embedded + self.positions(steps))
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=states,
            attention_mask=attention_mask,
            past_key_values=cache.self_attention_cache if cache is not None else None,
            allow_is_causal_skip=False,
        )
        all_states, word_weights, place_weights = [states], [], []
        for layer in self.layers:
            states, words, places = layer(
                states, memory, mask, past_key_values=cache, output_attentions=output_attentions
            )
            all_states.append(states)
            word_weights.append(words)
            place_weights.append(places)
        states = self.norm(states)
        # As in other models of transformers, the last entry is the normalised output.
        all_states[-1] = states
        return states, all_states, word_weights, place_weights


class MergeDecoder(nn.Module):
    """Words through an LSTM that never reads the picture, then both added (Tanti et al. 2017)."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = LSTMDecoder(config.hidden_size, config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        embedded: Tensor,
        memory: Tensor,
        attention_mask: Tensor | None = None,
        cache: LSTMState | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, list[Tensor], list[Tensor | None], list[Tensor | None]]:
        """Decode word vectors `(batch, words, size)` with the picture's vector `(batch, 1, size)`.

        Returns:
            The final states, the states of the embeddings, the LSTM and the dense layer, and two empty lists where
            [`TransformerDecoder`] returns attention weights.

        Raises:
            ValueError: There is an attention mask.
        """
        if attention_mask is not None:
            raise ValueError(
                "Got decoder_attention_mask, but an LSTM reads every word: leave it out, and pad only after captions."
            )
        read = self.lstm(self.dropout(embedded), cache)
        merged = self.dense(memory + read).relu()
        return merged, [embedded, read, merged], [], []
