"""Models as graphs of tensors in, tensors out, as they are exported."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.utils import ModelOutput

# A class score so far above 0 that its softmax is 1.
CERTAIN = 100.0
Axes = dict[str, dict[int, str]]


class ClassifierGraph(nn.Module):
    """A classifier as a graph: token ids and picture to class scores."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    @property
    def inputs(self) -> Axes:
        """Names of the inputs the model has, and which of their axes have any length."""
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
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Class scores `(batch, num_labels)`."""
        return (self.model(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values).logits,)

    @staticmethod
    def answer(config: Any, found: dict[str, Tensor]) -> ModelOutput:
        """What the torch model would have returned."""
        return ModelOutput(logits=found["logits"])


class SegmenterGraph(nn.Module):
    """A segmenter as a graph: picture to the class of every pixel of it, enlarged inside, and to its ingredients."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

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
        """Class ids `(batch, height, width)` uint8 at the size of the input, and scores `(batch, num_labels - 1)`."""
        output = self.model(pixel_values)
        masks = () if output.logits is None else (output.logits.argmax(dim=1).to(torch.uint8),)
        return (*masks, *(() if output.ingredient_logits is None else (output.ingredient_logits,)))

    @staticmethod
    def answer(config: Any, found: dict[str, Tensor]) -> ModelOutput:
        """What scoring reads of the torch model: certain scores for the classes that the graph chose."""
        logits = None
        if "mask" in found:
            chosen = functional.one_hot(found["mask"].long(), config.num_labels).permute(0, 3, 1, 2).float()
            logits = CERTAIN * chosen
        return ModelOutput(
            logits=logits, ingredient_logits=found.get("ingredient_logits"), loss=torch.tensor(float("nan"))
        )
