"""Segmenter: picture to a class per pixel and, with the same encoder, to the ingredients of the whole picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init
from transformers.utils import ModelOutput, logging
from transformers.utils.generic import can_return_tuple

from .base_flavour import FlavourPreTrainedModel, check_alternatives
from .configuration_flavour_segmentation import FlavourSegmentationConfig
from .encoders_flavour import FlavourImageEncoder, ImageEncoding
from .loading_flavour import load_checked, load_part
from .segmentation_heads_flavour import AuxiliaryHead, DeepLabHead, resize
from .segmentation_losses_flavour import segmentation_loss
from .segmentation_pipeline_flavour import SEGMENTATION_PIPELINE

logger = logging.get_logger(__name__)

LOW_LEVEL_STRIDE = 4
WITHOUT_LABELS = (
    "A segmenter in training got no labels, so that its masks have no loss. (A Trainer with label_smoothing_factor "
    "takes the labels away, and smooths one class per row, which masks are not: leave it out.)"
)
# Logit of an ingredient with probability 1 at some place, with `ingredients_from="masks"`.
SURE = 4.0
# Prefixes of the parameters that a multi-task model adds to the single-task model it starts from.
NEW_HEAD = ("ingredient_classifier.", "task_weights.")


@dataclass
class FlavourSegmenterOutput(ModelOutput):
    """Output of [`FlavourForSegmentation`].

    Attributes:
        loss: Scalar, with labels.
        logits: `(batch, num_labels, height, width)` at the size of the input; `None` in a model without masks.
        ingredient_logits: `(batch, num_labels - 1)`, class `i + 1` at index `i`; their sigmoid is a probability.
        losses: Each task's loss before weighting: `segmentation`, `auxiliary`, `ingredients`.
        hidden_states: Of the backbone's stages or layers, with `output_hidden_states`.
        attentions: Of the backbone's layers, with `output_attentions`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    ingredient_logits: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class TaskWeights(nn.Module):
    """Weights of two losses, learned as the uncertainty of each task (Kendall et al. 2018, equation 10)."""

    def __init__(self):
        super().__init__()
        self.log_variances = nn.Parameter(torch.zeros(2))

    def forward(self, number: int, loss: Tensor) -> Tensor:
        """Return the weighted loss of one task, with the term that keeps its weight from vanishing."""
        log_variance = self.log_variances[number]
        return (-log_variance).exp() * loss + log_variance / 2


class FlavourForSegmentation(FlavourPreTrainedModel):
    """DeepLab on any backbone that keeps a grid, with an optional ingredient classifier on the same encoder.

    See [`FlavourSegmentationConfig`] for what can be chosen, [`FlavourForSegmentation.from_parts`] to start from a
    pretrained backbone, and [`FlavourForSegmentation.from_single_task`] to add the ingredient head to a segmenter.
    """

    config_class = FlavourSegmentationConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    auto_classes = ("AutoModel", "AutoModelForSemanticSegmentation")
    label_parameters = (
        "head.classifier.",
        "auxiliary.classifier.",
        "ingredient_classifier.",
        "image_encoder.place_head.",
    )
    custom_pipelines = SEGMENTATION_PIPELINE

    def __init__(self, config: FlavourSegmentationConfig):
        super().__init__(config)
        if config.vision_config is None:
            raise ValueError("A segmenter needs a vision_config, such as that of a timm_wrapper.")
        self.image_encoder = FlavourImageEncoder(
            config, pooled=config.ingredient_head and not self.reads_masks, places=config.head != "none"
        )
        self.stages = backbone_stages(self.image_encoder)
        self.low_level_stage: int | None = None
        self.head: Any = None
        self.auxiliary: Any = None
        self.ingredient_classifier: Any = None
        self.task_weights: Any = None
        if config.head != "none":
            low_level_size = 0
            if config.head == "deeplabv3plus":
                self.low_level_stage, low_level_size = low_level_stage(self.stages)
            self.head = DeepLabHead(config, self.image_encoder.token_size, low_level_size)
        if config.auxiliary_head:
            if len(self.stages) < 2:
                raise ValueError("auxiliary_head needs a backbone with stages, such as a timm ResNet.")
            self.auxiliary = AuxiliaryHead(self.stages[-2][0], config.dropout, config.num_labels)
        if self.head is not None:
            # The order in which `forward` reads them: the skip first, the stage of the auxiliary head last.
            early = [] if self.low_level_stage is None else [self.low_level_stage]
            self.image_encoder.stages = (*early, *([-2] if config.auxiliary_head else []))
        if config.ingredient_head:
            self.dropout = nn.Dropout(config.dropout)
            size = 2 * config.num_labels if self.reads_masks else self.image_encoder.pooled_size
            self.ingredient_classifier = nn.Linear(size, config.num_ingredient_labels)
        if config.loss_weighting == "uncertainty":
            self.task_weights = TaskWeights()
        self.post_init()

    @property
    def reads_masks(self) -> bool:
        """Whether the ingredient scores are computed from the mask scores."""
        return self.config.ingredients_from == "masks"

    def get_input_embeddings(self) -> None:
        """Return `None`: a segmenter reads no words."""
        return None

    @classmethod
    def from_parts(
        cls, image, trust_remote_code: bool = False, output_stride: int | None = None, **config
    ) -> "FlavourForSegmentation":
        """Put fresh heads on a backbone.

        Args:
            image: Folder or Hub id of a backbone or of any model of this family, its config or its config's dictionary
                (fresh weights).
            trust_remote_code: Whether the backbone may run code from its repository.
            output_stride: Pixels per place of a timm ResNet, 8 or 16, by dilation of its last stages; pretrained
                weights stay as they are. `None` keeps that of the backbone.
            **config: Fields of [`FlavourSegmentationConfig`].
        """
        vision_config, backbone = load_part(image, trust_remote_code=trust_remote_code)
        if output_stride is not None:
            vision_config.model_args = {**(vision_config.model_args or {}), "output_stride": output_stride}
        model = cls(FlavourSegmentationConfig(vision_config=vision_config, **config))
        if backbone is not None:
            load_checked(model.image_encoder.model, backbone.state_dict(), str(image))
        return model

    @classmethod
    def from_single_task(cls, checkpoint: str, revision: str = "main", **fields) -> "FlavourForSegmentation":
        """Start a multi-task model from a single-task segmenter: encoder and segmentation head, every weight of them.

        Args:
            checkpoint: Folder or Hub id of a segmenter without an ingredient head.
            revision: Of a Hub checkpoint.
            **fields: Fields of [`FlavourSegmentationConfig`] that differ, such as `loss_weighting`.

        Raises:
            ValueError: The checkpoint has another label set than `id2label` in `fields`, or a weight other than those
                of the new head is missing, unexpected or of another shape; each is named.
        """
        donor, report = cls.from_pretrained(
            checkpoint, revision=revision, output_loading_info=True, trust_remote_code=False
        )
        # Weights that the loader initialised would pass for loaded ones below.
        gaps = {"missing": report["missing_keys"], "unexpected": report["unexpected_keys"]}
        listed = "; ".join(f"{kind}: {', '.join(sorted(map(str, names)))}" for kind, names in gaps.items() if names)
        if listed:
            raise ValueError(f"The weights at {checkpoint} do not fill their own model. {listed}.")
        config = donor.config.to_dict()
        known = [config["id2label"][number] for number in sorted(config["id2label"])]
        asked = fields.get("id2label")
        if asked is not None and [asked[number] for number in sorted(asked)] != known:
            raise ValueError(f"The segmenter at {checkpoint} has other classes ({', '.join(known[:5])}, ...).")
        for name in ("architectures", "auto_map", "custom_pipelines", "dtype", "transformers_version", "model_type"):
            config.pop(name, None)
        # Fields that the library adds when it saves a config are not arguments of a new one.
        known_fields = set(FlavourSegmentationConfig.__dataclass_fields__)
        config = {name: value for name, value in config.items() if name in known_fields}
        model = cls(FlavourSegmentationConfig(**{**config, **fields, "ingredient_head": True}))
        load_checked(model, donor.state_dict(), checkpoint, allowed_missing=NEW_HEAD)
        return model

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, TaskWeights):
            init.zeros_(module.log_variances)
        elif module is self.ingredient_classifier and self.reads_masks:
            # Initially an ingredient is predicted where some place gives it more than half of the probability.
            surest = torch.zeros_like(module.weight)
            surest[:, 1 : self.config.num_labels].fill_diagonal_(2 * SURE)
            init.copy_(module.weight, surest)
            init.constant_(module.bias, -SURE)
        elif module is self.ingredient_classifier and self.config.ingredient_prior is not None:
            prior = torch.tensor(self.config.ingredient_prior, device="cpu").logit()
            init.copy_(module.bias, prior.to(module.bias.dtype))

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        ingredient_targets: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logit_stride: int = 1,
        image_features: Tensor | tuple[Tensor, ...] | None = None,
        picture_size: tuple[int, int] | None = None,
    ) -> FlavourSegmenterOutput:
        """Score the classes of every pixel, and the ingredients of the picture where the model has that head.

        Args:
            pixel_values: `(batch, 3, height, width)` floats, normalised by the processor.
            labels: `(batch, height, width)` class ids, `config.ignore_index` where unknown. A grid that is coarser
                by a whole number saves time in training; the logits then come on that grid. In a model without masks
                they may be the ingredients instead.
            ingredient_targets: `(batch, num_labels - 1)` floats, 1 where the picture shows class `i + 1`. (Not called
                labels: the Trainer of transformers only evaluates batches with all that is called so.)
            output_attentions: Whether to return the backbone's attention weights, where it has any.
            output_hidden_states: Whether to return the states of the backbone's stages.
            return_dict: `False` gives a tuple.
            logit_stride: Pixels of the picture per place of the logits, which saves time and memory where they are
                enlarged later.
            image_features: Output of `encode_image` instead of `pixel_values`.
            picture_size: Height and width of the pictures that `image_features` come from; `None` takes those of the
                map times the stride of the backbone.

        Raises:
            ValueError: No picture, a picture and its features, features whose picture size is unknown, or labels for a
                head that the model does not have.
        """
        check_alternatives(pixel_values=pixel_values, image_features=image_features)
        if pixel_values is None and image_features is None:
            raise ValueError("Give pixel_values or image_features.")
        # A model without masks is trained like a classifier, whose targets are called `labels`.
        if self.head is None and ingredient_targets is None:
            ingredient_targets = labels
        if ingredient_targets is not None and self.ingredient_classifier is None:
            raise ValueError("Got ingredient_targets, but this model has no ingredient head (ingredient_head=False).")
        if self.training and labels is None and self.head is not None and torch.is_grad_enabled():
            logger.warning_once(WITHOUT_LABELS)
        asked = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        attentions = self.config.output_attentions if output_attentions is None else output_attentions
        seen = self.image_encoder(
            pixel_values,
            image_features,
            # Backbones of timm keep no attention weights.
            output_attentions=None if self.image_encoder.is_timm else attentions or None,
            output_hidden_states=asked or None,
        )
        scores, coarse = self.segment(seen)
        logits = None
        if scores is not None:
            size = self.size_of(seen, picture_size) if pixel_values is None else pixel_values.shape[-2:]
            logits = resize(scores, logit_size(size, labels, logit_stride))
        ingredient_logits = None
        if self.ingredient_classifier is not None:
            read = shown_by(scores).to(scores.dtype) if self.reads_masks else seen.pooled
            ingredient_logits = self.ingredient_classifier(self.dropout(read))
        losses = self.task_losses(logits, coarse, ingredient_logits, labels, ingredient_targets)
        return FlavourSegmenterOutput(
            loss=self.total_loss(losses) if losses else None,
            logits=logits,
            ingredient_logits=ingredient_logits,
            losses=losses or None,
            hidden_states=tuple(seen.hidden_states) if asked and seen.hidden_states is not None else None,
            attentions=seen.attentions,
        )

    def segment(self, seen: ImageEncoding) -> tuple[Any, Tensor | None]:
        """Return the class scores of the head and of the auxiliary head on their grids; `None` without that head."""
        if self.head is None:
            return None, None
        scores = self.head(seen.feature_map, None if self.low_level_stage is None else seen.stages[0])
        if seen.place_logits is not None:
            places = seen.place_logits.transpose(1, 2).unflatten(2, seen.feature_map.shape[-2:])
            scores = scores + resize(places, scores.shape[-2:])
        return scores, None if self.auxiliary is None else self.auxiliary(seen.stages[-1])

    def size_of(self, seen: ImageEncoding, given: tuple[int, int] | None) -> tuple[int, int]:
        """Return the height and width of the pictures behind features: those given, or the map's times the stride."""
        if given is None and not self.stages:
            raise ValueError("The stride of this backbone is unknown: give picture_size with image_features.")
        height, width = seen.feature_map.shape[-2:]
        return given or (height * self.stages[-1][1], width * self.stages[-1][1])

    def task_losses(
        self,
        logits: Tensor | None,
        coarse: Tensor | None,
        ingredient_logits: Tensor | None,
        labels: Tensor | None,
        ingredient_targets: Tensor | None,
    ) -> dict[str, Tensor]:
        """Return the loss of each task that has labels."""
        losses: dict[str, Tensor] = {}
        config = self.config
        if labels is not None and logits is not None:
            settings = (config.loss, config.ignore_index, config.class_weights)
            losses["segmentation"] = segmentation_loss(logits, labels, *settings)
            if coarse is not None:
                losses["auxiliary"] = segmentation_loss(resize(coarse, labels.shape[-2:]), labels, *settings)
        if ingredient_targets is not None and ingredient_logits is not None:
            if ingredient_targets.shape != ingredient_logits.shape:
                raise ValueError(
                    f"ingredient_targets must have shape {tuple(ingredient_logits.shape)}, "
                    f"got {tuple(ingredient_targets.shape)}: the background is no ingredient."
                )
            weights = None
            if config.class_weights is not None:
                weights = ingredient_logits.new_tensor(config.class_weights[1:], dtype=torch.float32)
                # Mean 1 keeps the size of the ingredient loss independent of the weights.
                weights = weights / weights.mean()
            losses["ingredients"] = functional.binary_cross_entropy_with_logits(
                ingredient_logits.float(), ingredient_targets.float(), weights
            )
        return losses

    def total_loss(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the tasks' losses."""
        terms = []
        if "segmentation" in losses:
            masks = losses["segmentation"]
            if "auxiliary" in losses:
                masks = masks + self.config.auxiliary_loss_weight * losses["auxiliary"]
            terms.append(masks if self.task_weights is None else self.task_weights(0, masks))
        if "ingredients" in losses:
            named = losses["ingredients"]
            fixed = self.task_weights is None
            terms.append(self.config.ingredient_loss_weight * named if fixed else self.task_weights(1, named))
        return torch.stack(terms).sum()


def shown_by(scores: Tensor) -> Tensor:
    """Return each class's highest probability over the places, then its mean: `(batch, 2 * classes)` from 0 to 1.

    Args:
        scores: `(batch, classes, rows, columns)` of the mask head.
    """
    shares = scores.float().softmax(1).flatten(2)
    return torch.cat([shares.amax(2), shares.mean(2)], dim=1)


def logit_size(picture: Sequence[int], labels: Tensor | None, stride: int) -> tuple[int, int]:
    """Return the size of the logits: that of the picture over the stride, or of labels on a coarser grid."""
    height, width = picture
    if labels is not None and labels.ndim == 3:
        rows, columns = labels.shape[-2:]
        coarser = height // max(rows, 1)
        if (height, width) == (rows * coarser, columns * coarser):
            return rows, columns
    return -(-height // stride), -(-width // stride)


def backbone_stages(encoder: FlavourImageEncoder) -> list[tuple[int, int]]:
    """Return the channels and stride of each stage of a timm backbone; empty for one without stages."""
    described = getattr(getattr(encoder.model, "timm_model", None), "feature_info", None) or []
    return [(stage["num_chs"], stage["reduction"]) for stage in described if isinstance(stage, dict)]


def low_level_stage(stages: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the index and channels of the last stage of stride 4."""
    fitting = [(number, channels) for number, (channels, stride) in enumerate(stages) if stride == LOW_LEVEL_STRIDE]
    if not fitting:
        raise ValueError(f"head='deeplabv3plus' needs a backbone with a stage of stride {LOW_LEVEL_STRIDE}.")
    return fitting[-1]


FlavourForSegmentation.register_for_auto_class("AutoModelForSemanticSegmentation")
