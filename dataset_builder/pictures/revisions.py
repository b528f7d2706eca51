"""The exact versions of what draws: commits of a Hub, or hashes of files. No model library is imported for plating."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.utils.sha import sha_fileobj

from dataset_builder.boundaries import outside
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.settings import PLATING, GenerationSettings, parse_lora
from dataset_builder.pictures.single_file import is_single_file, locate_configuration, locate_file
from dataset_builder.recipes.hub_names import pinned

# Plated pictures depend on these files of this package and on no others.
_PLATING_SOURCES = (
    "plating/*.py",
    "catalogue/ingredients.py",
    "catalogue/matching.py",
    "catalogue/negation.py",
    "catalogue/serving.py",
    "recipes/text.py",
    "data/*.csv",
)


def plating_files() -> list[Path]:
    """Return the files of this package on which plated pictures depend."""
    package = Path(__file__).parents[1]
    return sorted({file for pattern in _PLATING_SOURCES for file in package.glob(pattern)})


def _hash_files(root: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            # Name and size separate the files, so that moving bytes from one to the next changes the hash.
            digest.update(f"{file.relative_to(root).as_posix()}\0{file.stat().st_size}\0".encode())
            digest.update(sha_fileobj(stream))
    return digest.hexdigest()[:40]


def folder_revision(folder: Path) -> str:
    """Return the commit of a snapshot in the Hub cache, or the hash of all files of any other folder (or file)."""
    if folder.is_file():
        return _hash_files(folder.parent, [folder])
    # The Hub's cache names a snapshot by its commit.
    if folder.parent.name == "snapshots":
        return folder.name
    return _hash_files(folder, [file for file in sorted(folder.rglob("*")) if file.is_file()])


def locate(name: str, revision: str | None, variant: str | None = None) -> Path:
    """Return the folder (or single file) of a pipeline, downloaded first if `name` is a Hub id.

    Raises:
        BadInputError: no pipeline is there or the Hub does not give it.
    """
    if is_single_file(name):
        return locate_file(name, revision)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise BadInputError(
                f"pipeline folder {name!r} has no model_index.json; give a folder that save_pretrained wrote"
            )
        if revision is not None:
            raise BadInputError(f"pipeline {name!r} is a folder and has no revision {revision!r}; leave --revision out")
        return folder
    # Imported here: it loads torch, which takes more memory than the plan of a million recipes.
    from diffusers import DiffusionPipeline

    kind = f"{variant} weights in safetensors" if variant else "safetensors weights"
    what = f"pipeline {name!r} is neither a folder here nor a pipeline with {kind} that the Hub gives"
    options = "--pipeline, --revision and --variant" if variant else "--pipeline and --revision"
    with outside(what, f"check {options}, or use --pipeline {PLATING}"):
        return Path(
            DiffusionPipeline.download(
                name, revision=revision, variant=variant, use_safetensors=True, trust_remote_code=False
            )
        )


def pipeline_revision(name: str, revision: str | None, variant: str | None = None) -> str:
    """Return the exact version of a pipeline: a commit of the Hub, or a hash of its files or (plating) its sources."""
    if name == PLATING:
        return _hash_files(Path(__file__).parents[1], plating_files())
    place = locate(name, revision, variant)
    snapshot = next((each for each in place.parents if each.parent.name == "snapshots"), None)
    # A single file of the Hub's cache lies within the snapshot of its commit.
    return snapshot.name if place.is_file() and snapshot is not None else folder_revision(place)


def locate_lora(lora: str) -> Path:
    """Return the file or folder of LoRA weights, downloaded first if `lora` is a Hub id.

    Raises:
        BadInputError: they are neither here nor does the Hub give them.
    """
    path = Path(lora).expanduser()
    if path.exists():
        return path
    name, revision = pinned(lora)
    what = f"LoRA {lora!r} is neither a file nor a folder here, nor does the Hub give it"
    with outside(what, "check --lora, which is NAME, or NAME:SCALE as in NAME:0.8"):
        return Path(snapshot_download(name, revision=revision, allow_patterns=["*.safetensors", "*.json"]))


def lora_revision(*loras: str) -> str:
    """Return the exact versions of LoRA weights, joined by " + ".

    Each is `name@commit` for a Hub id and `name@hash` of the files otherwise, followed by `:scale` where that is not 1.
    """
    versions = []
    for name, scale in map(parse_lora, loras):
        version = f"{pinned(name)[0]}@{folder_revision(locate_lora(name))}"
        versions.append(version if scale == 1 else f"{version}:{scale:g}")
    return " + ".join(versions)


def clip_revision(clip: str) -> str:
    """Return the exact version of a CLIP model: `name@commit` for a Hub id, `name@hash` of the files for a folder."""
    path = Path(clip).expanduser()
    if path.exists():
        return f"{clip}@{folder_revision(path)}"
    name, revision = pinned(clip)
    with outside(f"CLIP model {clip!r} is neither a folder here nor does the Hub give it", "check --clip"):
        return f"{name}@{folder_revision(Path(hf_hub_download(name, 'config.json', revision=revision)).parent)}"


def exact_settings(settings: GenerationSettings) -> dict[str, Any]:
    """Return settings as JSON values, with the exact versions of what draws in place of their names' revisions."""
    exact, name = asdict(settings), settings.pipeline
    for choice in ("variant", "pipeline_config"):  # as before there was one
        if exact[choice] is None:
            del exact[choice]
    if is_single_file(name):
        chosen = locate_configuration(locate(name, settings.revision), settings.pipeline_config)
        exact["pipeline_config"] = folder_revision(chosen)
    return exact | {
        "revision": pipeline_revision(name, settings.revision, settings.variant),
        "lora": lora_revision(*settings.loras) if settings.loras else None,
        "clip": clip_revision(settings.clip) if settings.clip else None,
    }
