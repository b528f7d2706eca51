"""Pictures and texts to tensors, as the model's own backbones expect them."""

import difflib
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoTokenizer,
    BatchFeature,
    CLIPImageProcessor,
    PreTrainedConfig,
    ProcessorMixin,
)
from transformers.image_utils import PILImageResampling

from .pictures_flavour import Picture, open_picture

RESAMPLING = {name.lower(): value for name, value in PILImageResampling.__members__.items()}


class Omitted:
    """Type of `OMITTED`."""

    def __repr__(self) -> str:
        return "OMITTED"


# The default of a part that a call does not mention; `None` is a missing part, whose columns are made all the same.
OMITTED: Any = Omitted()


def image_processor_for(
    backbone: str | dict | PreTrainedConfig, size: int | None = None, whole: bool = False, **kwargs
) -> Any:
    """Return the image processor of a backbone, with its own mean, standard deviation, size, interpolation and crop.

    Args:
        backbone: Folder or Hub id, config, or dictionary of a config. A timm backbone's numbers come from its data
            config, those of a folder or Hub id of transformers from its own image processor; a bare config of
            transformers has none and gets ImageNet's.
        size: Side of the square picture instead of the backbone's; the whole shorter side is then kept.
        whole: Whether to shrink the whole picture to the square rather than crop it, as masks need.
        **kwargs: Passed to `from_pretrained`.
    """
    processor = backbone_image_processor(backbone, size, **kwargs)
    if whole:
        sides = processor.crop_size or processor.size
        side = sides["height"] if "height" in sides else sides["shortest_edge"]
        processor.do_center_crop = False
        processor.size = {"height": side, "width": side}
    return processor


def backbone_image_processor(backbone: str | dict | PreTrainedConfig, size: int | None, **kwargs) -> Any:
    """Return the image processor of a backbone as it is used for classification; see `image_processor_for`."""
    kwargs = {"trust_remote_code": False, **kwargs}
    config: Any = backbone
    if isinstance(backbone, dict):
        config = AutoConfig.for_model(**backbone)
    elif isinstance(backbone, str | Path):
        config = AutoConfig.from_pretrained(backbone, **kwargs)
    # Composite models, this family's among them, keep the backbone's config one level down.
    config = getattr(config, "vision_config", None) or config
    if config.model_type != "timm_wrapper" and isinstance(backbone, str | Path):
        processor = AutoImageProcessor.from_pretrained(backbone, **kwargs)
        if size is not None:
            cropped = getattr(processor, "do_center_crop", False)
            processor.size = {"shortest_edge": size} if cropped else {"height": size, "width": size}
            processor.crop_size = {"height": size, "width": size} if cropped else None
        return processor
    data = timm_data_config(config) if config.model_type == "timm_wrapper" else {}
    side = size or data.get("input_size", (3, getattr(config, "image_size", None) or 224))[-1]
    crop = data.get("crop_pct", 1.0) if size is None else 1.0
    squash = data.get("crop_mode") == "squash"
    # As timm: the picture is resized to a larger edge, of which the centre is cropped.
    edge = int(side / crop)
    return CLIPImageProcessor(
        size={"height": side, "width": side} if squash else {"shortest_edge": edge},
        do_center_crop=not squash,
        crop_size={"height": side, "width": side},
        resample=RESAMPLING[data.get("interpolation", "bicubic")],
        image_mean=list(data.get("mean", timm.data.IMAGENET_DEFAULT_MEAN)),
        image_std=list(data.get("std", timm.data.IMAGENET_DEFAULT_STD)),
    )


def timm_data_config(config: PreTrainedConfig) -> dict[str, Any]:
    """Return input size, mean, standard deviation, interpolation and crop of a timm backbone.

    Raises:
        ValueError: timm has no such architecture; near names are named.
    """
    pretrained = getattr(config, "pretrained_cfg", None)
    if pretrained is None:
        if not timm.is_model(config.architecture):
            near = difflib.get_close_matches(config.architecture, timm.list_models(), n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"timm has no architecture {config.architecture!r}.{hint}")
        known = timm.get_pretrained_cfg(config.architecture)
        pretrained = known.to_dict() if known is not None else {}
    return timm.data.resolve_data_config(pretrained_cfg=pretrained)


def as_list(batch: Any) -> list:
    """Return a batch (sequence, data set's column, array) as a list; a single item or `None` is a batch of one."""
    if isinstance(batch, Sequence) and not isinstance(batch, str | bytes | bytearray | memoryview):
        return list(batch)
    if isinstance(batch, np.ndarray | torch.Tensor) and batch.ndim in (1, 4):
        return list(batch)
    return [batch]


def check_text(text: Any) -> str | None:
    """Return a text unchanged, and `None` for a blank one."""
    if not (text is None or isinstance(text, str)):
        raise TypeError(f"A text is a string, or None where a sample has none, got {type(text).__name__}.")
    return text if text and text.strip() else None


def as_type(data: dict[str, torch.Tensor], return_tensors: str | None) -> BatchFeature:
    """Return tensors as PyTorch's, NumPy's or, with `None`, as lists of samples."""
    if return_tensors == "pt":
        return BatchFeature(data)
    arrays = {name: value.numpy() for name, value in data.items()}
    if return_tensors == "np":
        return BatchFeature(arrays)
    return BatchFeature({name: list(value) if value.ndim > 2 else value.tolist() for name, value in arrays.items()})


class FlavourProcessor(ProcessorMixin):
    """Pictures and texts to the tensors that the models of the family take.

    Args:
        image_processor: Any image processor of transformers; `None` for a model without pictures.
        tokenizer: Any tokenizer of transformers; `None` for a model without text.
        max_length: Longest text in tokens, special tokens included; longer ones are cut.
        letters_only: Whether to drop everything but letters from texts first.
        text_column: Column of a data set that holds the texts; pipelines take its rows as they are.
        image_column: Column that holds the pictures.
    """

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        max_length: int = 40,
        letters_only: bool = False,
        text_column: str = "title",
        image_column: str = "image",
    ):
        # Not the base class's initialiser: it refuses absent parts.
        if image_processor is None and tokenizer is None:
            raise ValueError("Give an image_processor, a tokenizer, or both.")
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}.")
        for name, part in (("image_processor", image_processor), ("tokenizer", tokenizer)):
            if part is not None:
                self.check_argument_for_proper_class(name, part)
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.letters_only = letters_only
        self.text_column = text_column
        self.image_column = image_column
        self.chat_template = None

    @classmethod
    def from_parts(
        cls,
        text: Any = None,
        image: Any = None,
        size: int | None = None,
        max_length: int = 40,
        whole: bool = False,
        **kwargs,
    ) -> "FlavourProcessor":
        """Make the processor that fits a model made of these parts.

        Args:
            text: Folder or Hub id with a tokenizer, or a tokenizer; `None` for a model without text.
            image: Backbone as `image_processor_for` takes it, or an image processor; `None` for one without pictures.
            size: Side of the square picture, in place of the backbone's own.
            max_length: Longest text in tokens.
            whole: Whether to shrink whole pictures to the square rather than crop them, as masks need.
            **kwargs: Passed to `from_pretrained` of the parts.
        """
        if isinstance(text, str | Path):
            text = AutoTokenizer.from_pretrained(text, **{"trust_remote_code": False, **kwargs})
        if isinstance(image, str | Path | dict | PreTrainedConfig):
            image = image_processor_for(image, size, whole, **kwargs)
        return cls(image, text, max_length=max_length)

    def present_parts(self) -> list[str]:
        """Return the names of the parts this processor has."""
        return [name for name in ("image_processor", "tokenizer") if getattr(self, name) is not None]

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """Save the processor and its code; see [`ProcessorMixin.save_pretrained`]."""
        # The base class walks over all parts of the class; this instance may lack one.
        self.get_attributes = self.present_parts
        try:
            return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        finally:
            del self.get_attributes

    def to_dict(self) -> dict[str, Any]:
        """Return the saved form; an absent part is `None`."""
        absent = {name: None for name in ("image_processor", "tokenizer") if getattr(self, name) is None}
        # `save_pretrained` sets the method on the instance; as an attribute it would be saved as well.
        own_method = self.__dict__.pop("get_attributes", None)
        try:
            return {**super().to_dict(), **absent}
        finally:
            if own_method is not None:
                self.get_attributes = own_method

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path, processor_dict=None, **kwargs):
        processor_dict = processor_dict or {}
        kwargs = {"trust_remote_code": False, **kwargs}
        parts: list[Any] = []
        for name, loader in (("image_processor", AutoImageProcessor), ("tokenizer", AutoTokenizer)):
            absent = name in processor_dict and processor_dict[name] is None
            parts.append(None if absent else loader.from_pretrained(pretrained_model_name_or_path, **kwargs))
        return parts

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors made where both parts are given, or the only part there is."""
        text = ["input_ids", "attention_mask"] if self.tokenizer is not None else []
        image = ["pixel_values"] if self.image_processor is not None else []
        return text + image + (["text_present", "image_present"] if text and image else [])

    def __call__(
        self,
        images: Any = OMITTED,
        text: Any = OMITTED,
        padding: bool | str = True,
        truncation: bool = True,
        max_length: int | None = None,
        return_tensors: str | None = "pt",
        **kwargs,
    ) -> BatchFeature:
        """Make tensors of pictures, texts, or both.

        Which tensors there are depends on the arguments that a call mentions, never on their values: rows without a
        picture or a text have the same columns as complete ones.

        Args:
            images: One picture or a list, each as `open_picture` takes it; `None`, alone or in a list, is a missing
                picture.
            text: One text or a list; `None` or a blank text is a missing text.
            padding: `True` to the longest text of the batch, `"max_length"` to `max_length`.
            truncation: Whether to cut texts at `max_length`.
            max_length: In tokens; `None` takes that of the processor.
            return_tensors: `"pt"`, `"np"`, or `None` for lists.
            **kwargs: Refused: pictures are prepared as the image processor says.

        Returns:
            `pixel_values` `(batch, 3, height, width)` float32 where `images` is given, `input_ids` and `attention_mask`
            `(batch, length)` where `text` is, and `image_present`, `text_present` `(batch,)` bool where both are.

        Raises:
            ValueError: Neither is given, for the batch or for one sample; a part that this processor lacks is given; or
                numbers of pictures and texts differ.
            TypeError: A picture or a text is nothing of the kind.
        """
        if return_tensors not in ("pt", "np", None):
            raise ValueError(f"return_tensors must be 'pt', 'np' or None, not {return_tensors!r}.")
        if kwargs:
            taken = ", ".join(list(inspect.signature(self.__call__).parameters)[:-1])
            raise ValueError(f"FlavourProcessor takes no {', '.join(sorted(kwargs))}; it takes {taken}.")
        pictures = None if images is OMITTED or images is None else as_list(images)
        texts = None if text is OMITTED or text is None else [check_text(item) for item in as_list(text)]
        self.check_batch(pictures, texts)
        # `None` alone stands for a batch of missing parts.
        if images is None and texts is not None and self.image_processor is not None:
            pictures = [None] * len(texts)
        if text is None and pictures is not None and self.tokenizer is not None:
            texts = [None] * len(pictures)
        data: dict[str, torch.Tensor] = {}
        if texts is not None:
            data |= self.encode_texts(texts, padding, truncation, max_length)
        if pictures is not None:
            data["pixel_values"] = self.encode_pictures(pictures)
        if texts is not None and pictures is not None:
            data["text_present"] = torch.tensor([item is not None for item in texts])
            data["image_present"] = torch.tensor([item is not None for item in pictures])
        return as_type(data, return_tensors)

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = "pt",
        verbose: bool = True,
    ) -> BatchFeature:
        """Join samples to a batch, texts padded; so that `DataCollatorWithPadding(processor)` works.

        Args:
            encoded_inputs: List of samples, or a dictionary of lists of their values, as `__call__` gives them for one
                row each: a leading axis of one is taken off. Further columns, such as `labels`, are stacked.
            padding: As for `__call__`.
            max_length: For `padding="max_length"`.
            pad_to_multiple_of: Round the length up to a multiple.
            return_attention_mask: Ignored: there is always one beside texts.
            return_tensors: `"pt"`, `"np"`, or `None` for lists.
            verbose: Ignored.
        """
        if isinstance(encoded_inputs, Mapping):
            names = list(encoded_inputs)
            columns = zip(*encoded_inputs.values(), strict=True)
            encoded_inputs = [dict(zip(names, values, strict=True)) for values in columns]
        samples = [{name: np.asarray(value) for name, value in sample.items()} for sample in encoded_inputs]
        tokens = {"input_ids": 1, "attention_mask": 1, "pixel_values": 3, "text_present": 0, "image_present": 0}
        for sample in samples:
            for name, axes in tokens.items():
                if name in sample and sample[name].ndim == axes + 1 and len(sample[name]) == 1:
                    sample[name] = sample[name][0]
        data: dict[str, torch.Tensor] = {}
        if samples and "input_ids" in samples[0]:
            texts = [{name: sample[name].tolist() for name in ("input_ids", "attention_mask")} for sample in samples]
            padded = self.tokenizer.pad(
                texts,
                padding=padding,
                max_length=max_length or (self.max_length if padding == "max_length" else None),
                pad_to_multiple_of=pad_to_multiple_of,
                return_tensors="pt",
            )
            data |= {name: padded[name] for name in ("input_ids", "attention_mask")}
        for name in samples[0] if samples else ():
            if name not in data:
                data[name] = torch.from_numpy(np.stack([sample[name] for sample in samples]))
        return as_type(data, return_tensors)

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[torch.Tensor]:
        """Return the class of each pixel, `(height, width)` int64 per picture, from the output of a segmenter.

        Args:
            outputs: Has `logits` `(batch, classes, height, width)`.
            target_sizes: Height and width of each picture; the scores are enlarged to them, so that masks lie on the
                pictures as they were given. `None` keeps the size of the scores.

        Raises:
            ValueError: The model has no masks, or there are other numbers of sizes and pictures.
        """
        if outputs.logits is None:
            raise ValueError("This model names ingredients only (head='none'); it has no masks to give.")
        if target_sizes is None:
            return list(outputs.logits.argmax(1))
        if len(target_sizes) != len(outputs.logits):
            raise ValueError(f"Got {len(target_sizes)} target_sizes for {len(outputs.logits)} pictures: give one each.")
        sizes = [tuple(int(side) for side in size) for size in target_sizes]
        return [
            functional.interpolate(logits[None].float(), size, mode="bilinear", align_corners=False)[0].argmax(0)
            for logits, size in zip(outputs.logits, sizes, strict=True)
        ]

    def check_batch(self, pictures: list | None, texts: list | None) -> None:
        """Raise ValueError for a batch that the processor cannot read, naming the first such sample."""
        if pictures is not None and self.image_processor is None:
            raise ValueError("This processor has no image processor: give text alone.")
        if texts is not None and self.tokenizer is None:
            raise ValueError("This processor has no tokenizer: give images alone.")
        if pictures is not None and texts is not None and len(pictures) != len(texts):
            raise ValueError(
                f"Got {len(pictures)} pictures and {len(texts)} texts: give one of each per sample, or None."
            )
        batch = list(zip(pictures or [None] * len(texts or []), texts or [None] * len(pictures or []), strict=True))
        if not batch:
            raise ValueError("Give at least one picture or text.")
        for number, (picture, words) in enumerate(batch):
            if picture is None and words is None:
                raise ValueError(f"Sample {number} has neither a picture nor a text: give at least one of them.")

    def encode_texts(
        self, texts: Sequence[str | None], padding: bool | str, truncation: bool = True, max_length: int | None = None
    ) -> dict[str, torch.Tensor]:
        """Return token ids and their mask; a missing text is all padding."""
        words = ["" if item is None else item for item in texts]
        if self.letters_only:
            words = [" ".join(re.findall(r"[^\W\d_]+", item)) for item in words]
        limit = min(max_length or self.max_length, self.tokenizer.model_max_length)
        encoded = self.tokenizer(
            words,
            padding=padding,
            truncation=truncation,
            max_length=limit,
            return_attention_mask=True,
            return_token_type_ids=False,
            return_tensors="pt",
        )
        missing = torch.tensor([item is None for item in texts])[:, None]
        ids, mask = encoded["input_ids"], encoded["attention_mask"].masked_fill(missing, 0)
        if not ids.shape[1]:  # no text, and a tokenizer without special tokens
            ids, mask = ids.new_full((len(texts), 1), self.tokenizer.pad_token_id or 0), mask.new_zeros(len(texts), 1)
        return {"input_ids": ids.long(), "attention_mask": mask.long()}

    def encode_pictures(self, pictures: Sequence[Picture | None]) -> torch.Tensor:
        """Return normalised pictures; a missing one is zero, the mean colour."""
        opened = [open_picture(item) for item in pictures if item is not None]
        # Of nothing but missing pictures, a white one tells the shape.
        seen = opened or [Image.new("RGB", (32, 32), "white")]
        values = self.image_processor(images=seen, return_tensors="pt")["pixel_values"]
        if len(opened) == len(pictures):
            return values
        here = torch.tensor([item is not None for item in pictures])
        complete = values.new_zeros(len(pictures), *values.shape[1:])
        if opened:
            complete[here] = values
        return complete


FlavourProcessor.register_for_auto_class()
