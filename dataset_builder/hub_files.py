"""Files downloaded from a Hub, compared with the hash that the Hub stated for them.

The client's cache keeps each file under that hash: a snapshot is a folder of links to `blobs/HASH`, which is the
SHA-256 of a large file and the git hash of a small one. The client does not compare them, and a proxy, a disk or a
hostile Hub may have changed the bytes.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from huggingface_hub import snapshot_download

from dataset_builder.boundaries import outside, patiently
from dataset_builder.errors import BadInputError
from dataset_builder.storage.places import is_url, opened

STATED = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def fetch(repo: str, revision: str | None, patterns: Sequence[str], kind: str = "model", what: str = "") -> Path:
    """Return the folder of files at the top of a repository, downloaded where the cache lacks them, and checked.

    Args:
        repo: Hub id.
        revision: branch, tag or commit; None is the main branch.
        patterns: names of the wanted files, with `*`.
        kind: `model` or `dataset`.
        what: begin of the message where it fails; default: that this repository cannot be read.

    Raises:
        BadInputError: the Hub has no such repository, does not answer, or sent other bytes than it states.
    """
    folder = patiently(
        what or f"cannot read the {kind} {repo!r}",
        "check its name, the revision and the connection",
        lambda: snapshot_download(
            repo, repo_type=kind, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
        ),
    )
    check_folder(Path(folder))
    return Path(folder)


def check_folder(snapshot: Path) -> None:
    """Raise BadInputError for the first file of a snapshot in the cache that is not what the Hub states."""
    for path in sorted(snapshot.rglob("*")):
        if path.is_symlink():
            check_file(path)


def check_file(path: Path, name: str = "") -> None:
    """Raise BadInputError for a downloaded file that is not what the Hub states; the damaged copy is removed.

    Args:
        path: a link of a snapshot in the cache; of a file that is none nothing is known.
        name: how the message calls it; default: its name.
    """
    # Only the first link names the hash: the store behind it may be shared under other names.
    target = Path(os.readlink(path)).name if path.is_symlink() else ""
    if not STATED.fullmatch(target):
        return
    with outside(f"cannot read {path}", "repeat the command"):
        found = path.stat()
        same = _hash(path.resolve(), target, found.st_size, found.st_mtime_ns) == target
    if not same:
        _forget(path)
        raise BadInputError(
            f"{name or path.name}, downloaded from a Hub, is not the file that the Hub states ({target[:12]}...): it "
            "was changed on its way or in the cache; the copy is removed, so repeat the command"
        )


def check_against(path: Path, files: Mapping[str, Mapping[str, object]], name: str) -> None:
    """Raise BadInputError for a file of a data set that differs from the entry in the set's own `manifest.json`.

    Args:
        path: the file.
        files: `hashes` of the manifest: name -> `bytes` and `sha256`.
        name: of the file there; one without an entry is not checked.
    """
    stated = files.get(name)
    if stated is None:
        return
    if path.stat().st_size != stated.get("bytes") or sha256_of(path) != stated.get("sha256"):
        raise BadInputError(
            f"{name} is not the file that manifest.json beside it states; the data set was changed after its build: "
            "load another revision, or build and publish it again"
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    if is_url(path):
        digest = hashlib.sha256()
        with opened(path) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
    found = path.stat()
    return _hash(path.resolve(), "0" * 64, found.st_size, found.st_mtime_ns)


@cache
def _hash(path: Path, like: str, size: int, changed: int) -> str:
    """Return the SHA-256 of a file, or its git hash where that is what was stated; once per file and process."""
    digest = hashlib.sha256() if len(like) == 64 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _forget(path: Path) -> None:
    """Remove a damaged copy from the cache, so that it is downloaded again."""
    for one in (path.resolve(), path.parent / os.readlink(path), path):
        one.unlink(missing_ok=True)
