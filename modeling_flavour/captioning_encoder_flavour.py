"""Visual encoder of the captioners: features of the picture's places and, with masks, the class at each place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from .decoding_flavour import grid_positions
from .encoders_flavour import FlavourImageEncoder


@dataclass
class VisualEncoding(BaseModelOutput):
    """Encoder output, with the classes at the places in a captioner with `num_place_labels`.

    Attributes:
        place_logits: `(batch, places, num_place_labels)`.
        found: `(batch, 2, num_place_labels)` from 0 to 1: the highest probability of each label over the places,
            and its mean, which is its share of the picture.
    """

    place_logits: Tensor | None = None
    found: Tensor | None = None

    def of(self, pictures: Tensor | slice = slice(None)) -> "VisualEncoding":
        """Return the encoding of the given pictures, `(n,)` indices that may repeat; by default a shallow copy.

        `generate` changes the encoding that it gets: pass it a copy of one that is used again.
        """
        return VisualEncoding(**{name: value[pictures] for name, value in self.items() if isinstance(value, Tensor)})


class VisualEncoder(FlavourImageEncoder):
    """Pictures to the input of the decoder: one vector per place, or one for the whole picture.

    The backbone is `.model`, as in every model of the family. With `num_place_labels` a linear head classifies each
    place, and `SeenWords` reads the probabilities of the labels.
    """

    def __init__(self, config: PreTrainedConfig):
        pooled = config.decoder_type == "merge"
        super().__init__(config, pooled=pooled, places=not pooled)
        size = config.hidden_size
        self.projection = nn.Linear(self.pooled_size if self.pooled else self.token_size, size)
        self.norm = nn.Identity() if self.pooled else nn.LayerNorm(size)
        self.dropout = nn.Dropout(config.dropout)
        self.post_init()

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        features: Any = None,
    ) -> VisualEncoding:
        """Encode pictures `(batch, 3, height, width)`, or `features` of the backbone computed before.

        The last hidden state is `(batch, places, hidden_size)`.
        """
        seen = super().forward(
            pixel_values,
            features,
            # Backbones of timm keep no attention weights.
            output_attentions=None if self.is_timm else output_attentions or None,
            output_hidden_states=output_hidden_states or None,
        )
        states = self.projection(self.dropout(seen.pooled))[:, None] if self.pooled else self.projection(seen.tokens)
        states = self.norm(states)
        if self.pooled:
            states = states.relu()
        else:
            height, width = seen.feature_map.shape[-2:]
            states = self.dropout(states + grid_positions(height, width, states.shape[-1], states))
        found = None
        if seen.place_logits is not None:
            shares = seen.place_logits.float().softmax(-1)
            found = torch.stack([shares.amax(1), shares.mean(1)], dim=1).to(states.dtype)
        layers = None if seen.hidden_states is None else tuple(seen.hidden_states)
        return VisualEncoding(states, layers, seen.attentions, seen.place_logits, found)


class SeenWords(nn.Module):
    """Raises the scores of words that name the labels found in the picture.

    Each label has learned scores over the vocabulary. They are weighted by the label's probability and by its share of
    the picture, each through a gate computed from the decoder's state, so that they count where a thing is to be named
    and not in between. Words that the caption already has get nothing added.

    A pointer with coverage as in See et al. 2017 ("Get to the point"), over labels of places
    instead of source words and added to the logits.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.words = nn.Linear(config.num_place_labels, config.vocab_size, bias=False)
        self.gates = nn.Linear(config.hidden_size, 2)

    def forward(self, states: Tensor, found: Tensor, said_ids: Tensor | None) -> Tensor:
        """Return the addition to the logits, `(batch, words, vocab_size)`.

        Args:
            states: `(batch, words, hidden_size)`, the decoder's states of the last words.
            found: `VisualEncoding.found`.
            said_ids: `(batch, all words so far)`; `None` where the decoder reads vectors instead of ids.
        """
        added = self.gates(states) @ self.words(found)
        if said_ids is None:
            return added
        length = states.shape[1]
        # In generation every word so far is used already, so their scores are cleared without a running sum.
        if length == 1:
            return added.scatter(-1, said_ids[:, None], 0.0)
        # A word counts as used from its own position on.
        said = functional.one_hot(said_ids, added.shape[-1]).cumsum(1)[:, -length:]
        return added.masked_fill(said > 0, 0.0)

    @torch.no_grad()
    def resize(self, vocab_size: int) -> None:
        """Resize to a new vocabulary; new words get no score from any label."""
        old, kept = self.words.weight, min(vocab_size, self.words.out_features)
        self.words = nn.Linear(self.words.in_features, vocab_size, bias=False, device=old.device, dtype=old.dtype)
        self.words.weight.zero_()
        self.words.weight[:kept] = old[:kept]

    @torch.no_grad()
    def name(self, tokens: Sequence[Sequence[int]]) -> None:
        """Initialise each label's scores with the tokens of its name, instead of learning them from captions alone."""
        self.words.weight.zero_()
        for label, named in enumerate(tokens):
            self.words.weight[list(named), label] = 1.0
        self.gates.weight.zero_()
        self.gates.bias.fill_(1.0)
