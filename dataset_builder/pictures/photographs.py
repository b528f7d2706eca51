"""Photographs of one's own: read as they are, upright, and marked as photographs."""

import io
from pathlib import Path

from PIL import Image

from dataset_builder.named_files import RefusedFileError, check_pixels, read_regular
from dataset_builder.pictures.settings import Picture
from dataset_builder.pictures.upright import as_rgb

PHOTOGRAPH = "photograph"
# Longest side in pixels where --size does not state another; larger pictures are made smaller.
LONGEST_SIDE = 1024
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, RuntimeError, MemoryError)


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
