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
from .configuration_flavour import FlavourConfig
from .configuration_flavour_captioning import FlavourCaptionerConfig
from .configuration_flavour_segmentation import FlavourSegmentationConfig
from .modeling_flavour import FlavourClassifierOutput, FlavourForClassification
from .modeling_flavour_captioning import FlavourForMergeCaptioning, FlavourForTransformerCaptioning
from .modeling_flavour_segmentation import FlavourForSegmentation, FlavourSegmenterOutput
from .processing_flavour import FlavourProcessor

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
