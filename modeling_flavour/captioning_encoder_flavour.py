"""What a captioner sees: features of the picture's places, and, where masks taught it, what lies at each place."""

from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from .decoding_flavour import grid_positions
from .encoders_flavour import FlavourImageEncoder


@dataclass
class VisualEncoding(BaseModelOutput):
    """Encoder output with the scores of what lies at each place.

    Attributes:
        place_logits: `(batch, places, num_place_labels)`; `None` for a captioner that does not tell.
    """

    place_logits: Tensor | None = None


class VisualEncoder(FlavourImageEncoder):
    """Pictures to what the decoder reads of them: one vector per place, or one for the whole picture.

    The backbone is `.model`, as in every model of the family. With `num_place_labels` a linear head scores what lies at
    each place, and the decoder is told its answer beside the features, as words are told by their vectors (You et al.
    2016, "Image captioning with semantic attention"): a place gets the vectors of its labels weighted by their
    probabilities, a whole picture those of each label where it is surest.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.pooled = config.decoder_type == "merge"
        size = config.hidden_size
        self.projection = nn.Linear(self.pooled_size if self.pooled else self.token_size, size)
        self.norm = nn.Identity() if self.pooled else nn.LayerNorm(size)
        self.dropout = nn.Dropout(config.dropout)
        if config.num_place_labels:
            self.place_words = nn.Linear(config.num_place_labels, size, bias=False)
        self.post_init()

    def forward(  # type: ignore[override]
        self,
        pixel_values: Tensor,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> VisualEncoding:
        """Encode `(batch, 3, height, width)`; the last hidden state is `(batch, places, hidden_size)`."""
        seen = super().forward(
            pixel_values,
            pool=self.pooled,
            # Backbones of timm keep no attention weights.
            output_attentions=None if self.is_timm else output_attentions or None,
            output_hidden_states=output_hidden_states or None,
        )
        states = self.projection(self.dropout(seen.pooled))[:, None] if self.pooled else self.projection(seen.tokens)
        if seen.place_logits is not None:
            states = states + self.told(seen.place_logits)
        states = self.norm(states)
        if self.pooled:
            states = states.relu()
        else:
            height, width = seen.feature_map.shape[-2:]
            states = self.dropout(states + grid_positions(height, width, states.shape[-1], states))
        layers = None if seen.hidden_states is None else tuple(seen.hidden_states)
        return VisualEncoding(states, layers, seen.attentions, seen.place_logits)

    def told(self, place_logits: Tensor) -> Tensor:
        """Vectors of what lies at the places, `(batch, places, hidden_size)`, or of all of it, `(batch, 1, ...)`."""
        shares = place_logits.float().softmax(-1)
        if self.pooled:
            shares = shares.amax(1, keepdim=True)
        # Freshly initialised vectors are short; brought to the length of the features, as word vectors are in Vaswani
        # et al. 2017, section 3.4.
        return self.place_words(shares.to(place_logits.dtype)) * self.config.hidden_size**0.5
