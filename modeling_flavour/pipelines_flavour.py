"""Pipelines of the family, for `pipeline(task, model=..., trust_remote_code=True)`."""

from typing import Any

import torch
from transformers import Pipeline

from .processing_flavour import open_picture


def pipeline_entry(implementation: str, auto_class: str, kind: str) -> dict[str, Any]:
    """Return the entry of a pipeline under `custom_pipelines` in a saved config."""
    return {"impl": implementation, "pt": [auto_class], "type": kind}


CLASSIFICATION_PIPELINE = {
    "flavour-classification": pipeline_entry(
        "pipelines_flavour.FlavourClassificationPipeline", "AutoModel", "multimodal"
    )
}

# A setting that a call does not mention keeps the value given when the pipeline was made; `None` means all.
UNSET: Any = object()


def sanitize_top_k(top_k: int | None) -> dict[str, int | None]:
    """Return the parameter `top_k` of a pipeline if it was given."""
    if top_k is UNSET:
        return {}
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")
    return {"top_k": top_k}


class ProcessorPipeline(Pipeline):
    """A pipeline that reads its inputs with the model's own processor, and is saved with it."""

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError(f"{type(self).__name__} needs the model's processor: pass processor=.")

    def save_pretrained(self, save_directory, **kwargs: Any) -> None:
        """Save model and processor; the base class saves the parts of a processor alone."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


class FlavourPipeline(ProcessorPipeline):
    """Base class of the pipelines of texts and pictures: reads samples, and makes tensors of whole batches.

    A sample is a dictionary with `image`, `text`, or both, or just a picture, or just a text for a model without
    pictures. A picture is anything that [`FlavourProcessor`] takes: path, address, PIL image, array.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # The base class makes batches only where one of the two is set.
        self.tokenizer = self.processor.tokenizer
        self.image_processor = self.processor.image_processor

    def __call__(self, inputs: Any = None, *, image: Any = None, text: str | None = None, **kwargs):
        """Answer for one sample, a list, a generator or a torch data set of samples; or for `image=` and `text=`."""
        if inputs is None:
            inputs = {"image": image, "text": text}
        elif image is not None or text is not None:
            raise ValueError("Give samples, or image= and text= of one sample, not both.")
        return super().__call__(inputs, **kwargs)

    def preprocess(self, inputs: Any) -> dict[str, Any]:
        """Read one sample: its picture opened, its text as given."""
        if not isinstance(inputs, dict):
            # A bare string is a path to a picture where the model reads pictures, else a text.
            textual = isinstance(inputs, str) and self.image_processor is None
            if isinstance(inputs, str) and not textual and self.tokenizer is not None:
                raise ValueError(f"Is {inputs!r} a picture or a text? Give a dictionary with image, text, or both.")
            inputs = {"text": inputs} if textual else {"image": inputs}
        unknown = sorted(set(inputs) - {"image", "text"})
        if unknown:
            raise ValueError(f"A sample has image and text, got also: {', '.join(unknown)}.")
        picture = inputs.get("image")
        sample = {"image": None if picture is None else open_picture(picture), "text": inputs.get("text")}
        if sample["image"] is None and not (sample["text"] or "").strip():
            raise ValueError("A sample has neither a picture nor a text: give at least one of them.")
        return {"sample": sample}

    def tensors(self, model_inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return the processed tensors of a batch of samples, on the model's device."""
        samples = model_inputs["sample"]
        # A batch of one arrives as the sample itself.
        samples = samples if isinstance(samples, list) else [samples]
        given = {
            name: [sample[key] for sample in samples] if any(sample[key] is not None for sample in samples) else None
            for name, key in (("images", "image"), ("text", "text"))
        }
        return dict(self.processor(**given).to(self.device))


class FlavourClassificationPipeline(FlavourPipeline):
    """Labels with their probabilities, most probable first.

    `top_k` keeps that many of them; `None` keeps all. With one label per sample the probabilities sum to 1; with
    several labels each is independent.
    """

    def _sanitize_parameters(self, top_k: int | None = UNSET):
        return {}, {}, sanitize_top_k(top_k)

    @property
    def label_names(self) -> list[str]:
        """Label of each score."""
        config = self.model.config
        return [config.id2label[number] for number in range(config.num_labels)]

    @property
    def several_labels(self) -> bool:
        """Whether a sample may have several labels at once."""
        return self.model.config.problem_type == "multi_label_classification"

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"logits": self.model(**self.tensors(model_inputs)).logits}

    def postprocess(self, model_outputs: dict[str, torch.Tensor], top_k: int | None = None) -> list[dict[str, Any]]:
        """Return the labels of one sample with scores between 0 and 1."""
        logits = model_outputs["logits"][0].float()
        scores = (logits.sigmoid() if self.several_labels else logits.softmax(dim=-1)).tolist()
        ranked = sorted(zip(self.label_names, scores, strict=True), key=lambda entry: -entry[1])
        return [{"label": label, "score": score} for label, score in ranked[:top_k]]
