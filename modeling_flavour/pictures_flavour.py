"""Pictures of every common kind, opened as upright 8-bit RGB."""

import base64
import io
import os
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

# Characters: no file system has longer paths, no picture is shorter in base64, and no message shows more of an input.
LONGEST_PATH, SHORTEST_BASE64, LONGEST_SHOWN = 4096, 64, 200
Picture = Any  # PIL image, array, tensor, path, address, bytes, or the dictionary of an undecoded `datasets` image


def open_picture(source: Picture) -> Image.Image:
    """Open a picture of any common kind as upright 8-bit RGB.

    Args:
        source: PIL image; array or tensor `(height, width)`, `(height, width, channels)` or
            `(channels, height, width)`, 8-bit, 16-bit, or float between 0 and 1; path; `http(s)`, `file` or `data`
            address; base64; encoded bytes or an open file; or the dictionary with `bytes` or `path` that `datasets`
            gives for an undecoded image. Arrays of three channels are RGB.

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
        name, source = shown(source), read_address(source)
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
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no picture at {name}.") from error
    except Exception as error:  # decoders raise anything on broken files, that of AVIF a RuntimeError
        # Pillow puts whatever it was given into some messages.
        reason = str(error) if len(str(error)) <= LONGEST_SHOWN else type(error).__name__
        raise ValueError(f"{name} cannot be read as a picture: {reason}") from error


def shown(source: str | Path) -> str:
    """Return how a message names a picture: its path or address, but never the picture itself."""
    text = str(source)
    if text.startswith("data:"):
        return f"the data address of {len(text)} characters"
    like_a_path = bool(re.search(r"[/\\]|\.\w{2,4}$", text)) and len(text) <= LONGEST_SHOWN and text.isprintable()
    return text if like_a_path else f"the text of {len(text)} characters given as a picture"


def read_address(source: str | Path) -> str | Path | bytes:
    """Return the bytes at an address or in base64; a path is returned as it is.

    Raises:
        ValueError: The address does not answer, or holds no base64.
    """
    text = str(source)
    if text.startswith(("http://", "https://", "data:")):
        return fetch(text)
    if text.startswith("file:"):
        return Path(urllib.request.url2pathname(urllib.parse.urlsplit(text).path))
    if len(text) > SHORTEST_BASE64 and not os.path.exists(text):
        try:
            # The alphabet of addresses has two other signs, and may leave out the filling at the end.
            plain = "".join(text.split()).translate(str.maketrans("-_", "+/"))
            return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except ValueError as error:
            if len(text) > LONGEST_PATH:
                raise ValueError(f"{shown(text)} is neither a path nor base64 of a picture.") from error
    return source


def is_picture_address(text: str) -> bool:
    """Whether a text is the address of a picture or the path of a file, and so no text to read."""
    if text.startswith(("http://", "https://", "data:image/", "file:")):
        return True
    return os.path.isfile(text)


def fetch(address: str) -> bytes:
    """Return the bytes at an `http(s)` address, or in a `data` address."""
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return answer.read()
    except (OSError, ValueError) as error:  # a ValueError where base64 is damaged
        reason = str(error) if len(str(error)) <= LONGEST_SHOWN else type(error).__name__
        raise ValueError(f"{shown(address)} cannot be fetched: {reason}") from error


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
