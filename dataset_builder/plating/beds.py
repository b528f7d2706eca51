"""Brushes for what lies at the bottom: pools, grain, noodles, bread and rounds of dough; and `FORMS`, all brushes."""

import numpy as np

from dataset_builder.plating import pieces
from dataset_builder.plating.canvas import Brush, Patch, Relief, grain_tile, ink, mix, smoothstep, strand_tile
from dataset_builder.plating.pieces import CHARRED, WHITE, dome, plateau, radius_of, second_or


def _puddle(patch: Patch, wobble: float) -> tuple[np.ndarray, np.ndarray]:
    radius = radius_of(patch)
    return radius, (1 - radius + wobble * patch.noise(70)) * patch.b


def pool(patch: Patch) -> Relief:
    """A sauce, mash or cream that was poured: thick at its edge, swirled by the spoon; sauces are wet."""
    radius, distance = _puddle(patch, 0.06)
    wet = patch.group == "sauce"
    cloud = patch.noise(30)
    # A spiral, bent by the noise: the trace of the spoon.
    swirl = np.sin(radius * 9 + 1.2 * np.arctan2(patch.v, patch.u) + 1.3 * cloud)
    albedo = patch.first * (1 + 0.05 * cloud + 0.05 * swirl)
    if patch.second is not None:
        albedo = mix(albedo, patch.second, 0.6 * smoothstep(cloud + 0.4 * swirl - 0.5))
    height = patch.unit * (4.5 * plateau(distance, 9 * patch.unit) + (0.7 if wet else 1.3) * swirl + 0.8 * cloud)
    if patch.group in ("grain", "root"):
        height = height + patch.unit * (0.8 * patch.noise(12) + 0.2 * patch.noise(5))
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.40 if wet else 0.12)


def soup(patch: Patch) -> Relief:
    """A liquid that fills the vessel: a level surface with gentle waves and drops of oil."""
    radius = radius_of(patch)
    distance = (1 - radius) * patch.b
    # Only the peaks of the noise become drops of oil, and none at the rim.
    drops = smoothstep((patch.noise(12) - 1.5) * 4) * smoothstep((0.97 - radius) * 8)
    wave = patch.noise(30)
    albedo = patch.first * (1 + 0.05 * wave + 0.04 * patch.noise(5))
    albedo = mix(albedo, np.clip(patch.first * 1.35 + 0.05, 0, 1), 0.6 * drops)
    if patch.second is not None:
        albedo = mix(albedo, patch.second, 0.6 * smoothstep(patch.noise(30) + 0.5 * patch.noise(12) - 0.9))
    rim = smoothstep((radius - 0.93) * 14)
    albedo = albedo * (1 - 0.18 * rim)
    height = patch.unit * (1.0 * wave + 0.7 * drops + 2.5 * rim)
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.5)


def melt(patch: Patch) -> Relief:
    """A cheese or sauce over something else: islands that ran together, browned in spots."""
    radius = radius_of(patch)
    cloud = patch.noise(30) + 0.45 * patch.noise(12)
    # Two outlines at once: the edge of the food below, and that of islands where the noise is high.
    distance = np.minimum((1 - radius) * patch.b, (cloud + 0.25) * 9 * patch.unit)
    albedo = patch.first * (1 + 0.04 * patch.noise(12))
    if patch.group == "cheese":
        toasted = smoothstep(patch.noise(12) * 0.9 - 0.8)
        albedo = mix(albedo, ink(0.70, 0.42, 0.16), 0.6 * toasted)
    height = patch.unit * (4.0 * plateau(distance, 6 * patch.unit) + 0.7 * patch.noise(12))
    return Relief(distance, albedo, height, 0.5)


def grain(patch: Patch) -> Relief:
    """A mound of grains: slender as rice where the ingredient is pale, round and crumbly otherwise."""
    radius, distance = _puddle(patch, 0.06)
    # Pale grain is rice, with slender grains; lentils and couscous are round.
    pale = float(patch.first.min()) > 0.72
    tile = patch.crop(grain_tile(patch.side, pale))
    albedo = patch.first * (0.62 + 0.46 * tile)
    if patch.second is not None:
        albedo = mix(albedo, patch.second * (0.6 + 0.45 * tile), smoothstep(patch.noise(5) * 1.5 - 1.2))
    # Single grains stick out of the outline, which has no smooth edge.
    distance = distance + (tile - 0.5) * 5 * patch.unit
    height = patch.unit * (16 * dome(np.minimum(radius, 1)) + 3.2 * tile)
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.10)


def strand(patch: Patch) -> Relief:
    """A nest of noodles."""
    radius, distance = _puddle(patch, 0.05)
    tile = patch.crop(strand_tile(patch.side))
    albedo = patch.first * (0.60 + 0.52 * tile)
    if patch.second is not None:
        albedo = mix(albedo, patch.second * (0.6 + 0.5 * tile), smoothstep(patch.noise(12) - 0.8))
    distance = distance + (tile - 0.3) * 9 * patch.unit
    height = patch.unit * (18 * dome(np.minimum(radius, 1)) + 5.0 * tile)
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.30)


def slab(patch: Patch) -> Relief:
    """A slice of bread or cake: crust all round, an open crumb with pores."""
    # The fourth power makes a square with round corners.
    radius = radius_of(patch, 4.0) ** 1.25
    distance = (1 - radius) * patch.b + patch.noise(70) * patch.b * 0.03
    crust = 1 - smoothstep((distance / patch.unit - 4) / 5)
    pores = smoothstep((patch.noise(5) - 1.1) * 2)
    albedo = patch.first * (1 + 0.07 * patch.noise(30) + 0.03 * patch.noise(2))
    albedo = mix(albedo, albedo * 0.78, 0.8 * pores)
    albedo = mix(albedo, second_or(patch, 0.55), 0.9 * crust)
    height = patch.unit * (8 * plateau(distance, 9 * patch.unit) - 1.1 * pores + 0.35 * patch.noise(5))
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.03)


def round_base(patch: Patch) -> Relief:
    """A round of dough: a raised, browned rim on pizza and tart; blotches from the pan on pancake and flatbread."""
    radius = radius_of(patch)
    distance = (1 - radius) * patch.b + patch.noise(70) * patch.b * 0.018
    rimmed = patch.name in RIMMED
    # Rises at 0.8 of the radius and falls again towards the outer edge.
    rim = smoothstep((radius - 0.80) * 12) * (1 - 0.35 * smoothstep((radius - 0.95) * 14))
    spots = smoothstep(patch.noise(30) * 0.8 + patch.noise(12) * 0.5 - 0.4)
    albedo = patch.first * (1.03 + 0.05 * patch.noise(30) + 0.03 * patch.noise(5))
    if rimmed:
        albedo = mix(albedo, second_or(patch, 0.74), 0.75 * rim)
        blister = smoothstep(patch.noise(12) * 1.2 - 1.0)
        albedo = mix(albedo, 0.5 * (albedo + CHARRED), 0.5 * blister * rim)
    elif patch.group == "bakery":
        edge = smoothstep((radius - 0.90) * 12)
        albedo = mix(albedo, second_or(patch, 0.74), np.clip(0.55 * spots + 0.6 * edge, 0, 1))
    rise = 6.5 * rim if rimmed else 0.0
    height = patch.unit * (6 * plateau(distance, 8 * patch.unit) + rise + 0.7 * patch.noise(12))
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.30 if patch.group == "dairy" else 0.06)


def disc(patch: Patch) -> Relief:
    """A round slice of one material with a rim in the second colour; speckled with fat in meat, cored in roots."""
    radius = radius_of(patch)
    distance = (1 - radius) * patch.b + patch.wobble() * patch.b * 0.03
    fine = patch.noise(5)
    albedo = patch.first * (1 + 0.05 * fine)
    second = second_or(patch, 0.78)
    if patch.group == "meat":
        albedo = mix(albedo, second, smoothstep(fine - 0.7))
    elif patch.group == "seafood":
        albedo = mix(albedo, second, 0.8 * smoothstep((0.72 - radius + 0.12 * patch.noise(12)) * 4))
    else:
        albedo = mix(albedo, second, smoothstep((radius - 0.82) * 12))
    if patch.group in ("root", "fruit", "vegetable"):
        angle = np.arctan2(patch.v, patch.u) + patch.each(0, 6)
        # Three lobes round the middle, and one ring: the heart of a carrot or an apple.
        core = smoothstep((0.42 + 0.05 * np.cos(angle * 3) - radius) * 9)
        ring_line = smoothstep((np.abs(radius - 0.5) - 0.05) * -30)
        albedo = albedo * (1 + 0.10 * core - 0.10 * ring_line)
    height = patch.b * 0.30 * plateau(distance, patch.b * 0.26) + 0.3 * patch.unit * fine
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.25)


def ring(patch: Patch) -> Relief:
    """A slice with a skin in the second colour and seeds round its heart: cucumber, tomato, radish, fig."""
    radius = radius_of(patch)
    distance = (1 - radius) * patch.b + patch.wobble() * patch.b * 0.02
    angle = np.arctan2(patch.v, patch.u) + patch.each(0, 6)
    # Eight seeds on a circle at 0.42 of the radius.
    seeds = smoothstep(np.cos(angle * 8) * 3 - 1.4) * smoothstep((0.15 - np.abs(radius - 0.42)) * 14)
    albedo = patch.first * (1 + 0.04 * patch.noise(5) - 0.08 * smoothstep((0.66 - radius) * 6))
    pale = 0.35 * WHITE + 0.65 * np.clip(patch.first * 1.2, 0, 1)
    albedo = mix(albedo, pale, np.clip(0.9 * seeds + 0.45 * smoothstep((0.20 - radius) * 9), 0, 1))
    albedo = mix(albedo, second_or(patch, 0.6), smoothstep((radius - 0.82) * 14))
    height = patch.b * (0.24 * plateau(distance, patch.b * 0.22) + 0.06 * seeds)
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.5)


def hoop(patch: Patch) -> Relief:
    """A ring with a hole, paler inside: onion, squid, doughnuts; the small ones, olives and chillies, are filled."""
    radius = radius_of(patch)
    small = patch.subject is not None and patch.subject.size_mm < 28
    middle, half = (0.70, 0.31) if small or patch.group == "bakery" else (0.76, 0.25)
    # Distance from the circle along the middle of the ring, 1 at both its edges.
    across = np.clip(np.abs(radius - middle) / half, 0, 1.5)
    outer = (1 - radius) * patch.b + patch.wobble() * patch.b * 0.02
    distance = outer if small else np.minimum(outer, (radius - middle + half) * patch.b)
    albedo = patch.first * (1 + 0.05 * patch.noise(5))
    if patch.second is not None:
        inner = smoothstep((middle - 0.55 * half - radius) * 12) if small else smoothstep((middle - radius) * 7)
        albedo = mix(albedo, patch.second, 0.9 * inner)
    height = patch.b * (0.34 if small else 0.28) * dome(np.minimum(across, 1))
    return Relief(distance, albedo, height, 0.55)


def citrus(patch: Patch) -> Relief:
    """A slice of citrus: rind, white pith, segments with juicy cells; some of the slices are halved."""
    radius = radius_of(patch)
    distance = (1 - radius) * patch.b
    # About a third of the slices are cut in half.
    halved = patch.each(0, 1) < 0.35
    distance = np.where(halved, np.minimum(distance, patch.v * patch.b + 0.35 * patch.b), distance)
    angle = np.arctan2(patch.v, patch.u) + patch.each(0, 6)
    # Nine walls between the segments, of the same width in pixels from the middle to the rind.
    spoke = 1 - smoothstep(np.abs(np.sin(angle * 4.5)) * radius * patch.b / (1.5 * patch.unit) - 0.2)
    flesh = smoothstep((0.82 - radius) * 14) * smoothstep((radius - 0.07) * 16) * (1 - spoke)
    rind = smoothstep((radius - 0.90) * 22)
    cells = 0.10 * np.sin(angle * 40) * radius + 0.06 * patch.noise(2)
    pith = 0.72 * WHITE + 0.28 * patch.first
    albedo = mix(pith, patch.first * (1.02 + cells), flesh)
    albedo = mix(albedo, second_or(patch, 0.85), rind)
    height = patch.b * (0.20 * plateau(distance, patch.b * 0.12) + 0.05 * flesh) + 0.4 * patch.unit * flesh * cells * 5
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.45 * flesh + 0.15)


def drizzle(patch: Patch) -> Relief:
    """A sauce from the spoon: one wavering line across the patch, thick where the hand was slow."""
    phase, waves = patch.each(0, 6), patch.each(7.0, 11.0)
    line = 0.62 * np.sin(patch.u * waves + phase) * (1 - 0.4 * patch.u * patch.u)
    # Derivative of the line: the vertical distance to a steep line, divided by sqrt(1 + slope^2), is the true one.
    slope = 0.62 * waves * np.cos(patch.u * waves + phase) * patch.b / patch.a
    thick = 4.0 * patch.unit * (1 + 0.25 * patch.noise(30))
    off = np.abs(patch.v - line) * patch.b / np.sqrt(1 + slope * slope)
    distance = np.minimum(thick - off, (1 - np.abs(patch.u)) * patch.a)
    albedo = patch.first * (1 + 0.05 * patch.noise(12))
    height = 0.75 * thick * dome(np.minimum(off / thick, 1))
    return Relief(distance, albedo, height, 0.6)


RIMMED = frozenset(("pizza base", "tart case"))
BED_BRUSHES: dict[str, Brush] = {"pool": pool, "grain": grain, "strand": strand, "slab": slab, "round": round_base}
PIECE_BRUSHES: dict[str, Brush] = {
    name: getattr(pieces, name)
    for name in (
        "fillet", "strip", "crescent", "cube", "chunk", "blob", "tube", "leaf", "fleck", "shave", "floret",
        "mushroom", "yolk", "shellfish", "scoop", "dumpling",
    )
} | {"disc": disc, "ring": ring, "hoop": hoop, "citrus": citrus}  # fmt: skip
FORMS: dict[str, Brush] = {**BED_BRUSHES, **PIECE_BRUSHES, "drizzle": drizzle}
