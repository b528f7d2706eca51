"""Low-rank adapters in training (LoRA, Hu et al. 2021): where they go, what else is trained, and what is saved.

While a run trains, the adapters lie inside the model, whose other parts (fusion, heads, LSTM, decoder) train as usual.
In the end they are saved in `adapter/`, and merged where the configuration says so: the folder of the run then holds an
ordinary model.
"""

import copy
import importlib.util
from typing import Any

from torch import nn

from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from dataset_builder.messages import echo
from model_cards.cards import write_model_card
from model_cards.runs import CONFIGURATION
from modeling_flavour.base_flavour import FlavourPreTrainedModel
from modeling_flavour.familiarity_flavour import CARRIED, KnowsItsInputs
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.evaluation.predictions import METRICS
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.tasks.common.adapters import ADAPTER, BASE, NAME, SCALE, UP, WRAPPED, is_adapter, save_adapter
from trainer_scripts.tasks.common.model_folder import load_config, model_folder
from trainer_scripts.tasks.common.starting_points import file_of_model
from trainer_scripts.tasks.common.trainer import BatchNorm

CARRYING = "carried_flavour.py"  # of a base whose code lets an adapter bring what it knows of its inputs
ENCODERS = ("text_encoder", "image_encoder")
ALL_LINEAR = "all-linear"  # peft's word for it


def adapted_backbones(model: FlavourPreTrainedModel) -> dict[str, nn.Module]:
    """Return the backbones that adapters go on, by their place in the model: those that are not frozen."""
    frozen = model.frozen_modules()
    encoders = {name: getattr(model, name, None) for name in ENCODERS}
    return {
        f"{name}.model": encoder.model
        for name, encoder in encoders.items()
        if encoder is not None and encoder.model not in frozen and not isinstance(encoder.model, nn.Embedding)
    }


def target_layers(model: FlavourPreTrainedModel, wanted: list[str] | None) -> list[str]:
    """Return the names of the layers that get an adapter.

    Args:
        model: the whole model.
        wanted: endings of names, such as `query`, or `all-linear`; `None` takes all linear layers of each backbone,
            and all convolutions of one that has hardly any.

    Raises:
        BadInputError: no backbone can be adapted, or no layer has such a name.
    """
    found: list[str] = []
    possible: list[str] = []
    straight: list[str] = []
    for place, backbone in adapted_backbones(model).items():
        layers = {f"{place}.{name}": layer for name, layer in backbone.named_modules()}
        # The kernels of torch's own attention read the weights of its layers, and would pass by an adapter.
        fused = tuple(f"{name}." for name, layer in layers.items() if isinstance(layer, nn.MultiheadAttention))
        free = {name: layer for name, layer in layers.items() if not (fused and name.startswith(fused))}
        linear = [name for name, layer in free.items() if type(layer) is nn.Linear]
        convolutions = [name for name, layer in free.items() if _takes_adapter(layer)]
        possible += linear + convolutions
        straight += linear
        # A network of convolutions may have a few linear layers beside them, such as those of squeeze-and-excitation.
        found += linear if len(linear) > len(convolutions) else convolutions
    if not possible:
        raise BadInputError(
            "lora_rank adapts backbones, and this model has none that trains: they are frozen or tables of word "
            "vectors; give --freeze_text false or --freeze_image false, or leave out lora_rank"
        )
    if wanted is None:
        return found
    if wanted == [ALL_LINEAR] and straight:
        return straight
    chosen = [name for name in possible if any(name == each or name.endswith(f".{each}") for each in wanted)]
    unknown = [each for each in wanted if not any(name == each or name.endswith(f".{each}") for name in chosen)]
    if unknown:
        endings = list(dict.fromkeys(name.rsplit(".", 1)[1] for name in possible))
        raise BadInputError(
            f"lora_targets: no linear or convolution layer of the backbones is called {unknown[0]!r}; there are "
            f"{', '.join(endings[:12])}"
        )
    return chosen


def _takes_adapter(layer: nn.Module) -> bool:
    # The adapter of peft is a convolution of the same kind, without groups and dilation; kinds of convolution that
    # normalise their weights are not the sum of two.
    if not isinstance(layer, nn.Conv2d) or type(layer).__name__ not in ("Conv2d", "Conv2dSame"):
        return False
    return layer.groups == 1 and layer.dilation == (1, 1)


def _hold_still(norm: nn.Module, _: object) -> None:
    norm.eval()


def add_adapters(configuration: Configuration, model: FlavourPreTrainedModel) -> str:
    """Put adapters into the backbones of a model, which are otherwise kept as they are; return a line about them.

    Raises:
        BadInputError: peft is not installed, weights are sharded, or nothing can be adapted.
    """
    training = configuration.training
    if importlib.util.find_spec("peft") is None:
        raise BadInputError('lora_rank needs peft: pip install "flavour-fusion[lora]"')
    if training.fsdp or training.deepspeed:
        raise BadInputError("lora_rank trains few weights, which need no sharding; leave out fsdp and deepspeed")
    if getattr(model.config, "trainable_image_layers", 0):
        raise BadInputError("trainable_image_layers and lora_rank are two ways to adapt a backbone; give one of them")
    from peft import LoraConfig, inject_adapter_in_model

    targets = target_layers(model, training.lora_targets)
    backbones = adapted_backbones(model)
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    rank = training.lora_rank
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=targets), model)
    # peft leaves nothing trainable but adapters; fusion and heads go on learning.
    places = tuple(f"{place}." for place in backbones)
    for name, value in model.named_parameters():
        value.requires_grad_(is_adapter(name) if name.startswith(places) else name in learning)
    # Running statistics are no part of an adapter, so they must not move.
    for backbone in backbones.values():
        for layer in backbone.modules():
            if isinstance(layer, BatchNorm):
                layer.register_forward_pre_hook(_hold_still)
    number = sum(value.numel() for value in model.parameters() if value.requires_grad)
    return f"{len(targets)} layers of the backbones get adapters of rank {rank}; {number:,} parameters are trained"


def describe_adapters(configuration: Configuration, model: nn.Module) -> dict[str, Any]:
    """Return the facts about adapters for `metrics.json`; {} for a run without them."""
    training = configuration.training
    if not training.lora_rank:
        return {}
    layers = sum(name.endswith(f"{UP}{NAME}.weight") for name, _ in model.named_parameters())
    facts = {"rank": training.lora_rank, "alpha": SCALE * training.lora_rank, "layers": layers}
    base = configuration.model.model_name_or_path or str(configuration.output_dir / BASE)
    return {"adapters": {**facts, "base": base, "merged": training.lora_merge}}


def whole_parts(model: nn.Module, backbones: dict[str, nn.Module], place: str = "") -> list[str]:
    """Return the parts outside the adapted backbones that are trained, as large as peft can save them."""
    found = []
    for name, part in model.named_children():
        here = f"{place}{name}"
        if here in backbones or not any(value.requires_grad for value in part.parameters()):
            continue
        inside = any(each.startswith(f"{here}.") for each in backbones)
        if inside or isinstance(part, nn.ModuleList | nn.ModuleDict):
            found += whole_parts(part, backbones, f"{here}.")
        else:
            found.append(here)
    return found


def saved_whole(model: nn.Module, parts: list[str]) -> list[str]:
    """Return the modules that peft looks for in an adapter's file: it takes these names as endings.

    A `head` of the model gives its name to that of a backbone too, which is saved as it is in the base.
    """
    endings = tuple(parts)
    return [name for name, _ in model.named_modules(remove_duplicate=False) if name.endswith(endings)]


def save_adapters(
    configuration: Configuration, model: FlavourPreTrainedModel, processor: FlavourProcessor, results: dict[str, Any]
) -> None:
    """Write `adapter/`, a repository of its own: adapters, the other trained parts, config, processor and card.

    Its base is the checkpoint that the run started from. A run that started from parts has none, and saves in `base/`
    the model whose backbones are as they were.

    Args:
        configuration: of the run.
        model: the trained model, adapters inside.
        processor: of the model.
        results: content of the run's `metrics.json`.
    """
    from peft import LoraConfig

    weights, facts = model.state_dict(), dict(results["adapters"])
    parts = whole_parts(model, adapted_backbones(model))
    # A weight that is tied to that of such a part is saved with a part of its own.
    inside = tuple(f"{part}." for part in parts)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    parts += sorted({name.rpartition(".")[0] for name in tied if not name.startswith(inside)})
    source, revision = configuration.model.model_name_or_path, configuration.model.model_revision
    if source is None:
        base = type(model)(copy.deepcopy(model.config))
        base.load_state_dict({name.replace(WRAPPED, "."): one for name, one in weights.items() if not is_adapter(name)})
        if isinstance(base, KnowsItsInputs):
            base.forget_familiarity()
        base.save_pretrained(facts["base"])
        processor.save_pretrained(facts["base"])
    # What is known of inputs is another thing in the base, whose features are others.
    carried = model.carried_state() if isinstance(model, KnowsItsInputs) else {}
    parts += [name.rpartition(".")[0] for name in carried]
    weights = {name: one for name, one in weights.items() if not name.startswith(CARRIED)} | carried
    settings = LoraConfig(
        r=facts["rank"],
        lora_alpha=facts["alpha"],
        target_modules=[name.partition(UP)[0] for name in weights if UP in name],
        modules_to_save=parts or None,
        base_model_name_or_path=facts["base"],
        revision=revision,
        inference_mode=True,
        # An Auto class loads the base, whichever package or repository its code is in.
        auto_mapping={"base_model_class": model.auto_classes[0], "parent_library": "transformers"},
    )
    folder = configuration.output_dir / ADAPTER
    save_adapter(folder, weights, saved_whole(model, parts), settings)
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    if source is not None:
        known = load_config(model_folder(source, revision or "main"))
        if carried and getattr(known, "auto_map", None) and file_of_model(source, CARRYING, revision) is None:
            echo(
                f"{source} comes with the code of an earlier version, with which peft would leave out what the adapter "
                "knows of its inputs; save that model anew with this version before publishing the adapter"
            )
        facts["new_labels"] = known.id2label != model.config.id2label
        if known.problem_type != model.config.problem_type:
            facts["new_problem_type"] = model.config.problem_type
        results = {**results, "adapters": facts}
    (folder / CONFIGURATION).write_text(configuration.as_yaml(), encoding="utf-8")
    write_json(folder / METRICS, results)
    write_model_card(folder)
