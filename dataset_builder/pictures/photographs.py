"""Pictures of any mode as a person sees them; photographs of one's own, marked as photographs."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dataset_builder.named_files import RefusedFileError, check_pixels, read_regular
from dataset_builder.pictures.settings import Picture

PHOTOGRAPH = "photograph"
# Longest side in pixels where --size does not state another; larger pictures are made smaller.
LONGEST_SIDE = 1024
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, RuntimeError, MemoryError)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return a picture as a person sees it, in 8-bit RGB: upright, transparency over white, 16 bits scaled to 8."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        levels = np.asarray(image).astype(np.float64)
        most = 255.0 if levels.max(initial=0) <= 255 else max(65535.0, float(levels.max()))
        return Image.fromarray((levels.clip(0) * (255.0 / most)).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def photograph(path: str, title: str, longest: int | None = None) -> Picture:
    """Return a photograph as the picture of a row; its `image` is None where it cannot be read, `rejected` says why.

    Args:
        path: the file.
        title: of the dish, for the caption.
        longest: longest side in pixels; None for `LONGEST_SIDE`.
    """
    record = {"pipeline": PHOTOGRAPH, "attempts": 0, "rejected": []}
    try:
        with Image.open(io.BytesIO(read_regular(Path(path)))) as opened:
            check_pixels(opened)
            image = as_rgb(opened)
    except RefusedFileError as error:
        return Picture(None, generation={**record, "rejected": [f"photograph {error}"]})
    except (*_UNREADABLE, Image.DecompressionBombError):
        return Picture(None, generation={**record, "rejected": ["photograph broken"]})
    image.thumbnail((longest or LONGEST_SIDE, longest or LONGEST_SIDE))
    record |= {"width": image.width, "height": image.height}
    return Picture(image, captions=[f"A photograph of {title}."], generation=record)
