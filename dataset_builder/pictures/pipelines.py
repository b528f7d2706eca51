"""Loads any diffusers text-to-image pipeline by name, with scheduler, LoRA and revision, and adapts to its call."""

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline

from dataset_builder.boundaries import outside
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.revisions import locate, locate_lora
from dataset_builder.pictures.settings import PLATING, parse_lora
from dataset_builder.pictures.single_file import load_single_file, locate_configuration

PLATING_SIZE = 128


def load_pipeline(
    name: str,
    revision: str | None = None,
    dtype: str = "float32",
    scheduler: str | None = None,
    loras: Sequence[str] = (),
    device: torch.device | str = "cpu",
    variant: str | None = None,
    configuration: str | None = None,
) -> Any:
    """Load a text-to-image pipeline onto its device, without progress bars.

    Args:
        name: "plating", a Hub id, a folder, or a single safetensors file.
        revision: branch, tag or commit of a Hub id; None is its main branch.
        dtype: a name in `settings.DTYPES`.
        scheduler: class name of a diffusers scheduler that replaces the pipeline's own with the same configuration.
        loras: LoRA weights as `settings.parse_lora` reads them.
        device: where it runs.
        variant: of the weights, such as "fp16"; None is the plain one.
        configuration: folder or Hub id with the configuration of a single file; None is the usual one of its kind.

    Raises:
        BadInputError: anything of the above does not exist or does not fit.
    """
    if name == PLATING:
        from dataset_builder.plating.pipeline import PlatingPipeline

        pipeline: Any = PlatingPipeline()
    else:
        transformers.utils.logging.disable_progress_bar()
        diffusers.utils.logging.disable_progress_bar()
        pipeline = _load(name, revision, getattr(torch, dtype), variant, configuration)
        _require_text_to_image(pipeline, name)
        if scheduler is not None:
            pipeline.scheduler = _other_scheduler(scheduler, pipeline.scheduler.config)
        if loras:
            _load_loras(pipeline, loras)
        try:
            pipeline.to(device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise BadInputError(
                f"{device} has too little memory for pipeline {name!r}; load it with --dtype float16 (or bfloat16), or "
                "give a smaller one"
            ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _load(name: str, revision: str | None, dtype: torch.dtype, variant: str | None, configuration: str | None) -> Any:
    """Return the pipeline of a folder or of a single file, in the memory of this machine."""
    place = locate(name, revision, variant)
    if place.is_file():
        if variant is not None:
            raise BadInputError(f"pipeline {name!r} is one file, of one kind of weights; leave --variant {variant} out")
        folder = locate_configuration(place, configuration)
        remedy = "give a file with all its weights, and the --pipeline-config that fits them"
        with outside(f"pipeline {name!r} cannot be loaded", remedy), errors_only():
            return load_single_file(place, folder, dtype)
    if configuration is not None:
        raise BadInputError(f"pipeline {name!r} has its own configuration; leave --pipeline-config {configuration} out")
    remedy = "give a folder that save_pretrained wrote, or a Hub id"
    if variant is not None:
        remedy = f"check that it has {variant} weights, or leave --variant out"
    with outside(f"pipeline {name!r} cannot be loaded", remedy):
        return DiffusionPipeline.from_pretrained(
            place, dtype=dtype, variant=variant, use_safetensors=True, trust_remote_code=False
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory did not suffice, of a device or of this machine."""
    # CUDA, ROCm, XPU and MPS say "out of memory" in one way or another, the CPU that it "can't allocate memory".
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in text for words in ("out of memory", "can't allocate memory", "not enough memory"))
    )


@contextmanager
def errors_only() -> Iterator[None]:
    """Silence both libraries except for errors: notices of every single call would bury a progress bar."""
    logs = (diffusers.utils.logging, transformers.utils.logging)
    before = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity_error()
    try:
        yield
    finally:
        # Code that runs later in the same process, such as a training, keeps its own verbosity.
        for log, level in zip(logs, before, strict=True):
            log.set_verbosity(level)


def _require_text_to_image(pipeline: Any, name: str) -> None:
    parameters = set(inspect.signature(pipeline.__call__).parameters)
    # Pipelines that change a given picture have one of these parameters.
    if not {"prompt", "generator"} <= parameters or parameters & {"strength", "image_guidance_scale", "mask_image"}:
        raise BadInputError(f"{name!r} is a {type(pipeline).__name__}, which does not make pictures from text alone")


def _other_scheduler(name: str, config: Any) -> Any:
    """Return a scheduler of this class with the configuration of another one."""
    scheduler: Any = getattr(diffusers, name, None)
    missing = getattr(scheduler, "_backends", None)  # diffusers puts a placeholder where a library is not installed
    if missing and not issubclass(scheduler, diffusers.SchedulerMixin):
        raise BadInputError(f"scheduler {name!r} needs {' and '.join(missing)}, which is not all installed")
    is_scheduler = isinstance(scheduler, type) and issubclass(scheduler, diffusers.SchedulerMixin)
    if not (is_scheduler and hasattr(scheduler, "from_config")):
        raise BadInputError(f"scheduler {name!r} is no diffusers scheduler class; DPMSolverMultistepScheduler is one")
    return scheduler.from_config(config)


def _load_loras(pipeline: Any, loras: Sequence[str]) -> None:
    if not hasattr(pipeline, "load_lora_weights"):
        raise BadInputError(f"{type(pipeline).__name__} takes no LoRA weights; leave --lora {' '.join(loras)} out")
    scales: dict[str, float] = {}
    for number, (lora, scale) in enumerate(map(parse_lora, loras)):
        path, adapter = locate_lora(lora), f"lora_{number}"
        folder, where = (path.parent, {"weight_name": path.name}) if path.is_file() else (path, {})
        with outside(f"LoRA {lora!r} does not load into this pipeline", "give weights made for it"):
            pipeline.load_lora_weights(str(folder), use_safetensors=True, adapter_name=adapter, **where)
        # diffusers passes over weights for another kind of model.
        if not any(adapter in loaded for loaded in pipeline.get_list_adapters().values()):
            raise BadInputError(
                f"LoRA {lora!r} holds nothing for a {type(pipeline).__name__}; give weights made for it"
            )
        scales[adapter] = scale
    # Without this call the last one alone is active.
    with outside(f"--lora {' '.join(loras)} do not work together", "leave one of them out"):
        pipeline.set_adapters(list(scales), list(scales.values()))


class PromptReader:
    """Finds the part of a prompt that the text encoders of a pipeline read; CLIP, for example, reads 77 tokens.

    Of several encoders the one that reads most decides.

    Args:
        pipeline: any text-to-image pipeline; of one without tokenizers everything is read.
    """

    def __init__(self, pipeline: Any):
        most = inspect.signature(pipeline.__call__).parameters.get("max_sequence_length")
        found: list[Any] = [getattr(pipeline, name, None) for name in ("tokenizer", "tokenizer_2", "tokenizer_3")]
        self._tokenizers = [
            (tokenizer, min(tokenizer.model_max_length, most.default) if most else tokenizer.model_max_length)
            for tokenizer in found
            if getattr(tokenizer, "is_fast", False)
        ]

    def part_read(self, prompt: str) -> str | None:
        """Return the part of a prompt that is read, whole words only, or None where all of it is."""
        end = 0
        for tokenizer, limit in self._tokenizers:
            if len(tokenizer(prompt, verbose=False)["input_ids"]) <= limit:
                return None
            tokens = tokenizer(prompt, truncation=True, max_length=limit, return_offsets_mapping=True)
            # The offsets of special tokens are (0, 0) and never the largest.
            end = max(end, *(last for _, last in tokens["offset_mapping"]))
        if not self._tokenizers:
            return None
        # A word that was cut in its middle is dropped.
        part = re.sub(r"\w+$", "", prompt[:end]) if prompt[end : end + 1].isalnum() else prompt[:end]
        return part.rstrip(" ,")


class CallArguments:
    """The arguments of a pipeline's call, with its own defaults made explicit.

    Args:
        pipeline: any text-to-image pipeline.
        steps, guidance, size: None takes the pipeline's own default.
        negative_prompt: None for none.

    Raises:
        BadInputError: a setting for which the pipeline has no parameter.
    """

    def __init__(
        self, pipeline: Any, steps: int | None, guidance: float | None, size: int | None, negative_prompt: str | None
    ):
        parameters = inspect.signature(pipeline.__call__).parameters
        options = {
            "num_inference_steps": ("--steps", steps),
            "guidance_scale": ("--guidance", guidance),
            "height": ("--size", size),
            "width": ("--size", size),
            "negative_prompt": ("--negative-prompt", negative_prompt),
        }
        for key, (option, value) in options.items():
            if value is not None and key not in parameters:
                raise BadInputError(f"{type(pipeline).__name__} has no parameter {key}; leave {option} {value} out")
        defaults = {
            key: parameters[key].default for key in ("num_inference_steps", "guidance_scale") if key in parameters
        }
        self.steps: int | None = steps if steps is not None else defaults.get("num_inference_steps")
        self.guidance: float | None = guidance if guidance is not None else defaults.get("guidance_scale")
        self.negative_prompt = negative_prompt
        given = {"num_inference_steps": self.steps, "guidance_scale": self.guidance, "height": size, "width": size}
        self.keywords: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        # Prompts go to the encoder, and sizes to the model, exactly as recorded.
        for key in ("clean_caption", "use_resolution_binning"):
            if key in parameters:
                self.keywords[key] = False

    def for_prompts(self, prompts: list[str]) -> dict[str, Any]:
        """Return the keyword arguments of one call but for the generators."""
        arguments = {"prompt": prompts, **self.keywords}
        if self.negative_prompt is not None:
            arguments["negative_prompt"] = [self.negative_prompt] * len(prompts)
        return arguments
