"""What a picture is made from and what comes of it: settings, tasks, seeds. No model library is imported here."""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from dataset_builder.errors import BadInputError
from dataset_builder.pictures import prompts

PLATING = "plating"
DTYPES = ("float32", "float16", "bfloat16")
PIPELINE_MASKS = "pipeline"
ATTENTION_MASKS = "attention"
MASKS = (PIPELINE_MASKS, ATTENTION_MASKS)


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of the pictures; each of them changes the result.

    Attributes:
        pipeline: "plating", or the Hub id or folder of a diffusers text-to-image pipeline.
        revision: branch, tag or commit of a Hub id; None is its main branch.
        template: a name in `prompts.TEMPLATES`.
        negative_prompt: what the picture should not show; None for nothing.
        steps: denoising steps; None is the pipeline's default.
        guidance: guidance scale; None is the pipeline's default.
        size: side of the square picture in pixels; None is 128 for plating and the pipeline's default otherwise.
        dtype: "float32", "float16" or "bfloat16".
        scheduler: class name of a diffusers scheduler; None keeps the pipeline's own.
        lora: folder, file or Hub id of LoRA weights; `org/lora@revision` pins them.
        masks: "pipeline" takes the masks that the pipeline returns, if it does; "attention" derives them from
            cross-attention.
        clip: folder or Hub id (`org/clip@revision` pins it) of a CLIP model that finds off-prompt pictures; None leaves
            that check out.
        attempts: how often a picture is drawn before its row is given up.
        batch_size: pictures per call of the pipeline.
    """

    pipeline: str = PLATING
    revision: str | None = None
    template: str = "ingredients"
    negative_prompt: str | None = None
    steps: int | None = None
    guidance: float | None = None
    size: int | None = None
    dtype: str = "float32"
    scheduler: str | None = None
    lora: str | None = None
    masks: str = PIPELINE_MASKS
    clip: str | None = None
    attempts: int = 4
    batch_size: int = 8

    def __post_init__(self) -> None:
        prompts.render(self.template, "", ())
        for name, allowed in (("dtype", DTYPES), ("masks", MASKS)):
            if getattr(self, name) not in allowed:
                raise BadInputError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        for name in ("attempts", "batch_size", "steps", "size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInputError(f"{name} is {value}; give a whole number of at least 1")
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise BadInputError(f"guidance is {self.guidance}; give a finite number")
        if self.pipeline != PLATING:
            return
        for name in ("revision", "scheduler", "lora", "guidance"):
            value = getattr(self, name)
            if value is not None:
                raise BadInputError(f"the plating pipeline has no {name}; leave --{name} {value} out")
        if self.dtype != "float32":
            raise BadInputError(f"the plating pipeline draws in float32 alone; leave --dtype {self.dtype} out")


@dataclass(frozen=True)
class PictureTask:
    """One picture to draw.

    Attributes:
        row_id: id of its row.
        recipe: equal for the pictures of one recipe, which must not repeat each other.
        title: of the recipe.
        prompt: text given to the pipeline.
        seed: of the first attempt.
    """

    row_id: str
    recipe: str
    title: str
    prompt: str
    seed: int


@dataclass
class Picture:
    """The outcome of one task; `image` is None when every attempt was rejected.

    `mask` is `(height, width)` uint8 of ingredient ids or None without masks; `generation` is the column of that name;
    `ingredient_labels` are the ids of the ingredients in the mask, sorted.
    """

    image: Image.Image | None
    mask: np.ndarray | None = None
    captions: list[str] = field(default_factory=list)
    generation: dict[str, Any] = field(default_factory=dict)
    ingredient_labels: list[int] = field(default_factory=list)


def picture_seed(build_seed: int, row_id: str) -> int:
    """Return the seed of the first attempt at a row's picture, 0 to 2**63 - 1."""
    return _seed_from(f"{build_seed}|{row_id}")


def attempt_seed(seed: int, attempt: int) -> int:
    """Return the seed of an attempt: the picture's own for the first, one derived from it for each later one."""
    return seed if attempt == 1 else _seed_from(f"{seed}|{attempt}")


def _seed_from(text: str) -> int:
    # 63 bits, because torch and Parquet hold signed numbers.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
