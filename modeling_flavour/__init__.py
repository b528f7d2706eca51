"""The flavour-fusion model family, made known to the Auto classes of transformers.

This file stays at home: a checkpoint carries the other files, and there `auto_map` does what is done here.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoProcessor,
)

from .configuration_flavour import FlavourConfig
from .modeling_flavour import FlavourClassifierOutput, FlavourForClassification, FlavourPreTrainedModel
from .processing_flavour import FlavourProcessor

AutoConfig.register(FlavourConfig.model_type, FlavourConfig)
for auto_class in (AutoModel, AutoModelForImageClassification, AutoModelForSequenceClassification):
    auto_class.register(FlavourConfig, FlavourForClassification)
AutoProcessor.register(FlavourConfig, FlavourProcessor)

__all__ = [
    "FlavourClassifierOutput",
    "FlavourConfig",
    "FlavourForClassification",
    "FlavourPreTrainedModel",
    "FlavourProcessor",
]
