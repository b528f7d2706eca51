"""Preprocessing of an exported graph in plain words and numbers, for programs without transformers."""

from typing import Any

from transformers import BaseImageProcessor

from modeling_flavour.processing_flavour import FlavourProcessor

PREPROCESSOR = "preprocessor.json"
_INTERPOLATION = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def describe_preprocessing(processor: FlavourProcessor) -> dict[str, Any]:
    """Return the steps from a picture and a text to the inputs, in the order of the keys."""
    content: dict[str, Any] = {}
    if processor.image_processor is not None:
        content["pixel_values"] = _describe_picture(processor.image_processor)
    if processor.tokenizer is not None:
        content["input_ids"] = _describe_text(processor)
        content["attention_mask"] = "int64, 1 at tokens and 0 at padding; all 0 for a missing text"
    return content


def _describe_picture(image_processor: BaseImageProcessor) -> dict[str, Any]:
    cropped = getattr(image_processor, "do_center_crop", False) and image_processor.crop_size
    return {
        "colours": "RGB, 8 bits; turned upright as EXIF says, transparency over white",
        "resize": {name: value for name, value in dict(image_processor.size).items() if value is not None},
        "interpolation": _INTERPOLATION[int(image_processor.resample)],
        "antialias": True,
        "center_crop": {"height": cropped["height"], "width": cropped["width"]} if cropped else None,
        "multiply": image_processor.rescale_factor,
        "subtract_mean": list(image_processor.image_mean),
        "divide_by_std": list(image_processor.image_std),
        "layout": "float32 (batch, 3, height, width)",
    }


def _describe_text(processor: FlavourProcessor) -> dict[str, Any]:
    tokenizer = processor.tokenizer
    return {
        "letters_only": processor.letters_only,
        "tokenizer": "tokenizer.json",
        "max_length": min(processor.max_length, tokenizer.model_max_length),
        "padding_id": tokenizer.pad_token_id,
        "padding_side": tokenizer.padding_side,
        "layout": "int64 (batch, length); short texts are filled up with padding_id",
    }
