"""Pipelines whose weights are one safetensors file, as other programs write them; their configuration lies elsewhere.

Such a file has neither configuration nor tokenizer. diffusers knows a Hub repository with both for each kind of model
(`from_single_file`); without a network, or for a kind that it does not know, `--pipeline-config` names a folder.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download

from dataset_builder.boundaries import outside
from dataset_builder.errors import BadInputError
from dataset_builder.recipes.hub_names import pinned

SUFFIX = ".safetensors"
PICKLED = (".ckpt", ".pt", ".pth", ".bin")
CONFIGURATION_FILES = ["*.json", "*.txt", "*.model"]  # in sub-folders too


def is_single_file(name: str) -> bool:
    """Return whether a pipeline is named as one file: a path, or `ORG/NAME/FILE.safetensors` of a Hub.

    Raises:
        BadInputError: it is a file that may hold code.
    """
    if Path(name).suffix.lower() in PICKLED and not Path(name).expanduser().is_dir():
        raise BadInputError(f"pipeline {name!r} may hold code that runs when it is read; give a {SUFFIX} file")
    return name.lower().endswith(SUFFIX)


def locate_file(name: str, revision: str | None) -> Path:
    """Return the file of a pipeline, downloaded first if it is of a Hub.

    Raises:
        BadInputError: there is none, or a revision is given for a file here.
    """
    file = Path(name).expanduser()
    if file.is_file():
        if revision is not None:
            raise BadInputError(f"pipeline {name!r} is a file and has no revision {revision!r}; leave --revision out")
        return file
    parts = name.split("/", 2)
    if len(parts) < 3 or not all(parts) or file.is_absolute():
        raise BadInputError(f"there is no file {name!r}; name a {SUFFIX} file, or ORG/NAME/FILE{SUFFIX} of a Hub")
    what = f"pipeline {name!r} is neither a file here nor one that the Hub gives"
    with outside(what, "check --pipeline and --revision"):
        return Path(hf_hub_download("/".join(parts[:2]), parts[2], revision=revision))


def locate_configuration(file: Path, name: str | None) -> Path:
    """Return the folder with the configuration of a single file, downloaded first if it is of a Hub.

    Args:
        file: the weights, which tell of what kind they are.
        name: folder or Hub id; None is the repository that diffusers knows for that kind.

    Raises:
        BadInputError: the file is broken, or there is no configuration.
    """
    if name is not None and Path(name).expanduser().is_dir():
        folder = Path(name).expanduser()
    else:
        hub_id, revision = (_usual_configuration(file), None) if name is None else pinned(name)
        what = f"the configuration {hub_id!r} of {str(file)!r} is neither a folder here nor does the Hub give it"
        remedy = (
            "name one with --pipeline-config: a folder that save_pretrained wrote (weights not needed), or a Hub id"
        )
        with outside(what, remedy):
            folder = Path(snapshot_download(hub_id, revision=revision, allow_patterns=CONFIGURATION_FILES))
    if not (folder / "model_index.json").is_file():
        raise BadInputError(
            f"{str(folder)!r} has no model_index.json; give the folder of a pipeline as --pipeline-config"
        )
    return folder


def _usual_configuration(file: Path) -> str:
    """Return the Hub id that diffusers knows for the kind of model that a file holds."""
    import torch
    from diffusers.loaders.single_file_utils import fetch_diffusers_config
    from safetensors import safe_open

    with outside(f"{str(file)!r} cannot be read", f"give a whole {SUFFIX} file"), safe_open(file, "pt") as tensors:
        # Kinds are told by names and shapes; a checkpoint of gigabytes need not be read for them.
        shapes = {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118 - no mapping
        known: dict[str, Any] = fetch_diffusers_config(
            {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        )
    return str(known["pretrained_model_name_or_path"])


def load_single_file(file: Path, configuration: Path, dtype: Any) -> Any:
    """Return the diffusers pipeline of a file, of the class that its configuration names."""
    import diffusers

    name = diffusers.DiffusionPipeline.load_config(configuration)["_class_name"]
    kind: Any = getattr(diffusers, str(name), None)
    if not hasattr(kind, "from_single_file"):
        raise BadInputError(f"{str(configuration)!r} is of a {name}, which loads from no single file; give its folder")
    return kind.from_single_file(str(file), config=str(configuration), dtype=dtype, local_files_only=True)
