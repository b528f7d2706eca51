"""Draws recipes with any diffusers text-to-image pipeline: one seed per picture, checks, and new attempts."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache
from PIL import Image

from dataset_builder.catalogue.ingredients import ingredient_id
from dataset_builder.columns import BACKGROUND, UNKNOWN
from dataset_builder.errors import BadInputError
from dataset_builder.messages import echo
from dataset_builder.pictures.attention_masks import AttentionMasks
from dataset_builder.pictures.captions import captions_from_plate, captions_from_prompt
from dataset_builder.pictures.pipelines import (
    PLATING_SIZE,
    CallArguments,
    PromptReader,
    errors_only,
    is_out_of_memory,
    load_pipeline,
)
from dataset_builder.pictures.quality import NearDuplicates, OffPrompt, picture_fault
from dataset_builder.pictures.settings import (
    ATTENTION_MASKS,
    PLATING,
    GenerationSettings,
    Picture,
    PictureTask,
    attempt_seed,
)


def ids_in(mask: np.ndarray | None) -> list[int]:
    """Return the ids of the ingredients in a mask, sorted."""
    if mask is None:
        return []
    # Pillow's histogram is several times faster than `np.unique`.
    counts = Image.frombuffer("L", mask.shape[::-1], np.ascontiguousarray(mask)).histogram()
    return [value for value, count in enumerate(counts) if count and value not in (BACKGROUND, UNKNOWN)]


@dataclass(frozen=True)
class _Drawn:
    """What a pipeline gave for one task: only plating returns plates, and only some have a safety checker."""

    image: Image.Image
    mask: np.ndarray | None
    flagged: bool
    plate: Any


class Illustrator:
    """Draws pictures with one loaded pipeline.

    Args:
        settings: of the pictures.
        pipeline_revision: commit or hash of the pipeline, recorded with every picture.
        lora_revision: the same for LoRA weights, as `revisions.lora_revision` gives it; None without them.
        device: where models run; pictures do not depend on it beyond rounding, as noise always comes from the CPU.

    Raises:
        BadInputError: the pipeline cannot be loaded or does not understand the settings.
    """

    def __init__(
        self,
        settings: GenerationSettings,
        pipeline_revision: str,
        lora_revision: str | None = None,
        device: torch.device | str = "cpu",
    ):
        self.settings = settings
        self.pipeline = load_pipeline(
            settings.pipeline,
            settings.revision,
            settings.dtype,
            settings.scheduler,
            settings.loras,
            device,
            settings.variant,
            settings.pipeline_config,
        )
        self._per_call = settings.batch_size  # fewer from the call on for which memory did not suffice
        size = settings.size if settings.size or settings.pipeline != PLATING else PLATING_SIZE
        self._arguments = CallArguments(
            self.pipeline, settings.steps, settings.guidance, size, settings.negative_prompt
        )
        self._reader = PromptReader(self.pipeline)
        # Plating logs nothing, and setting the libraries' verbosity would take a fiftieth of its time.
        self._quiet = nullcontext if settings.pipeline == PLATING else errors_only
        self._attention = AttentionMasks(self.pipeline) if settings.masks == ATTENTION_MASKS else None
        self._off_prompt = OffPrompt(settings.clip, device) if settings.clip else None
        scheduler = getattr(self.pipeline, "scheduler", None)
        self._record = {
            "negative_prompt": settings.negative_prompt,
            "pipeline": settings.pipeline,
            "revision": pipeline_revision,
            "scheduler": type(scheduler).__name__ if scheduler is not None else None,
            "lora": lora_revision,
            "dtype": settings.dtype,
            "steps": self._arguments.steps,
            "guidance": self._arguments.guidance,
        }

    def draw(self, tasks: Sequence[PictureTask]) -> Iterator[Picture]:
        """Yield the picture of each task in order.

        The same tasks always give the same pictures: batches are cut from the start, and what is rejected is drawn
        again together with what else was rejected of its batch. Pictures of one recipe are compared with each other.
        """
        several_of_one_recipe = len({task.recipe for task in tasks}) < len(tasks)
        duplicates = NearDuplicates() if several_of_one_recipe else None
        for start in range(0, len(tasks), self.settings.batch_size):
            yield from self._draw_batch(tasks[start : start + self.settings.batch_size], duplicates)

    def _draw_batch(self, tasks: Sequence[PictureTask], duplicates: NearDuplicates | None) -> list[Picture]:
        done: dict[str, Picture] = {}
        rejected: dict[str, list[str]] = {task.row_id: [] for task in tasks}
        for attempt in range(1, self.settings.attempts + 1):
            # What is still rejected of this batch, each picture with the seed of this attempt.
            pending = [
                task if attempt == 1 else replace(task, seed=attempt_seed(task.seed, attempt))
                for task in tasks
                if task.row_id not in done
            ]
            if not pending:
                break
            drawn = self._within_memory(pending)
            for task, one, found in zip(pending, drawn, self._faults(pending, drawn), strict=True):
                fault = found
                if fault is None and duplicates is not None:
                    fault = duplicates.fault(one.image, task.recipe, task.row_id)
                if fault is None:
                    done[task.row_id] = self._picture(task, one, rejected[task.row_id])
                else:
                    rejected[task.row_id].append(f"{fault} (seed {task.seed})")
        # Rows whose pictures were all rejected stay in the list, without an image, for the manifest to name them.
        given_up = {"attempts": self.settings.attempts}
        return [
            done.get(task.row_id) or Picture(None, generation={**given_up, "rejected": rejected[task.row_id]})
            for task in tasks
        ]

    def _within_memory(self, tasks: Sequence[PictureTask]) -> list[_Drawn]:
        """Draw one batch in as few calls as memory allows.

        The pictures are those of one call but for rounding: each has a generator of its own.

        Raises:
            BadInputError: memory does not suffice for a single picture.
        """
        drawn: list[_Drawn] = []
        while len(drawn) < len(tasks):
            part = tasks[len(drawn) : len(drawn) + self._per_call]
            try:
                drawn += self._call(part)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise BadInputError(
                        f"memory does not suffice for one picture of {type(self.pipeline).__name__}; lower --size, "
                        "load it with --dtype float16 (or bfloat16), or give a smaller --pipeline"
                    ) from error
            # Out of the block above, which keeps the failed call's tensors alive.
            clear_device_cache(garbage_collection=True)
            self._per_call = len(part) // 2
            echo(
                f"out of memory with {len(part)} pictures per call: going on with {self._per_call}; "
                f"--batch-size {self._per_call} does so from the start",
                sys.stderr,
            )
        return drawn

    def _call(self, tasks: Sequence[PictureTask]) -> list[_Drawn]:
        """Return what the pipeline gives for some tasks in one call."""
        generators = [torch.Generator("cpu").manual_seed(task.seed) for task in tasks]
        texts = [task.prompt for task in tasks]
        try:
            with self._quiet(), self._attention.recording(texts) if self._attention else nullcontext():
                output = self.pipeline(**self._arguments.for_prompts(texts), generator=generators)
        except BadInputError:
            raise
        except (ValueError, TypeError, AttributeError, IndexError) as error:  # raised by pipelines for bad values
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise BadInputError(
                f"{type(self.pipeline).__name__} does not draw with these settings ({reason}); "
                "change --size, --steps, --guidance or --scheduler"
            ) from error
        nothing = [None] * len(tasks)
        masks = getattr(output, "masks", None) or nothing
        if self._attention:
            width, height = output.images[0].size
            masks = self._attention.masks(height, width)
        flags = getattr(output, "nsfw_content_detected", None) or nothing
        plates = getattr(output, "plates", None) or nothing
        given = zip(output.images, masks, flags, plates, strict=True)
        return [_Drawn(image, mask, bool(flag), plate) for image, mask, flag, plate in given]

    def _faults(self, tasks: Sequence[PictureTask], drawn: Sequence[_Drawn]) -> list[str | None]:
        faults = [
            picture_fault(one.image, one.flagged, one.mask, one.plate is not None and one.plate.liquid) for one in drawn
        ]
        if self._off_prompt:
            scored = self._off_prompt.faults([one.image for one in drawn], [task.prompt for task in tasks])
            faults = [fault or score for fault, score in zip(faults, scored, strict=True)]
        return faults

    def _picture(self, task: PictureTask, drawn: _Drawn, rejected: list[str]) -> Picture:
        image, mask = drawn.image, drawn.mask
        read = self._reader.part_read(task.prompt)
        if drawn.plate is not None:
            captions = captions_from_plate(drawn.plate, task.title, task.seed)
            ids = sorted(ingredient_id(item.name) for item in drawn.plate.items)
        else:
            captions = captions_from_prompt(task.prompt if read is None else read, mask, task.seed)
            ids = ids_in(mask)
        record = {
            "prompt": task.prompt,
            "prompt_read": read,
            **self._record,
            "seed": task.seed,
            "height": image.height,
            "width": image.width,
            "attempts": len(rejected) + 1,
            "rejected": rejected,
        }
        return Picture(image, mask, captions, record, ids)
