"""The exact versions of what draws: commits of a Hub, or hashes of files. No model library is imported for plating."""

import hashlib
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.utils.sha import sha_fileobj

from dataset_builder.boundaries import outside
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.settings import PLATING
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


def locate(name: str, revision: str | None) -> Path:
    """Return the folder of a pipeline, downloaded first if `name` is a Hub id.

    Raises:
        BadInputError: no pipeline is there or the Hub does not give it.
    """
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

    what = f"pipeline {name!r} is neither a folder here nor a pipeline with safetensors weights that the Hub gives"
    with outside(what, f"check --pipeline and --revision, or use --pipeline {PLATING}"):
        return Path(DiffusionPipeline.download(name, revision=revision, use_safetensors=True, trust_remote_code=False))


def pipeline_revision(name: str, revision: str | None) -> str:
    """Return the exact version of a pipeline: a commit of the Hub, or a hash of its files or (plating) its sources."""
    if name == PLATING:
        return _hash_files(Path(__file__).parents[1], plating_files())
    return folder_revision(locate(name, revision))


def locate_lora(lora: str) -> Path:
    """Return the file or folder of LoRA weights, downloaded first if `lora` is a Hub id.

    Raises:
        BadInputError: they are neither here nor does the Hub give them.
    """
    path = Path(lora).expanduser()
    if path.exists():
        return path
    name, revision = pinned(lora)
    with outside(f"LoRA {lora!r} is neither a file nor a folder here, nor does the Hub give it", "check --lora"):
        return Path(snapshot_download(name, revision=revision, allow_patterns=["*.safetensors", "*.json"]))


def lora_revision(lora: str) -> str:
    """Return the exact version of LoRA weights: `name@commit` for a Hub id, `name@hash` of the files otherwise."""
    return f"{pinned(lora)[0]}@{folder_revision(locate_lora(lora))}"


def clip_revision(clip: str) -> str:
    """Return the exact version of a CLIP model: `name@commit` for a Hub id, `name@hash` of the files for a folder."""
    path = Path(clip).expanduser()
    if path.exists():
        return f"{clip}@{folder_revision(path)}"
    name, revision = pinned(clip)
    with outside(f"CLIP model {clip!r} is neither a folder here nor does the Hub give it", "check --clip"):
        return f"{name}@{folder_revision(Path(hf_hub_download(name, 'config.json', revision=revision)).parent)}"
