"""A release: files of one version that go to the Hub in one commit, which then gets one tag that is never moved."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from dataset_builder.boundaries import FULL, is_failure, parse_json, reason
from dataset_builder.building.finished_build import DATA, MANIFEST, MANIFEST_KEYS
from dataset_builder.errors import BadInputError, card_errors_as_bad_input
from dataset_builder.files import folder_beside
from dataset_builder.kinds import fits
from dataset_builder.publishing.versions import listed, parse_version, published_versions, tag_of
from dataset_builder.storage.places import on_disk
from model_cards import runs
from model_cards.cards import is_blank, model_card
from model_cards.errors import CardError

CARD = "README.md"
# Files with which a model is loaded, trained again and checked; optimizer states and pickles are not published.
MODEL_FILES = ("*.json", "*.safetensors", "*.py", "*.txt", "*.model", "*.yaml")
MODEL_NEEDS = ("config.json", "metrics.json")
WEIGHTS = (
    "model.safetensors*", "adapter_model.safetensors", "pytorch_lora_weights.safetensors",
    "unet/*.safetensors", "transformer/*.safetensors", "vae/*.safetensors",
)  # fmt: skip
# Folders of a pipeline of diffusers; what else lies in a run, such as adapters or other seeds, is another model.
PIPELINE_PARTS = (
    "feature_extractor", "image_encoder", "safety_checker", "scheduler", "text_encoder", "text_encoder_2", "tokenizer",
    "tokenizer_2", "transformer", "unet", "vae",
)  # fmt: skip
EXPORT = "export.json"  # report of an exported graph, which belongs to a model's repository
GIT_FILES = frozenset({".gitattributes"})
# Under this key the manifest of a published data set lists the files of its version.
FILES = "files"
# The Hub's own uploader of large folders goes up to a thousand files; commits of many more may time out.
FILES_PER_COMMIT = 500


@dataclass(frozen=True)
class Release:
    """The files of one version.

    Attributes:
        repo: `namespace/name`.
        version: three numbers.
        files: path in the repository -> file on disk, or the content itself.
        repo_type: "dataset" or "model".
    """

    repo: str
    version: str
    files: Mapping[str, Path | bytes]
    repo_type: str = "dataset"

    @property
    def tag(self) -> str:
        """The tag of the version."""
        return tag_of(self.version)


def check_repo(repo: str, option: str) -> None:
    """Raise BadInputError for a name that the Hub would refuse; `option` is what gave it."""
    try:
        validate_repo_id(repo)
    except ValueError as error:
        raise BadInputError(f"{repo!r} is no repository name ({error}); give {option} namespace/name") from error
    if "/" not in repo:
        raise BadInputError(f"{repo!r} names no namespace; give {option} namespace/name")


def check_names(repo: str, version: str, licence: str) -> None:
    """Refuse names that the Hub would refuse, before anything is read or sent.

    Raises:
        BadInputError: repository, version or licence has another form than the Hub's.
    """
    parse_version(version)
    check_repo(repo, "--repo")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise BadInputError(f"{licence!r} is no licence identifier of the Hub; give --license cc-by-4.0 or another one")


def check_new(repo: str, version: str, published: Sequence[str]) -> None:
    """Refuse a version that is not above all published ones (oldest first).

    Raises:
        BadInputError: it exists, or a later one does.
    """
    if version in published:
        raise BadInputError(f"{repo} has {tag_of(version)} already and a tag is never moved; give a --version above it")
    if published and parse_version(version) < parse_version(published[-1]):
        raise BadInputError(f"version {version} is below {published[-1]}, the last of {repo}; give one above it")


@dataclass(frozen=True)
class Head:
    """The newest state of a repository.

    Attributes:
        commit: its id.
        files: paths of all files.
        owned: files that a release wrote and the next one may replace or delete; all others are not ours.
    """

    commit: str | None
    files: frozenset[str]
    owned: frozenset[str]


def read_head(api: HfApi, repo: str, kind: str = "dataset") -> Head | None:
    """Return the newest state of a repository, or None when there is no such repository.

    Raises:
        BadInputError: it holds files, and no release is among them.
    """
    try:
        head = api.dataset_info(repo) if kind == "dataset" else api.model_info(repo)
    except RepositoryNotFoundError:
        return None
    files = frozenset(sibling.rfilename for sibling in head.siblings or [])
    if kind == "dataset":
        owned = owned_data(api, repo, head.sha, files)
    elif files >= {runs.CONFIG, runs.METRICS}:
        patterns = (*MODEL_FILES, CARD)
        # A model of transformers has no parts in folders: what lies there is somebody's own.
        whole = any(fnmatch(name, WEIGHTS[0]) for name in files)
        parts = ("",) if whole else ("", *PIPELINE_PARTS)
        ours = (name for name in files if name.rpartition("/")[0] in parts)
        owned = frozenset(name for name in ours if any(fnmatch(name.rpartition("/")[2], one) for one in patterns))
    else:
        owned = None
    if owned is None:
        foreign = sorted(files - GIT_FILES)
        if foreign == [CARD] and is_blank(_read(api, repo, CARD, kind, head.sha)):
            foreign = []  # the Hub's web pages create a repository with such a card
        if foreign:
            raise BadInputError(
                f"{repo} holds {listed(foreign, 'more files')}, which no release of this package wrote; "
                "give a --repo that is new or empty, or delete these files there first"
            )
    return Head(head.sha, files, owned or frozenset())


def owned_data(api: HfApi, repo: str, commit: str | None, files: frozenset[str]) -> frozenset[str] | None:
    """Return the files of a repository that the manifest of its last release lists; None where no release wrote it."""
    if MANIFEST not in files:
        return None
    text = _read(api, repo, MANIFEST, "dataset", commit)
    try:
        manifest = parse_json(text, MANIFEST, "")
    except BadInputError:  # no release wrote it
        return None
    if not isinstance(manifest, dict) or not manifest.keys() >= MANIFEST_KEYS.keys():
        return None
    listed_files = manifest.get(FILES) or []
    return files.intersection(listed_files) if fits(listed_files, list[str]) else None


def _read(api: HfApi, repo: str, name: str, kind: str, commit: str | None) -> str:
    path = Path(api.hf_hub_download(repo, name, repo_type=kind, revision=commit))
    return path.read_text(encoding="utf-8", errors="replace")


@contextmanager
def named_failures(repo: str, version: str) -> Iterator[None]:
    """Turn the errors of a Hub client into one sentence without tokens or addresses, which may be signed."""
    try:
        yield
    except (BadInputError, CardError):
        raise
    # A Hub, or a proxy before it, may answer anything, and the client fails on it in as many ways.
    except BaseException as error:
        if not is_failure(error) or (isinstance(error, OSError) and error.errno in FULL):
            raise
        raise BadInputError(_failure(repo, version, error)) from error


def _failure(repo: str, version: str, error: BaseException) -> str:
    response = getattr(error, "response", None)
    status = f"the server answered {response.status_code}" if response is not None else type(error).__name__
    detail = getattr(error, "server_message", None) or reason(error)
    # Tokens and signed addresses must appear in no message.
    told = re.sub(r"hf_\w+|https?://\S+", "...", detail)
    # 401 and 403 are the answers to a token without the right to write.
    refused = getattr(response, "status_code", None) in (401, 403)
    how = " with a token that may write there (`hf auth login`, or HF_TOKEN)" if refused else ""
    return f"{repo} {version} was not published ({status}: {told}); it carries no tag, repeat the command{how}"


def write_folder(release: Release, folder: Path) -> None:
    """Write the files of a release; the folder appears only when it is whole.

    Raises:
        BadInputError: the folder exists.
    """
    if folder.exists():
        raise BadInputError(f"{folder} exists; give --dry-run a folder that does not")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder_beside(folder) as unfinished:
        for name, content in release.files.items():
            path = unfinished / "release" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                with on_disk(content) as file:
                    shutil.copyfile(file, path)
        os.replace(unfinished / "release", folder)


def upload(api: HfApi, release: Release, private: bool = False) -> str:
    """Commit the files of a release, then tag that commit; return its id.

    Of more files than the Hub takes well at once there are several commits: the manifest comes in the first, by which
    a repetition knows the files as its own, the card and all deletions in the last. Files of the release before that
    this one does not have are deleted; files that no release wrote stay. The tag comes last, on a complete commit.
    After a failure the same call goes on: stored files are not sent again, and an identical commit is not made twice.

    Raises:
        BadInputError: the repository holds something else, the Hub refuses the card, or storing a file failed.
    """
    repo, kind = release.repo, release.repo_type
    api.create_repo(repo, repo_type=kind, exist_ok=True, private=private or None)
    head = read_head(api, repo, kind) or Head(None, frozenset(), frozenset())
    # `load_dataset` reads every file in the data folder whose name fits a split.
    mixed = sorted(one for one in head.files - head.owned - set(release.files) if one.startswith(f"{DATA}/"))
    if kind == "dataset" and mixed:
        raise BadInputError(
            f"{repo} holds {listed(mixed, 'more files')}, which no release wrote and `load_dataset` could take for "
            f"rows of this one; move them out of {DATA}/"
        )
    parts = _commits(release)
    parent, commit = head.commit, None
    for number, files in enumerate(parts, start=1):
        last = number == len(parts)
        deleted = sorted(head.owned - set(release.files)) if last else []
        message = (
            f"Version {release.version}" if len(parts) == 1 else f"Version {release.version}, {number}/{len(parts)}"
        )
        commit = _commit(api, release, files, deleted, message, parent)
        parent = commit.oid
    assert commit is not None
    title = f"{repo.split('/')[1]} {release.version}"
    try:
        api.create_tag(repo, tag=release.tag, tag_message=title, revision=commit.oid, repo_type=kind)
    except Exception:
        # The answer may have been lost on the way back although the tag was made.
        tags = api.list_repo_refs(repo, repo_type=kind).tags
        if {tag.name: tag.target_commit for tag in tags}.get(release.tag) != commit.oid:
            raise
    return commit.oid


def _commits(release: Release) -> list[dict[str, Path | bytes]]:
    """Return the files of each commit of a release, one after the other."""
    data = [name for name, content in release.files.items() if not isinstance(content, bytes)]
    if len(release.files) <= FILES_PER_COMMIT or release.repo_type != "dataset":
        return [dict(release.files)]
    groups = [data[start : start + FILES_PER_COMMIT] for start in range(0, len(data), FILES_PER_COMMIT)]
    rest = [name for name in release.files if name not in set(data)]
    groups[0] += [name for name in rest if name == MANIFEST]
    groups.append([name for name in rest if name != MANIFEST] or [MANIFEST])
    return [{name: release.files[name] for name in names} for names in groups]


def _commit(
    api: HfApi,
    release: Release,
    files: Mapping[str, Path | bytes],
    deleted: Sequence[str],
    message: str,
    parent: str | None,
) -> Any:
    """Make one commit; files of a store are copied to this machine for it, and removed after it."""
    with ExitStack() as copies:
        operations: list[Any] = []
        for name, content in files.items():
            local = content if isinstance(content, bytes) else copies.enter_context(on_disk(content))
            operations.append(CommitOperationAdd(name, local))
        operations += [CommitOperationDelete(name) for name in deleted]
        try:
            return api.create_commit(
                release.repo,
                operations,
                commit_message=message,
                repo_type=release.repo_type,
                parent_commit=parent,
            )
        except ValueError as error:
            # Other clients' faults are of this class too: an answer that is no JSON, a refused request.
            if "metadata in README.md" not in str(error):
                raise
            raise BadInputError(f"the Hub refuses the card ({error}); mend its metadata") from error
        except RuntimeError as error:  # how the client reports a file that it could not store
            cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
            raise BadInputError(_failure(release.repo, release.version, cause)) from error


def _without_paths(folder: Path, dataset: str | None) -> dict[str, bytes]:
    """Return configuration and scores of a run without the paths of the machine that it ran on."""
    metrics = runs.read_json(folder / runs.METRICS)
    metrics["dataset"] = dataset or runs.hub_dataset(metrics) or Path(str(metrics.get("dataset"))).name
    if "adapters" in metrics:
        metrics["adapters"]["base"] = runs.base_name(metrics["adapters"]["base"])
    if "teacher" in metrics:
        metrics["teacher"]["model"] = runs.base_name(metrics["teacher"]["model"])
    configuration = runs.configuration_of(folder)
    files = {runs.METRICS: (json.dumps(metrics, indent=2) + "\n").encode()}
    return files if configuration is None else {**files, runs.CONFIGURATION: (configuration + "\n").encode()}


def _with_base(folder: Path, base: str | None, revision: str | None) -> dict[str, bytes]:
    """Return the settings of an adapter, or of a trained pipeline, with the Hub id of its base; {} for other models."""
    adapter, config = runs.read_json(folder / runs.ADAPTER_CONFIG), runs.read_json(folder / runs.CONFIG)
    known, _ = runs.base_of(adapter, config)
    needed = bool(adapter or config.get("lora"))
    local = Path(known).exists() or not runs.HUB_ID.fullmatch(known)
    if base is None and needed and local:
        raise BadInputError(
            f"the base of this adapter is the folder {known!r}, which nobody else has; publish that model, and give "
            "its id as base"
        )
    name = runs.ADAPTER_CONFIG if adapter else runs.CONFIG
    if not known or (base is None and not local):
        return {}
    # Of a whole pipeline the base is told, and not needed.
    keys = ("base_model_name_or_path", "revision") if adapter else ("base", "base_revision")
    stated = (base, revision) if base is not None else (runs.base_name(known), None)
    settings = (adapter or config) | dict(zip(keys, stated, strict=True))
    return {name: (json.dumps(settings, indent=2) + "\n").encode()}


@card_errors_as_bad_input()
def publish_model(
    folder: str | Path, repo: str, version: str, licence: str = "apache-2.0", private: bool = False, **card: Any
) -> str:
    """Publish a trained model with its code as one version, in the same way as a data set.

    Args:
        folder: output folder of a finished run: a model, an adapter, a pipeline of diffusers or LoRA weights for one.
        repo: `namespace/name` of the model; created when it does not exist.
        version: three numbers, above every version that is published.
        licence: identifier of the licence.
        private: a repository that is created is for its owners only; one that exists stays as it is.
        card: further facts for the card, as `model_cards.cards.model_card` takes them (`dataset`, `dataset_revision`,
            `comparison`; for an adapter `base` and `base_revision`, where its base has been published since).

    Returns:
        One line for the terminal.

    Raises:
        BadInputError: the folder holds no finished run, a name is refused, or the Hub could not be written; then no tag
            was made and the call can be repeated.
    """
    check_names(repo, version, licence)
    folder = Path(folder)
    missing = [name for name in MODEL_NEEDS if not (folder / name).is_file()]
    missing += [] if any(any(folder.glob(each)) for each in WEIGHTS) else ["model.safetensors"]
    if missing and (folder / EXPORT).is_file():
        raise BadInputError(
            f"{folder} holds an export; publish the model that it was made from, and lay the folder beside it: "
            f"hf upload {repo} {folder} {folder.name}"
        )
    if missing:
        raise BadInputError(f"{folder} lacks {', '.join(missing)}; finish the training run first")
    files: dict[str, Path | bytes] = {path.name: path for one in MODEL_FILES for path in sorted(folder.glob(one))}
    if runs.task_of(runs.read_json(folder / runs.CONFIG), runs.read_json(folder / runs.METRICS)) in runs.DRAWING:
        for part in PIPELINE_PARTS:
            files |= {f"{part}/{path.name}": path for one in MODEL_FILES for path in sorted((folder / part).glob(one))}
    files.pop(runs.FORMER_CONFIGURATION, None)  # published under its present name
    files |= _without_paths(folder, card.get("dataset"))
    files |= _with_base(folder, card.get("base"), card.get("base_revision"))
    files[CARD] = model_card(folder, repo=repo, revision=tag_of(version), licence=licence, **card).encode()
    api, release = HfApi(), Release(repo, version, files, "model")
    with named_failures(repo, version):
        check_new(repo, version, published_versions(api, repo, "model"))
        commit = upload(api, release, private)
    return f"published {repo} {version}: {release.tag} is commit {commit}"
