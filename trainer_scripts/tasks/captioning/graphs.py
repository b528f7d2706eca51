"""A captioner as two graphs: one that runs once per picture, and one that runs once per word."""

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import EncoderDecoderCache, PreTrainedConfig
from transformers.utils import ModelOutput

from modeling_flavour.captioning_encoder_flavour import VisualEncoding
from modeling_flavour.lstm_flavour import LSTMState
from trainer_scripts.tasks.common.graphs import Axes, ModelGraph


class EncoderGraph(ModelGraph):
    """Pictures to what the decoder reads of them at every word.

    `picture` is `(batch, layers, 2, heads, places, head size)`, keys and values of the places, or in a merge captioner
    `(batch, 1, size)`; with `num_place_labels` also `found`, see `VisualEncoding`.
    """

    @property
    def inputs(self) -> Axes:
        """Pictures of the one size that the processor gives them."""
        return {"pixel_values": {0: "batch"}}

    @property
    def outputs(self) -> list[str]:
        """`picture`, and `found` where the model names what it sees."""
        return ["picture", *(["found"] if self.model.seen_words is not None else [])]

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for pictures `(batch, 3, height, width)`."""
        seen = self.model.get_encoder()(pixel_values)
        places = seen.last_hidden_state
        if self.model.decoder_type == "transformer":
            layers = [layer.picture_attention for layer in self.model.decoder.layers]
            pairs = [(each.split(each.key(places)), each.split(each.value(places))) for each in layers]
            places = torch.stack([torch.stack(pair, dim=1) for pair in pairs], dim=1)
        return (places,) if seen.found is None else (places, seen.found)

    @staticmethod
    def answer(config: PreTrainedConfig, outputs: Mapping[str, Tensor]) -> ModelOutput:
        """Return the outputs by name."""
        return ModelOutput(**outputs)


class StepGraph(ModelGraph):
    """All words so far to the scores of the next one; earlier words are read from the cache.

    `cache` is `(batch, layers, 2, heads, words, head size)`, keys and values of the words before the last, or in a
    merge captioner `(batch, 2, size)`, hidden and cell state; rows are selected along the first axis.
    """

    @property
    def inputs(self) -> Axes:
        """Words, cache, and what the encoder gives."""
        words = {4: "words"} if self.model.decoder_type == "transformer" else {}
        axes: Axes = {
            "input_ids": {0: "batch", 1: "length"},
            "cache": {0: "batch", **words},
            "picture": {0: "batch"},
        }
        return axes | ({} if self.model.seen_words is None else {"found": {0: "batch"}})

    @property
    def outputs(self) -> list[str]:
        """Scores of the next word, and the cache with the last word in it."""
        return ["logits", "next_cache"]

    @property
    def cache_shape(self) -> list[int]:
        """Shape of the cache of one row before the first word."""
        config = self.model.config
        if self.model.decoder_type == "merge":
            return [2, config.hidden_size]
        heads = config.num_attention_heads
        return [config.num_hidden_layers, 2, heads, 0, config.hidden_size // heads]

    def forward(
        self, input_ids: Tensor, cache: Tensor, picture: Tensor, found: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return scores `(batch, vocabulary)` and the new cache, for all words so far `(batch, length)`."""
        embedded = self.model.get_input_embeddings()(input_ids[:, -1:])
        if self.model.decoder_type == "merge":
            states, new = self._merge_step(embedded, cache, picture)
        else:
            states, new = self._transformer_step(embedded, cache, picture)
        encoded = VisualEncoding(picture, found=found)
        return self.model.score_words(states, encoded, input_ids)[:, -1], new

    def _merge_step(self, embedded: Tensor, cache: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        state = LSTMState()
        state.hidden, state.cell = cache[None, :, 0], cache[None, :, 1]
        states = self.model.decoder(embedded, picture, None, state)[0]
        hidden, cell = state.hidden, state.cell
        assert hidden is not None
        assert cell is not None
        return states, torch.stack([hidden[0], cell[0]], dim=1)

    def _transformer_step(self, embedded: Tensor, cache: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        decoder, known = self.model.decoder, self.model.new_cache()
        assert isinstance(known, EncoderDecoderCache)
        for layer in range(len(decoder.layers)):
            known.self_attention_cache.update(cache[:, layer, 0], cache[:, layer, 1], layer)
            known.cross_attention_cache.update(picture[:, layer, 0], picture[:, layer, 1], layer)
            known.is_updated[layer] = True
        # A single word sees all words before it, so there is no mask; its place follows those in the cache.
        place = torch.zeros(1, dtype=torch.long, device=cache.device) + cache.shape[4]
        states = embedded + decoder.positions(place)
        for layer in decoder.layers:
            # The places are read from the cache, so any tensor stands for them.
            states = layer(states, states, None, past_key_values=known)[0]
        layers = known.self_attention_cache.layers
        new = torch.stack([torch.stack([each.keys, each.values], dim=1) for each in layers], dim=1)
        return decoder.norm(states), new

    @staticmethod
    def answer(config: PreTrainedConfig, outputs: Mapping[str, Tensor]) -> ModelOutput:
        """Return the outputs by name."""
        return ModelOutput(**outputs)
