"""Publishes a finished build as one version: one commit of data, card and manifest, then one tag on that commit."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Value
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCardData, HfApi
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import httpx

from dataset_builder.building.corrections import corrections_in_words
from dataset_builder.building.finished_build import DATA, LEXICON, MANIFEST, FinishedBuild, read_build, rule_settings
from dataset_builder.building.settings import GENERATED, OWN
from dataset_builder.columns import CAPTIONS, DISH_ID, FLAVOURS, LABEL_SOURCE, MASK, SPLITS
from dataset_builder.errors import BadInputError, card_errors_as_bad_input
from dataset_builder.pictures.photographs import PHOTOGRAPH
from dataset_builder.publishing.audit import AUDIT_MARKDOWN, audit_of_build
from dataset_builder.publishing.publish_imported import is_imported, prepare_imported
from dataset_builder.publishing.release import (
    CARD,
    FILES,
    Release,
    check_names,
    check_new,
    named_failures,
    read_head,
    upload,
    write_folder,
)
from dataset_builder.publishing.versions import Changes, changes_since, listed, published_versions, read_history, tag_of
from dataset_builder.storage.places import place, reachable
from model_cards.cards import data_card
from model_cards.runs import is_catalogue

EXAMPLES = 5
CORRECTED = 100  # corrected rows that the card names; the manifest names all
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
TASKS = ["image-classification", "text-classification"]
ANNOTATED = {CAPTIONS: "image-to-text", MASK: "image-segmentation"}  # tasks that only such a column makes possible
# Settings of the pictures that no column of the card's table shows.
DRAWING = {
    "template": "prompt template",
    "negative_prompt": "negative prompt",
    "masks": "masks from",
    "clip": "CLIP model that finds off-prompt pictures",
    "attempts": "attempts at a picture before its row is given up",
}


def publish(
    folder: str | Path,
    repo: str,
    version: str,
    licence: str,
    dry_run: str | Path | None = None,
    private: bool = False,
) -> str:
    """Publish a build or an imported set, or write the exact folder that would be published.

    The token is the one that the Hub client keeps (`hf auth login`, or `HF_TOKEN`).

    Args:
        folder: a finished build, or the result of an import; a `README.md` in it is taken as the card, in place of our
            template.
        repo: `namespace/name` of the data set; created when it does not exist.
        version: three numbers, above every version that is published.
        licence: identifier such as `cc-by-4.0`.
        dry_run: folder to write instead of publishing; it must not exist.
        private: a repository that is created is for its owners only; one that exists stays as it is.

    Returns:
        One line for the terminal.

    Raises:
        BadInputError: the build, the card, the version or the licence is refused, the repository holds something else,
            or the Hub could not be written; then no tag was made and the call can be repeated.
    """
    check_names(repo, version, licence)
    folder = place(folder)
    imported = is_imported(folder)
    build = None if imported else read_build(folder, verify=True)
    api = HfApi()
    with named_failures(repo, version):
        published, note = _published(api, repo, offline_is_fine=dry_run is not None)
        if build is None:
            history = read_history(api, repo, published[-1]) if published else []
            release = prepare_imported(folder, repo, version, licence, published, history)
        else:
            release = prepare(api, build, repo, version, licence, published)
        if dry_run is not None:
            write_folder(release, Path(dry_run))
            return f"{dry_run} holds the {len(release.files)} files of {repo} {version}; nothing was published{note}"
        commit = upload(api, release, private)
    return f"published {repo} {version}: {release.tag} is commit {commit}"


def _published(api: HfApi, repo: str, offline_is_fine: bool) -> tuple[list[str], str]:
    """Return the versions on the Hub, and a note for the user when it cannot be reached.

    Raises:
        BadInputError: the repository holds something else.
    """
    try:
        read_head(api, repo)
        return published_versions(api, repo), ""
    except (httpx.TransportError, OfflineModeIsEnabled):
        if not offline_is_fine:
            raise
        return [], "; the Hub cannot be reached, so the card takes this for the first version"


@card_errors_as_bad_input()
def prepare(
    api: HfApi, build: FinishedBuild, repo: str, version: str, licence: str, published: Sequence[str]
) -> Release:
    """Return all files of the version, given the published versions; nothing is written to the Hub.

    Raises:
        BadInputError: the version is not above the published ones, or the card is refused.
    """
    check_new(repo, version, published)
    own = read_card(build.folder / CARD)
    # Only the last version is compared: its manifest holds the history of those before.
    changes = changes_since(api, repo, published[-1], build) if published else None
    history = read_history(api, repo, published[-1]) if published else []
    # The manifest carries the history of all versions, so that the next card needs only the last one.
    history.append({"version": version, "rows": build.rows, **(changes.counts() if changes else {})})
    audit = audit_of_build(build, repo)
    stated = {"version": version, "license": licence, "history": history, "data_sha256": build.fingerprint}
    manifest = {**build.manifest, **stated}
    values = card_values(build, repo, version, licence, history, changes, audit.lines)
    card = data_card(metadata(build, repo, licence), values, own)
    files: dict[str, Path | bytes] = {f"{DATA}/{path.name}": path for paths in build.shards.values() for path in paths}
    if build.lexicon_file is not None:
        files[LEXICON] = build.lexicon_file
    files[CARD] = card.encode()
    files[AUDIT_MARKDOWN] = audit.markdown.encode()
    manifest[FILES] = sorted([*files, MANIFEST])
    # Last, since it lists all files, itself included.
    files[MANIFEST] = (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
    return Release(repo, version, files)


def read_card(path: Path) -> str | None:
    """Return the publisher's own card, None where there is none.

    Raises:
        BadInputError: it is not UTF-8.
    """
    try:
        with reachable(path):
            return path.read_text(encoding="utf-8-sig") if path.exists() else None
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path} is not UTF-8 ({error}); save it in that encoding") from error


def metadata(build: FinishedBuild, repo: str, licence: str) -> dict[str, Any]:
    """Return the block of the card that the Hub and `load_dataset` read."""
    data = DatasetCardData(
        license=licence,
        language=["en"] if is_catalogue(build.manifest) else None,
        pretty_name=repo.split("/")[1],
        task_categories=[*TASKS, *(task for column, task in ANNOTATED.items() if build.has(column))],
        size_categories=[next((name for limit, name in SIZES if build.rows < limit), "n>1M")],
        tags=["food", "recipes", "taste", *([] if _photographs(build) == OWN else ["synthetic"]), "image-text"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"{DATA}/{split}-*"} for split in build.shards],
            }
        ],
    )
    DatasetInfosDict({"default": build.info}).to_dataset_card_data(data)
    return data.to_dict()


def card_values(
    build: FinishedBuild,
    repo: str,
    version: str,
    licence: str,
    history: list[dict[str, Any]],
    changes: Changes | None,
    audit: list[str],
) -> dict[str, Any]:
    """Return the facts that a card may name."""
    sources: Counter[str] = Counter()
    for table in build.labels.values():
        sources.update(table[LABEL_SOURCE].to_pylist())
    dishes = {split: set(table[DISH_ID].to_pylist()) for split, table in build.labels.items()}
    known = build.manifest["generator"]
    drawing = [f"{what}: {known[name]}" for name, what in DRAWING.items() if known.get(name) is not None]
    return {
        "repo": repo,
        "name": repo.split("/")[1],
        "version": version,
        "tag": tag_of(version),
        "license": licence,
        "rows": build.rows,
        "dishes": len(set().union(*dishes.values())),
        "flavours": FLAVOURS,
        "simulated": build.manifest["simulator"],
        "photographs": _photographs(build),
        "photographed": sum(way["rows"] for way in build.pictures if way["pipeline"] == PHOTOGRAPH),
        "composition": {
            split: {"rows": table.num_rows, "dishes": len(dishes[split]), "labels": build.counts[split]}
            for split, table in build.labels.items()
        },
        "empty_splits": [split for split in SPLITS if split not in build.shards],
        "has_masks": build.has(MASK),
        "columns": {name: column_type(feature) for name, feature in build.features.items()},
        "calibrated": build.manifest.get("soft_labels_calibrated", True),
        "lexicon_sha256": build.manifest["lexicon_sha256"],
        "lexicon_file": None if build.lexicon_file is None else LEXICON,
        "rule": ", ".join(f"{name} {value}" for name, value in rule_settings(build.manifest).items()),
        "label_sources": dict(sorted(sources.items())),
        "pictures": build.pictures,
        "drawing": []
        if _photographs(build) == OWN
        else [*drawing, f"the first prompt, as an example: {build.example_prompt}"],
        "left_out": left_out(build.manifest),
        "audit": audit,
        "corrections": build.manifest.get("corrections"),
        "corrected": list(corrections_in_words(build.manifest.get("corrections") or {"rows": {}}))[:CORRECTED],
        "history": history,
        "examples": example_lines(changes) if changes else [],
    }


def _photographs(build: FinishedBuild) -> str | None:
    """Return "own" where all pictures are photographs, "both" where some are, None where none is."""
    chosen = build.manifest.get("pictures", GENERATED)
    return None if chosen == GENERATED else str(chosen)


def left_out(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Return reason -> number of the recipes and pictures that the build left out."""
    counts = {f"recipes, {reason}": of["count"] for reason, of in manifest.get("skipped_recipes", {}).items()}
    if manifest.get("given_up"):
        counts["pictures that were rejected at every attempt"] = len(manifest["given_up"])
    if excluded := (manifest.get("corrections") or {}).get("excluded"):
        counts["rows that a person excluded"] = excluded
    return counts


def column_type(feature: Any) -> str:
    """Return the type of a column in a word or two."""
    if isinstance(feature, dict):
        return f"struct of {', '.join(feature)}"
    inner = getattr(feature, "feature", None)
    if inner is not None:
        return f"list of {column_type(inner)}"
    names = getattr(feature, "names", None)
    if names is not None:
        return f"label, one of {len(names)}"
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__


def example_lines(changes: Changes) -> list[str]:
    """Return some of the changed rows by name."""
    lines = []
    for what, changed in (("relabelled", changes.relabelled), ("moved", changes.moved)):
        lines += [f"{what}: `{one}` from {old} to {new}" for one, (old, new) in list(changed.items())[:EXAMPLES]]
    unpaired = {"added": changes.added, "removed": changes.removed, "recipe changed": changes.recipe_changed}
    for what, ids in unpaired.items():
        if ids:
            lines.append(f"{what}: {listed([f'`{one}`' for one in ids])}")
    return lines
