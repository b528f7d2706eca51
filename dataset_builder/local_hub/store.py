"""Storage of the Hub on loopback: repositories of immutable commits over content-addressed files, in a folder."""

import hashlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import yaml

LARGE_SUFFIXES = (".parquet", ".safetensors", ".bin", ".arrow", ".onnx", ".png", ".jpg", ".zip", ".tar")


class Refusal(Exception):
    """An answer other than success: status, the Hub's error code, a message and more headers."""

    def __init__(self, status: int, code: str = "", message: str = "", **headers: str):
        super().__init__(message or code)
        self.status = status
        self.message = message or code
        self.headers = {"X-Error-Message": self.message, **({"X-Error-Code": code} if code else {}), **headers}


class File(NamedTuple):
    """One file of a commit; `oid` is the git blob id, `sha256` names the stored content."""

    oid: str
    sha256: str
    size: int
    large: bool


def now() -> str:
    """Return the time as the Hub writes it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def card_data(text: str) -> dict:
    """Return the metadata block of a card; {} when there is none.

    Raises:
        yaml.YAMLError: the block is not YAML.
    """
    match = re.match(r"\s*---\r?\n(.*?)\r?\n---(\r?\n|$)", text, re.DOTALL)
    return (yaml.safe_load(match[1]) or {}) if match else {}


def card_errors(text: str) -> list[str]:
    """Return the errors for which the Hub would refuse the metadata of a card."""
    try:
        data = card_data(text)
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    if not isinstance(data, dict):
        return ["the metadata must be a mapping"]
    errors = []
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", str(data.get("license", "unknown"))):
        errors.append('"license" must be a licence identifier')
    errors += [f'"{key}" must be a list' for key in ("tags", "configs", "model-index") if not _is_list(data, key)]
    for entry in data.get("model-index", []) if _is_list(data, "model-index") else []:
        if not isinstance(entry, dict) or "name" not in entry or not _is_list(entry, "results"):
            errors.append('"model-index" needs "name" and a list of "results"')
            continue
        for result in entry.get("results", []):
            complete = "type" in result.get("task", {}) and {"type", "name"} <= set(result.get("dataset", {}))
            if not complete or not all({"type", "value"} <= set(metric) for metric in result.get("metrics", [{}])):
                errors.append('a result of "model-index" needs task.type, dataset.type, dataset.name and its metrics')
    return errors


def _is_list(data: dict, key: str) -> bool:
    return isinstance(data.get(key, []), list)


def file_entry(path: str, file: File) -> dict:
    """Return the entry of a file in a tree listing."""
    lfs = {"lfs": {"oid": file.sha256, "sha256": file.sha256, "size": file.size, "pointerSize": 134}}
    return {"type": "file", "path": path, "size": file.size, "oid": file.oid, **(lfs if file.large else {})}


def tree_entries(files: dict[str, File]) -> dict[str, dict]:
    """Return the entries of all files and folders in a tree listing, by path."""
    entries = {path: file_entry(path, file) for path, file in files.items()}
    for path in files:
        for parent in list(Path(path).parents)[:-1]:
            name = parent.as_posix()
            # Any stable id serves: clients do not look at those of folders.
            oid = hashlib.sha1(name.encode()).hexdigest()
            entries[name] = {"type": "directory", "path": name, "size": 0, "oid": oid}
    return entries


def remove(files: dict[str, File], key: str, path: str) -> None:
    """Remove a file from `files`, or with key "deletedFolder" all files below a folder."""
    below = [name for name in files if name == path or (key == "deletedFolder" and name.startswith(f"{path}/"))]
    if not below:
        raise Refusal(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
    for name in below:
        del files[name]


def reference(name: str, kind: str, oid: str) -> dict[str, str]:
    """Return a branch (kind "heads") or a tag ("tags") as the Hub lists it."""
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid}


class Store:
    """Repositories in a folder: `objects/<sha256>`, `commits/<id>.json` and the references in `repos/`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lock = threading.RLock()
        for name in ("objects", "commits", "repos"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file whole: it appears under its name only when it is complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            file.write(content)
        os.replace(file.name, path)

    def object_path(self, sha256: str) -> Path:
        return self.folder / "objects" / sha256

    def add_object(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        if not self.object_path(sha256).exists():
            self._write(self.object_path(sha256), content)
        return sha256

    def _repo_path(self, repo: str) -> Path:
        return self.folder / "repos" / f"{repo}.json"

    def repos(self, kind: str) -> list[str]:
        paths = (self.folder / "repos" / kind).glob("*/*.json")
        return sorted(f"{kind}/{path.parent.name}/{path.stem}" for path in paths)

    def refs(self, repo: str) -> dict[str, Any]:
        try:
            return json.loads(self._repo_path(repo).read_text())
        except FileNotFoundError:
            raise Refusal(404, "RepoNotFound", "Repository not found") from None

    def set_refs(self, repo: str, refs: dict[str, Any]) -> None:
        self._write(self._repo_path(repo), json.dumps(refs, indent=1).encode())

    @contextmanager
    def changing_refs(self, repo: str) -> Iterator[dict[str, Any]]:
        """Yield the references of a repository and write them back; no other thread changes them meanwhile."""
        with self.lock:
            refs = self.refs(repo)
            yield refs
            self.set_refs(repo, refs)

    def create(self, repo: str, private: bool, author: str) -> None:
        with self.lock:
            if self._repo_path(repo).exists():
                raise Refusal(409, message="You already created this repo")
            attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE_SUFFIXES)
            # As on the Hub, a new repository holds the list of suffixes for large files.
            first = self.add_commit(
                repo, [], {".gitattributes": self.small_file(attributes.encode())}, "initial commit"
            )
            self.set_refs(repo, {"private": private, "branches": {"main": first}, "tags": {}, "author": author})

    def delete(self, repo: str) -> None:
        self.refs(repo)
        self._repo_path(repo).unlink()

    def small_file(self, content: bytes) -> File:
        # The id that git gives to a file of this content.
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return File(oid, self.add_object(content), len(content), large=False)

    def large_file(self, sha256: str) -> File:
        if not self.object_path(sha256).exists():
            raise Refusal(400, message=f"the content of {sha256} was never uploaded")
        size = self.object_path(sha256).stat().st_size
        return File(hashlib.sha1(f"{sha256} {size}".encode()).hexdigest(), sha256, size, large=True)

    def add_commit(
        self, repo: str, parents: list[str], files: dict[str, File], title: str, text: str = "", author: str = "system"
    ) -> str:
        commit = {"repo": repo, "parents": parents, "title": title, "message": text, "author": author, "date": now()}
        content = json.dumps({**commit, "files": {path: list(files[path]) for path in sorted(files)}}).encode()
        oid = hashlib.sha1(content).hexdigest()
        self._write(self.folder / "commits" / f"{oid}.json", content)
        return oid

    def commit(self, repo: str, revision: str) -> tuple[str, dict[str, Any]]:
        """Return id and content of the commit that a branch, a tag or a commit id names."""
        refs = self.refs(repo)
        tag = refs["tags"].get(revision.removeprefix("refs/tags/"))
        # A branch goes before a tag of the same name.
        oid = refs["branches"].get(revision.removeprefix("refs/heads/")) or (tag and tag["commit"]) or revision
        path = self.folder / "commits" / f"{oid}.json"
        commit = json.loads(path.read_text()) if re.fullmatch("[0-9a-f]{40}", oid) and path.exists() else None
        # Commits of all repositories lie in one folder; another repository's must not be readable here.
        if commit is None or commit["repo"] != repo:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        commit["files"] = {path: File(*file) for path, file in commit["files"].items()}
        return oid, commit
