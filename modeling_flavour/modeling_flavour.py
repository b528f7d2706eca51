"""Flavour classification from a text, a picture, or both.

One class covers every combination: a model is built with the parts its config names, and a model with both parts also
answers when one of them is missing, from the whole batch or from single samples.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .base_flavour import FlavourPreTrainedModel, check_alternatives
from .configuration_flavour import FlavourConfig
from .encoders_flavour import FlavourImageEncoder, FlavourTextEncoder, ImageEncoding, TextEncoding, readable_mask
from .explanation_flavour import Explanation, explain
from .familiarity_flavour import Familiarity, KnowsItsInputs
from .fusion_flavour import (
    ClassScores,
    CrossAttentionFusion,
    DenseStack,
    EarlyFusion,
    GatedFusion,
    LateFusion,
    drop_modalities,
    presence,
    with_tokens,
)
from .loading_flavour import load_checked, load_part
from .losses_flavour import classification_loss, place_loss
from .pipelines_flavour import CLASSIFICATION_PIPELINE


@dataclass
class FlavourClassifierOutput(ModelOutput):
    """Output of [`FlavourForClassification`].

    Attributes:
        loss: Scalar, with `labels`.
        logits: `(batch, num_labels)`; their softmax, or with several labels their sigmoid, gives probabilities.
        text_embeds: `(batch, text size)`, input of the fusion; `None` without a text.
        image_embeds: `(batch, image size)`, input of the fusion; `None` without a picture.
        text_familiar: `(batch,)` bool, whether a text is like those of training; `None` in a model that does not know.
        image_familiar: The same for pictures.
        hidden_states: Of the text model's layers (of the backbone's, in a model without text), with
            `output_hidden_states`.
        attentions: Of the same layers, with `output_attentions`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None
    text_familiar: Tensor | None = None
    image_familiar: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class FlavourForClassification(KnowsItsInputs, FlavourPreTrainedModel):
    """Text and picture to class scores.

    The head after the fusion is `head_dense_sizes` dense layers and one output per label. See [`FlavourConfig`] for
    what can be chosen, and [`FlavourForClassification.from_parts`] to start from pretrained parts.
    """

    main_input_name = "input_ids"
    auto_classes = ("AutoModel", "AutoModelForImageClassification", "AutoModelForSequenceClassification")
    label_parameters = ("classifier.", "fusion.text_classifier.", "fusion.image_classifier.", "fusion.bias")
    custom_pipelines = CLASSIFICATION_PIPELINE

    def __init__(self, config: FlavourConfig):
        super().__init__(config)
        if not (config.has_text or config.has_image):
            raise ValueError("Give the config a text part (text_config or word_vocab_size), a vision_config, or both.")
        if not config.has_text:
            self.main_input_name = "pixel_values"
        both = config.has_text and config.has_image
        tokens = both and config.fusion == "cross_attention"
        # Noted here and not read from the parts, which adapters may wrap.
        self.by_token, self.scores_parts = tokens, both and config.fusion == "late"
        text_size = image_size = 0
        self.text_encoder: Any = None
        self.image_encoder: Any = None
        self.fusion: Any = None
        if config.has_text:
            self.text_encoder = FlavourTextEncoder(config, pooled=not tokens)
            self.text_norm = nn.LayerNorm(self.text_encoder.output_size) if config.feature_norm else nn.Identity()
            self.text_dense = DenseStack(self.text_encoder.output_size, config.text_dense_sizes, config.dropout)
            text_size = self.text_dense.output_size
        if config.has_image:
            self.image_encoder = FlavourImageEncoder(config, pooled=not tokens, places=tokens)
            size = self.image_encoder.token_size if tokens else self.image_encoder.pooled_size
            self.image_norm = nn.LayerNorm(size) if config.feature_norm else nn.Identity()
            self.image_dense = DenseStack(size, config.image_dense_sizes, config.dropout)
            image_size = self.image_dense.output_size
        self.dropout = nn.Dropout(config.dropout)
        if both:
            self.fusion = build_fusion(config, text_size, image_size)
        if not self.scores_parts:
            fused_size = self.fusion.output_size if self.fusion is not None else text_size + image_size
            self.head = DenseStack(fused_size, config.head_dense_sizes, config.dropout)
            self.classifier = nn.Linear(self.head.output_size, config.num_labels)
        self.build_familiarity()
        self.post_init()

    @classmethod
    def from_parts(
        cls, text=None, image=None, word_vectors=None, trust_remote_code=False, **config
    ) -> "FlavourForClassification":
        """Join pretrained parts under a fresh head.

        Args:
            text: Folder or Hub id of a text model, its config or its config's dictionary (fresh weights); or `None`.
            image: The same for the image backbone; a model of this family gives its image backbone.
            word_vectors: `(vocabulary, size)` tensor or array, as word embeddings instead of `text`.
            trust_remote_code: Whether a part may run code from its repository.
            **config: Fields of [`FlavourConfig`].

        Example:

        ```python
        >>> model = FlavourForClassification.from_parts(
        ...     image={"model_type": "timm_wrapper", "architecture": "resnet10t"}, image_dense_sizes=[64]
        ... )

        ```
        """
        text_model = image_model = None
        if text is not None:
            config["text_config"], text_model = load_part(text, trust_remote_code=trust_remote_code)
        if image is not None:
            config["vision_config"], image_model = load_part(image, trust_remote_code=trust_remote_code)
        if word_vectors is not None:
            word_vectors = torch.as_tensor(word_vectors, dtype=torch.float32)
            config["word_vocab_size"], config["word_embedding_size"] = word_vectors.shape
        model = cls(FlavourConfig(**config))
        if text_model is not None:
            load_checked(model.text_encoder.model, text_model.state_dict(), str(text))
        if image_model is not None:
            load_checked(model.image_encoder.model, image_model.state_dict(), str(image))
        if word_vectors is not None:
            model.text_encoder.model.load_state_dict({"weight": word_vectors})
        return model

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        head: Any = getattr(self, "classifier", None)
        if isinstance(module, LateFusion) or (head is not None and module is head):
            init.copy_(module.bias, self.prior_scores().to(module.bias.dtype))
        elif isinstance(module, ClassScores):
            # Small weights, so that the scores start at the prior in the bias.
            init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, Familiarity) and module.known:
            for name, value in module.initial(module.axes.shape[1], module.axes.shape[0]).items():
                init.copy_(getattr(module, name), value)

    def explain(self, processor, image=None, text: str | None = None, label: str | None = None) -> Explanation:
        """Explain a label by a heat map, the weight of each word and the share of each part; see `Explanation`."""
        return explain(self, processor, image, text, label)

    def prior_scores(self) -> Tensor:
        """Return the class scores of the prior: log shares, or log-odds with several labels; zeros without a prior."""
        prior = self.config.class_prior
        if prior is None:
            return torch.zeros(self.config.num_labels, device="cpu")
        prior = torch.tensor(prior, device="cpu")
        multi_label = self.config.problem_type == "multi_label_classification"
        return prior.logit() if multi_label else (prior / prior.sum()).log()

    def get_input_embeddings(self):
        """Return the table of token vectors, or `None` in a model without text."""
        return None if self.text_encoder is None else self.text_encoder.get_input_embeddings()

    def set_input_embeddings(self, value):
        """Replace the table of token vectors."""
        if self.text_encoder is None:
            raise ValueError("This model has no text part.")
        self.text_encoder.set_input_embeddings(value)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs) -> Tensor:
        """Return the text backbone's features, to be given to the model as `text_features`.

        `model(text_features=model.encode_text(input_ids, attention_mask), attention_mask=attention_mask)` equals
        `model(input_ids=input_ids, attention_mask=attention_mask)`.

        Args:
            input_ids: `(batch, length)` token ids.
            attention_mask: `(batch, length)`, 1 at tokens and 0 at padding; `None` means no padding.
            **kwargs: `token_type_ids`.

        Returns:
            Floats of the backbone's dtype: one vector per text `(batch, size)`, or the states of all tokens
            `(batch, length, size)` in a model whose LSTM or cross-attention reads them.

        Raises:
            ValueError: The model has no text part.
        """
        if self.text_encoder is None:
            raise ValueError("This model sees pictures only, so it cannot encode texts: use encode_image.")
        return self.text_encoder.features(input_ids, attention_mask, **kwargs)

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Return the features of texts; `return_dict=False` gives a tuple.

        Args:
            input_ids: `(batch, length)` token ids.
            attention_mask: `(batch, length)`, 1 at tokens and 0 at padding; `None` means no padding.
            token_type_ids: `(batch, length)`, as the tokenizers of BERT and its like give them.
            output_attentions: Whether to return the text model's attention weights.
            output_hidden_states: Whether to return the states of the text model's layers.

        Returns:
            `last_hidden_state` `(batch, length, size)`, what the text model, or the table of word vectors, makes of
            each token, and `pooler_output` `(batch, text size)`, one vector per text: what the fusion, or the head,
            reads of it. Floats.

        Raises:
            ValueError: The model has no text part.
        """
        if self.text_encoder is None:
            raise ValueError("This model sees pictures only, so it has no features of texts: use get_image_features.")
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        wanted = self.wanted_layers(output_attentions, output_hidden_states)
        mask = readable_mask(input_ids, attention_mask)
        tokens, layers, attentions = self.text_encoder.run_backbone(input_ids, mask, **types, **wanted)
        text = TextEncoding(*self.text_encoder.pool(tokens, mask))
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens,
            pooler_output=self.classify(text, None)[0],
            hidden_states=layers,
            attentions=attentions,
        )

    def pool_image(self, seen: ImageEncoding) -> Tensor:
        """Return what the fusion, or the head, reads of each picture, `(batch, image size)`."""
        embeds: Any = self.classify(None, self.image_encoder.read_places(seen))[1]
        return embeds

    def sample_features(self, **inputs: Tensor) -> Tensor:  # type: ignore[override]
        """Return the features of the pipeline `feature-extraction`, `(batch, text size + image size)`."""
        output = self(**inputs, return_dict=True)
        known = output.text_embeds if output.text_embeds is not None else output.image_embeds
        parts = []
        for name, present, dense in (
            ("text_embeds", "text_present", getattr(self, "text_dense", None)),
            ("image_embeds", "image_present", getattr(self, "image_dense", None)),
        ):
            if dense is None:
                continue
            features = output[name] if output.get(name) is not None else known.new_zeros(len(known), dense.output_size)
            # What a network makes of a missing part means nothing.
            here = inputs.get(present)
            parts.append(features if here is None else features * here[:, None].to(features.dtype))
        return torch.cat(parts, dim=-1)

    def check_inputs(
        self, input_ids=None, inputs_embeds=None, text_features=None, pixel_values=None, image_features=None
    ) -> None:
        """Raise ValueError for inputs of a part the model does not have, two forms of one input, or no input."""
        text = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "text_features": text_features}
        image = {"pixel_values": pixel_values, "image_features": image_features}
        check_alternatives(**text)
        check_alternatives(**image)
        texts = [name for name, value in text.items() if value is not None]
        images = [name for name, value in image.items() if value is not None]
        if texts and self.text_encoder is None:
            raise ValueError(f"This model sees pictures only, but got {texts[0]}: give pixel_values alone.")
        if images and self.image_encoder is None:
            raise ValueError(f"This model reads text only, but got {images[0]}: give input_ids alone.")
        if not texts and not images:
            raise ValueError("Give input_ids, pixel_values, or both, or their features.")
        if text_features is not None:
            self.text_encoder.check_features(text_features)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        text_present: Tensor | None = None,
        image_present: Tensor | None = None,
        labels: Tensor | None = None,
        sample_weights: Tensor | None = None,
        place_masks: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        text_features: Tensor | None = None,
        image_features: Tensor | tuple[Tensor, ...] | None = None,
    ) -> FlavourClassifierOutput:
        """Score the classes.

        Args:
            input_ids: `(batch, length)` token ids; `None` if no sample has a text.
            attention_mask: `(batch, length)`, 1 at tokens and 0 at padding; `None` means no padding.
            pixel_values: `(batch, 3, height, width)` floats, normalised by the processor; `None` if no sample has one.
            text_present: `(batch,)` bool, false where a sample has no text; `None` means all have.
            image_present: The same for pictures.
            labels: `(batch,)` class ids, or `(batch, num_labels)` shares or 0/1 labels.
            sample_weights: `(batch,)` factors on each sample's loss.
            place_masks: `(batch, height, width)` mask of class ids, -100 where unknown, for the head over the places.
            inputs_embeds: `(batch, length, size)` token vectors instead of `input_ids`.
            token_type_ids: `(batch, length)`, as the tokenizers of BERT and its like give them; word embeddings know
                no types.
            output_attentions: Whether to return attention weights.
            output_hidden_states: Whether to return the layers' states.
            return_dict: `False` gives a tuple.
            text_features: Output of `encode_text` instead of `input_ids`, with the same `attention_mask`.
            image_features: Output of `encode_image` instead of `pixel_values`.

        Raises:
            ValueError: Neither text nor picture, or one the model has no part for; two forms of one input; features of
                another shape; or masks without a head for them.
        """
        self.check_inputs(input_ids, inputs_embeds, text_features, pixel_values, image_features)
        wanted = self.wanted_layers(output_attentions, output_hidden_states)
        text = image = None
        if input_ids is not None or inputs_embeds is not None or text_features is not None:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            text = self.text_encoder(input_ids, attention_mask, inputs_embeds, text_features, **types, **wanted)
            text_present = with_tokens(text_present, attention_mask)
        if pixel_values is not None or image_features is not None:
            # With both parts, layers and weights of the text model are returned, so the image backbone need not keep
            # its own.
            wanted = wanted if self.text_encoder is None else {}
            image = self.image_encoder(pixel_values, image_features, **wanted)
        familiar = self.familiar_parts(text, image)
        text_embeds, image_embeds, logits = self.classify(text, image, text_present, image_present, familiar)
        loss = self.loss_of(logits, labels, sample_weights, image, place_masks)
        layers: Any = text if text is not None else image
        return FlavourClassifierOutput(
            loss,
            logits,
            text_embeds,
            image_embeds,
            familiar.get("text"),
            familiar.get("image"),
            layers.hidden_states,
            layers.attentions,
        )

    def loss_of(
        self,
        logits: Tensor,
        labels: Tensor | None,
        sample_weights: Tensor | None,
        image: ImageEncoding | None,
        place_masks: Tensor | None,
    ) -> Tensor | None:
        """Return the loss of the classes, with masks plus that of the places; `None` without labels.

        Raises:
            ValueError: There are masks, but no picture or no head that learns from them.
        """
        if labels is None:
            return None
        loss = classification_loss(logits, labels, self.config, sample_weights)
        if place_masks is None:
            return loss
        if image is None or image.place_logits is None:
            raise ValueError("place_masks need a picture and a config with num_place_labels.")
        return loss + self.config.place_loss_weight * place_loss(image.place_logits, place_masks)

    def classify(
        self,
        text: TextEncoding | None,
        image: ImageEncoding | None,
        text_present: Tensor | None = None,
        image_present: Tensor | None = None,
        familiar: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Return the embeddings of both parts and the class scores.

        Args:
            text: Encoding of the texts; `None` if no sample has one.
            image: Encoding of the pictures; `None` if no sample has one.
            text_present: `(batch,)` bool, false where a sample has no text; `None` means all have.
            image_present: The same for pictures.
            familiar: Output of `familiar_parts`; a part that is not familiar counts as missing, see `relied_on`.
        """
        text_embeds: Tensor | None = None
        image_embeds: Tensor | None = None
        # Cross-attention reads all tokens, every other fusion one vector per text and picture.
        by_token = self.by_token
        if text is not None:
            text_embeds = self.text_dense(self.dropout(self.text_norm(text.tokens if by_token else text.pooled)))
        if image is not None:
            seen = self.image_norm(image.tokens if by_token else image.pooled)
            image_embeds = self.image_dense(self.dropout(seen) if self.config.feature_norm else seen)
        known: Any = text_embeds if text_embeds is not None else image_embeds
        if self.fusion is None:
            return text_embeds, image_embeds, self.score_features(known)
        text_present = presence(text_present, text_embeds, known)
        image_present = presence(image_present, image_embeds, known)
        text_present, image_present = self.relied_on(familiar or {}, text_present, image_present)
        if self.training and self.config.modality_dropout:
            text_present, image_present = drop_modalities(text_present, image_present, self.config.modality_dropout)
        # A part that no sample has is filled with zeros, which the fusion replaces by its stand-in.
        one = (known.shape[0], 1) if by_token else (known.shape[0],)
        texts = text_embeds if text_embeds is not None else known.new_zeros(*one, self.text_dense.output_size)
        images = image_embeds if image_embeds is not None else known.new_zeros(*one, self.image_dense.output_size)
        if by_token:
            mask = text.mask if text is not None else torch.ones(one, dtype=torch.bool, device=known.device)
            fused = self.fusion(texts, mask, images, text_present, image_present)
            if text_embeds is not None:
                # The output holds one vector per text: the mean over its tokens.
                text_embeds = (text_embeds * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            image_embeds = None if image_embeds is None else image_embeds.mean(dim=1)
        else:
            fused = self.fusion(texts, images, text_present, image_present)
        logits = fused if self.scores_parts else self.score_features(fused)
        return text_embeds, image_embeds, logits

    def score_features(self, features: Tensor) -> Tensor:
        """Return the class scores of fused features."""
        # Without dense layers in the head nothing else would keep the classifier from leaning on single features.
        features = self.head(features) if self.config.head_dense_sizes else self.dropout(features)
        return self.classifier(features)


def build_fusion(config: FlavourConfig, text_size: int, image_size: int) -> nn.Module:
    """Return the fusion that the config names."""
    if config.fusion == "early":
        return EarlyFusion(text_size, image_size)
    if config.fusion == "gated":
        return GatedFusion(text_size, image_size, config.fusion_size)
    if config.fusion == "late":
        return LateFusion(text_size, image_size, config.head_dense_sizes, config.num_labels, config.dropout)
    return CrossAttentionFusion(text_size, image_size, config)


FlavourForClassification.register_for_auto_class("AutoModel")
