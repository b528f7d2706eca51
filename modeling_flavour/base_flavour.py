"""Base class of all models of the family."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple

from .configuration_flavour import FlavourConfig
from .encoders_flavour import ImageEncoding
from .fusion_flavour import CrossAttentionFusion, DenseStack, EarlyFusion
from .loading_flavour import family_image_encoder, load_checked
from .lstm_flavour import LSTMLayer

logger = logging.get_logger(__name__)


class FlavourPreTrainedModel(PreTrainedModel):
    """Base class: freezing, activation checkpointing, warm starts, and checkpoints that carry their code."""

    config_class = FlavourConfig
    image_encoder: Any
    text_encoder: Any
    base_model_prefix = "flavour"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _no_split_modules: set[str] | list[str] = ["BidirectionalLSTM", "CrossAttentionLayer"]
    # The loss is a mean over the samples of a batch, so Trainer must divide by its accumulation steps.
    accepts_loss_kwargs = False
    # Written into the config by `save_pretrained`, so that these Auto classes and pipelines load the checkpoint.
    auto_classes: tuple[str, ...] = ()
    # Prefixes of the parameters that belong to single labels: those of a head, which another label set draws anew.
    label_parameters: tuple[str, ...] = ()
    custom_pipelines: dict[str, dict] = {}

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, DenseStack):
            for layer in module:
                if isinstance(layer, nn.Linear):
                    init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        elif isinstance(module, EarlyFusion | CrossAttentionFusion):
            init.zeros_(module.text_stand_in)
            init.zeros_(module.image_stand_in)
        elif isinstance(module, LSTMLayer):
            module.reset_parameters()

    def frozen_modules(self) -> list[nn.Module]:
        """Return the modules that the config freezes; `trainable_modules` may unfreeze the end of one."""
        names = [name for name in ("text", "image") if getattr(self.config, f"freeze_{name}", False)]
        encoders = [getattr(self, f"{name}_encoder", None) for name in names]
        return [encoder.model for encoder in encoders if encoder is not None]

    def trainable_modules(self) -> list[nn.Module]:
        """Return the last layers of a frozen backbone that still train."""
        number = getattr(self.config, "trainable_image_layers", 0)
        if not number or getattr(self, "image_encoder", None) is None:
            return []
        modules = self.image_encoder.model.modules()
        layers = [module for module in modules if any(True for _ in module.parameters(recurse=False))]
        if number > len(layers):
            raise ValueError(f"trainable_image_layers is {number}, but the backbone has {len(layers)} layers.")
        return layers[-number:]

    def post_init(self):
        """Initialise the weights, then freeze the parts that the config names."""
        super().post_init()
        # FSDP looks up every class of `_no_split_modules`, and fails for one that this model does not contain.
        there = {type(module).__name__ for module in self.modules()}
        self._no_split_modules = there.intersection(self._no_split_modules or ())
        self.freeze_parts()

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """Load a model, frozen as its config says; see [`PreTrainedModel.from_pretrained`]."""
        loaded = super().from_pretrained(*args, **kwargs)
        # Loading creates new parameters, all with requires_grad=True.
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze_parts()
        return loaded

    def freeze_parts(self):
        """Turn off gradients in the frozen parts."""
        for module in self.frozen_modules():
            module.requires_grad_(False)
        for module in self.trainable_modules():
            module.requires_grad_(True)

    def train(self, mode: bool = True):
        """Set training mode, except in frozen parts: their statistics must not move nor their dropout act.

        The last layers that `trainable_image_layers` unfreezes stay in eval mode too: their weights train, while their
        normalisation keeps the statistics of pretraining.
        """
        super().train(mode)
        for module in self.frozen_modules():
            module.eval()
        return self

    def _set_gradient_checkpointing(self, enable: bool = True, *args, **kwargs):
        parts = [getattr(self, name, None) for name in ("text_encoder", "image_encoder")]
        from_timm = [part.model for part in parts if part is not None and hasattr(part.model, "timm_model")]
        unable = []
        for backbone in from_timm:
            try:
                backbone._set_gradient_checkpointing(enable)
            except AssertionError:  # timm's answer for an architecture without checkpointing
                unable.append(backbone.config.architecture)
        layers = any(hasattr(module, "gradient_checkpointing") for module in self.modules())
        if layers:
            super()._set_gradient_checkpointing(enable, *args, **kwargs)
        if not layers and len(unable) == len(from_timm):
            raise ValueError(f"No part of this {type(self).__name__} supports activation checkpointing.")
        if unable:
            logger.warning(f"{', '.join(unable)} of timm keeps its activations: it has no checkpointing.")

    def save_pretrained(self, save_directory, *args, **kwargs):
        """Save weights, config and the code that loads them; see [`PreTrainedModel.save_pretrained`].

        Weights keep the names they have in the model. Older names, which the library would give to those of some
        backbones for its older releases, cannot be read by a Trainer that resumes.
        """
        kwargs.setdefault("save_original_format", False)
        name = f"{type(self).__module__.rsplit('.', 1)[-1]}.{type(self).__name__}"
        config = type(self.config)
        self.config.auto_map = {
            "AutoConfig": f"{config.__module__.rsplit('.', 1)[-1]}.{config.__name__}",
            **dict.fromkeys(self.auto_classes, name),
        }
        self.config.custom_pipelines = copy.deepcopy(self.custom_pipelines)
        super().save_pretrained(save_directory, *args, **kwargs)

    def encode_image(self, pixel_values: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the image backbone's features, to be given to the model as `image_features`.

        `model(image_features=model.encode_image(pixel_values))` equals `model(pixel_values=pixel_values)`.

        Args:
            pixel_values: `(batch, 3, height, width)` floats, normalised by the processor.

        Returns:
            Floats of the backbone's dtype: the pooled vector `(batch, size)` for a model that reads one vector per
            picture, or the last map `(batch, size, height, width)` for one that reads places. A model that reads
            several gets a tuple: maps of early stages, last map, pooled vector.

        Raises:
            ValueError: The model has no image part.
        """
        if getattr(self, "image_encoder", None) is None:
            raise ValueError("This model reads text only, so it cannot encode pictures: use encode_text.")
        return self.image_encoder.features(pixel_values)

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: Tensor,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Return the features of pictures; `return_dict=False` gives a tuple.

        Args:
            pixel_values: `(batch, 3, height, width)` floats, normalised by the processor.
            output_attentions: Whether to return the backbone's attention weights, where it has any.
            output_hidden_states: Whether to return the states of the backbone's layers or stages.

        Returns:
            `last_hidden_state` `(batch, places, place size)`, what the backbone makes of each place, and
            `pooler_output` `(batch, size)`, one vector per picture: the mean over its places, or in a classifier what
            the fusion, or the head, reads of it. Floats.

        Raises:
            ValueError: The model has no image part.
        """
        if getattr(self, "image_encoder", None) is None:
            raise ValueError("This model reads text only, so it has no features of pictures: use get_text_features.")
        wanted = self.wanted_layers(output_attentions, output_hidden_states)
        # Backbones of timm keep no attention weights.
        seen = self.image_encoder.run_backbone(
            pixel_values,
            **{**wanted, "output_attentions": wanted["output_attentions"] and not self.image_encoder.is_timm},
        )
        # A model that reads early stages has the states of all in any case.
        layers = seen.hidden_states if wanted["output_hidden_states"] else None
        return BaseModelOutputWithPooling(
            last_hidden_state=seen.tokens,
            pooler_output=self.pool_image(seen),
            hidden_states=None if layers is None else tuple(layers),
            attentions=seen.attentions,
        )

    def pool_image(self, seen: ImageEncoding) -> Tensor:
        """Return one vector per picture, `(batch, size)`, of what the backbone makes of it."""
        return seen.feature_map.mean((2, 3))

    def wanted_layers(self, output_attentions: bool | None, output_hidden_states: bool | None) -> dict[str, bool]:
        """Return which outputs of the layers are asked for; `None` takes what the config says."""
        config = self.config
        return {
            "output_attentions": config.output_attentions if output_attentions is None else output_attentions,
            "output_hidden_states": (
                config.output_hidden_states if output_hidden_states is None else output_hidden_states
            ),
        }

    def sample_features(self, pixel_values: Tensor, **inputs: Tensor) -> Tensor:
        """Return the features of the pipeline `feature-extraction`, `(batch, size)`."""
        return self.get_image_features(pixel_values, return_dict=True).pooler_output

    def load_image_encoder(self, checkpoint: str, **kwargs) -> None:
        """Start the image backbone, and the head over places where both have one, from another model of the family.

        Args:
            checkpoint: Folder or Hub id of any model of the family with the same backbone.
            **kwargs: Passed to `from_pretrained`, such as `revision`.

        Raises:
            ValueError: This model has no image part, or names each weight that is missing, unexpected or of another
                shape.
        """
        if getattr(self, "image_encoder", None) is None:
            raise ValueError(f"This model reads text only: it has no image encoder to start from {checkpoint}.")
        donor = family_image_encoder(checkpoint, **kwargs)
        load_checked(self.image_encoder.model, donor.model.state_dict(), checkpoint)
        if hasattr(donor, "place_head") and hasattr(self.image_encoder, "place_head"):
            load_checked(self.image_encoder.place_head, donor.place_head.state_dict(), checkpoint)


def check_alternatives(**given: Any) -> None:
    """Raise ValueError where several of some exclusive arguments are given."""
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ValueError(f"Got {' and '.join(names)}, which stand for the same input: give only one of them.")
