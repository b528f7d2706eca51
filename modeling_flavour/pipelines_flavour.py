"""Pipelines of the family, for `pipeline(task, model=..., trust_remote_code=True)`."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import Pipeline

from .pictures_flavour import is_picture_address, open_picture


def pipeline_entry(implementation: str, auto_class: str, kind: str) -> dict[str, Any]:
    """Return the entry of a pipeline under `custom_pipelines` in a saved config."""
    return {"impl": implementation, "pt": [auto_class], "type": kind}


FEATURE_PIPELINE = {
    "feature-extraction": pipeline_entry("pipelines_flavour.FlavourFeaturePipeline", "AutoModel", "multimodal")
}
CLASSIFICATION_PIPELINE = {
    "flavour-classification": pipeline_entry(
        "pipelines_flavour.FlavourClassificationPipeline", "AutoModel", "multimodal"
    ),
    **FEATURE_PIPELINE,
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


class Rows(Dataset):
    """The rows of a data set of `datasets`, or the values of one of its columns, as the base class reads them."""

    def __init__(self, rows: Any):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Any:
        return self.rows[number]


def is_sequence(inputs: Any) -> bool:
    """Whether inputs are a data set or a column of one: read by number, and nothing that is a single input."""
    single = (str, bytes, bytearray, dict, list, tuple, np.ndarray, torch.Tensor, Image.Image, Dataset)
    return not isinstance(inputs, single) and hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__")


class ProcessorPipeline(Pipeline):
    """A pipeline that reads its inputs with the model's own processor, and is saved with it.

    A `datasets.Dataset`, a table of pandas, or a column of either is answered row by row, with a list; a streamed
    data set with an iterator.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_feature_extractor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError(f"{type(self).__name__} needs the model's processor: pass processor=.")

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer for one input, a list, a generator, a data set or a column of one."""
        if hasattr(inputs, "iloc"):  # a table of pandas is as good as its rows, a column as its values
            empty = inputs.astype(object).where(inputs.notna(), None)
            inputs = empty.to_dict("records") if hasattr(empty, "columns") else empty.tolist()
        if is_sequence(inputs):
            return list(super().__call__(Rows(inputs), *args, **kwargs))
        if hasattr(inputs, "column_names") and hasattr(inputs, "__iter__"):  # streamed
            inputs = (row for row in inputs)
        return super().__call__(inputs, *args, **kwargs)

    def picture_of(self, inputs: Any) -> Any:
        """Return the picture of an input: itself, or that of a row of a data set."""
        column = self.processor.image_column
        return inputs[column] if isinstance(inputs, dict) and column in inputs else inputs

    def save_pretrained(self, save_directory, **kwargs: Any) -> None:
        """Save model and processor; the base class saves the parts of a processor alone."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


class FlavourPipeline(ProcessorPipeline):
    """Base class of the pipelines of texts and pictures: reads samples, and makes tensors of whole batches.

    A sample is a dictionary with `image`, `text`, or both; a row of a data set with the columns that the model was
    trained on; or just a picture, or just a text for a model without pictures. A picture is anything that
    [`FlavourProcessor`] takes: path, address, PIL image, array.
    """

    # Whether a bare string that is no picture is a text also where the model reads pictures.
    bare_texts = False

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
        given = self.read_sample(inputs)
        picture, text = given.get("image"), given.get("text")
        text = " ".join(text) if isinstance(text, list) else text
        if picture is None and not (text or "").strip():
            raise ValueError("A sample has neither a picture nor a text: give at least one of them.")
        return {"sample": {"image": None if picture is None else open_picture(picture), "text": text}}

    def read_sample(self, inputs: Any) -> dict[str, Any]:
        """Return the picture and the text of a sample, a row or a bare input, as `image` and `text`."""
        if not isinstance(inputs, dict):
            if not isinstance(inputs, str) or self.tokenizer is None:
                return {"image": inputs}
            if self.image_processor is None or (self.bare_texts and not is_picture_address(inputs)):
                return {"text": inputs}
            if not is_picture_address(inputs):
                raise ValueError("Is a string a picture or a text? Give a dictionary with image, text, or both.")
            return {"image": inputs}
        if inputs.keys() <= {"bytes", "path"} and inputs:
            return {"image": inputs}
        columns = {"image": self.processor.image_column, "text": self.processor.text_column}
        parts = {"image": self.image_processor, "text": self.tokenizer}
        own = {name: columns[name] for name, part in parts.items() if part is not None}
        # A row of the data that the model learned from has further columns, which nothing reads.
        if set(own.values()) <= set(inputs) and (own.get("text") == "text" or "text" not in inputs):
            return {name: inputs[column] for name, column in own.items()}
        unknown = sorted(set(inputs) - {"image", "text"})
        if unknown:
            wanted = " and ".join(own.values())
            raise ValueError(
                f"A sample has image and text, got also: {', '.join(unknown)}. A row of a data set has {wanted}."
            )
        return inputs

    def tensors(self, model_inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return the processed tensors of a batch of samples, on the model's device."""
        samples = model_inputs["sample"]
        # A batch of one arrives as the sample itself.
        samples = samples if isinstance(samples, list) else [samples]
        # A part that no sample has is left out, so that its backbone does not run.
        given = {
            name: [sample[key] for sample in samples]
            for name, key in (("images", "image"), ("text", "text"))
            if any(sample[key] is not None for sample in samples)
        }
        return dict(self.processor(**given).to(self.device))


class FlavourFeaturePipeline(FlavourPipeline):
    """Features of texts and pictures, one vector per sample.

    A classifier gives the vectors that its head reads, the text's before the picture's, zeros where a sample lacks one
    of them; a captioner or a segmenter gives the mean over the picture's places. `return_tensors=True` gives a tensor
    `(size,)` in place of a list of numbers.
    """

    bare_texts = True

    def _sanitize_parameters(self, return_tensors: bool | None = None):
        return {}, {}, {} if return_tensors is None else {"return_tensors": return_tensors}

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"features": self.model.sample_features(**self.tensors(model_inputs))}

    def postprocess(self, model_outputs: dict[str, torch.Tensor], return_tensors: bool = False) -> Any:
        """Return the features of one sample."""
        features = model_outputs["features"][0]
        return features if return_tensors else features.float().tolist()


class FlavourClassificationPipeline(FlavourPipeline):
    """Labels with their probabilities, most probable first.

    `top_k` keeps that many of them; `None` keeps all. With one label per sample the probabilities sum to 1; with
    several labels each is independent.

    A model that knows what its training rows were like adds `familiar` to each label, whether all parts of the sample
    are like them, and `unfamiliar`, the parts that are not; a fusion answers without these. With `abstain=True` it may
    say that it does not know: where nothing of the sample is familiar, or its best label is less probable than
    `abstain_below` of the model, the answer is the one entry with the label `None`.
    """

    def _sanitize_parameters(self, top_k: int | None = UNSET, abstain: bool | None = None):
        settings: dict[str, Any] = dict(sanitize_top_k(top_k))
        if abstain is not None:
            if abstain and self.model.abstain_below is None:
                raise ValueError(
                    "This model does not know when to abstain: models of one label per sample learn it in training "
                    "(familiar_share), those of earlier versions have not. Train it again, or leave abstain out."
                )
            settings["abstain"] = abstain
        return {}, {}, settings

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
        tensors = self.tensors(model_inputs)
        output = self.model(**tensors)
        found = {"logits": output.logits}
        for part in ("text", "image"):
            if output.get(f"{part}_familiar") is not None:
                found[part] = output[f"{part}_familiar"]
                # A part that is not there is neither familiar nor unfamiliar.
                found[f"{part}_given"] = tensors.get(f"{part}_present", torch.ones_like(found[part])).bool()
        return found

    def postprocess(
        self, model_outputs: dict[str, torch.Tensor], top_k: int | None = None, abstain: bool = False
    ) -> list[dict[str, Any]]:
        """Return the labels of one sample with scores between 0 and 1."""
        logits = model_outputs["logits"][0].float()
        scores = (logits.sigmoid() if self.several_labels else logits.softmax(dim=-1)).tolist()
        ranked = sorted(zip(self.label_names, scores, strict=True), key=lambda entry: -entry[1])
        known: dict[str, Any] = {}
        # Where nothing is known of any part, only the probability decides.
        parts = [
            part for part in ("text", "image") if part in model_outputs and bool(model_outputs[f"{part}_given"][0])
        ]
        if parts:
            strange = [part for part in parts if not bool(model_outputs[part][0])]
            known = {"familiar": not strange, "unfamiliar": strange}
        foreign = bool(parts) and len(known["unfamiliar"]) == len(parts)
        if abstain and (foreign or ranked[0][1] < self.model.abstain_below):
            return [{"label": None, "score": ranked[0][1], **known}]
        return [{"label": label, "score": score, **known} for label, score in ranked[:top_k]]
