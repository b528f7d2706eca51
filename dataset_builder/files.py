"""Files that are complete under their own name or absent, and the lock that keeps other processes away from them."""

import csv
import errno
import getpass
import glob
import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from dataset_builder.boundaries import parse_json, read_text
from dataset_builder.errors import BadInputError
from dataset_builder.kinds import check_entries
from dataset_builder.messages import echo, spreadsheet_cell
from dataset_builder.storage.places import is_url, store_new, store_whole

# Before version 4, filelock leaves a lock to forked processes too: those of a killed build end within a picture.
SECONDS_FOR_A_LOCK = 1


def lock_file(path: Path, refusal: str) -> FileLock:
    """Lock a file until `release` is called or this process ends, however it ends.

    Raises:
        BadInputError: another process holds the lock; `refusal` is the message.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=SECONDS_FOR_A_LOCK)
    except Timeout as error:
        raise BadInputError(refusal) from error
    return lock


@contextmanager
def sole_writer(output: Path) -> Iterator[None]:
    """Keep other processes of this machine and user from writing the same output inside the block.

    The lock lies outside of the output, so that a folder is not changed by being written to, and ends with the process.

    Raises:
        BadInputError: another process writes it.
    """
    if is_url(output):  # no lock reaches the other machines that may write there
        yield
        return
    user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(tempfile.gettempdir(), f"flavour-locks-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    name = hashlib.sha256(os.fsencode(output.expanduser().resolve())).hexdigest()[:32]
    lock = lock_file(
        folder / name, f"another command is writing {output}; wait for it, or name another place for the result"
    )
    try:
        remove_partials(output)
        with named_full_disk(output):
            yield
    finally:
        lock.release()


@contextmanager
def named_full_disk(output: Path) -> Iterator[None]:
    """Name the output in the error of a full disk or quota, where a library has left out which file it wrote."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or error.filename:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(output)) from error


def machine() -> str:
    """Return the name of this machine, as partial files bear it."""
    return platform.node().replace(".", "-") or "here"


def remove_partials(output: Path) -> None:
    """Remove what killed processes of this machine left of `write_whole` and `folder_beside` for an output."""
    left = [*output.parent.glob(f"{glob.escape(output.name)}.*.tmp"), *output.glob("*.tmp")]
    for path in left:
        *_, where, process, _ = ("", *path.name.split("."))
        if where == machine() and process.isdecimal() and not psutil.pid_exists(int(process)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def partial_name(output: Path) -> Path:
    """Return a name beside an output for what is not whole yet, by which `remove_partials` knows whose it was."""
    # Threads may write the same file, too: two parts of a build that run in one process.
    return output.with_name(f"{output.name}.{secrets.token_hex(2)}.{machine()}.{os.getpid()}.tmp")


@contextmanager
def folder_beside(output: Path) -> Iterator[Path]:
    """Give a folder for the block, on the file system of an output, from where the finished parts can be moved.

    What killed processes left of theirs goes first.
    """
    remove_partials(output)
    folder = partial_name(output)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_whole(path: Path, write: Any) -> None:
    """Create a file through a temporary name, so that under its own name it is complete or absent.

    Args:
        path: the file.
        write: function of the temporary path that fills it.
    """
    if is_url(path):
        store_whole(path, write)
        return
    temporary = partial_name(path)
    try:
        write(temporary)
        with temporary.open("rb+") as stream:  # Windows syncs only what is open for writing
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and not error.filename:  # as those of Arrow are
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole."""
    text = _json_bytes(content)
    write_whole(path, lambda temporary: temporary.write_bytes(text))


def _json_bytes(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def create_json(path: Path, content: Mapping[str, Any]) -> bool:
    """Write JSON whole, unless a file of that name is there already; return whether it was written.

    Of several processes that come at once, one writes.
    """
    if is_url(path):
        return store_new(path, _json_bytes(content))
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    write_json(temporary, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write CSV whole; text that a spreadsheet would run as a formula gets an apostrophe in front, and is counted."""
    changed = 0

    def cells(row: Sequence[Any]) -> Iterable[Any]:
        nonlocal changed
        for cell in row:
            safe = spreadsheet_cell(cell) if isinstance(cell, str) else cell
            changed += safe is not cell
            yield safe

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows(cells(row) for row in (header, *rows))

    write_whole(path, write)
    if changed:
        echo(
            f"{changed} cells of {path} begin like a formula; an apostrophe stands before them",
            sys.stderr,
        )


def read_json(path: Path, advice: str, kinds: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return the object in a JSON file, None without such a file.

    Args:
        path: the file.
        advice: what to do about a faulty one.
        kinds: annotated types of its entries.

    Raises:
        BadInputError: it holds anything else, or an entry of another type; the message ends with `advice`.
    """
    try:
        content = parse_json(read_text(path, advice), str(path), advice)
    except FileNotFoundError:
        return None
    if not isinstance(content, dict):
        raise BadInputError(f"{path} holds no JSON object but {type(content).__name__}; {advice}")
    check_entries(content, kinds or {}, str(path))
    return content
