"""Building backbones from configs, and loading pretrained weights into them with every key accounted for."""

import inspect
import os

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

NAMED = 4


def build_backbone(config: PreTrainedConfig) -> PreTrainedModel:
    """Return the model of a config with fresh weights, without its pooler: DDP refuses parameters that are not used."""
    if config.is_encoder_decoder:
        raise ValueError(f"A {config.model_type} is an encoder-decoder; give a model that only encodes.")
    return AutoModel.from_config(config, **pooler_arguments(config))


def pooler_arguments(config: PreTrainedConfig) -> dict[str, bool]:
    """Return `add_pooling_layer=False` for a model class that has this argument, else nothing."""
    model_class = MODEL_MAPPING.get(type(config), None)
    if model_class is None:
        raise ValueError(f"transformers has no plain model for a config of type {config.model_type!r}.")
    # Not every model class of transformers can be built without its pooler.
    known = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if known else {}


def family_image_encoder(checkpoint: str, **kwargs) -> PreTrainedModel:
    """Return the image encoder of a checkpoint of the family, whatever its task; `kwargs` go to `from_pretrained`."""
    donor = AutoModel.from_pretrained(checkpoint, **{"trust_remote_code": False, **kwargs})
    encoder = getattr(donor, "image_encoder", None)
    if encoder is None:
        raise ValueError(f"The model at {checkpoint} has no image part to start from.")
    return encoder


def load_checked(module: nn.Module, weights: dict[str, Tensor], source: str, allowed_missing: tuple[str, ...] = ()):
    """Load weights into a module, refusing any gap.

    Args:
        module: Where the weights go.
        weights: Name to tensor, relative to the module.
        source: Where they come from, for the message.
        allowed_missing: Prefixes of names that may be absent, such as a new head.

    Raises:
        ValueError: Counts the weights that are missing, unexpected or of another shape, and names the first.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in weights and not name.startswith(allowed_missing)]
    unexpected = [name for name in weights if name not in own]
    misshapen = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if missing or unexpected or misshapen:
        found = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
        listed = "; ".join(
            f"{kind}: {', '.join(names[:NAMED])}" + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
            for kind, names in found.items()
            if names
        )
        raise ValueError(f"The weights of {source} do not fit this {type(module).__name__}. {listed}.")
    # Missing weights that are allowed keep their fresh values.
    module.load_state_dict({**own, **weights})


def load_part(source: str | dict | PreTrainedConfig, **kwargs) -> tuple[PreTrainedConfig, PreTrainedModel | None]:
    """Return a part's config and, if `source` names pretrained weights, its model.

    Args:
        source: Config or its dictionary (fresh weights), or folder or Hub id of an encoder or of a model of the family,
            whose image backbone is then taken.
        **kwargs: Passed to `from_pretrained`.
    """
    if isinstance(source, PreTrainedConfig):
        return source, None
    if isinstance(source, dict):
        return AutoConfig.for_model(**source), None
    kwargs = {"trust_remote_code": False, **kwargs}
    config = AutoConfig.from_pretrained(source, **kwargs)
    # A model of this family, recognised by its fields: its classes may be loaded from remote code.
    if hasattr(config, "vision_config") and hasattr(config, "freeze_image"):
        model = family_image_encoder(source, **kwargs).model
    else:
        model = AutoModel.from_pretrained(source, **pooler_arguments(config), **kwargs)
    if os.path.isdir(source):
        model.config._name_or_path = ""  # a folder of this machine says nothing elsewhere
    return model.config, model
