"""Publishes an imported set, which no build made, as one version: its shards, a card and a manifest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from huggingface_hub import DatasetCardData

from dataset_builder.boundaries import outside
from dataset_builder.building.finished_build import DATA, MANIFEST
from dataset_builder.columns import IMAGE
from dataset_builder.errors import BadInputError
from dataset_builder.hub_files import sha256_of
from dataset_builder.publishing.release import CARD, FILES, Release, check_new
from dataset_builder.publishing.versions import tag_of
from dataset_builder.storage.places import files_in, opened
from dataset_builder.storage.stored_sets import SHARD

IMPORTED = "imported"
_CARD = """# {name}

A set that `flavour-sd import` read into the columns of `flavour-sd`. Rows, pictures and labels are those of its source;
its licence and origin are for the publisher to state.

| split | rows |
|---|---|
{rows}

Columns: {columns}.

```python
from datasets import load_dataset

rows = load_dataset("{repo}", revision="{tag}")
```

The tag is never moved, so it gives the rows of version {version} for ever.
"""


def is_imported(folder: Path) -> bool:
    """Return whether a folder holds the result of an import: shards, and no manifest of a build."""
    return not (folder / MANIFEST).exists() and bool(imported_shards(folder))


def imported_shards(folder: Path) -> list[Path]:
    """Return the shards of an imported set, sorted; empty where the data folder holds anything else."""
    paths = [folder / DATA / name for name in sorted(files_in(folder / DATA))]
    return paths if all(SHARD.fullmatch(path.name) for path in paths) else []


def prepare_imported(
    folder: Path,
    repo: str,
    version: str,
    licence: str,
    published: Sequence[str],
    history: Sequence[Mapping[str, Any]],
) -> Release:
    """Return all files of a version of an imported set; nothing is written to the Hub.

    Args:
        folder: of the import; a `README.md` in it is taken as the card, below our metadata.
        repo: `namespace/name`.
        version: three numbers.
        licence: identifier.
        published: versions that are published.
        history: of those versions.

    Raises:
        BadInputError: the version is not above the published ones, a shard is damaged, or rows refer to their pictures
            by a path of this machine.
    """
    check_new(repo, version, published)
    paths = imported_shards(folder)
    counts, columns, digest = _read_shards(paths)
    rows = sum(counts.values())
    own = folder / CARD
    with outside(f"{own} cannot be read", "save it as UTF-8"):
        body = own.read_text(encoding="utf-8") if own.is_file() else None
    card = DatasetCardData(license=licence, pretty_name=repo.split("/")[1], tags=["flavour-sd", IMPORTED])
    if body is None:
        body = _CARD.format(
            name=repo.split("/")[1],
            rows="\n".join(f"| {split} | {count:,} |" for split, count in counts.items()),
            columns=", ".join(columns),
            repo=repo,
            tag=tag_of(version),
            version=version,
        )
    text = body if body.startswith("---\n") else f"---\n{card.to_yaml()}\n---\n\n{body}"
    files: dict[str, Path | bytes] = {f"{DATA}/{path.name}": path for path in paths}
    files[CARD] = text.encode()
    manifest = {
        # What a later version looks for to know that this one is ours.
        "schema_version": IMPORTED,
        "generator": {},
        "simulator": False,
        "seeds": {},
        "lexicon_sha256": None,
        "counts": counts,
        "rows": rows,
        IMPORTED: True,
        "version": version,
        "license": licence,
        "data_sha256": digest,
        "history": [*history, {"version": version, "rows": rows}],
        FILES: sorted([*files, MANIFEST]),
    }
    files[MANIFEST] = (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
    return Release(repo, version, files)


def _read_shards(paths: Sequence[Path]) -> tuple[dict[str, int], list[str], str]:
    """Return the rows of each split, the columns, and the SHA-256 over names and content of the shards.

    Raises:
        BadInputError: a shard is damaged, or its rows refer to their pictures by a path of this machine.
    """
    counts: dict[str, int] = {}
    digest = hashlib.sha256()
    columns: list[str] = []
    for path in paths:
        with outside(f"{path} is not a whole Parquet file", "import again"):
            digest.update(f"{path.name}:{sha256_of(path)}\n".encode())
            with opened(path) as stream, pq.ParquetFile(stream) as file:
                split = path.name.split("-")[0]
                counts[split] = counts.get(split, 0) + file.metadata.num_rows
                columns = list(file.schema_arrow.names)
                _refuse_references(file, path)
    return counts, columns, digest.hexdigest()


def _refuse_references(file: pq.ParquetFile, path: Path) -> None:
    if IMAGE not in file.schema_arrow.names:
        return
    for batch in file.iter_batches(256, columns=[f"{IMAGE}.path", f"{IMAGE}.bytes"]):
        if batch.column(0).field("bytes").null_count:
            raise BadInputError(
                f"{path} refers to its pictures by paths of this machine; import again without --reference"
            )
