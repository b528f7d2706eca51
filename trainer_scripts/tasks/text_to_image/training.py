"""From a configuration to a pipeline in training."""

import importlib.util
from typing import Any

from dataset_builder.errors import BadInputError
from dataset_builder.pictures.pipelines import load_pipeline
from dataset_builder.pictures.settings import PLATING
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.tasks.common.task import TrainingData
from trainer_scripts.tasks.text_to_image.conditions import Conditions
from trainer_scripts.tasks.text_to_image.drawing import refuse_others
from trainer_scripts.tasks.text_to_image.model import TrainedDenoiser
from trainer_scripts.tasks.text_to_image.saving import PipelineWriter
from trainer_scripts.tasks.text_to_image.scratch import fresh_pipeline

# The projections of attention, as fine-tuning scripts of diffusers adapt them; those of text encoders differ in name.
LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
LORA_TEXT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj"]


def build(configuration: Configuration, data: TrainingData) -> tuple[Any, PipelineWriter]:
    """Return the denoiser of a configuration in its pipeline, and what saves the pipeline.

    Raises:
        BadInputError: there is no such pipeline, its parts do not fit, or it cannot take pictures of this size.
    """
    arguments = configuration.model
    refuse_others(configuration, "text_to_image", "fusion")
    if arguments.pipeline == PLATING:
        raise BadInputError(f"pipeline {PLATING!r} is a program and learns nothing; give a diffusion pipeline")
    if (arguments.pipeline is None) == (arguments.vae is None):
        raise BadInputError(
            "text_to_image starts from a pipeline (--pipeline FOLDER_OR_ID), or makes one around a trained autoencoder "
            "(--vae FOLDER_OR_ID); give one of the two, and none for one that the configuration names"
        )
    if arguments.pipeline is not None:
        name = arguments.pipeline
        pipeline = load_pipeline(name, arguments.model_revision)
    else:
        name, pipeline = "made here", fresh_pipeline(arguments, data.train.texts or ())
    conditions = Conditions(pipeline, name)
    if arguments.pipeline is None and not configuration.training.train_text_encoder:
        raise BadInputError("a fresh text encoder knows no word yet; give --train_text_encoder true with --vae")
    model = TrainedDenoiser(conditions, picture_size(configuration, conditions, name), configuration)
    return model, PipelineWriter(model, configuration)


def picture_size(configuration: Configuration, conditions: Conditions, name: str) -> int:
    """Return height and width of the pictures in pixels.

    Raises:
        BadInputError: the autoencoder or the denoiser cannot take them.
    """
    part: Any = conditions.denoiser
    vae, denoiser = conditions.pipeline.vae.config, part.config
    smaller = 2 ** (len(vae.block_out_channels) - 1)
    size = configuration.model.image_size or int(denoiser.sample_size) * smaller
    patch = 2 ** (len(denoiser.block_out_channels) - 1) if conditions.is_unet else int(denoiser.patch_size)
    if size % (smaller * patch):
        near = max(1, round(size / (smaller * patch))) * smaller * patch
        raise BadInputError(
            f"image_size {size}: the autoencoder of {name!r} makes it {smaller} times smaller and the denoiser "
            f"{patch} times more, so it must be a multiple of {smaller * patch}; {near} is near"
        )
    return size


def adapt(configuration: Configuration, model: TrainedDenoiser) -> str:
    """Put low-rank adapters (LoRA, Hu et al. 2021) into the denoiser, whose own weights stay; return a line about them.

    Raises:
        BadInputError: peft is not installed, no layer has such a name, or the pipeline could not load the adapters.
    """
    training, conditions = configuration.training, model.conditions
    if importlib.util.find_spec("peft") is None:
        raise BadInputError('lora_rank needs peft: pip install "flavour-fusion[lora]"')
    if not training.lora_merge and not hasattr(conditions.pipeline, "save_lora_weights"):
        raise BadInputError(
            f"a {type(conditions.pipeline).__name__} loads no LoRA weights; leave lora_merge false out, and they are "
            "merged into the pipeline"
        )
    from peft import LoraConfig, inject_adapter_in_model

    rank, parts = training.lora_rank, [(model.denoiser, training.lora_targets or LORA_TARGETS)]
    if training.train_text_encoder:
        parts += [(encoder, LORA_TEXT_TARGETS) for encoder in model.text_encoder]
    for part, targets in parts:
        names = [name for name, _ in part.named_modules()]
        unknown = [each for each in targets if not any(f".{name}".endswith(f".{each}") for name in names)]
        if unknown:
            raise BadInputError(
                f"lora_targets: no layer of the {type(part).__name__} is called {unknown[0]!r}; the projections of "
                f"attention are {', '.join(LORA_TARGETS)}"
            )
        adapted: Any = part
        adapted.requires_grad_(False)
        # Alpha is the rank, which loaders assume where a file does not state it.
        settings = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
        if hasattr(part, "add_adapter"):
            adapted.add_adapter(settings)
        else:  # a transformer whose pipeline loads no LoRA weights
            inject_adapter_in_model(settings, adapted)
    number = sum(value.numel() for value in model.parameters() if value.requires_grad)
    return f"the attention of the denoiser gets adapters of rank {rank}; {number:,} parameters are trained"
