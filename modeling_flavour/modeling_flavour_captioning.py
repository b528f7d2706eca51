"""Captioners: picture to sentence, with a transformer that attends to the picture or an LSTM that is merged with it.

Both are generation models of transformers: `model.generate(pixel_values)` writes captions from pixels alone, greedily,
by beam search or by sampling, and every step reuses what the earlier ones computed.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, GenerationMixin, PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils.generic import can_return_tuple

from .base_flavour import FlavourPreTrainedModel, check_alternatives
from .captioning_encoder_flavour import SeenWords, VisualEncoder, VisualEncoding
from .captioning_pipeline_flavour import CAPTIONING_PIPELINE
from .configuration_flavour_captioning import FlavourCaptionerConfig
from .decoding_flavour import MergeDecoder, TransformerDecoder
from .loading_flavour import load_checked, load_part
from .losses_flavour import (
    IGNORED_LABEL,
    captioning_loss,
    place_loss,
    shift_right,
    to_the_front,
    without_begin,
)
from .lstm_flavour import LSTMState

WORDS_FOR_ENCODER = (
    "A captioner's encoder reads pictures, not words: give words as labels or decoder_input_ids (and their mask as "
    "decoder_attention_mask); generate takes beginnings of captions as input_ids."
)


class FlavourCaptioner(FlavourPreTrainedModel, GenerationMixin):
    """Base class of both captioners: visual encoder, forward pass, loss, generation.

    A concrete class sets `decoder`, `lm_head` and `seen_words`. All decoders have the signature of
    [`TransformerDecoder`].
    """

    config_class = FlavourCaptionerConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    output_modalities = ("text",)
    # The loss divides by the words of all accumulated batches, which Trainer counts.
    accepts_loss_kwargs = True
    auto_classes = ("AutoModel", "AutoModelForImageTextToText")
    custom_pipelines = CAPTIONING_PIPELINE
    decoder_type = ""

    def __init__(self, config: FlavourCaptionerConfig):
        super().__init__(config)
        if config.vision_config is None:
            raise ValueError("A captioner needs a vision_config, such as that of a timm_wrapper.")
        if config.decoder_type != self.decoder_type:
            raise ValueError(
                f"{type(self).__name__} needs a config with decoder_type={self.decoder_type!r}, "
                f"got {config.decoder_type!r}."
            )
        self.image_encoder = VisualEncoder(config)

    @classmethod
    def from_parts(cls, image, trust_remote_code: bool = False, **config) -> "FlavourCaptioner":
        """Put a fresh decoder behind a backbone.

        Args:
            image: Folder or Hub id of a backbone or of any model of this family, its config or its config's dictionary
                (fresh weights).
            trust_remote_code: Whether the backbone may run code from its repository.
            **config: Fields of [`FlavourCaptionerConfig`].
        """
        vision_config, backbone = load_part(image, trust_remote_code=trust_remote_code)
        settings = {"decoder_type": cls.decoder_type, **config}
        model = cls(FlavourCaptionerConfig(vision_config=vision_config, **settings))
        if backbone is not None:
            load_checked(model.image_encoder.model, backbone.state_dict(), str(image))
        return model

    @classmethod
    def from_pretrained(cls, *args, config: PreTrainedConfig | None = None, **kwargs):
        """Load a captioner; see [`PreTrainedModel.from_pretrained`].

        A given `config` decides which kind. An Auto class remembers one class per config class: once it has loaded one
        kind of captioner, it asks that class for the other kind too, if this lies in another folder of the same name.
        """
        kind = cls
        if config is not None and config.decoder_type != cls.decoder_type:
            kinds = (FlavourForTransformerCaptioning, FlavourForMergeCaptioning)
            kind = next(other for other in kinds if other.decoder_type == config.decoder_type)
        return super(FlavourCaptioner, kind).from_pretrained(*args, config=config, **kwargs)

    def get_encoder(self, modality: str | None = None) -> VisualEncoder:
        """Return the visual encoder; `generate` runs it once per picture."""
        return self.image_encoder

    def new_cache(self) -> EncoderDecoderCache | LSTMState:
        """Return the empty cache of a decoder."""
        raise NotImplementedError(f"{type(self).__name__} must say what its decoder caches.")

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, *args, image_features: Any = None, **kwargs):
        """Write captions; see [`GenerationMixin.generate`].

        Args:
            inputs: `(batch, 3, height, width)` pictures, also as `pixel_values`.
            *args: Passed on.
            image_features: Output of `encode_image` instead of pictures.
            **kwargs: Passed on. `input_ids` and `attention_mask`, which the processor makes of `text`, are how the
                captions begin; what follows is written.

        Raises:
            ValueError: There is no picture; or beginnings of different length for an LSTM, which knows no padding.
        """
        seen = (inputs, kwargs.get("pixel_values"), image_features, kwargs.get("encoder_outputs"))
        if all(each is None for each in seen):
            raise ValueError("Give pixel_values, image_features or encoder_outputs: a caption is written to a picture.")
        for name in ("text_present", "image_present"):  # of the processor; the mask says the same
            kwargs.pop(name, None)
        beginning, mask = kwargs.pop("input_ids", None), kwargs.pop("attention_mask", None)
        if beginning is not None:
            kwargs |= self.begin_with(beginning, mask)
            if self.decoder_type == "transformer" and not {"max_new_tokens", "max_length"} & kwargs.keys():
                # The usual length was meant for captions without a given beginning.
                left = self.config.max_position_embeddings - kwargs["decoder_input_ids"].shape[1]
                kwargs["max_new_tokens"] = min(self.generation_config.max_new_tokens or left, left)
        if image_features is not None:
            check_alternatives(pixel_values=kwargs.get("pixel_values", inputs), image_features=image_features)
            kwargs["encoder_outputs"] = self.image_encoder(features=image_features)
        return super().generate(inputs, *args, **kwargs)

    def begin_with(self, input_ids: Tensor, attention_mask: Tensor | None) -> dict[str, Tensor]:
        """Return the decoder's inputs for beginnings of captions `(batch, length)`, with or without special tokens."""
        config = self.config
        special = torch.tensor([config.bos_token_id, config.eos_token_id, config.pad_token_id], device=input_ids.device)
        own = ~torch.isin(input_ids, special)
        if attention_mask is not None:
            own &= attention_mask.bool()
        rows = [ids[here] for ids, here in zip(input_ids, own, strict=True)]
        longest = max(map(len, rows))
        if self.decoder_type != "transformer" and any(len(ids) < longest for ids in rows):
            raise ValueError(
                "The beginnings of the captions have different numbers of tokens, and an LSTM knows no padding before "
                "them: give captions with beginnings of one length at a time."
            )
        # Padding stands before the start token, so that the words that follow are at the end of each row.
        start = config.decoder_start_token_id
        begun = input_ids.new_full((len(rows), longest + 1), config.pad_token_id)
        mask = torch.zeros_like(begun)
        for row, ids in enumerate(rows):
            begun[row, longest - len(ids) :] = torch.cat([ids.new_tensor([start]), ids])
            mask[row, longest - len(ids) :] = 1
        return {"decoder_input_ids": begun} | ({} if mask.all() else {"decoder_attention_mask": mask})

    def without_begin_tokens(
        self, labels: Tensor | None, decoder_input_ids: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return labels, and decoder inputs that were made from labels, without a begin token; see `without_begin`.

        Labels that a tokenizer has padded on the left are moved to the front, and the decoder inputs made from them.
        """
        if labels is None:
            return None, decoder_input_ids
        tokens, front = (self.config.bos_token_id, self.config.eos_token_id), to_the_front(labels)
        if decoder_input_ids is None:
            labels = front
        elif decoder_input_ids.shape == labels.shape:
            # Places in front are left out by intent where the decoder is given the words that stand there.
            made = (decoder_input_ids == self.shifted(labels)).all(1, keepdim=True)
            labels = torch.where(made, front, labels)
            decoder_input_ids = torch.where(made, self.shifted(front), decoder_input_ids)
        if decoder_input_ids is not None:  # there the begin token follows the start
            decoder_input_ids = without_begin(decoder_input_ids, *tokens, self.config.pad_token_id, first=1)
        return without_begin(labels, *tokens, padding=IGNORED_LABEL), decoder_input_ids

    def read_inputs(
        self,
        pixel_values: Tensor | None,
        decoder_input_ids: Tensor | None,
        decoder_inputs_embeds: Tensor | None,
        encoder_outputs: BaseModelOutput | tuple | None,
        labels: Tensor | None,
        image_features: Any = None,
        **wanted: bool | None,
    ) -> tuple[BaseModelOutput, Tensor, Tensor | None]:
        """Return the encoding of the picture, the vectors of the words that the decoder reads, and their ids.

        Raises:
            ValueError: There is neither a picture nor its features nor its encoding, or no word to go on from.
        """
        check_alternatives(pixel_values=pixel_values, image_features=image_features)
        if encoder_outputs is None:
            if pixel_values is None and image_features is None:
                raise ValueError("Give pixel_values, image_features, or encoder_outputs of an earlier call.")
            encoder_outputs = self.image_encoder(pixel_values, features=image_features, **wanted)
        # A tuple comes from a call with `return_dict=False`.
        elif not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = VisualEncoding(*encoder_outputs)
        if decoder_inputs_embeds is None:
            if decoder_input_ids is None:
                if labels is None:
                    raise ValueError(
                        "Give labels to learn from, or decoder_input_ids to go on from. (A Trainer with "
                        "label_smoothing_factor takes the labels away: let the collator add decoder_input_ids, made by "
                        "prepare_decoder_input_ids_from_labels, or set config.label_smoothing instead.)"
                    )
                decoder_input_ids = self.shifted(labels)
            decoder_inputs_embeds = self.get_input_embeddings()(decoder_input_ids)
        return encoder_outputs, decoder_inputs_embeds, decoder_input_ids

    def prepare_inputs_for_generation(self, input_ids, *args, **kwargs):
        """Return the inputs of a step; `said_ids` are all words so far, also where the decoder reads only the last."""
        inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)
        return inputs if self.seen_words is None else {**inputs, "said_ids": input_ids}

    def words_said(
        self, ids: Tensor | None, said_ids: Tensor | None, past: EncoderDecoderCache | LSTMState | None
    ) -> Tensor | None:
        """Return all words so far: those given now, unless earlier ones are in a cache.

        Raises:
            ValueError: The model raises the scores of words not yet used, and the words in the cache are unknown.
        """
        if said_ids is not None:
            return said_ids
        # A cache holds keys and values of earlier words, from which the words cannot be recovered.
        if self.seen_words is not None and ids is not None and past is not None and past.get_seq_length():
            raise ValueError("Going on from past_key_values, this captioner needs said_ids, all words so far.")
        return ids

    def score_words(self, states: Tensor, encoded: BaseModelOutput, said_ids: Tensor | None) -> Tensor:
        """Return the logits `(batch, words, vocab_size)` of the decoder's states, with the scores of `SeenWords` added.

        Raises:
            ValueError: The encoding is not the visual encoder's own, and so lacks the probabilities of the labels.
        """
        logits = self.lm_head(states)
        if self.seen_words is None:
            return logits
        if encoded.get("found") is None:
            raise ValueError("This captioner needs all that its visual encoder gives: pass on its output as it is.")
        return logits + self.seen_words(states, encoded["found"], said_ids)

    def loss_of(
        self,
        logits: Tensor,
        labels: Tensor | None,
        encoded: BaseModelOutput,
        place_masks: Tensor | None,
        num_items_in_batch: Tensor | int | None,
    ) -> Tensor | None:
        """Return the captions' cross-entropy, with masks plus that of the places; `None` without captions.

        Raises:
            ValueError: There are masks, but the model has no head that learns from them.
        """
        if labels is None:
            return None
        loss = captioning_loss(logits, labels, self.config.label_smoothing, num_items_in_batch)
        if place_masks is None:
            return loss
        if self.seen_words is None:
            raise ValueError("place_masks need a config with num_place_labels.")
        # The loss of the places is weighted by this batch's share of the words of one optimiser step.
        share = 1.0 if num_items_in_batch is None else labels.ne(IGNORED_LABEL).sum() / num_items_in_batch
        return loss + self.config.place_loss_weight * share * place_loss(encoded["place_logits"], place_masks)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: EncoderDecoderCache | LSTMState | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        place_masks: Tensor | None = None,
        said_ids: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        image_features: Tensor | tuple[Tensor, ...] | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Seq2SeqLMOutput:
        """Score the next word after each word.

        Args:
            pixel_values: `(batch, 3, height, width)` floats, normalised by the processor.
            decoder_input_ids: `(batch, length)` words so far; `None` takes them from `labels`.
            decoder_attention_mask: `(batch, length)`, 1 at words, 0 at padding; `None` means no padding before a word.
                The LSTM of the merge captioner takes none: there padding may only follow a caption.
            encoder_outputs: Encoding of the picture from an earlier call, instead of `pixel_values`.
            past_key_values: Keys and values, or state of the LSTM, of earlier words; `decoder_input_ids` are then only
                the new ones.
            decoder_inputs_embeds: `(batch, length, hidden_size)` instead of `decoder_input_ids`.
            labels: `(batch, length)` caption and end token, -100 at padding; a begin token in front is taken off.
            place_masks: `(batch, height, width)` mask of class ids, -100 where unknown, for the optional head.
            said_ids: `(batch, all words so far)` where `decoder_input_ids` are only the new ones; see `SeenWords`.
            num_items_in_batch: Words that one optimiser step sums over; see `captioning_loss`.
            use_cache: Whether to return the cache; `None` does outside training when there are no labels.
            output_attentions: Whether to return attention weights over words and over places.
            output_hidden_states: Whether to return every layer's states.
            return_dict: `False` gives a tuple.
            image_features: Output of `encode_image` instead of `pixel_values`.
            input_ids: `None`: the encoder reads pictures. Wrappers of encoder-decoders, such as those of peft, name it.
            attention_mask: `None`, as `input_ids`.
            inputs_embeds: `None`, as `input_ids`.

        Raises:
            ValueError: Words for the encoder; no picture; or no word to go on from.
        """
        if any(each is not None for each in (input_ids, attention_mask, inputs_embeds)):
            raise ValueError(WORDS_FOR_ENCODER)
        wanted = self.wanted_layers(output_attentions, output_hidden_states)
        labels, decoder_input_ids = self.without_begin_tokens(labels, decoder_input_ids)
        encoded, words, ids = self.read_inputs(
            pixel_values, decoder_input_ids, decoder_inputs_embeds, encoder_outputs, labels, image_features, **wanted
        )
        said_ids = self.words_said(ids, said_ids, past_key_values)
        # In training all words are read at once, so a cache would only take memory.
        unasked = labels is None and not self.training and self.config.use_cache
        if past_key_values is None and (unasked if use_cache is None else use_cache):
            past_key_values = self.new_cache()
        states, layers, word_weights, place_weights = self.decoder(
            words, encoded.last_hidden_state, decoder_attention_mask, past_key_values, wanted["output_attentions"]
        )
        logits = self.score_words(states, encoded, said_ids)
        loss = self.loss_of(logits, labels, encoded, place_masks, num_items_in_batch)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values,
            decoder_hidden_states=tuple(layers) if wanted["output_hidden_states"] else None,
            # An LSTM has no attention weights.
            decoder_attentions=tuple(word_weights) if wanted["output_attentions"] and word_weights else None,
            cross_attentions=tuple(place_weights) if wanted["output_attentions"] and place_weights else None,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Return the decoder's input for `labels`, with or without begin token; see `shift_right`."""
        labels = without_begin(labels, self.config.bos_token_id, self.config.eos_token_id, padding=IGNORED_LABEL)
        return self.shifted(labels)

    def shifted(self, labels: Tensor) -> Tensor:
        """Return the decoder's input for labels without a begin token; see `shift_right`."""
        return shift_right(labels, self.config.decoder_start_token_id, self.config.pad_token_id)

    def get_input_embeddings(self) -> nn.Module:
        """Return the table of word vectors."""
        return self.decoder.words

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the table of word vectors."""
        self.decoder.words = value

    def _resize_token_embeddings(self, *args, **kwargs) -> nn.Module:
        table = super()._resize_token_embeddings(*args, **kwargs)
        if self.seen_words is not None:
            self.seen_words.resize(table.weight.shape[0])
        return table


class FlavourForTransformerCaptioning(FlavourCaptioner, GenerationMixin):
    """Captioner whose decoder attends to every place of the picture at every word.

    Projected features of the places with sines of their row and column, then pre-norm transformer layers (Vaswani et
    al. 2017) with causal attention to the words and cross-attention to the places.
    """

    decoder_type = "transformer"
    _no_split_modules = ["DecoderLayer"]
    _tied_weights_keys = {"lm_head.weight": "decoder.words.weight"}

    def __init__(self, config: FlavourCaptionerConfig):
        super().__init__(config)
        self.decoder = TransformerDecoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.seen_words = SeenWords(config) if config.num_place_labels else None
        self.post_init()

    def new_cache(self) -> EncoderDecoderCache:
        """Return an empty cache of keys and values."""
        return EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))


class FlavourForMergeCaptioning(FlavourCaptioner, GenerationMixin):
    """Captioner whose language side is an LSTM that never sees the picture; both meet before the vocabulary."""

    decoder_type = "merge"
    _is_stateful = True
    _supports_sdpa = True
    _tied_weights_keys = {"lm_head.weight": "decoder.words.weight"}

    def __init__(self, config: FlavourCaptionerConfig):
        super().__init__(config)
        self.decoder = MergeDecoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.seen_words = SeenWords(config) if config.num_place_labels else None
        self.post_init()

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args, **kwargs):
        if generation_config.use_cache and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = self.new_cache()

    def new_cache(self) -> LSTMState:
        """Return the state of an LSTM that has read nothing."""
        return LSTMState()


for captioner in (FlavourForTransformerCaptioning, FlavourForMergeCaptioning):
    captioner.register_for_auto_class("AutoModelForImageTextToText")
