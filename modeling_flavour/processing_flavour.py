"""Pictures and texts to tensors, as the model's own backbones expect them."""

import difflib
import inspect
import io
import re
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image, ImageOps
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

RESAMPLING = {name.lower(): value for name, value in PILImageResampling.__members__.items()}
Picture = Any  # PIL image, array, tensor, path, address, bytes, or the dictionary of an undecoded `datasets` image


def open_picture(source: Picture) -> Image.Image:
    """Open a picture of any common kind as upright 8-bit RGB.

    Args:
        source: PIL image; array or tensor `(height, width)`, `(height, width, channels)` or
            `(channels, height, width)`, 8-bit, 16-bit, or float between 0 and 1; path; `http(s)` or `data` address;
            encoded bytes or an open file; or the dictionary with `bytes` or `path` that `datasets` gives for an
            undecoded image. Arrays of three channels are RGB.

    Raises:
        TypeError: It is nothing of these.
        ValueError: The bytes are no picture, the address does not answer, or the array has another shape.
        FileNotFoundError: There is no such file.
    """
    name = "the given picture"
    if isinstance(source, dict):
        keys = ", ".join(map(repr, source))
        source = source["bytes"] if source.get("bytes") is not None else source.get("path")
        if source is None:
            raise ValueError(f"The dictionary of a picture needs bytes or a path, got one of {keys or 'nothing'}.")
    if isinstance(source, str | Path):
        name = str(source)
        if name.startswith(("http://", "https://", "data:image/")):
            source = fetch(name)
    if isinstance(source, bytes | bytearray | memoryview):
        source = io.BytesIO(source)
    if isinstance(source, torch.Tensor):
        source = (source.float() if source.is_floating_point() else source).detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        return array_to_rgb(source)
    if not (isinstance(source, Image.Image | str | Path) or hasattr(source, "read")):
        raise TypeError(
            "A picture may be a PIL image, an array, a tensor, a path, an address or encoded bytes, got "
            f"{type(source).__name__}."
        )
    try:
        image = source if isinstance(source, Image.Image) else Image.open(source)
        return to_rgb(image)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # as Pillow meets broken files
        raise ValueError(f"{name} cannot be read as a picture: {error}") from error


def fetch(address: str) -> bytes:
    """Return the bytes at an `http(s)` address, or in a `data` address."""
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return answer.read()
    except (OSError, ValueError) as error:  # a ValueError where base64 is damaged
        raise ValueError(f"{address[:100]} cannot be fetched: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a PIL image upright and to 8-bit RGB: transparency over white, deep greys scaled to 8 bits."""
    if image.getexif().get(0x0112, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return array_to_rgb(np.asarray(image))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def array_to_rgb(values: np.ndarray) -> Image.Image:
    """Return an array, in any of the layouts and depths that `open_picture` lists, as an RGB image."""
    # Channels first, unless the last axis could be channels too.
    if values.ndim == 3 and values.shape[0] in (1, 3, 4) and values.shape[2] not in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.dtype.kind not in "buif":
        raise ValueError(f"A picture needs whole or floating numbers, got an array of {values.dtype}.")
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)) or not values.size:
        raise ValueError(f"A picture needs shape (height, width[, 1, 3 or 4]) or channels first, got {values.shape}.")
    if np.issubdtype(values.dtype, np.floating):
        if not (np.isfinite(values).all() and values.min() >= 0):
            raise ValueError("A picture of floats needs finite values between 0 and 1 (or 0 and 255).")
        values = values * (255 if values.max() <= 1 else 1)
    elif values.dtype == bool:
        values = values * np.uint8(255)
    elif values.dtype != np.uint8 and (values.dtype == np.uint16 or values.max(initial=0) > 255):
        # 65535 / 257 = 255: the full range of 16 bits maps to that of 8 bits.
        values = values / 257
    image = Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))
    return to_rgb(image)


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


class FlavourProcessor(ProcessorMixin):
    """Pictures and texts to the tensors that the models of the family take.

    Args:
        image_processor: Any image processor of transformers; `None` for a model without pictures.
        tokenizer: Any tokenizer of transformers; `None` for a model without text.
        max_length: Longest text in tokens, special tokens included; longer ones are cut.
        letters_only: Whether to drop everything but letters from texts first.
    """

    def __init__(self, image_processor=None, tokenizer=None, max_length: int = 40, letters_only: bool = False):
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
        """Names of the tensors made for a complete batch."""
        text = ["input_ids", "attention_mask"] if self.tokenizer is not None else []
        return text + (["pixel_values"] if self.image_processor is not None else [])

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        padding: bool | str = True,
        truncation: bool = True,
        max_length: int | None = None,
        return_tensors: str = "pt",
        **kwargs,
    ) -> BatchFeature:
        """Make tensors of pictures, texts, or both.

        Args:
            images: One picture or a list, each as `open_picture` takes it; `None` in a list is a missing picture.
            text: One text or a list; `None` or a blank text in a list is a missing text.
            padding: `True` to the longest text of the batch, `"max_length"` to `max_length`.
            truncation: Whether to cut texts at `max_length`.
            max_length: In tokens; `None` takes that of the processor.
            return_tensors: Must be `"pt"`.
            **kwargs: Refused: pictures are prepared as the image processor says.

        Returns:
            `pixel_values` `(batch, 3, height, width)` float32, `input_ids` and `attention_mask` `(batch, length)`, each
            where any sample has that part, and `image_present`, `text_present` `(batch,)` where some samples lack it.

        Raises:
            ValueError: Neither is given, for the batch or for one sample; a part that this processor lacks is given; or
                numbers of pictures and texts differ.
            TypeError: A picture or a text is nothing of the kind.
        """
        if return_tensors != "pt":
            raise ValueError(
                f"FlavourProcessor makes PyTorch tensors: return_tensors must be 'pt', not {return_tensors!r}."
            )
        if kwargs:
            taken = ", ".join(list(inspect.signature(self.__call__).parameters)[:-1])
            raise ValueError(f"FlavourProcessor takes no {', '.join(sorted(kwargs))}; it takes {taken}.")
        pictures = None if images is None else as_list(images)
        texts = None if text is None else [check_text(item) for item in as_list(text)]
        self.check_batch(pictures, texts)
        data: dict[str, torch.Tensor] = {}
        if texts is not None and any(item is not None for item in texts):
            data |= self.encode_texts(texts, padding, truncation, max_length)
            if None in texts:
                data["text_present"] = torch.tensor([item is not None for item in texts])
        if pictures is not None and any(item is not None for item in pictures):
            data["pixel_values"] = self.encode_pictures(pictures)
            if any(item is None for item in pictures):
                data["image_present"] = torch.tensor([item is not None for item in pictures])
        return BatchFeature(data)

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
        mask = encoded["attention_mask"].masked_fill(missing, 0)
        return {"input_ids": encoded["input_ids"], "attention_mask": mask}

    def encode_pictures(self, pictures: Sequence[Picture | None]) -> torch.Tensor:
        """Return normalised pictures; a missing one is zero, the mean colour."""
        opened = [open_picture(item) for item in pictures if item is not None]
        values = self.image_processor(images=opened, return_tensors="pt")["pixel_values"]
        if len(opened) == len(pictures):
            return values
        here = torch.tensor([item is not None for item in pictures])
        complete = values.new_zeros(len(pictures), *values.shape[1:])
        complete[here] = values
        return complete


FlavourProcessor.register_for_auto_class()
