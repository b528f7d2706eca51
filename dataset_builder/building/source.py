"""What a plan follows from: the same source gives the same plan, so that it need not be made again."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from dataset_builder.building.corrections import corrections_digest, read_corrections
from dataset_builder.building.settings import GENERATED, BuildSettings
from dataset_builder.hub_files import sha256_of
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.recipes.hub_names import configured
from dataset_builder.storage.places import fetched

# The files of this package on which a plan depends.
_SOURCES = (
    "building/pl*.py",
    "building/corrections.py",
    "building/settings.py",
    "building/splits.py",
    "building/shards.py",
    "catalogue/*.py",
    "labelling/*.py",
    "recipes/*.py",
    "data/*.csv",
)


def source_of(settings: BuildSettings) -> dict[str, Any]:
    """Return what the plan of a build follows from, as JSON values; equal values stand for equal plans."""
    content = asdict(settings)
    del content["generation"]  # it is no part of the plan
    # Where a table lies shows in the plan only where it names photographs, whose paths the plan holds; of a table in a
    # store they are those of a copy that each process makes for itself.
    for name in ("recipes", "lexicon"):
        if content[name] is not None:
            photographed = name == "recipes" and settings.pictures != GENERATED
            content[name] = os.path.abspath(fetched(content[name])) if photographed else os.path.basename(content[name])
    content["corrections"] = corrections_digest(read_corrections(settings.corrections))
    return {
        "settings": hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        "lexicon": Lexicon.load(settings.lexicon).digest,
        "package": _package_digest(),
        "recipes": None if settings.recipes is None else _table_digest(settings),
    }


@cache
def _package_digest() -> str:
    package = Path(__file__).parents[1]
    files = sorted({file for pattern in _SOURCES for file in package.glob(pattern)})
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(package).as_posix()}\0{sha256_of(file)}\0".encode())
    return digest.hexdigest()


def _table_digest(settings: BuildSettings) -> str:
    """Return a digest of the recipe table: its bytes, of a folder names and times, of a Hub data set the commit."""
    path = fetched(str(settings.recipes))
    digest = hashlib.sha256()
    if path.is_file():
        digest.update(sha256_of(path).encode())
    elif path.is_dir():
        digest.update(json.dumps(list(_listing(path))).encode())
    else:
        digest.update(_commit(str(settings.recipes)).encode())
    if settings.pictures != GENERATED and path.is_file():
        digest.update(json.dumps(list(_listing(path.parent))).encode())
    return digest.hexdigest()


def _listing(folder: Path) -> Iterator[tuple[str, int, int]]:
    for path in sorted(folder.rglob("*")):
        # A link that leads nowhere, or a file that goes meanwhile, is no part of a table.
        if path.is_file():
            status = path.stat()
            yield path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns


def _commit(name: str) -> str:
    """Return the commit of a data set on the Hub, or what no other call returns where the Hub does not say."""
    try:
        return str(HfApi().dataset_info(configured(name)[0]).sha)
    except Exception:  # whatever the client raises, the reader of the table reports it with a message of its own
        return secrets.token_hex()
