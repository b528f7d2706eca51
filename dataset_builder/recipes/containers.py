"""The bytes of a table, whatever they are packed in: a plain file, gzip, bzip2, xz, or a member of a ZIP archive."""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown

# What must be held in memory as a whole: a Parquet file or a sheet in an archive, a JSON document that is no list.
MOST_BYTES = 256 << 20
# No recipe is this long; a longer line, record or cell is damage, or meant to exhaust memory.
LONGEST_LINE = 16 << 20

_PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
PACKED_SUFFIXES = (".gz", ".bz2", ".xz")
ZIP = b"PK\x03\x04"
_SPREADSHEET_PARTS = ("[Content_Types].xml", "content.xml")
_LFS = b"version https://git-lfs.github.com/spec/"
_PAGE = (b"<!doctype html", b"<html")
_HEAD = 512


@contextmanager
def unpacked(name: str) -> Iterator[None]:
    """Turn the errors of damaged archives and compressed files into `BadInputError`."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile, NotImplementedError) as error:
        raise BadInputError(f"{name} cannot be unpacked: {shown(error)}; fetch it again, or unpack it first") from error


@dataclass(frozen=True)
class Source:
    """Where the bytes of one table are.

    Attributes:
        path: the file.
        member: name in the ZIP archive that the file is; None for any other file.
    """

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """Description for messages."""
        return shown(self.path if self.member is None else f"{self.path}/{self.member}", 200)

    @property
    def suffix(self) -> str:
        """The ending that tells the kind of the table, `.csv` for `recipes.csv.gz`."""
        name = PurePosixPath(self.member or self.path.name)
        if name.suffix.lower() in PACKED_SUFFIXES:
            name = name.with_suffix("")
        return name.suffix.lower()

    @property
    def size(self) -> int:
        """Bytes as `open` counts them."""
        if self.member is None:
            return self.path.stat().st_size
        with unpacked(self.name), zipfile.ZipFile(self.path) as archive:
            return archive.getinfo(self.member).file_size

    @contextmanager
    def open(self) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
        """Open the unpacked bytes; also return a function that tells how many of `size` bytes were read."""
        with unpacked(self.name), self.path.open("rb") as raw:
            if self.member is not None:
                with zipfile.ZipFile(raw) as archive:
                    if archive.getinfo(self.member).flag_bits & 1:
                        raise BadInputError(f"{self.name} is locked by a password; unpack it first")
                    with archive.open(self.member) as stream:
                        yield stream, stream.tell  # type: ignore[misc]
                return
            head = raw.read(6)
            raw.seek(0)
            unpack = next((reader for magic, reader in _PACKED.items() if head.startswith(magic)), None)
            if unpack is None:
                yield raw, raw.tell
            else:
                with unpack(raw) as stream:
                    yield stream, raw.tell

    def whole(self) -> BinaryIO | Path:
        """Return what a reader that jumps about in a file can take: the path, or unpacked bytes in memory.

        Raises:
            BadInputError: the unpacked bytes are more than `MOST_BYTES`.
        """
        with self.open() as (stream, _):
            if self.member is None and isinstance(stream, io.BufferedReader):
                return self.path
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise BadInputError(f"{self.name} unpacks to more than {MOST_BYTES >> 20} MB; unpack it first")
        return io.BytesIO(content)

    def head(self) -> bytes:
        """Return the first unpacked bytes.

        Raises:
            BadInputError: they are those of a pointer of Git LFS or of a web page, and not of a table.
        """
        if not self.path.is_file():
            raise BadInputError(f"{self.name} is no regular file; give the table itself")
        with self.open() as (stream, _):
            head = stream.read(_HEAD)
        refuse_stand_ins(head, self.name)
        return head

    def members(self) -> list["Source"] | None:
        """Return the files of a ZIP archive; None for any other file, and for a spreadsheet, which is one too."""
        if self.member is not None:
            return None
        with unpacked(self.name), zipfile.ZipFile(self.path) as archive:
            names = [one.filename for one in archive.infolist() if not one.is_dir()]
            if any(part in names for part in _SPREADSHEET_PARTS):
                return None
            shown_names = (name for name in names if not any(part[:1] in "._" for part in PurePosixPath(name).parts))
            return [Source(self.path, name) for name in sorted(shown_names)]


def refuse_stand_ins(head: bytes, name: str) -> None:
    """Refuse what downloads leave in place of a file.

    Raises:
        BadInputError: the bytes are a pointer of Git LFS or begin a web page.
    """
    if head.startswith(_LFS):
        raise BadInputError(f"{name} is a pointer of Git LFS, not the file itself; fetch the file with `git lfs pull`")
    if head.lstrip().lower().startswith(_PAGE):
        raise BadInputError(f"{name} is a web page, not the file itself; fetch the file behind its download link")
