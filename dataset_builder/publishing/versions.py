"""Versions of a published data set: their numbers, their tags, and what changed from one to the next."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from dataset_builder.boundaries import outside, parse_json, read_text
from dataset_builder.building.finished_build import DATA, MANIFEST, FinishedBuild, named_labels
from dataset_builder.columns import FLAVOUR, GENERATION, ID, INGREDIENTS, INSTRUCTIONS, TITLE
from dataset_builder.errors import BadInputError
from dataset_builder.kinds import check_entries, fits

VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
# Entries of a picture's record that do not change how it is drawn.
NOT_DRAWING = ("attempts", "rejected")
NAMED = 5
COUNTED = ("added", "removed", "relabelled", "moved", "redrawn", "recipe_changed")
COMPARED = (ID, FLAVOUR, GENERATION, TITLE, INGREDIENTS, INSTRUCTIONS)


@dataclass(frozen=True)
class Changes:
    """How the rows of a version differ from those of the version before.

    Attributes:
        previous: the version before.
        added: ids that are new.
        removed: ids that the new version lacks.
        relabelled: ids whose main flavour is another one, with (old, new).
        moved: ids that lie in another split, with (old, new).
        redrawn: ids whose picture was made with another prompt, seed, pipeline or setting.
        recipe_changed: ids whose title, ingredients or instructions are others.
    """

    previous: str
    added: Sequence[str]
    removed: Sequence[str]
    relabelled: Mapping[str, tuple[str | None, str | None]]
    moved: Mapping[str, tuple[str, str]]
    redrawn: Sequence[str]
    recipe_changed: Sequence[str]

    def counts(self) -> dict[str, Any]:
        """Return the counts for manifest and card."""
        return {"previous": self.previous, **{name: len(getattr(self, name)) for name in COUNTED}}


def listed(names: Sequence[str], what: str = "more") -> str:
    """Return the first few names, and how many more there are."""
    rest = f" and {len(names) - NAMED} {what}" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest


def parse_version(text: str) -> tuple[int, int, int]:
    """Return the three numbers of a version.

    Raises:
        BadInputError: anything but three numbers without leading zeros.
    """
    match = VERSION.fullmatch(text)
    if match is None:
        raise BadInputError(f"version {text!r} is not three numbers such as 1.0.0; give --version MAJOR.MINOR.PATCH")
    return int(match[1]), int(match[2]), int(match[3])


def tag_of(version: str) -> str:
    """Return the tag that carries a version: 1.0.0 is v1.0.0."""
    return f"v{version}"


def published_versions(api: HfApi, repo: str, repo_type: str = "dataset") -> list[str]:
    """Return the versions that a repository is tagged with, oldest first; none when it does not exist."""
    try:
        refs = api.list_repo_refs(repo, repo_type=repo_type)
    except RepositoryNotFoundError:
        return []
    names = [tag.name.removeprefix("v") for tag in refs.tags if tag.name.startswith("v")]
    return sorted((name for name in names if VERSION.fullmatch(name)), key=parse_version)


def read_history(api: HfApi, repo: str, version: str) -> list[dict[str, Any]]:
    """Return the history that a published version states in its manifest; [] when it has none."""
    try:
        path = api.hf_hub_download(repo, MANIFEST, repo_type="dataset", revision=tag_of(version))
    except EntryNotFoundError:
        return []
    what, advice = f"{MANIFEST} of version {version} of {repo}", "publish to another --repo"
    manifest = parse_json(read_text(Path(path), advice), what, advice)
    history: Any = manifest.get("history", []) if isinstance(manifest, dict) else None
    if not fits(history, list[dict[str, Any]]):
        raise BadInputError(f"{what} holds no history of versions; {advice}")
    # The card shows these entries.
    for one in history:
        check_entries(one, {"version": str, "previous": str, **dict.fromkeys(("rows", *COUNTED), int)}, what)
    return history


def changes_since(api: HfApi, repo: str, version: str, build: FinishedBuild) -> Changes:
    """Compare a build with a published version, of which no picture is fetched.

    Raises:
        BadInputError: the published version holds no rows that can be compared.
    """
    old = _rows(_published_tables(api, repo, version))
    new = _rows({split: named_labels(table, build.features) for split, table in build.read(COMPARED).items()})
    both = [row_id for row_id in new if row_id in old]
    return Changes(
        previous=version,
        added=[row_id for row_id in new if row_id not in old],
        removed=[row_id for row_id in old if row_id not in new],
        relabelled={one: (old[one][1], new[one][1]) for one in both if old[one][1] != new[one][1]},
        moved={one: (old[one][0], new[one][0]) for one in both if old[one][0] != new[one][0]},
        redrawn=[one for one in both if old[one][2] != new[one][2]],
        recipe_changed=[one for one in both if old[one][3] != new[one][3]],
    )


def _published_tables(api: HfApi, repo: str, version: str) -> dict[str, pa.Table]:
    files = HfFileSystem(endpoint=api.endpoint, token=api.token)
    root = f"datasets/{repo}@{tag_of(version)}/{DATA}"
    tables: dict[str, list[pa.Table]] = {}
    for path in sorted(files.glob(f"{root}/*.parquet")):
        refused = f"{path} of version {version} cannot be read"
        with outside(refused, "publish to another --repo"), files.open(path) as file:
            # Only these columns are fetched: Parquet on the Hub is read by ranges.
            shard = pq.ParquetFile(file)
            missing = set(COMPARED) - set(shard.schema_arrow.names)
            table = None if missing else shard.read(list(COMPARED))
        if table is None:
            raise BadInputError(
                f"version {version} of {repo} lacks the columns {', '.join(sorted(missing))}; publish to another --repo"
            )
        with outside(refused, "publish to another --repo"):
            features = Features.from_arrow_schema(shard.schema_arrow)
            tables.setdefault(path.rsplit("/", 1)[1].split("-")[0], []).append(named_labels(table, features))
    return {split: pa.concat_tables(parts) for split, parts in tables.items()}


def _rows(tables: Mapping[str, pa.Table]) -> dict[str, tuple[str, str | None, dict, bytes]]:
    """Return id -> (split, flavour, settings of the picture, hash of the recipe)."""
    rows = {}
    for split, table in tables.items():
        columns = (table[name].to_pylist() for name in COMPARED)
        for row_id, flavour, drawing, *recipe in zip(*columns, strict=True):
            # A setting that is absent from an older table is the same as None.
            made = {name: value for name, value in (drawing or {}).items() if value is not None}
            made = {name: made[name] for name in made if name not in NOT_DRAWING}
            # Of a million recipes the hashes fit into memory, their texts twice may not.
            rows[row_id] = (split, flavour, made, hashlib.sha256(json.dumps(recipe).encode()).digest())
    return rows
