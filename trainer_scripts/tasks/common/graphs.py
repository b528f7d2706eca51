"""Models as graphs of tensors in, tensors out, as they are exported."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

# A class score so far above 0 that its softmax is 1.
CERTAIN = 100.0
Axes = dict[str, dict[int, str]]


class ModelGraph(nn.Module, ABC):
    """A model as a graph that can be exported.

    Args:
        model: in evaluation mode, on the CPU in fp32.
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    @property
    @abstractmethod
    def inputs(self) -> Axes:
        """Names of the inputs the model has, and which of their axes have any length."""

    @property
    @abstractmethod
    def outputs(self) -> list[str]:
        """Names of the outputs."""

    @staticmethod
    @abstractmethod
    def answer(config: PreTrainedConfig, outputs: Mapping[str, Tensor]) -> ModelOutput:
        """Return what the torch model would have returned, from the outputs of the graph."""


class ClassifierGraph(ModelGraph):
    """A classifier as a graph: token ids and picture to class scores."""

    @property
    def inputs(self) -> Axes:
        """Names of the inputs the model has, and which of their axes have any length."""
        # Pictures have the one size that the processor gives them; only batch and text length vary.
        axes: Axes = {}
        if self.model.config.has_text:
            axes |= {name: {0: "batch", 1: "length"} for name in ("input_ids", "attention_mask")}
        if self.model.config.has_image:
            axes["pixel_values"] = {0: "batch"}
        return axes

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return ["logits"]

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, pixel_values: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return class scores `(batch, num_labels)`."""
        # A tuple, because the outputs of an exported graph are named by their position.
        return (self.model(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values).logits,)

    @staticmethod
    def answer(config: PreTrainedConfig, outputs: Mapping[str, Tensor]) -> ModelOutput:
        """Return the logits."""
        return ModelOutput(logits=outputs["logits"])


class SegmenterGraph(ModelGraph):
    """A segmenter as a graph: picture to the class of each of its pixels, enlarged inside, and to its ingredients."""

    @property
    def inputs(self) -> Axes:
        """Pictures of any size, so that whole photographs can be read."""
        return {"pixel_values": {0: "batch", 2: "height", 3: "width"}}

    @property
    def outputs(self) -> list[str]:
        """`mask` and `ingredient_logits`, each where the model has that head."""
        config = self.model.config
        has = {"mask": config.head != "none", "ingredient_logits": config.ingredient_head}
        return [name for name, present in has.items() if present]

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Return class ids `(batch, height, width)` uint8, and ingredient scores `(batch, num_labels - 1)`."""
        output = self.model(pixel_values)
        # Class ids instead of scores: the enlarged scores of a photograph take hundreds of times the memory.
        masks = () if output.logits is None else (output.logits.argmax(dim=1).to(torch.uint8),)
        return (*masks, *(() if output.ingredient_logits is None else (output.ingredient_logits,)))

    @staticmethod
    def answer(config: PreTrainedConfig, outputs: Mapping[str, Tensor]) -> ModelOutput:
        """Return the fields that scoring reads: certain scores for the classes that the graph chose."""
        logits = None
        if "mask" in outputs:
            chosen = functional.one_hot(outputs["mask"].long(), config.num_labels).permute(0, 3, 1, 2).float()
            logits = CERTAIN * chosen
        return ModelOutput(
            logits=logits, ingredient_logits=outputs.get("ingredient_logits"), loss=torch.tensor(float("nan"))
        )
