"""What a picture is made from and what comes of it: settings, tasks, seeds. No model library is imported here."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
        lora: names of LoRA weights, one or several, as `parse_lora` reads them; None for none.
        masks: "pipeline" takes the masks that the pipeline returns, if it does; "attention" derives them from
            cross-attention.
        clip: folder or Hub id (`org/clip@revision` pins it) of a CLIP model that finds off-prompt pictures; None leaves
            that check out.
        attempts: how often a picture is drawn before its row is given up.
        batch_size: pictures per call of the pipeline; fewer where its memory does not suffice.
        variant: of the pipeline's weights, such as "fp16"; None is the plain one.
        pipeline_config: folder or Hub id (`org/name@revision` pins it) with the configuration of a pipeline that is a
            single file of weights; None is the one that diffusers knows for its kind.
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
    lora: str | Sequence[str] | None = None
    masks: str = PIPELINE_MASKS
    clip: str | None = None
    attempts: int = 4
    batch_size: int = 8
    variant: str | None = None
    pipeline_config: str | None = None

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
        for one in self.loras:
            parse_lora(one)
        if self.pipeline != PLATING:
            return
        for name in ("revision", "scheduler", "lora", "guidance", "variant", "pipeline_config"):
            value = getattr(self, name)
            if value is not None:
                value = " ".join(self.loras) if name == "lora" else value
                option = name.replace("_", "-")
                raise BadInputError(f"the plating pipeline has no {option}; leave --{option} {value} out")
        if self.dtype != "float32":
            raise BadInputError(f"the plating pipeline draws in float32 alone; leave --dtype {self.dtype} out")

    @property
    def loras(self) -> tuple[str, ...]:
        """The LoRA weights as they were given, in order."""
        return (self.lora,) if isinstance(self.lora, str) else tuple(self.lora or ())


def parse_lora(text: str) -> tuple[str, float]:
    r"""Return the name of LoRA weights (folder, file, Hub id or `ID@REVISION`) and the scale behind a colon, else 1.

    What exists under the whole text is a name, and so is what has no number behind its last colon.

    >>> parse_lora("org/lora@v1:0.8"), parse_lora("org/lora"), parse_lora(r"C:\lora\a.safetensors:-1")
    (('org/lora@v1', 0.8), ('org/lora', 1.0), ('C:\\lora\\a.safetensors', -1.0))

    Raises:
        BadInputError: there is no name, or the scale is not finite.
    """
    name, colon, number = text.rpartition(":")
    try:
        scale = float(number) if colon and not Path(text).expanduser().exists() else None
    except (ValueError, OSError, RuntimeError):  # no number; too long for a path, or the home of nobody
        scale = None
    name, scale = (text, 1.0) if scale is None else (name, scale)
    if not name or not math.isfinite(scale):
        raise BadInputError(f"--lora {text!r} is no name with a finite scale; write NAME, or NAME:0.8")
    return name, scale


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
