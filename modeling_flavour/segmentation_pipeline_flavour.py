"""The pipelines of segmenters: pictures of any common kind to masks with labels and areas, or to ingredients."""

from typing import Any

import torch
from PIL import Image

from .pictures_flavour import open_picture
from .pipelines_flavour import (
    FEATURE_PIPELINE,
    UNSET,
    FlavourClassificationPipeline,
    ProcessorPipeline,
    pipeline_entry,
    sanitize_top_k,
)
from .segmentation_heads_flavour import resize

SEGMENTATION_TASK = "flavour-segmentation"


class SegmentationPipeline(ProcessorPipeline):
    """Pictures to masks.

    Takes one picture or a list of them (path, address, PIL image, array or tensor) and returns for each a list of
    dictionaries, largest area first: `label`; `mask`, a PIL image of the picture's size, 255 where the label is;
    `area`, its share of the picture; `score`, the mean probability there. The background is left out. `min_area` leaves
    out smaller ones, `top_k` keeps the largest of them.

    Example:

    ```python
    segmenter = pipeline("flavour-segmentation", model="org/flavour-segmenter", trust_remote_code=True)
    segmenter("plate.jpg", min_area=0.01, top_k=5)
    ```
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if getattr(self.processor.image_processor, "do_center_crop", False):
            raise ValueError(
                "The image processor crops pictures, so masks would not lie where things are: make it with whole=True."
            )

    def _sanitize_parameters(self, min_area: float | None = None, top_k: int | None = UNSET):
        if min_area is not None and not 0 <= min_area <= 1:
            raise ValueError(f"min_area is a share of the picture, between 0 and 1, got {min_area}.")
        return {}, {}, sanitize_top_k(top_k) | ({} if min_area is None else {"min_area": min_area})

    def preprocess(self, inputs: Any, **parameters: Any) -> dict[str, Any]:
        """Open and normalise one picture."""
        picture = open_picture(self.picture_of(inputs))
        return {**self.processor(images=picture), "size": torch.tensor([[picture.height, picture.width]])}

    def _forward(self, input_tensors: dict[str, Any], **parameters: Any) -> dict[str, torch.Tensor]:
        logits = self.model(input_tensors["pixel_values"]).logits
        if logits is None:
            raise ValueError("This model names ingredients only (head='none'); it has no masks to give.")
        return {"logits": logits, "size": input_tensors["size"]}

    def postprocess(
        self, model_outputs: dict[str, torch.Tensor], min_area: float = 0.0, top_k: int | None = None
    ) -> list[dict[str, Any]]:
        """Return the masks of one picture at its own size."""
        height, width = model_outputs["size"][0].tolist()
        # Logits are enlarged before the softmax, so that borders follow the more confident class.
        probabilities = resize(model_outputs["logits"][:1].float(), (height, width))[0].softmax(0)
        best, classes = probabilities.max(0)
        found = []
        for number in classes.unique().tolist():
            mask = classes == number
            area = mask.float().mean().item()
            # Class 0 is the background.
            if number and area >= min_area:
                picture = Image.fromarray(mask.to(torch.uint8).mul(255).cpu().numpy())
                score = best[mask].mean().item()
                label = self.model.config.id2label[number]
                found.append({"label": label, "mask": picture, "area": area, "score": score})
        return sorted(found, key=lambda entry: -entry["area"])[:top_k]


class IngredientPipeline(FlavourClassificationPipeline):
    """Ingredients of a whole picture with their probabilities, most probable first, of a model with that head."""

    @property
    def label_names(self) -> list[str]:
        """Ingredient of each score; the background is none."""
        return super().label_names[1:]

    # A picture shows several ingredients.
    several_labels = True

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        logits = self.model(**self.tensors(model_inputs)).ingredient_logits
        if logits is None:
            raise ValueError("This segmenter has no ingredient head (ingredient_head=False): use flavour-segmentation.")
        return {"logits": logits}


SEGMENTATION_PIPELINE = {
    # The second is the Hub's name of this kind of model, whose own pipeline needs an image processor of one model.
    **dict.fromkeys(
        (SEGMENTATION_TASK, "image-segmentation"),
        pipeline_entry(
            "segmentation_pipeline_flavour.SegmentationPipeline", "AutoModelForSemanticSegmentation", "image"
        ),
    ),
    "flavour-classification": pipeline_entry("segmentation_pipeline_flavour.IngredientPipeline", "AutoModel", "image"),
    **FEATURE_PIPELINE,
}
