"""The reader of saved models: a folder or a Hub id in, checked files, weights and processor out; no code runs.

A model is a stranger's file. Before a library builds anything, the sizes that its config states are compared with
limits and with the weights, so that a small folder cannot ask for many gigabytes; afterwards every weight must have
been in the file and be a finite number.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedModel

from dataset_builder.boundaries import LARGEST_TEXT, outside, parse_json, read_text
from dataset_builder.errors import BadInputError
from dataset_builder.hub_files import fetch
from dataset_builder.messages import shown
from modeling_flavour.carried_flavour import unpacked
from modeling_flavour.familiarity_flavour import CARRIED
from modeling_flavour.loading_flavour import load_checked
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.tasks.common.adapters import (
    ADAPTER_CONFIG,
    BASE,
    WRAPPED,
    adapter_of,
    merged,
    put_on,
    read_adapter,
)

CONFIG = "config.json"
WEIGHTS = "*.safetensors"
PATTERNS = ("*.json", WEIGHTS, "*.txt", "*.model", "*.yaml", "*.jinja")
REMEDY = "train it anew, or give another folder or Hub id"
# Limits of a config, stated in SECURITY.md; the largest models that anyone puts into this package have a tenth.
MOST_LABELS = 100_000
MOST_LAYERS = 1_000
LARGEST_PICTURE = 8_192  # pixels of a side
LABELS = ("num_labels", "num_classes", "num_place_labels", "id2label", "label2id", "label_names", "class_weights")
LAYERS = ("layers", "depth", "blocks")
NAMED = 3


def model_folder(source: str, revision: str | None = None) -> Path:
    """Return the folder of a saved model, fetched from the Hub first if `source` is no folder, with checked files.

    Raises:
        BadInputError: there is no such model, a file is none that a model may have, or its config is beyond the limits.
    """
    folder = Path(source)
    if not folder.exists():
        folder = fetch(source, revision, PATTERNS, what=f"cannot load a model from {source!r}")
    check_files(folder)
    return folder


def check_files(folder: Path) -> None:
    """Check the text files of a model: regular, of bounded size, and a config within the limits.

    Raises:
        BadInputError: names the file and what is wrong with it.
    """
    for path in sorted(folder.glob("*.json")):
        if not path.is_file() or path.stat().st_size > LARGEST_TEXT:
            raise BadInputError(f"{path} is no regular file of at most {LARGEST_TEXT / 1e6:g} MB; {REMEDY}")
    try:
        config = parse_json(read_text(folder / CONFIG, REMEDY), str(folder / CONFIG), REMEDY)
    except FileNotFoundError as error:
        if (folder / ADAPTER_CONFIG).is_file():
            raise BadInputError(
                f"{folder} is an adapter without the {CONFIG} of a model; merge it into its base with peft's "
                "merge_and_unload, and save that"
            ) from error
        raise BadInputError(f"{folder} has no {CONFIG}, so it is no model; {REMEDY}") from error
    if not isinstance(config, dict):
        raise BadInputError(f"{folder / CONFIG} holds no JSON object but {type(config).__name__}; {REMEDY}")
    check_config(config, str(folder / CONFIG))


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Raise BadInputError for a config that asks for too many labels or layers, or whose labels are none.

    Args:
        config: content of `config.json`, with those of its parts inside.
        where: its path, for messages.
    """
    for name, value in _entries(config):
        most = MOST_LABELS if name in LABELS else MOST_LAYERS if name.endswith(LAYERS) else None
        found = len(value) if isinstance(value, list | dict) and name in LABELS else 0
        numbers = value if isinstance(value, list) and name.endswith(LAYERS) else [value]
        asked = max([found, *(one for one in numbers if isinstance(one, int | float))])
        if name == "model_type" and not (isinstance(value, str) and re.fullmatch(r"[\w.-]{0,64}", value)):
            raise BadInputError(f"{where}: {shown(value)} is no model_type; {REMEDY}")
        if most is not None and asked > most:
            raise BadInputError(f"{where} asks for {name} {shown(asked)}, and at most {most:,} are read; {REMEDY}")
    classes = config.get("architectures")
    if classes is not None and not (isinstance(classes, list) and all(isinstance(one, str) for one in classes)):
        raise BadInputError(f"{where}: architectures must be a list of class names; {REMEDY}")
    labels = config.get("id2label")
    if labels is None:
        return
    # A label is part of file formats and of messages, so only text will do.
    if not isinstance(labels, dict) or not all(isinstance(label, str) for label in labels.values()):
        raise BadInputError(f"{where}: id2label must give a text for each number; {REMEDY}")
    if sorted(labels) != sorted(map(str, range(len(labels)))):
        raise BadInputError(f"{where}: id2label must count its labels from 0 without a gap; {REMEDY}")
    if len(set(labels.values())) < len(labels):
        raise BadInputError(f"{where}: two labels of id2label have one name; {REMEDY}")


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        yield name, value
        if isinstance(value, Mapping) and name not in LABELS:
            yield from _entries(value)


def load_config(folder: Path) -> PreTrainedConfig:
    """Return the config of a checked folder.

    Raises:
        BadInputError: it is none, or the model needs code of its own.
    """
    stated = read_record(folder, CONFIG)
    kind = stated.get("model_type")
    # transformers would name an option that commands do not have.
    if stated.get("auto_map") and kind not in CONFIG_MAPPING:
        raise BadInputError(
            f"{folder} is a model of the type {shown(kind)}, which comes with code of its own, and a stranger's code "
            "does not run here; give a model of this package or of transformers, or read its code and look at it with "
            "app.py --trust_remote_code"
        )
    with outside(f"{folder / CONFIG} is no config of a model", REMEDY):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def load_weights(
    model_class: type[PreTrainedModel], folder: Path, config: PreTrainedConfig | None = None
) -> PreTrainedModel:
    """Return the model of a checked folder with all of its weights.

    Args:
        model_class: class of the model.
        folder: as `model_folder` returns it.
        config: to use in place of the one in the folder, such as one with another dropout.

    Raises:
        BadInputError: a weight file is damaged, or weights are missing, of another shape, or no finite numbers.
    """
    config = config or load_config(folder)
    what = f"cannot load the weights in {folder}"
    adapter = adapter_of(folder)
    if adapter is not None:
        return _from_state(model_class, _on_base(model_class, adapter, config), config, what)
    held = _held_shapes(folder)
    if any(WRAPPED in name for name in held):  # a checkpoint of a run with adapters
        with outside(what, REMEDY):
            state = {
                name: value for path in folder.glob("model*.safetensors") for name, value in load_file(path).items()
            }
        return _from_state(model_class, merged(state), config, what)
    _check_shapes(model_class, held, config, what)
    with outside(what, REMEDY):
        model, report = model_class.from_pretrained(
            folder, config=config, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        raise BadInputError(f"{what}: the files lack {_some(missing)}; {REMEDY}")
    _check_finite(model, what)
    return model


def _check_finite(model: PreTrainedModel, what: str) -> None:
    wrong = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if wrong:
        raise BadInputError(f"{what}: {_some(wrong)} holds numbers that are infinite or none (NaN); {REMEDY}")


def _on_base(model_class: type[PreTrainedModel], adapter: Path, config: PreTrainedConfig) -> dict[str, Tensor]:
    """Return the weights of the base of an adapter with it merged into them.

    Args:
        model_class: class of the model.
        adapter: folder of the adapter.
        config: of the model with the adapter; one that knows nothing of its inputs no longer states that it does.

    Raises:
        BadInputError: the adapter names no base, the base cannot be read, or they do not fit each other.
    """
    source, revision, weights = read_adapter(adapter)
    if source is None:
        raise BadInputError(f"the adapter in {adapter} names no base model (base_model_name_or_path); {REMEDY}")
    # A run that was moved still has its base beside it.
    beside = adapter.parent / BASE
    folder = beside if not Path(source).exists() and beside.is_dir() else model_folder(source, revision or "main")
    if adapter_of(folder) is not None:
        raise BadInputError(f"the base {source} of the adapter in {adapter} is an adapter too; merge it first")
    base = load_weights(model_class, folder).state_dict()
    # What the base knows of its inputs is measured in its own features; the adapter brings what holds for the others.
    carried = {name: weights.pop(name) for name in list(weights) if name.startswith(CARRIED)}
    plain = {name: value for name, value in base.items() if not name.startswith(CARRIED)}
    if getattr(config, "familiarity", None) and not carried:  # an adapter of an earlier version
        config.familiarity = config.abstain_below = None
    with outside(f"the adapter in {adapter} cannot be read", REMEDY):
        known = unpacked(carried)
    return put_on(plain, weights, adapter) | known


def _from_state(
    model_class: type[PreTrainedModel], state: dict[str, Tensor], config: PreTrainedConfig, what: str
) -> PreTrainedModel:
    """Return a model of a config with weights that are in memory."""
    _check_shapes(model_class, {name: list(value.shape) for name, value in state.items()}, config, what)
    build: Any = model_class if issubclass(model_class, PreTrainedModel) else model_class.from_config
    with outside(what, REMEDY):
        model = build(config)
        load_checked(model, state, what)
    _check_finite(model, what)
    return model


def _held_shapes(folder: Path) -> dict[str, list[int]]:
    """Return the shape of each weight in the files of a folder."""
    held: dict[str, list[int]] = {}
    paths = sorted(folder.glob(WEIGHTS))
    if not paths:
        raise BadInputError(f"{folder} has no safetensors weights; {REMEDY}")
    for path in paths:
        with outside(f"{path} is no safetensors file", REMEDY), safe_open(path, "pt") as file:
            held |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return held


def _check_shapes(
    model_class: type[PreTrainedModel], held: dict[str, list[int]], config: PreTrainedConfig, what: str
) -> None:
    """Compare the shapes that a config asks for with those of its weights, before memory is taken for them."""
    # An Auto class, which some tasks name, makes no model of its own.
    build: Any = model_class if issubclass(model_class, PreTrainedModel) else model_class.from_config
    with outside(what, REMEDY), torch.device("meta"):
        wanted = {name: list(one.shape) for name, one in build(config).state_dict().items()}
    other = [
        f"{name} {held[name]} instead of {wanted[name]}"
        for name in wanted
        if held.get(name, wanted[name]) != wanted[name]
    ]
    if other:
        raise BadInputError(f"{what}: they do not have the shapes of {CONFIG}: {_some(other)}; {REMEDY}")
    # A few numbers may be missing and are named later; many would take memory first.
    absent = sum(math.prod(shape) for name, shape in wanted.items() if name not in held)
    if absent > 10 * (1_000_000 + sum(map(math.prod, held.values()))):
        raise BadInputError(f"{what}: {CONFIG} asks for {absent:,} numbers that the files lack; {REMEDY}")


def load_processor(folder: Path) -> FlavourProcessor:
    """Return the processor of a checked folder.

    Raises:
        BadInputError: a file of it is damaged or needs code of its own, or it scales pictures by impossible numbers.
    """
    what = f"cannot load the processor in {folder}"
    with outside(what, REMEDY):
        processor = FlavourProcessor.from_pretrained(folder, trust_remote_code=False)
    pictures = processor.image_processor
    if pictures is not None:
        with outside(what, REMEDY):
            sides = [*dict(pictures.size or {}).values(), *dict(pictures.crop_size or {}).values()]
            sides = [float(side) for side in sides if side is not None]
            numbers = [float(one) for one in (*(pictures.image_mean or ()), pictures.rescale_factor or 0.0)]
            spreads = [float(one) for one in pictures.image_std or ()]
        if any(not 1 <= side <= LARGEST_PICTURE for side in sides):
            raise BadInputError(
                f"{what}: pictures have sides of 1 to {LARGEST_PICTURE} pixels, not {shown(sides)}; {REMEDY}"
            )
        if not all(map(math.isfinite, numbers)) or any(not 1e-4 <= spread < math.inf for spread in spreads):
            raise BadInputError(f"{what}: mean {shown(numbers)} and std {shown(spreads)} scale no picture; {REMEDY}")
    return processor


def read_record(folder: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in a file beside a model; {} where there is none.

    Raises:
        BadInputError: it is no JSON object.
    """
    try:
        content = parse_json(read_text(folder / name, REMEDY), str(folder / name), REMEDY)
    except FileNotFoundError:
        return {}
    if not isinstance(content, dict):
        raise BadInputError(f"{folder / name} holds no JSON object but {type(content).__name__}; {REMEDY}")
    return content


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(shown, names[:NAMED])) + more
