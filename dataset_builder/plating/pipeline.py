"""A text-to-image pipeline without weights: it draws the dish from the ingredients that its prompt names.

Plated pictures are a simulation of food photography. They need no diffusion model, and unlike one they come with exact
masks of the ingredients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image

from dataset_builder.catalogue.ingredients import Ingredient, find_ingredients, ingredient_id, prompt_ingredients
from dataset_builder.catalogue.serving import BOWL, GLASS, LIQUIDS, hidden_liquids, vessel_for
from dataset_builder.columns import BACKGROUND
from dataset_builder.plating.beds import soup
from dataset_builder.plating.canvas import Array, Canvas, sensor_noise
from dataset_builder.plating.cook import Cook
from dataset_builder.plating.vessels import Vessel, draw_cutlery, draw_napkin, draw_table, draw_vessel, one_place

DEFAULT_SIZE = 128
SMALLEST_SIZE, LARGEST_SIZE = 64, 512
# Up to this size a picture is drawn at twice its size, and four drawn pixels make one.
SUPERSAMPLED_UP_TO = 256
MOST_INGREDIENTS = 12
# A piece counts as seen when this share of it shows.
SEEN_SHARE = 0.25
OUTPUT_TYPES = ("pil", "np", "pt")
DRINKS = np.array(
    [(0.36, 0.20, 0.10), (0.72, 0.42, 0.14), (0.93, 0.86, 0.72), (0.80, 0.62, 0.34), (0.86, 0.88, 0.84)], np.float32
)


@dataclass(frozen=True)
class PlateItem:
    """One visible ingredient of a plate.

    Attributes:
        name: canonical name in the catalogue.
        group: its food group.
        pieces: how many pieces are seen; 1 for a bed.
        area: share of the picture, 0..1.
        x: centre from left 0 to right 1.
        y: centre from top 0 to bottom 1.
        spread: root mean square distance of its pixels from that centre, in picture widths.
    """

    name: str
    group: str
    pieces: int
    area: float
    x: float
    y: float
    spread: float = 0.0


@dataclass(frozen=True)
class Plate:
    """What a picture shows.

    Attributes:
        vessel: what the dish is served in.
        items: the ingredients in its final mask, the largest area first.
        liquid: whether the vessel holds a drink or a sauce in which no ingredient can be seen.
    """

    vessel: str
    items: tuple[PlateItem, ...]
    liquid: bool = False


@dataclass
class PlatingPipelineOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        images: PIL images, or an array `(batch, height, width, 3)` of 0..1, or a tensor `(batch, 3, height, width)`.
        masks: per image the ingredient ids, uint8 `(height, width)`, 0 where there is no ingredient.
        plates: per image the vessel and the visible ingredients.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor
    masks: list[np.ndarray]
    plates: list[Plate]


def _drink_colour(rng: np.random.Generator, ingredients: list[Ingredient]) -> Array:
    """Return the colour of a drink without a known liquid: the juice of the first fruit, or tea, or milk."""
    choice = DRINKS[rng.integers(len(DRINKS))]
    for ingredient in ingredients:
        if ingredient.group in ("berry", "fruit", "citrus"):
            return 0.75 * np.array(ingredient.colours[0], np.float32) / 255 + 0.25 * choice
    return choice


def _develop(canvas: Canvas, factor: int) -> Array:
    """Return the photograph `(height, width, 3)`, 0..1: fewer pixels, uneven light, colour cast, sensor noise."""
    rng, side = canvas.rng, canvas.side // factor
    pixels = canvas.pixels
    if factor > 1:
        pixels = 0.25 * (pixels[:, ::2, ::2] + pixels[:, 1::2, ::2] + pixels[:, ::2, 1::2] + pixels[:, 1::2, 1::2])
    # Light falls off across the picture, away from the lamp, and towards its corners.
    steps = np.linspace(-1, 1, side, dtype=np.float32)
    slope = rng.uniform(0.0, 0.12)
    along = slope * (steps[None, :] * float(canvas.light[0]) + steps[:, None] * float(canvas.light[1]))
    vignette = rng.uniform(0.02, 0.12) * (steps[None, :] ** 2 + steps[:, None] ** 2)
    warmth = rng.normal(0, 0.025)
    cast = np.array([1 + warmth, 1.0, 1 - warmth], np.float32)[:, None, None] * np.float32(rng.uniform(0.92, 1.08))
    pixels = pixels * (1 + along - vignette) * cast
    # A random window of one fixed field is much cheaper than new noise for every picture.
    top, left = rng.integers(0, side + 1, 2)
    pixels += sensor_noise(side)[:, top : top + side, left : left + side] * rng.uniform(0.004, 0.012)
    return np.clip(pixels, 0, 1, out=pixels).transpose(1, 2, 0)


def item_seen(ingredient: Ingredient, where: np.ndarray, pieces: int) -> PlateItem:
    """Return area and position of an ingredient from its pixels `where`, bool `(height, width)`, not all false."""
    rows, columns = np.nonzero(where)
    height, width = where.shape
    return PlateItem(
        name=ingredient.name,
        group=ingredient.group,
        pieces=pieces,
        area=len(rows) / where.size,
        x=float((columns.mean() + 0.5) / width),
        y=float((rows.mean() + 0.5) / height),
        spread=float(np.sqrt(rows.var() / height**2 + columns.var() / width**2)),
    )


def _describe(pieces: Array, canvas: Canvas, named: dict[int, Ingredient]) -> tuple[np.ndarray, tuple[PlateItem, ...]]:
    """Return mask and ingredients of the piece numbers `(height, width)` of the finished picture."""
    owners = np.array(canvas.owners, np.uint8)
    mask = owners[pieces]
    side = len(mask)
    seen = np.bincount(pieces.ravel(), minlength=len(owners))
    whole = np.array(canvas.drawn_areas) / (canvas.side / side) ** 2
    # `pieces` is subsampled, so the drawn areas are scaled to its pixels.
    counted = (seen > SEEN_SHARE * whole) & (seen >= 3)
    items = []
    for number in np.unique(mask):
        if number == BACKGROUND:
            continue
        several = int((counted & (owners == number)).sum())
        items.append(item_seen(named[int(number)], mask == number, max(1, several)))
    return mask, tuple(sorted(items, key=lambda item: -item.area))


def draw_plate(
    prompt: str, size: int, rng: np.random.Generator, left_out: frozenset[str] = frozenset()
) -> tuple[Array, np.ndarray, Plate]:
    """Draw one picture.

    Args:
        prompt: title and ingredients of the dish.
        size: height and width in pixels.
        rng: source of every choice.
        left_out: names of ingredients that must not be drawn.

    Returns:
        The picture `(size, size, 3)` of 0..1, its mask `(size, size)`, and what is on the plate.
    """
    found = {item.name: item for item in prompt_ingredients(prompt) if item.name not in left_out}
    visible = [item for item in found.values() if item.visible][:MOST_INGREDIENTS]
    named = {ingredient_id(item.name): item for item in visible}
    factor = 2 if size <= SUPERSAMPLED_UP_TO else 1
    canvas = Canvas(size * factor, rng)
    vessel_kind = vessel_for(prompt)
    liquids = hidden_liquids(vessel_kind, list(found.values()))
    if liquids and vessel_kind != GLASS:
        vessel_kind = BOWL
    draw_table(canvas)
    draw_napkin(canvas)
    vessel = draw_vessel(canvas, vessel_kind, liquid_colour(liquids) if liquids else _drink_colour(rng, visible))
    if liquids and vessel_kind == BOWL:
        fill_bowl(canvas, vessel, liquid_colour(liquids))
    Cook(canvas, vessel).serve(list(named.items()))
    if vessel_kind != GLASS:
        draw_cutlery(canvas, vessel)
    # The mask takes one drawn pixel of each block, for ids cannot be averaged.
    picture = _develop(canvas, factor)
    mask, items = _describe(canvas.pieces[::factor, ::factor], canvas, named)
    return picture, mask, Plate(vessel_kind, items, bool(liquids))


class PlatingPipeline(DiffusionPipeline):
    """Draws plates from prompts; called as any text-to-image pipeline of diffusers is.

    It has no weights and runs on the CPU. A picture depends on its prompt, its size and its generator alone: with one
    generator per image it is the same in every batch.

    Example:
        >>> pipe = PlatingPipeline()
        >>> output = pipe("Greek salad: cucumber, tomato, feta", generator=torch.Generator().manual_seed(0))
        >>> output.images[0].size, output.plates[0].vessel
        ((128, 128), 'plate')
    """

    def __init__(self) -> None:
        super().__init__()
        # Without it there is no model_index.json to save: the base class writes one for its models only.
        self.register_to_config()

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 1,
        guidance_scale: float = 0.0,
        negative_prompt: str | list[str] | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., Any] | None = None,
    ) -> PlatingPipelineOutput | tuple:
        """Draw one or more pictures for each prompt.

        Args:
            prompt: text of the dish, "title: ingredient, ingredient"; ingredients of the catalogue are drawn.
            height: pixels, 64 to 512, 128 by default.
            width: pixels, equal to `height`.
            num_inference_steps: must be 1: a plate is drawn in one step.
            guidance_scale: accepted for the sake of the common call; a drawing follows its prompt anyway.
            negative_prompt: ingredients named here are left off the plate.
            num_images_per_prompt: pictures per prompt.
            generator: one for all images, drawn from in turn, or one per image; `None` takes torch's global state.
            output_type: "pil", "np" or "pt".
            return_dict: whether to return an output object and not a tuple `(images, masks, plates)`.
            callback_on_step_end: called as `callback(pipeline, 0, 0, {})` when the step is done.

        Raises:
            ValueError: an argument is missing or out of its range, or the list of generators has another length than
                the batch.
        """
        size = self.check_inputs(prompt, height, width, num_inference_steps, num_images_per_prompt, output_type)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt or [])
        if isinstance(negative_prompt, list) and len(negative_prompt) != len(prompts):
            raise ValueError(
                f"`negative_prompt` has {len(negative_prompt)} entries for {len(prompts)} prompts; "
                "give one string or one per prompt"
            )
        negatives = negative_prompt if isinstance(negative_prompt, list) else [negative_prompt or ""] * len(prompts)
        batch_size = len(prompts) * num_images_per_prompt
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(
                f"You have passed a list of generators of length {len(generator)}, but requested an effective batch"
                f" size of {batch_size}. Make sure the batch size matches the length of the generators."
            )
        drawn = []
        for index in range(batch_size):
            own = generator[index] if isinstance(generator, list) else generator
            number = index // num_images_per_prompt
            left_out = frozenset(item.name for item in find_ingredients(negatives[number]))
            drawn.append(draw_plate(prompts[number], size, numpy_generator(own), left_out))
        if callback_on_step_end is not None:
            callback_on_step_end(self, 0, 0, {})
        images = self.to_output_type(np.stack([picture for picture, _, _ in drawn]), output_type)
        masks, plates = [mask for _, mask, _ in drawn], [plate for _, _, plate in drawn]
        if not return_dict:
            return images, masks, plates
        return PlatingPipelineOutput(images=images, masks=masks, plates=plates)

    @staticmethod
    def check_inputs(
        prompt: str | list[str] | None,
        height: int | None,
        width: int | None,
        num_inference_steps: int,
        num_images_per_prompt: int,
        output_type: str,
    ) -> int:
        """Return the side of the pictures, or refuse the arguments with a `ValueError`."""
        if not isinstance(prompt, str | list) or not all(isinstance(text, str) for text in prompt) or prompt == []:
            raise ValueError(
                f"`prompt` has to be of type `str` or `list` of at least one `str` but is {type(prompt)}: {prompt!r}"
            )
        size = height or width or DEFAULT_SIZE
        if (width or size) != size or not SMALLEST_SIZE <= size <= LARGEST_SIZE:
            raise ValueError(
                f"`height` and `width` have to be equal and between {SMALLEST_SIZE} and {LARGEST_SIZE} "
                f"but are {height} and {width}"
            )
        if num_inference_steps != 1:
            raise ValueError(
                f"`num_inference_steps` has to be 1, a plate is drawn in one, but is {num_inference_steps}"
            )
        if num_images_per_prompt < 1:
            raise ValueError(f"`num_images_per_prompt` has to be at least 1 but is {num_images_per_prompt}")
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"`output_type` has to be one of {', '.join(OUTPUT_TYPES)} but is {output_type!r}")
        return size

    @staticmethod
    def to_output_type(pictures: np.ndarray, output_type: str) -> list[Image.Image] | np.ndarray | torch.Tensor:
        """Return `(batch, height, width, 3)` pictures of 0..1 as "pil", "np" or "pt"."""
        if output_type == "pt":
            return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())
        if output_type == "np":
            return pictures
        return [Image.fromarray(picture) for picture in (pictures * 255).round().astype(np.uint8)]


def numpy_generator(generator: torch.Generator | None) -> np.random.Generator:
    """Return a numpy generator seeded by one draw from `generator`, or from torch's global state for `None`."""
    device = "cpu" if generator is None else generator.device
    seed = torch.randint(0, 2**62, (1,), generator=generator, device=device)
    return np.random.default_rng(int(seed))


def liquid_colour(liquids: Sequence[Ingredient]) -> Array:
    """Return the colour `(3,)`, 0..1, of these liquids mixed; at least one, each a key of `LIQUIDS`."""
    codes, strengths = zip(*(LIQUIDS[item.name] for item in liquids), strict=True)
    colours = np.array([[int(code[place : place + 2], 16) for place in (1, 3, 5)] for code in codes], np.float32)
    shares = np.array(strengths, np.float32) / sum(strengths)
    return shares @ colours / 255


def fill_bowl(canvas: Canvas, vessel: Vessel, colour: Array) -> None:
    """Fill the vessel with a liquid that belongs to no ingredient of the mask."""
    width = 2.05 * vessel.room
    placement = one_place(vessel.x, vessel.y, 0.0, width, width * vessel.tilt)
    shade = np.clip(colour * (1 + canvas.rng.normal(0, 0.045)), 0.02, 0.98).astype(np.float32)[:, None]
    canvas.lay(canvas.paint(soup, placement, (shade, None), shadow=0.15)[0])
