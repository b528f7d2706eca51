"""Publishes a Space of the Hub that runs the app with published models and data: one commit, no weights.

The folder runs as it is with plain `python app.py`, wherever the pinned requirements are installed.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from packaging.requirements import Requirement

from dataset_builder.boundaries import outside, parse_json
from dataset_builder.catalogue.ingredients import catalogue_dishes
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.prompts import render
from dataset_builder.plating.pipeline import PlatingPipeline
from dataset_builder.publishing.release import CARD, GIT_FILES, Release, check_repo, named_failures, write_folder
from dataset_builder.publishing.versions import listed, published_versions, tag_of
from dataset_builder.recipes.hub_names import pinned
from model_cards.cards import fill, is_blank, read_template

PACKAGE = "flavour-fusion"
APP = "app.py"
RECORD = "space.json"  # the files that a release of ours wrote, and a hash of them
PACKAGES = ("dataset_builder", "modeling_flavour", "model_cards", "trainer_scripts")
SOURCES = {".py", ".csv", ".yaml", ".css", ".md", ".html"}
EXAMPLES = "examples"
TITLES = "titles.json"
EXAMPLE_SIZE = 256
# Dishes whose plates are easy to read.
DISHES = ("insalata-caprese", "sharp-lemon-meringue-pie", "risotto-ai-funghi-porcini", "tarte-aux-framboises")

_APP = '''"""Runs the app with the published models and data that this Space shows."""

from pathlib import Path

from trainer_scripts.app import main

if __name__ == "__main__":
    main({arguments} + ["--examples", str(Path(__file__).resolve().parent / "{examples}")])
'''


def publish_space(
    space: str,
    models: Sequence[str],
    dataset: str | None = None,
    dry_run: str | Path | None = None,
    private: bool = False,
) -> str:
    """Publish a Space, or write its folder.

    Args:
        space: `namespace/name`; created when it does not exist.
        models: `ID` or `ID@REVISION` of published models; without a revision the newest version is taken.
        dataset: the same of a published data set, for the page that shows and corrects it.
        dry_run: folder to write instead of publishing; it must not exist.
        private: a Space that is created is for its owners only.

    Returns:
        One line for the terminal.

    Raises:
        BadInputError: a name is refused, nothing is to be shown, a model or data set is not published, the Space holds
            something else, or the Hub could not be written; then the call can be repeated.
    """
    check_repo(space, "--space")
    if not models and dataset is None:
        raise BadInputError("a Space shows models or data; give --model org/name@REVISION, or --dataset")
    api = HfApi()
    shown = [_at_revision(api, one, "model") for one in models]
    data = None if dataset is None else _at_revision(api, dataset, "dataset")
    files = space_files(space, shown, data)
    if dry_run is not None:
        write_folder(Release(space, "", files, "space"), Path(dry_run))
        return f"{dry_run} holds the {len(files)} files of {space}; `python {APP}` runs it; nothing was published"
    with named_failures(space, "as a Space"):
        return _upload(api, space, files, private)


def space_files(space: str, models: Sequence[str], dataset: str | None) -> dict[str, Path | bytes]:
    """Return all files of a Space.

    Args:
        space: `namespace/name`.
        models: `ID@REVISION` each.
        dataset: the same, or None.
    """
    files: dict[str, Path | bytes] = dict(_sources())
    arguments = [*models, *(["--dataset", dataset] if dataset else [])]
    files[APP] = _APP.format(arguments=json.dumps(arguments), examples=EXAMPLES).encode()
    files["requirements.txt"] = requirements().encode()
    files |= _examples()
    files[CARD] = _card(space, models, dataset).encode()
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        data = content if isinstance(content, bytes) else content.read_bytes()
        digest.update(f"{name}:{hashlib.sha256(data).hexdigest()}\n".encode())
    record = {"written_by": PACKAGE, "files": sorted([*files, RECORD]), "sha256": digest.hexdigest()}
    files[RECORD] = (json.dumps(record, indent=2) + "\n").encode()
    return files


def requirements() -> str:
    """Return the libraries of the app at the versions that are installed here; the Hub brings gradio itself.

    Raises:
        BadInputError: gradio or a library is not installed.
    """
    limits = {one.name.lower(): one for one in map(Requirement, _requires("gradio"))}
    lines = []
    for needed in map(Requirement, _requires(PACKAGE)):
        if needed.marker is not None and "extra" in str(needed.marker):
            continue
        version = metadata.version(needed.name)
        limit = limits.get(needed.name.lower())
        # A library that gradio wants older than it is here is left to the resolver, within the limits of both.
        if limit is None or limit.specifier.contains(version, prereleases=True):
            lines.append(f"{needed.name}=={version}")
        else:
            lines.append(f"{needed.name}{needed.specifier & limit.specifier}")
    return "\n".join(sorted(lines, key=str.lower)) + "\n"


def _requires(package: str) -> list[str]:
    try:
        return metadata.requires(package) or []
    except metadata.PackageNotFoundError as error:
        advice = "pip install 'flavour-fusion[app]'" if package == "gradio" else "pip install the package first"
        raise BadInputError(f"{package} is not installed, so its version cannot be pinned; {advice}") from error


def _sources() -> Iterator[tuple[str, Path]]:
    """Yield the files of the packages that the app needs, without weights."""
    root = Path(__file__).parents[2]
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(root).parts)
            if path.is_file() and path.suffix in SOURCES and not hidden:
                yield path.relative_to(root).as_posix(), path


def _examples() -> dict[str, bytes]:
    """Return plates of the catalogue and their titles."""
    known = {dish.dish_id: dish for dish in catalogue_dishes()}
    pipeline, files, titles = PlatingPipeline(), {}, {}
    for seed, name in enumerate(name for name in DISHES if name in known):
        dish = known[name]
        prompt = render("ingredients", dish.title, dish.ingredients)
        generator = torch.Generator().manual_seed(seed)
        output: Any = pipeline(prompt, height=EXAMPLE_SIZE, width=EXAMPLE_SIZE, generator=generator)
        encoded = io.BytesIO()
        output.images[0].save(encoded, "JPEG", quality=90)
        files[f"{EXAMPLES}/{name}.jpg"] = encoded.getvalue()
        titles[f"{name}.jpg"] = dish.title
    files[f"{EXAMPLES}/{TITLES}"] = (json.dumps(titles, indent=2, ensure_ascii=False) + "\n").encode()
    return files


def _card(space: str, models: Sequence[str], dataset: str | None) -> str:
    block = {
        "title": re.sub(r"[-_]+", " ", space.split("/")[1]).capitalize(),
        "emoji": "\N{FORK AND KNIFE WITH PLATE}",
        "colorFrom": "red",
        "colorTo": "yellow",
        "sdk": "gradio",
        "sdk_version": metadata.version("gradio"),
        "app_file": APP,
        "pinned": False,
        "license": "apache-2.0",
        "short_description": "Taste a dish from its picture and title",
        "models": [one.split("@")[0] for one in models],
        **({"datasets": [dataset.split("@")[0]]} if dataset else {}),
    }
    values = {"space": space, "models": list(models), "dataset": dataset}
    head = yaml.safe_dump(block, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n{fill(read_template('space_card.md'), values, CARD).strip()}\n"


def _at_revision(api: HfApi, name: str, kind: str) -> str:
    """Return `ID@REVISION` of something published: the revision that is named, the newest version, or the commit."""
    if Path(name).exists():
        raise BadInputError(f"{name} is a folder of this machine; publish it, and give its Hub id")
    repo, revision = pinned(name)
    check_repo(repo, f"--{kind}")
    with outside(f"cannot find the {kind} {name!r}", "publish it first, or name its revision: ID@REVISION"):
        if revision is not None:
            api.repo_info(repo, repo_type=kind, revision=revision)
            return f"{repo}@{revision}"
        versions = published_versions(api, repo, kind)
        return f"{repo}@{tag_of(versions[-1]) if versions else api.repo_info(repo, repo_type=kind).sha}"


def _upload(api: HfApi, space: str, files: Mapping[str, Path | bytes], private: bool) -> str:
    """Commit the files; those of the release before that this one lacks are deleted in the same commit."""
    api.create_repo(space, repo_type="space", space_sdk="gradio", exist_ok=True, private=private or None)
    try:
        head = api.space_info(space)
    except RepositoryNotFoundError as error:
        raise BadInputError(f"{space} could not be created; give --space namespace/name") from error
    there = {sibling.rfilename for sibling in head.siblings or []}
    before = _record(api, space, head.sha) if RECORD in there else {}
    foreign = sorted(there - set(before.get("files", ())) - GIT_FILES)
    if not before and foreign and not _is_new(api, space, foreign, head.sha):
        raise BadInputError(
            f"{space} holds {listed(foreign, 'more files')}, which no release of this package wrote; "
            "give a --space that is new or empty, or delete these files there first"
        )
    record = parse_json(bytes(files[RECORD]).decode(), RECORD, "")  # type: ignore[arg-type]
    if before.get("sha256") == record["sha256"]:
        return f"{space} is published already, as commit {head.sha}; nothing changed"
    operations: list[Any] = [CommitOperationAdd(name, content) for name, content in files.items()]
    gone = sorted((set(before.get("files", ())) & there) - set(files))
    operations += [CommitOperationDelete(name) for name in gone]
    commit = api.create_commit(space, operations, commit_message="The app", repo_type="space", parent_commit=head.sha)
    return f"published {space}: commit {commit.oid} of {len(files)} files"


def _record(api: HfApi, space: str, commit: str | None) -> dict[str, Any]:
    path = Path(api.hf_hub_download(space, RECORD, repo_type="space", revision=commit))
    try:
        content = parse_json(path.read_text(encoding="utf-8", errors="replace"), RECORD, "")
    except BadInputError:
        return {}
    known = isinstance(content, dict) and content.get("written_by") == PACKAGE
    return content if known and isinstance(content.get("files"), list) else {}


def _is_new(api: HfApi, space: str, foreign: Sequence[str], commit: str | None) -> bool:
    """Whether a Space holds nothing but the card that the Hub's web pages create."""
    if list(foreign) != [CARD]:
        return False
    path = Path(api.hf_hub_download(space, CARD, repo_type="space", revision=commit))
    text = path.read_text(encoding="utf-8", errors="replace")
    return is_blank(text) or "Check out the configuration reference" in text
