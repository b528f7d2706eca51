"""Draws recipes with any diffusers text-to-image pipeline: one seed per picture, checks, and new attempts."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from dataset_builder.catalogue.ingredients import ingredient_id
from dataset_builder.columns import BACKGROUND, UNKNOWN
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.attention_masks import AttentionMasks
from dataset_builder.pictures.captions import captions_from_plate, captions_from_prompt
from dataset_builder.pictures.pipelines import (
    PLATING_SIZE,
    CallArguments,
    PromptReader,
    errors_only,
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


class Illustrator:
    """Draws pictures with one loaded pipeline.

    Args:
        settings: of the pictures.
        pipeline_revision: commit or hash of the pipeline, recorded with every picture.
        lora_revision: the same for LoRA weights; None without them.
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
            settings.pipeline, settings.revision, settings.dtype, settings.scheduler, settings.lora, device
        )
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
            output, masks = self._call(pending)
            faults = self._faults(pending, output, masks)
            for index, task in enumerate(pending):
                fault = faults[index]
                if fault is None and duplicates is not None:
                    fault = duplicates.fault(output.images[index], task.recipe, task.row_id)
                if fault is None:
                    done[task.row_id] = self._picture(task, output, index, masks[index], rejected[task.row_id])
                else:
                    rejected[task.row_id].append(f"{fault} (seed {task.seed})")
        # Rows whose pictures were all rejected stay in the list, without an image, for the manifest to name them.
        given_up = {"attempts": self.settings.attempts}
        return [
            done.get(task.row_id) or Picture(None, generation={**given_up, "rejected": rejected[task.row_id]})
            for task in tasks
        ]

    def _call(self, tasks: Sequence[PictureTask]) -> tuple[Any, list[np.ndarray | None]]:
        """Return the pipeline's output for one batch, and the mask of each picture, None where there is none."""
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
        if self._attention:
            width, height = output.images[0].size
            return output, list(self._attention.masks(height, width))
        return output, list(getattr(output, "masks", None) or [None] * len(tasks))

    def _faults(
        self, tasks: Sequence[PictureTask], output: Any, masks: Sequence[np.ndarray | None]
    ) -> list[str | None]:
        # Only some pipelines have a safety checker, and only plating returns plates.
        flags = getattr(output, "nsfw_content_detected", None) or [False] * len(tasks)
        plates = getattr(output, "plates", None) or [None] * len(tasks)
        faults = [
            picture_fault(image, flag, mask, plate is not None and plate.liquid)
            for image, flag, mask, plate in zip(output.images, flags, masks, plates, strict=True)
        ]
        if self._off_prompt:
            scored = self._off_prompt.faults(output.images, [task.prompt for task in tasks])
            faults = [fault or score for fault, score in zip(faults, scored, strict=True)]
        return faults

    def _picture(
        self, task: PictureTask, output: Any, index: int, mask: np.ndarray | None, rejected: list[str]
    ) -> Picture:
        image = output.images[index]
        plates = getattr(output, "plates", None)
        read = self._reader.part_read(task.prompt)
        if plates is not None:
            captions = captions_from_plate(plates[index], task.title, task.seed)
            ids = sorted(ingredient_id(item.name) for item in plates[index].items)
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
