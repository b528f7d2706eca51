"""Data sets in a store, streamed from there or copied to this machine once, each file checked."""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import datasets
from datasets import DatasetDict, DownloadConfig, DownloadManager, load_dataset, load_dataset_builder
from datasets.utils.py_utils import NestedDataStructure

from dataset_builder.boundaries import parse_json
from dataset_builder.columns import SPLITS
from dataset_builder.errors import BadInputError
from dataset_builder.progress import progress
from dataset_builder.storage.places import (
    files_in,
    is_url,
    opened,
    pattern_of,
    place,
    reachable,
    remove,
    without_secrets,
)

MANIFEST = "manifest.json"
# Refuses a file that is not the one which the hashes of a manifest state under a name, see `hub_files.check_against`.
Check: TypeAlias = Callable[[Path, Mapping[str, Any], str], None]
SHARD = re.compile(r"(?P<split>[a-z]+)-(?P<index>\d{5})-of-(?P<total>\d{5})\.parquet")


def stored_shards(folder: Path) -> dict[str, list[str]]:
    """Return the shards of a build or import per split, as patterns of `datasets` that stand for these files alone.

    Empty where `data/` holds a Parquet file of another kind of name, or none.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(files_in(folder / "data")):
        if not name.endswith(".parquet"):
            continue
        if (match := SHARD.fullmatch(name)) is None:
            return {}
        found.setdefault(match["split"], []).append(pattern_of(folder / "data" / name))
    order = sorted(found, key=lambda split: (*SPLITS, split).index(split))
    return {split: found[split] for split in order}


def load_stored(folder: Path, streaming: bool, check: Check) -> DatasetDict:
    """Return the splits of a finished build or import in a store.

    What is not streamed is copied to the cache of `datasets`, once for all commands while the set stays the same.

    Raises:
        BadInputError: the store does not answer, the folder holds none, or one that is not finished, or a file is not
            the one that the manifest states.
    """
    shards, name = stored_shards(folder), without_secrets(str(folder))
    if not shards:
        raise BadInputError(
            f"{name} holds no shards such as data/train-00000-of-00001.parquet; give the folder of a finished build"
        )
    if files_in(folder / ".unfinished"):  # of a store the data lie in their place from the first shard on
        raise BadInputError(f"the build in {name} is not finished; repeat the `flavour-sd build` command to go on")
    with reachable(folder):
        if streaming:
            return load_dataset("parquet", data_files=shards, streaming=True)
        manifest = _manifest(folder)
        # The hashes in the manifest say which set it is. Not every store has marks of its own for a changed file.
        content = [str(folder), sorted(files_in(folder / "data").items()), manifest]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]
        kept = Path(datasets.config.HF_DATASETS_CACHE, "stores", digest)
        builder = load_dataset_builder("parquet", data_files=shards, cache_dir=str(kept))
        hashes = manifest.get("hashes")
        copies = _Copies(kept / "shards", hashes if isinstance(hashes, dict) else {}, check)
        builder.download_and_prepare(dl_manager=copies)
        copies.discard()
        return builder.as_dataset()


def _manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a set; {} where it has none."""
    if MANIFEST not in files_in(folder):
        return {}
    with opened(folder / MANIFEST) as stream:
        content = stream.read().decode("utf-8", "replace")
    mend = "build or import it again"
    found = parse_json(content, f"{MANIFEST} of {without_secrets(str(folder))}", mend)
    return found if isinstance(found, dict) else {}


class _Copies(DownloadManager):
    """Copies the shards of a store by its own client, checked; that of `datasets` refuses where the Hub is offline.

    Args:
        folder: of the copies.
        hashes: name -> what the manifest states of a file.
        check: compares a copy with them.
    """

    def __init__(self, folder: Path, hashes: Mapping[str, Any], check: Check):
        super().__init__(dataset_name="parquet", download_config=DownloadConfig(), record_checksums=False)
        self._folder, self._hashes, self._check = folder, hashes, check

    def download(self, url_or_urls: Any) -> Any:
        """Return the paths of copies in the place of URLs.

        Raises:
            BadInputError: a file is not the one that the manifest states.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        copies = {str(url): "" for url in NestedDataStructure(url_or_urls).flatten()}
        for url in progress(copies, "fetching shards", "files"):
            copies[url] = str(self._copy(place(url)) if is_url(url) else url)
        return _mapped(url_or_urls, copies)

    download_and_extract = download

    def _copy(self, shard: Path) -> Path:
        """Return the copy of a shard; one that an interrupted command made is taken where it is whole."""
        copy, partial = self._folder / shard.name, self._folder / f"{shard.name}.{secrets.token_hex(4)}.tmp"
        if copy.is_file() and shard.name in self._hashes:
            try:
                self._check(copy, self._hashes, shard.name)
                return copy
            except BadInputError:
                copy.unlink()
        try:
            cast(Any, shard).fs.get_file(cast(Any, shard).path, str(partial))
            self._check(partial, self._hashes, shard.name)
            os.replace(partial, copy)
        finally:
            partial.unlink(missing_ok=True)
        return copy

    def discard(self) -> None:
        """Remove the copies, which are in the cache in another form now."""
        remove(self._folder)


def _mapped(value: Any, paths: Mapping[str, str]) -> Any:
    """Return nested URLs with the path of each in its place."""
    if isinstance(value, Mapping):
        return {name: _mapped(each, paths) for name, each in value.items()}
    if isinstance(value, str):
        return paths[value]
    return [_mapped(each, paths) for each in value]
