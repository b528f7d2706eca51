"""Low-rank adapters (LoRA, Hu et al. 2021) on disk: what a run saves, and how a model is read with them on its base.

An adapter repository holds the adapters of the backbones and, whole, every other part that was trained. It is in the
form of peft, so `PeftModel.from_pretrained(base, repository)` puts it on the base model too. The verbs of this package
read it like any model: the adapters are merged in memory.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dataset_builder.boundaries import outside, parse_json, read_text
from dataset_builder.errors import BadInputError

ADAPTER = "adapter"  # folder of a run that holds them
BASE = "base"  # folder of the model that they go on, where it is published nowhere
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of all names in the file of an adapter, put there by peft
WRAPPED = ".base_layer."  # in names of the weights of an adapted layer while it trains
DOWN, UP, NAME = ".lora_A.", ".lora_B.", "default"
SCALE = 2  # of the update: alpha is twice the rank, as is usual
REMEDY = "save the adapter anew with peft, or give the merged model"


def is_adapter(name: str) -> bool:
    """Whether a weight of a model in training belongs to an adapter."""
    return DOWN in name or UP in name


def merged(weights: Mapping[str, Tensor], scale: float = SCALE) -> dict[str, Tensor]:
    """Return the weights of a model without adapters that answers as the one with them.

    Args:
        weights: of a model in training, adapters inside; one without any is returned as it is.
        scale: of the update, alpha over rank.
    """
    plain = {name.replace(WRAPPED, "."): value for name, value in weights.items() if not is_adapter(name)}
    for name, down in weights.items():
        if DOWN not in name:
            continue
        layer, _, rest = name.partition(DOWN)
        up = weights[f"{layer}{UP}{rest}"].double()
        # The second factor of a convolution has one place, so both are products of matrices.
        update = up.flatten(1) @ down.double().flatten(1)
        weight = plain[f"{layer}.weight"]
        plain[f"{layer}.weight"] = (weight.double() + scale * update.view(weight.shape)).to(weight.dtype)
    return plain


def adapter_of(folder: Path) -> Path | None:
    """Return where the adapters of a saved model lie that has no weights of its own; None for any other model."""
    if (folder / ADAPTER_CONFIG).is_file():
        return folder
    inside = folder / ADAPTER
    return inside if (inside / ADAPTER_CONFIG).is_file() and not any(folder.glob("*.safetensors")) else None


def read_adapter(adapter: Path) -> tuple[str | None, str | None, dict[str, Tensor]]:
    """Return the base of an adapter, its revision, and its weights by their names in a model in training.

    Raises:
        BadInputError: a file is missing or damaged, or it is no plain LoRA adapter.
    """
    where = adapter / ADAPTER_CONFIG
    settings = parse_json(read_text(where, REMEDY), str(where), REMEDY)
    if not isinstance(settings, dict):
        raise BadInputError(f"{where} holds no JSON object; {REMEDY}")
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    changed = [name for name in ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern") if settings.get(name)]
    if settings.get("peft_type") != "LORA" or changed or not rank or not alpha:
        raise BadInputError(
            f"{where}: only plain LoRA adapters are read here ({', '.join(changed) or settings.get('peft_type')} is "
            "not); merge it into its base with peft's merge_and_unload"
        )
    with outside(f"{adapter / ADAPTER_WEIGHTS} cannot be read", REMEDY):
        found = load_file(adapter / ADAPTER_WEIGHTS)
    weights: dict[str, Tensor] = {}
    for name, value in found.items():
        # The scale of this adapter goes into one factor, so that all adapters have the same one.
        value = value * (alpha / rank / SCALE) if UP in name else value
        weights[name.removeprefix(PREFIX).replace(DOWN, f"{DOWN}{NAME}.").replace(UP, f"{UP}{NAME}.")] = value
    return settings.get("base_model_name_or_path") or None, settings.get("revision"), weights


def put_on(base: Mapping[str, Tensor], adapter: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Return the weights of a base with an adapter merged into them.

    Raises:
        BadInputError: the adapter was made for another model.
    """
    layers = {name.partition(DOWN)[0] for name in adapter if DOWN in name}
    strange = sorted(layer for layer in layers if f"{layer}.weight" not in base)
    if strange:
        raise BadInputError(f"the adapter in {where} is for layers that its base lacks, such as {strange[0]!r}")
    whole = {name: value for name, value in adapter.items() if not is_adapter(name)}
    return merged({**base, **whole, **{name: value for name, value in adapter.items() if is_adapter(name)}})


def save_adapter(folder: Path, weights: Mapping[str, Tensor], parts: list[str], settings: Any) -> None:
    """Write adapters in the form of peft.

    Args:
        folder: of the repository, made here.
        weights: of the trained model, adapters inside.
        parts: modules that are saved whole.
        settings: the `LoraConfig`; it names the base.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inside = tuple(f"{part}." for part in parts)
    kept = {}
    for name, value in weights.items():
        if is_adapter(name):
            kept[PREFIX + name.replace(f".{NAME}.", ".")] = value
        elif name.startswith(inside):
            kept[PREFIX + name] = value
    # Tied weights are two in the file: peft keeps a copy of each part.
    save_file({name: value.detach().cpu().clone().contiguous() for name, value in kept.items()},
              folder / ADAPTER_WEIGHTS, {"format": "pt"})  # fmt: skip
    settings.save_pretrained(folder)
    # Sets are written in any order, and the same run must write the same file.
    written = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    written = {key: sorted(value) if key == "target_modules" else value for key, value in written.items()}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(written, indent=2), encoding="utf-8")


def merge_in_place(model: nn.Module) -> None:
    """Take the adapters out of a model in training, after adding each to the weights of its layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    weights = merged(model.state_dict())
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, layer.get_base_layer())
    model.__dict__.pop("peft_config", None)
    with torch.no_grad():
        model.load_state_dict(weights)
