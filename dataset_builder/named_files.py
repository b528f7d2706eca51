"""Files that a table or an annotation names: the one function that decides whether such a name may be opened.

A table may come from a stranger. A name in it must not reach files of the reader's machine that the table did not bring
along: it is joined to the folder of the set, and refused where it leads out of it, through `..`, as an absolute path or
by a link, and where it is no regular file (a device or a pipe would never end) or too large.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

# Larger pictures are no photographs of dishes: what `--allow-outside` says changes nothing about these.
MOST_BYTES = 128 << 20
MOST_PIXELS = 100_000_000

MISSING, OUTSIDE = "missing", "outside its folder"


class RefusedFileError(ValueError):
    """A name that is not opened; the message is the reason, in a few words."""


@dataclass(frozen=True)
class NamedFile:
    """A file that a table names.

    Attributes:
        folder: where the files of the table are.
        name: as the table gives it.
    """

    folder: Path
    name: str

    def resolve(self, allow_outside: bool = False) -> Path:
        """Return the path of the file.

        Args:
            allow_outside: whether the user wants files outside the folder, too.

        Raises:
            RefusedFileError: there is no such file, or it must not be opened.
        """
        return resolve(self.name, self.folder, allow_outside)

    def read(self, allow_outside: bool = False) -> bytes:
        """Return the content of the file.

        Raises:
            RefusedFileError: as for `resolve`; or it cannot be read.
        """
        return read_regular(self.resolve(allow_outside))


def resolve(name: str, folder: Path, allow_outside: bool = False) -> Path:
    """Return the path of a file that a table names, see `NamedFile.resolve`.

    Raises:
        RefusedFileError: there is no such file, or it must not be opened.
    """
    try:
        path = folder / name
        # Links are followed before anything is compared or opened.
        real = os.path.realpath(path)
        if not allow_outside and not Path(real).is_relative_to(os.path.realpath(folder)):
            raise RefusedFileError(OUTSIDE)
        status = os.stat(real)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RefusedFileError(MISSING) from error
    except (OSError, ValueError) as error:
        if isinstance(error, RefusedFileError):
            raise
        raise RefusedFileError("of a name that no file can have") from error
    _check(status)
    return path


def read_regular(path: Path) -> bytes:
    """Return the content of a file that is a regular one and not too large.

    Raises:
        RefusedFileError: it is not, or cannot be read.
    """
    try:
        # Without waiting for the other end, should a pipe have taken the place of the file.
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:
            _check(os.fstat(file.fileno()))
            return file.read(MOST_BYTES)
    except FileNotFoundError as error:
        raise RefusedFileError(MISSING) from error
    except OSError as error:
        raise RefusedFileError("unreadable") from error


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise RefusedFileError("no regular file")
    if status.st_size > MOST_BYTES:
        raise RefusedFileError(f"of more than {MOST_BYTES >> 20} MB")


def check_pixels(image: Image.Image) -> None:
    """Refuse a picture, opened but not decoded, whose pixels would fill the memory.

    Raises:
        RefusedFileError: it has more than `MOST_PIXELS`.
    """
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise RefusedFileError(f"of more than {MOST_PIXELS // 10**6} megapixels")
