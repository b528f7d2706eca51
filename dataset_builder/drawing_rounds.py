"""Brushes for what is round and flat: slices, slices with seeds, rings with a hole, citrus."""

import numpy as np

from dataset_builder.canvas import Patch, Relief, mix, smoothstep
from dataset_builder.drawing import WHITE, dome, plateau, radius_of, second_or


def disc(patch: Patch) -> Relief:
    """A round slice of one stuff with a rim in the second colour; speckled with fat in meat, cored in roots."""
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
    halved = patch.each(0, 1) < 0.35
    distance = np.where(halved, np.minimum(distance, patch.v * patch.b + 0.35 * patch.b), distance)
    angle = np.arctan2(patch.v, patch.u) + patch.each(0, 6)
    spoke = 1 - smoothstep(np.abs(np.sin(angle * 4.5)) * radius * patch.b / (1.5 * patch.unit) - 0.2)
    flesh = smoothstep((0.82 - radius) * 14) * smoothstep((radius - 0.07) * 16) * (1 - spoke)
    rind = smoothstep((radius - 0.90) * 22)
    cells = 0.10 * np.sin(angle * 40) * radius + 0.06 * patch.noise(2)
    pith = 0.72 * WHITE + 0.28 * patch.first
    albedo = mix(pith, patch.first * (1.02 + cells), flesh)
    albedo = mix(albedo, second_or(patch, 0.85), rind)
    height = patch.b * (0.20 * plateau(distance, patch.b * 0.12) + 0.05 * flesh) + 0.4 * patch.unit * flesh * cells * 5
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.45 * flesh + 0.15)
