"""The flavour-fusion model family, made known to the Auto classes of transformers.

This file stays at home: a checkpoint carries the other files, and there `auto_map` does what is done here.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoModelForSemanticSegmentation,
    AutoModelForSequenceClassification,
    AutoProcessor,
)

from .base_flavour import FlavourPreTrainedModel
from .captioning_configuration_flavour import FlavourCaptionerConfig
from .captioning_flavour import FlavourForMergeCaptioning, FlavourForTransformerCaptioning
from .configuration_flavour import FlavourConfig
from .modeling_flavour import FlavourClassifierOutput, FlavourForClassification
from .processing_flavour import FlavourProcessor
from .segmentation_configuration_flavour import FlavourSegmentationConfig
from .segmentation_flavour import FlavourForSegmentation, FlavourSegmenterOutput

for config_class in (FlavourConfig, FlavourCaptionerConfig, FlavourSegmentationConfig):
    AutoConfig.register(config_class.model_type, config_class)
    AutoProcessor.register(config_class, FlavourProcessor)
for auto_class in (AutoModel, AutoModelForImageClassification, AutoModelForSequenceClassification):
    auto_class.register(FlavourConfig, FlavourForClassification)
for auto_class in (AutoModel, AutoModelForSemanticSegmentation):
    auto_class.register(FlavourSegmentationConfig, FlavourForSegmentation)
# The config's `architectures` says which of the two a checkpoint holds.
for auto_class in (AutoModel, AutoModelForImageTextToText):
    auto_class.register(FlavourCaptionerConfig, (FlavourForTransformerCaptioning, FlavourForMergeCaptioning))

__all__ = [
    "FlavourCaptionerConfig",
    "FlavourClassifierOutput",
    "FlavourConfig",
    "FlavourForClassification",
    "FlavourForMergeCaptioning",
    "FlavourForSegmentation",
    "FlavourForTransformerCaptioning",
    "FlavourPreTrainedModel",
    "FlavourProcessor",
    "FlavourSegmentationConfig",
    "FlavourSegmenterOutput",
]
