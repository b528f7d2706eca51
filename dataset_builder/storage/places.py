"""Folders and files anywhere: on this machine, or by the URL of any file system that fsspec knows.

`place("s3://bucket/set")` has the methods of a `Path`. What differs is here: a file is made whole elsewhere and then
stored in one step, there are no folders to make, and no lock keeps others out. Credentials come from where the client
of each store looks for them, and what a store answers is shown without them.
"""

import atexit
import errno
import glob
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from dataset_builder.boundaries import FULL, reason
from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown

Found = TypeVar("Found")

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL = ("file://", "local://")
# `user:password@` in a URL, and what follows a question mark, which may be a signature.
_SECRET = re.compile(r"(?<=://)[^/\s@]+@|(?<=\?)[^\s'\"]+|(?<=[Bb]earer )\S+|\bhf_\w{6,}|\b(?:AKIA|ASIA)\w{12,}")


def is_url(text: str | os.PathLike[str] | Path) -> bool:
    """Return whether a text or a path names a place by a URL that is none of this machine."""
    if isinstance(text, Path):
        return False
    return _URL.match(str(text)) is not None and not str(text).startswith(_LOCAL)


def place(text: str | Path) -> Path:
    """Return a folder or file; of a URL an object with the methods of a path, which `is_url` tells apart.

    Raises:
        BadInputError: no file system of that name is known, or what it needs is not installed.
    """
    if not is_url(text):
        text = str(text) if isinstance(text, Path) else text
        return Path(re.sub(r"^(file|local)://", "", text))
    if not isinstance(text, str):
        return cast(Path, text)
    from upath import UPath  # it loads fsspec, which a folder of this machine does not need

    named = without_secrets(text)
    try:
        found = UPath(text)
        if not found.path.strip("/") and found.protocol != "memory":
            raise BadInputError(f"{named} names no bucket or folder; give one, as in s3://bucket/set")
        _ = found.fs
    except BadInputError:
        raise
    except ImportError as error:
        name = named.partition("://")[0]
        extra = f"flavour-fusion[{name}]" if name == "s3" else f"the fsspec package for {name}"
        raise BadInputError(f"{named}: {shown(error, 200)}; pip install {extra!r}, or give another place") from error
    except (ValueError, TypeError) as error:
        told = without_secrets(str(error))
        raise BadInputError(f"{named} is no folder, nor a URL of a known file system ({told})") from error
    except Exception as error:  # some clients connect at once
        raise BadInputError(
            f"{named} cannot be used: {without_secrets(reason(error))}; check the name and the connection"
        ) from error
    return cast(Path, found)


def is_of_this_process(path: Path) -> bool:
    """Return whether other processes of this machine see nothing of a place: what is in memory."""
    return is_url(path) and str(path).startswith("memory://")


def without_secrets(text: str) -> str:
    """Return text without the passwords, tokens and signatures that a URL or an answer may hold.

    >>> without_secrets("ftp://me:secret@host/set?sig=1")
    'ftp://...host/set?...'
    """
    return _SECRET.sub("...", str(text))


@contextmanager
def reachable(path: Path) -> Iterator[None]:
    """Turn whatever a store raises inside the block into one line; errors of this machine's own disk stay as they are.

    Raises:
        BadInputError: names the place, what the store said, and what to check.
    """
    if not is_url(path):
        yield
        return
    try:
        yield
    except BadInputError:
        raise
    except Exception as error:  # stores share no class of errors
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        missing = isinstance(error, FileNotFoundError)
        why = "there is no such bucket or folder" if missing else without_secrets(reason(error))
        raise BadInputError(
            f"{without_secrets(str(path))} cannot be used: {why}; check the name, that it exists, and that the "
            "credentials of this machine may read and write there"
        ) from error


def check_writable(folder: Path) -> None:
    """Refuse a store into which nothing can be written, before any work; a folder of this machine is not checked.

    Raises:
        BadInputError: it is not there or not writable.
    """
    if not is_url(folder):
        return
    probe = folder / f".flavour-{secrets.token_hex(4)}"
    with reachable(folder):
        # Some clients make a bucket that is not there; a name that was mistyped should not become one.
        cast(Any, probe).fs.pipe_file(cast(Any, probe).path, b"")
        remove(probe)


def make_folder(folder: Path) -> None:
    """Make a folder with those above it; stores have none to make."""
    if not is_url(folder):
        folder.mkdir(parents=True, exist_ok=True)


def files_in(folder: Path) -> dict[str, int]:
    """Return the names and sizes of the files in a folder; none where there is no such folder."""
    if not is_url(folder):
        try:
            return {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()}
        except FileNotFoundError:
            return {}
    system: Any = cast(Any, folder).fs
    with reachable(folder):
        # Other machines write there: what was listed before says nothing now.
        system.invalidate_cache()
        try:
            entries = system.ls(cast(Any, folder).path, detail=True)
        except FileNotFoundError:
            return {}
        files = (entry for entry in entries if entry["type"] == "file")
        return {entry["name"].rstrip("/").rpartition("/")[2]: int(entry["size"] or 0) for entry in files}


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing happens where it is not there."""
    if not is_url(path):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return
    system: Any = cast(Any, path).fs
    with reachable(path), suppress(FileNotFoundError):
        system.invalidate_cache()
        system.rm(cast(Any, path).path, recursive=True)


def store_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file of a store: made whole on this machine, then stored in one step, so that no part of it is seen."""
    with tempfile.TemporaryDirectory(prefix="flavour-") as folder:
        local = Path(folder, path.name)
        write(local)
        with reachable(path):
            cast(Any, path).fs.put_file(str(local), cast(Any, path).path)


def store_new(path: Path, content: bytes) -> bool:
    """Write a file of a store that is not there yet; return whether it was written.

    Of several writers one succeeds, in stores that can compare and write in one step, as S3 can; in others the last one
    of those that come within the same second.
    """
    system: Any = cast(Any, path).fs
    with reachable(path):
        system.invalidate_cache()
        if system.exists(cast(Any, path).path):
            return False
        try:
            system.pipe_file(cast(Any, path).path, content, mode="create")
        except FileExistsError:
            return False
        except (NotImplementedError, ValueError, TypeError):
            system.pipe_file(cast(Any, path).path, content)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.EBUSY) or "PreconditionFailed" in str(error):
                return False
            raise
    return True


def copy_stored(source: Path, target: Path) -> None:
    """Copy a file of a store to another place in it, without sending its bytes through this machine where it can."""
    with reachable(source):
        cast(Any, source).fs.cp_file(cast(Any, source).path, cast(Any, target).path)


def pattern_of(path: Path) -> str:
    """Return a path or URL as the pattern by which `load_dataset` finds this file alone.

    Brackets and stars in the name of a folder would be taken as patterns.
    """
    return glob.escape(str(path if is_url(path) else path.resolve()))


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be read, anywhere; of a store only what is read is fetched."""
    if not is_url(path):
        with path.open("rb") as stream:
            yield stream
        return
    with reachable(path):
        stream = cast(Any, path).fs.open(cast(Any, path).path, "rb")
    try:
        yield stream
    finally:
        stream.close()


def fetched(text: str | Path) -> Path:
    """Return the path of a file or folder on this machine; of a URL a copy, made once and removed when Python ends.

    For readers that go over a source several times, or open many small files of it.

    Raises:
        BadInputError: the store does not have it.
    """
    return _fetch(str(text)) if is_url(text) else Path(text)


@cache
def _fetch(url: str) -> Path:
    path: Any = place(url)
    folder = tempfile.mkdtemp(prefix="flavour-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = Path(folder, path.name or "set")
    with reachable(path):
        path.fs.invalidate_cache()
        if not path.fs.exists(path.path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
        path.fs.get(path.path, str(copy), recursive=path.fs.isdir(path.path))
    return copy


@contextmanager
def on_disk(path: Path) -> Iterator[Path]:
    """Give the path of a file on this machine: the file itself, or a copy that is removed after the block."""
    if not is_url(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="flavour-") as folder:
        copy = Path(folder, path.name)
        with reachable(path):
            cast(Any, path).fs.get_file(cast(Any, path).path, str(copy))
        yield copy
