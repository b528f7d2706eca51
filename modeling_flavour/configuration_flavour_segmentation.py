"""Configuration of the segmenter: which backbone, which head on it, which losses, and what its classes stand for."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_flavour import check_ranges, complete_labels, drop_backbone_labels, reject_unknown_arguments
from .configuration_labels_flavour import LabelledConfig

UNKNOWN_PIXEL = 255


@strict
class FlavourSegmentationConfig(LabelledConfig, PreTrainedConfig):
    r"""Configuration of [`FlavourForSegmentation`].

    Class 0 is the background; every other class is something to eat. `ingredient_head` adds one score per class but
    the background, for the whole picture.

    Args:
        vision_config: Config of any image backbone. Of a timm ResNet, `model_args={"output_stride": 8}` (or 16) keeps
            the places fine, by dilation instead of strides.
        head: `deeplabv3` (Chen et al. 2017); `deeplabv3plus` adds a skip from the stage of stride 4 (Chen et al.
            2018); `none` leaves the masks out, for an ingredient classifier on the same encoder.
        aspp_channels: Width of the head.
        aspp_rates: Dilations of its parallel convolutions; torchvision uses 12, 24, 36 at output stride 8.
        low_level_channels: `deeplabv3plus`: width that the skip is reduced to.
        place_scores: Whether a linear head on the places of the last map scores the classes too, added to the scores of
            the head: an encoder that was trained to know what lies at each place brings it along.
        auxiliary_head: Whether a second head learns the same masks from the stage before the last (training only).
        auxiliary_loss_weight: Weight of its loss.
        ingredient_head: Whether the model also names the ingredients of the whole picture.
        ingredients_from: What the ingredient scores read: `features`, the pooled features of the encoder, or `masks`:
            how sure each class is where it is surest and how much of the picture it takes (a concept bottleneck, Koh
            et al. 2020), in which small things stay visible.
        dropout: Probability in the head and before the ingredient scores.
        loss: What the masks are learned with: `cross_entropy`, `focal`, `dice` or `lovasz`.
        class_weights: Factor per class on `cross_entropy` and `focal` and, scaled to mean 1, on the ingredient loss.
            Like `ingredient_prior`, it is a setting of one training run and is neither saved with the config nor read
            from a saved one.
        ingredient_loss_weight: Weight of the ingredient loss, with `loss_weighting="fixed"`.
        loss_weighting: `fixed`, or `uncertainty`: both weights are learned (Kendall et al. 2018).
        ingredient_prior: Share of pictures with each ingredient class; the output bias starts there, with
            `ingredients_from="features"`.
        ignore_index: Mask value of unknown pixels; they are neither learned nor scored.
        source_labels: Names of the mask ids in the data set; `None`: the classes themselves.
        class_map: For each of them the class it stands for, or `ignore_index`.
        freeze_image: Keep the image backbone fixed and in eval mode.
        trainable_image_layers: With `freeze_image`: number of last layers with weights of their own that still train.
        initializer_range: Standard deviation of freshly initialised output weights.

    Example:

    ```python
    >>> vision_config = {"model_type": "timm_wrapper", "architecture": "resnet50", "model_args": {"output_stride": 8}}
    >>> config = FlavourSegmentationConfig(vision_config=vision_config, num_labels=104, ingredient_head=True)
    >>> config.num_ingredient_labels
    103

    ```
    """

    model_type = "flavour_segmenter"
    # As of [`FlavourConfig`]: the model reads pictures alone.
    has_text, has_image = False, True
    sub_configs_defaults = {"vision_config": SubConfigSpec(AutoConfig, model_type="timm_wrapper", optional=True)}
    keys_to_ignore_at_inference = ["losses"]
    run_fields = ("class_weights", "ingredient_prior")
    label_fields = ("class_weights", "ingredient_prior", "source_labels", "class_map")

    vision_config: PreTrainedConfig | dict | None = None
    head: Literal["deeplabv3", "deeplabv3plus", "none"] = "deeplabv3"
    aspp_channels: int = 256
    aspp_rates: list[int] | tuple[int, ...] = (12, 24, 36)
    low_level_channels: int = 48
    place_scores: bool = False
    auxiliary_head: bool = False
    auxiliary_loss_weight: float | int = 0.4
    ingredient_head: bool = False
    ingredients_from: Literal["features", "masks"] = "features"
    dropout: float | int = 0.5
    loss: Literal["cross_entropy", "focal", "dice", "lovasz"] = "cross_entropy"
    class_weights: list[float | int] | tuple[float | int, ...] | None = None
    ingredient_loss_weight: float | int = 1.0
    loss_weighting: Literal["fixed", "uncertainty"] = "fixed"
    ingredient_prior: list[float | int] | tuple[float | int, ...] | None = None
    ignore_index: int = UNKNOWN_PIXEL
    source_labels: list[str] | None = None
    class_map: list[int] | None = None
    freeze_image: bool = False
    trainable_image_layers: int = 0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        reject_unknown_arguments(type(self), kwargs)
        # JSON knows no tuples: keep lists, so that a config equals its reloaded self.
        for name in ("aspp_rates", "class_weights", "ingredient_prior"):
            value = getattr(self, name)
            setattr(self, name, list(value) if isinstance(value, tuple) else value)
        # Tells a plain ingredient classifier from a segmenter.
        self.problem_type = "multi_label_classification" if self.head == "none" else None
        super().__post_init__(**kwargs)
        complete_labels(self)
        drop_backbone_labels(self.vision_config)

    @property
    def num_place_labels(self) -> int:
        """Classes of the head over places, as the image encoder asks for it; 0 without that head."""
        return self.num_labels if self.place_scores else 0

    @property
    def num_ingredient_labels(self) -> int:
        """Ingredient scores per picture: one per class but the background; 0 without that head."""
        return self.num_labels - 1 if self.ingredient_head else 0

    def validate_architecture(self):
        """Cross-field checks, called by `@strict` after the types were checked."""
        check_ranges(self, ("aspp_channels", "low_level_channels"), ("dropout",))
        if not self.aspp_rates or any(rate < 1 for rate in self.aspp_rates):
            raise ValueError(f"aspp_rates must hold positive dilations, got {self.aspp_rates}.")
        for name in ("auxiliary_loss_weight", "ingredient_loss_weight"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        # Heads that do not go together.
        if self.head == "none" and not self.ingredient_head:
            raise ValueError("head='none' leaves the masks out: then ingredient_head must be True.")
        if self.ingredients_from == "masks" and (self.head == "none" or not self.ingredient_head):
            raise ValueError("ingredients_from='masks' reads masks: give a head and ingredient_head=True.")
        if self.ingredients_from == "masks" and self.ingredient_prior is not None:
            raise ValueError("ingredient_prior is for ingredients_from='features'; what masks show needs no prior.")
        if self.head == "none" and self.place_scores:
            raise ValueError("place_scores are added to those of masks: they need a head other than 'none'.")
        if self.head == "none" and self.auxiliary_head:
            raise ValueError("auxiliary_head learns masks too: it needs a head other than 'none'.")
        if self.loss_weighting == "uncertainty" and (self.head == "none" or not self.ingredient_head):
            raise ValueError("loss_weighting='uncertainty' balances two tasks: give a head and ingredient_head=True.")
        # Classes that do not fit together.
        if self.num_labels < 2:
            raise ValueError(f"num_labels is {self.num_labels}: there must be a class beside the background.")
        if 0 <= self.ignore_index < self.num_labels:
            raise ValueError(f"ignore_index is {self.ignore_index}, which is a class of this model.")
        if self.class_weights is not None and len(self.class_weights) != self.num_labels:
            raise ValueError(
                f"class_weights must hold one number per class ({self.num_labels}), got {len(self.class_weights)}."
            )
        prior = self.ingredient_prior
        if prior is not None and (len(prior) != self.num_labels - 1 or not all(0 < share < 1 for share in prior)):
            raise ValueError(
                f"ingredient_prior must hold {self.num_labels - 1} shares strictly between 0 and 1, got {prior}."
            )
        if self.class_map is not None:
            if len(self.class_map) != len(self.source_labels or ()):
                raise ValueError(
                    f"class_map has {len(self.class_map)} entries for {len(self.source_labels or ())} source_labels."
                )
            # Mask ids without a class of their own may only map to the ignored value.
            outside = {value for value in self.class_map if value != self.ignore_index} - set(range(self.num_labels))
            if outside:
                raise ValueError(f"class_map names {sorted(outside)}, but there are {self.num_labels} classes.")


FlavourSegmentationConfig.register_for_auto_class()
