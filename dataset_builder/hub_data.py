"""Data sets as `load_dataset` reads them, with each file from a Hub compared with the hashes that are stated for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import (
    DatasetDict,
    DownloadConfig,
    DownloadManager,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets.utils.py_utils import NestedDataStructure
from huggingface_hub import HfFileSystem, hf_hub_download, is_offline_mode
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from dataset_builder.boundaries import parse_json, patiently, read_text
from dataset_builder.hub_files import check_against, check_file
from dataset_builder.storage.places import is_url, place
from dataset_builder.storage.stored_sets import MANIFEST, load_stored

HUB = "hf://"
# What `save_to_disk` writes beside its Arrow files, for several splits or for one.
SAVED = ("dataset_dict.json", "state.json")


class CheckedDownloads(DownloadManager):
    """Downloads that are compared with the hash the Hub states, and with the data set's own manifest."""

    def download(self, url_or_urls: Any) -> Any:
        """Return the paths of downloaded files, as the parent does.

        Raises:
            BadInputError: a file is not what is stated for it.
        """
        found = super().download(url_or_urls)
        urls, paths = NestedDataStructure(url_or_urls).flatten(), NestedDataStructure(found).flatten()
        files: dict[str, Mapping[str, Any]] = {}
        for url, path in zip(map(str, urls), map(str, paths), strict=True):
            if not url.startswith(HUB):
                continue
            place: Any = HfFileSystem().resolve_path(url)
            check_file(Path(path), f"{place.repo_id}/{place.path_in_repo}")
            if place.repo_id not in files:
                files[place.repo_id] = _stated(place.repo_id, place.revision)
            check_against(Path(path), files[place.repo_id], Path(place.path_in_repo).name)
        return found


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`, of a whole data set or of one split."""
    return any((folder / name).is_file() for name in SAVED)


def load_tables(
    name: str, configuration: str | None = None, revision: str | None = None, streaming: bool = False
) -> DatasetDict:
    """Return the splits of a folder, of one in a store (by its URL), or of a Hub data set.

    What a Hub sent is checked, unless it is streamed.

    Streamed rows are read in parts of files, which have no hash of their own.

    Raises:
        BadInputError: the Hub does not answer or refuses, or a file is not what is stated for it.
        Exception: that of `load_dataset`, for anything else.
    """
    if is_url(name):
        return load_stored(place(name), streaming, check_against)
    if is_saved(Path(name)):
        return _saved(name, streaming)
    if streaming or Path(name).exists():
        return load_dataset(name, configuration, revision=revision, streaming=streaming)
    builder = load_dataset_builder(name, configuration, revision=revision)
    downloads = CheckedDownloads(
        dataset_name=builder.dataset_name,
        download_config=DownloadConfig(token=builder.token, use_etag=False),
        data_dir=builder.config.data_dir,
        record_checksums=False,
    )
    builder.download_and_prepare(dl_manager=downloads)
    return builder.as_dataset()


def _saved(folder: str, streaming: bool) -> DatasetDict:
    """Return the splits of a folder of `save_to_disk`; one that does not know its name is `train`."""
    found = load_from_disk(folder)
    splits = found if isinstance(found, DatasetDict) else DatasetDict({str(found.split or "train"): found})
    return DatasetDict({name: rows.to_iterable_dataset() if streaming else rows for name, rows in splits.items()})


def _stated(repo: str, revision: str | None) -> Mapping[str, Any]:
    """Return what the manifest of a published build states of its files; {} where there is no such manifest."""
    path = patiently(f"cannot read {MANIFEST} of {repo!r}", "repeat the command", lambda: _manifest(repo, revision))
    if path is None:
        return {}
    check_file(path)
    manifest = parse_json(read_text(path, "publish it again"), f"{MANIFEST} of {repo}", "publish it again")
    files = manifest.get("hashes") if isinstance(manifest, dict) else None
    return {name: one for name, one in files.items() if isinstance(one, dict)} if isinstance(files, dict) else {}


def _manifest(repo: str, revision: str | None) -> Path | None:
    try:
        return Path(hf_hub_download(repo, MANIFEST, repo_type="dataset", revision=revision))
    except LocalEntryNotFoundError:  # no answer, which says nothing about the file
        if is_offline_mode():
            return None
        raise
    except EntryNotFoundError:
        return None
