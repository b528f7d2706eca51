"""Brushes for the pieces that lie on a plate: one function per form, each for `n` pieces at once.

A brush takes a `Patch` and returns a `Relief`: outline, colour and height of the pieces. Round slices, the forms that
lie at the bottom and the table `FORMS` of all brushes are in `beds.py`.
"""

import numpy as np

from dataset_builder.plating.canvas import Array, Patch, Relief, ink, mix, smoothstep

WHITE = ink(0.97, 0.96, 0.92)
DOLLOPED = frozenset(("cheese", "dairy", "sauce"))
CELLED_BERRIES = frozenset(("raspberry", "blackberry"))
CHARRED = ink(0.16, 0.09, 0.06)


def second_or(patch: Patch, factor: float) -> Array:
    """Return the second colour, or the main one times `factor` where the ingredient has one colour only."""
    return patch.second if patch.second is not None else np.clip(patch.first * factor, 0, 1)


def dome(radius: Array) -> Array:
    """Return the height of a flat cushion over `radius` 0..1, highest 1."""
    return np.clip(1 - radius * radius, 0, 1)


def plateau(distance: Array, bevel: Array | float) -> Array:
    """Return the height of a slice with a rounded edge `bevel` pixels wide, highest 1."""
    return smoothstep(distance / bevel)


def radius_of(patch: Patch, power: float = 2.0) -> Array:
    """Return the distance from the middle, 1 on the outline; a higher `power` makes corners."""
    if power == 2.0:
        return np.sqrt(patch.u * patch.u + patch.v * patch.v)
    u, v = np.abs(patch.u), np.abs(patch.v)
    if power == 4.0:
        u, v = u * u, v * v
        return np.sqrt(np.sqrt(u * u + v * v))
    return (u**power + v**power) ** (1 / power)


def fillet(patch: Patch) -> Relief:
    """A cut of fish or meat: flakes in seafood, grill marks on meat, a browned edge."""
    # One end is narrower than the other.
    taper = 1 + patch.each(0.05, 0.32) * patch.u
    u, v = np.abs(patch.u), np.abs(patch.v * taper)
    radius = np.sqrt(np.sqrt(u**3.2 + v**3.2)) ** 1.25
    distance = (1 - radius) * patch.b + patch.wobble() * patch.b * 0.05
    fibre, grain = patch.noise(5), patch.noise(12)
    albedo = patch.first * (1 + 0.06 * grain + 0.05 * fibre)
    # Curved lines across the piece: the seams between the flakes of fish.
    bow = patch.u * 7 + patch.each(0, 6) + 1.6 * patch.v * patch.v + 0.3 * grain
    if patch.group == "seafood":
        flake = smoothstep(np.cos(bow * patch.each(1.3, 1.7)) * 2.2 - 1.25)
        albedo = mix(albedo, second_or(patch, 1.25), flake * 0.8)
        relief = -0.10 * flake
    else:
        mark = smoothstep(np.cos((patch.u * 1.5 + patch.v * 0.75 * patch.each(-1, 1)) * 5.2) * 3 - 1.7)
        mark = mark * np.clip(0.75 + 0.4 * fibre, 0, 1) * (patch.rng.random() < 0.65)
        albedo = mix(albedo, albedo * 0.42, mark)
        relief = -0.08 * mark
        if patch.second is not None:
            fat = smoothstep(grain * 0.8 - 0.55) * 0.55 + smoothstep((v - 0.72) * 7) * 0.8
            albedo = mix(albedo, patch.second, np.clip(fat, 0, 1))
    seared = 0.30 * (1 - plateau(distance, patch.b * 0.4))
    albedo = albedo * (1 - seared)
    height = patch.b * (0.5 * plateau(distance, patch.b * 0.55) + 0.12 * dome(radius) + relief * 0.8)
    return Relief(distance, albedo, height + 0.35 * patch.unit * fibre, 0.20)


def strip(patch: Patch) -> Relief:
    """A long piece with a bend: bacon, beans, asparagus, fries, strips of pepper."""
    # The bend: a parabola along the piece.
    v = patch.v + patch.each(-0.75, 0.75) * (patch.u * patch.u - 0.4)
    u = np.abs(patch.u)
    radius = np.maximum(np.abs(v), u**6)
    distance = np.minimum((1 - np.abs(v)) * patch.b, (1 - u) * patch.a) + 0.3 * patch.unit * patch.noise(5)
    albedo = patch.first * (1 + 0.08 * patch.noise(12))
    if patch.second is not None:
        if patch.group in ("meat", "seafood"):
            streak = smoothstep(np.sin(v * 4.5 + patch.each(0, 6) + patch.noise(12) * 0.7) * 1.6)
        else:
            streak = smoothstep((np.abs(patch.u - 0.75) - 0.30) * -12)
        albedo = mix(albedo, patch.second, 0.85 * streak)
    height = patch.b * 0.75 * dome(np.minimum(radius, 1)) + 0.4 * patch.unit * patch.noise(5)
    return Relief(distance, albedo, height, 0.28)


def crescent(patch: Patch) -> Relief:
    """A bent piece: prawns, cashews and beans curled round an arc; slices of fruit and cheese as half-moons."""
    if patch.group in ("seafood", "nut", "legume", "pasta"):
        return _curl(patch)
    radius = np.hypot(patch.u, patch.v * 0.95 - 0.05)
    # Both the round back and the inner curve bound the piece.
    hollow = patch.v + 0.34 - 0.42 * (1 - patch.u * patch.u)
    distance = np.minimum((1 - radius) * patch.b, hollow * patch.b * 0.85)
    albedo = patch.first * (1 + 0.05 * patch.noise(12))
    if patch.group == "meat":
        albedo = mix(albedo, patch.first * 0.55, smoothstep((radius - 0.80) * 9))
        albedo = mix(albedo, second_or(patch, 1.3), 0.7 * smoothstep((0.5 - np.abs(patch.v - 0.35)) * 5))
    else:
        albedo = mix(albedo, second_or(patch, 0.75), smoothstep((radius - 0.82) * 12))
    height = patch.b * 0.36 * plateau(distance, patch.b * 0.36) + 0.3 * patch.unit * patch.noise(5)
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.30)


def _curl(patch: Patch) -> Relief:
    across, down = patch.u, patch.v * patch.b / patch.a + 0.12
    angle = np.arctan2(down, across)
    # Measured from the middle of the arc, which lies at the bottom: -1 at the tail, 1 at the head.
    # The arc is symmetric to the vertical, so the angle is measured from the downward direction.
    along = np.arctan2(np.cos(angle), np.sin(angle)) / 1.75
    spine = 0.58
    prawn = patch.group == "seafood"
    # Prawns taper towards the tail; nuts, beans and pasta are equally thick all along.
    girth = 0.36 * (0.78 + 0.30 * along) if prawn else 0.34 + 0 * along
    off = np.hypot(across, down) - spine
    # Past either end the distance to the end point counts, which rounds the ends.
    beyond = np.clip(np.abs(along) - 1, 0, None) * 1.75 * spine
    distance = (girth - np.hypot(off, beyond)) * patch.a
    ratio = np.clip(np.hypot(off, beyond) / girth, 0, 1)
    albedo = patch.first * (1 + 0.04 * patch.noise(12))
    height = patch.a * 0.26 * dome(ratio)
    if prawn:
        band = smoothstep(np.cos(along * 13) * 1.8 - 0.4)
        albedo = mix(albedo, second_or(patch, 1.25), 0.75 * band)
        albedo = mix(albedo, patch.first * np.array([0.95, 0.6, 0.5], np.float32)[:, None, None, None], along < -0.82)
        height = height - patch.unit * band
    else:
        albedo = mix(albedo, second_or(patch, 0.75), 0.6 * smoothstep((off + 0.02) * -9))
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.4)


def cube(patch: Patch) -> Relief:
    """A dice with a lit top and darker sides; blue veins or skin in the second colour."""
    radius = radius_of(patch, 4.0) ** 1.3
    distance = (1 - radius) * patch.b + patch.wobble() * patch.b * 0.05
    fine = patch.noise(5)
    albedo = patch.first * (1 + 0.05 * fine)
    if patch.second is not None:
        albedo = mix(albedo, patch.second, 0.85 * smoothstep(patch.noise(12) * 1.4 - 0.5))
    height = patch.b * 0.75 * plateau(distance, patch.b * 0.42) + 0.4 * patch.unit * fine
    return Relief(distance, albedo, height, 0.14)


def chunk(patch: Patch) -> Relief:
    """A rough piece with facets: potato, tomato, chicken, walnut; the second colour is skin on one side."""
    count = patch.count
    reach = np.full(patch.u.shape, 9.0, np.float32)
    crown = np.full(patch.u.shape, 9.0, np.float32)
    turn = patch.each(0, 6.3)
    # Six half-planes at about 60 degrees cut the outline, six tilted planes the facets on top.
    for corner in range(6):
        angle = turn + corner * np.pi / 3 + patch.each(-0.3, 0.3)
        out = patch.u * np.cos(angle) + patch.v * np.sin(angle)
        reach = np.minimum(reach, patch.each(0.80, 0.99) - out)
        crown = np.minimum(crown, patch.each(0.55, 0.85) - out * patch.each(0.5, 1.0))
    radius = radius_of(patch)
    distance = np.minimum(reach, 1.02 - radius) * patch.b + patch.wobble() * patch.b * 0.05
    fine = patch.noise(5)
    albedo = patch.first * (1 + 0.06 * fine + 0.04 * patch.noise(12))
    if patch.second is not None:
        side = patch.rng.uniform(-1, 1, (count, 1, 1)).astype(np.float32)
        albedo = mix(albedo, patch.second, 0.9 * smoothstep((patch.v + side * 0.2 - 0.42) * 6))
    height = patch.b * (0.75 * np.clip(crown, 0, 0.72) + 0.25 * plateau(distance, patch.b * 0.3))
    return Relief(distance, albedo, height + 0.45 * patch.unit * fine, 0.25)


def blob(patch: Patch) -> Relief:
    """A ball or a dollop: berries, peas, beans, meatballs; soft swirls of cheese, cream and sauce."""
    return _dollop(patch) if patch.group in DOLLOPED else _ball(patch)


def _dollop(patch: Patch) -> Relief:
    radius = radius_of(patch)
    distance = (1 - radius) * patch.b + patch.wobble() * patch.b * 0.06
    swirl = np.sin(radius * patch.each(5, 7) + np.arctan2(patch.v, patch.u) + patch.each(0, 6))
    albedo = patch.first * (1 + 0.03 * patch.noise(12))
    if patch.second is not None:
        albedo = mix(albedo, patch.second, 0.6 * smoothstep(0.7 * patch.noise(12) + 0.4 * swirl - 0.35))
    height = patch.b * (0.34 * plateau(distance, patch.b * 0.7) + 0.03 * swirl) + 0.25 * patch.unit * patch.noise(5)
    return Relief(distance, albedo, height, 0.30)


def _ball(patch: Patch) -> Relief:
    radius = radius_of(patch)
    fried = patch.group in ("meat", "bakery", "grain") or patch.name == "falafel"
    distance = (1 - radius) * patch.b + patch.wobble() * patch.b * (0.06 if fried else 0.02)
    fine = patch.noise(5)
    albedo = patch.first * (1 + (0.10 if fried else 0.04) * fine)
    height = patch.b * 0.62 * dome(np.minimum(radius, 1))
    # The second colour is a spot off the middle: the stalk's end of a berry, the seam of a bean.
    eye = smoothstep((0.30 - np.hypot(patch.u - patch.each(0.15, 0.4), patch.v)) * 8)
    albedo = mix(albedo, second_or(patch, 1.3), (0.35 if fried else 0.75) * eye)
    if patch.name in CELLED_BERRIES:
        # Three waves at 120 degrees make a hexagonal pattern.
        along, across = 4.5 * patch.u, 7.8 * patch.v
        cells = (np.cos(2 * along) + np.cos(along + across) + np.cos(along - across)) / 2
        height = height + patch.b * 0.10 * cells
        albedo = albedo * (1 + 0.12 * cells)
    if fried:
        height = height + 0.35 * patch.unit * fine
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.10 if fried else 0.75)


def tube(patch: Patch) -> Relief:
    """Penne, rigatoni, sausages: ridged cylinders; pasta is hollow at one end."""
    # Ends are cut at a slant, as those of penne are.
    slant = patch.u + 0.22 * patch.v
    across = np.abs(patch.v + patch.each(-0.25, 0.25) * patch.u * patch.u)
    pasta = patch.group == "pasta"
    ends = (1 - np.abs(slant)) * patch.a if pasta else (1 - radius_of(patch, 4.0)) * patch.b
    distance = np.minimum((1 - across) * patch.b, ends)
    albedo = patch.first * (1 + 0.05 * patch.noise(12))
    height = patch.b * 0.85 * np.sqrt(np.clip(1 - across * across, 0.02, 1))
    if pasta:
        height = height + 0.5 * patch.unit * np.cos(across * 11)
        inside = smoothstep((np.hypot((slant - 0.86) * patch.a / patch.b * 1.4, patch.v) - 0.62) * -7)
        albedo = albedo * (1 - 0.55 * inside)
    else:
        albedo = mix(albedo, second_or(patch, 0.6), 0.7 * smoothstep(np.cos(slant * 9) * 3 - 2.0))
    return Relief(distance, albedo, height, 0.35)


def leaf(patch: Patch) -> Relief:
    """A leaf with a rib and side veins; the second colour shows in rib and heart."""
    # Half the width of the leaf along its length, narrower towards the tip.
    half = np.clip(1 - np.abs(patch.u) ** 2.2, 0, 1) * (1 - 0.28 * patch.u)
    ruffle = 1 + 0.10 * np.sin(patch.u * patch.each(9, 16) + patch.each(0, 6))
    v = patch.v + 0.16 * np.sin(patch.u * 2.2 + patch.each(0, 6))
    inside = half * ruffle - np.abs(v)
    distance = inside * patch.b * 0.85
    rib = 1 - smoothstep(np.abs(v) * patch.b / (1.5 * patch.unit))
    vein = smoothstep(np.cos((np.abs(v) * 0.9 - patch.u) * 13) * 3 - 2.1)
    albedo = patch.first * (1 + 0.10 * patch.noise(12) + 0.06 * patch.u)
    albedo = mix(albedo, second_or(patch, 1.45), np.clip(0.75 * rib + 0.28 * vein, 0, 1))
    if patch.second is not None:
        albedo = mix(albedo, patch.second, 0.75 * smoothstep((0.22 - np.abs(v) + 0.15 * patch.u) * 5))
    curl = patch.b * 0.30 * np.sin(np.abs(v) * 2.6 + 0.4) + patch.b * 0.12 * patch.noise(12)
    height = curl * smoothstep(distance / (3 * patch.unit) + 0.4) - patch.unit * (0.7 * rib + 0.5 * vein)
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.22)


def fleck(patch: Patch) -> Relief:
    """A chopped herb or crumb: a small leaf-like chip."""
    radius = radius_of(patch)
    distance = (1 - radius - 0.25 * np.abs(patch.u * patch.v)) * patch.b + patch.noise(5) * patch.unit * 0.5
    albedo = patch.first * (1 + 0.10 * patch.noise(5))
    rib = 1 - smoothstep(np.abs(patch.v) * patch.b / (1.2 * patch.unit))
    albedo = mix(albedo, second_or(patch, 1.25), 0.5 * rib)
    return Relief(distance, np.clip(albedo, 0, 1), patch.b * 0.45 * dome(np.minimum(radius, 1)), 0.15)


def shave(patch: Patch) -> Relief:
    """A thin curled flake: parmesan, chocolate, almond, coconut, ginger."""
    bend = patch.v + 0.35 * patch.u * patch.u - 0.15
    radius = np.sqrt(np.abs(patch.u) ** 3 + np.abs(bend) ** 3 + 1e-6) ** 0.8
    distance = (1 - radius) * patch.b + patch.wobble() * patch.b * 0.10
    albedo = patch.first * (1 + 0.06 * patch.noise(12))
    if patch.second is not None:
        albedo = mix(albedo, patch.second, smoothstep((0.22 * patch.b - distance) / (0.12 * patch.b)))
    height = patch.b * (0.28 * np.sin(bend * 2.4) + 0.22 * plateau(distance, patch.b * 0.18))
    return Relief(distance, albedo, height, 0.20)


def floret(patch: Patch) -> Relief:
    """Broccoli and cauliflower: a knobbly crown of round heads on a pale stem."""
    # The crown is the union of six discs: the largest distance wins.
    reach = np.full(patch.u.shape, -9.0, np.float32)
    for head in range(6):
        angle = patch.each(-0.25, 0.25) + head * np.pi / 3.2 - 2.2
        away = 0.52 if head else 0.0
        radius = np.hypot(patch.u - away * np.cos(angle), patch.v - away * np.sin(angle))
        reach = np.maximum(reach, patch.each(0.36, 0.46) - radius)
    stem = np.minimum(0.20 + 0.10 * patch.u - np.abs(patch.v), np.minimum(patch.u - 0.1, 0.98 - patch.u))
    crown = reach > stem
    fine = patch.noise(2) + 0.8 * patch.noise(5)
    distance = np.maximum(reach, stem) * patch.b + np.where(crown, 0.5 * patch.unit * fine, 0)
    albedo = patch.first * (1 + 0.09 * fine)
    albedo = mix(albedo, second_or(patch, 1.35), 0.85 * ~crown)
    height = patch.b * np.where(crown, 0.9 * np.clip(reach * 1.6, 0, 0.6), 0.25) + 0.45 * patch.unit * fine * crown
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.08)


def mushroom(patch: Patch) -> Relief:
    """A mushroom cut lengthwise: arched cap, stem, dark gills between them."""
    u = patch.u + 0.25
    cap = np.minimum(0.72 - np.hypot(u * 0.95, patch.v * 0.74), u * -1 + 0.32)
    stem = np.minimum(0.27 + 0.08 * patch.u - np.abs(patch.v), np.minimum(u, 1.12 - u))
    reach = np.maximum(cap, stem)
    distance = reach * patch.b
    gills = smoothstep((0.13 - np.abs(u - 0.22)) * 12) * smoothstep((0.62 - np.abs(patch.v)) * 8) * (cap > -0.1)
    albedo = patch.first * (1 + 0.05 * patch.noise(12))
    albedo = mix(albedo, second_or(patch, 0.55), np.clip(0.85 * gills + smoothstep((0.10 - cap) * 9) * (u < 0.1), 0, 1))
    height = patch.b * (0.45 * smoothstep(reach * 3.2) - 0.05 * gills)
    return Relief(distance, albedo, height, 0.25)


def yolk(patch: Patch) -> Relief:
    """An egg: white, smooth or fried with a wavy edge, round a shiny yolk in the second colour."""
    radius = radius_of(patch)
    fried = patch.name == "fried egg"
    distance = (1 - radius) * patch.b + patch.wobble() * patch.b * (0.10 if fried else 0.015)
    middle = np.hypot(patch.u - 0.06, patch.v * patch.b / patch.a)
    size = patch.each(0.50, 0.56)
    inner = smoothstep((size - middle) * patch.a / (1.6 * patch.unit))
    albedo = mix(patch.first, second_or(patch, 0.8), inner)
    if fried:
        crisp = smoothstep((0.16 * patch.b - distance) / (0.12 * patch.b)) * (
            0.5 + 0.5 * np.clip(patch.noise(12), -1, 1)
        )
        albedo = mix(albedo, ink(0.72, 0.48, 0.22), 0.55 * crisp)
    height = patch.b * (0.16 * plateau(distance, patch.b * 0.30) + 0.30 * dome(np.minimum(middle / size, 1)))
    return Relief(distance, albedo, height, 0.25 + 0.5 * inner)


def shellfish(patch: Patch) -> Relief:
    """An open shell, dark outside and ridged, with its meat in the second colour."""
    drop = np.hypot(patch.u, patch.v * (1 + 0.35 * patch.u))
    distance = (1 - drop) * patch.b
    inner = smoothstep((0.80 - drop) * 14)
    meat = smoothstep((0.56 - np.hypot(patch.u + 0.08, patch.v * 1.25) + 0.05 * patch.noise(12)) * 12)
    ridges = np.cos(drop * 34)
    albedo = patch.first * (1 + 0.12 * ridges)
    albedo = mix(albedo, 0.55 * WHITE + 0.45 * np.clip(patch.first * 1.3, 0, 1), inner)
    albedo = mix(albedo, second_or(patch, 1.6), meat)
    height = patch.b * (0.5 * dome(drop) - 0.45 * inner * dome(drop) + 0.34 * meat) + 0.2 * patch.unit * ridges
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.35)


def scoop(patch: Patch) -> Relief:
    """A ball from the scoop: ice cream, mash; a torn skirt and streaks of the spoon."""
    radius = radius_of(patch)
    distance = (1 - radius) * patch.b + patch.wobble() * patch.b * 0.06
    rough = patch.noise(5) + 0.7 * patch.noise(12)
    smooth = 0.25 if patch.group == "bakery" else 1.0
    streak = np.sin(patch.v * 12 + 1.5 * patch.noise(30) + patch.u)
    albedo = patch.first * (1 + 0.03 * rough)
    if patch.second is not None:
        albedo = mix(albedo, patch.second, 0.8 * smoothstep(patch.noise(12) * 1.3 - 0.7))
    ball = dome(np.minimum(radius / 0.86, 1))
    skirt = smoothstep((radius - 0.76) * 8)
    height = patch.b * (0.65 * ball + 0.12 * plateau(distance, patch.b * 0.2)) + patch.unit * (
        smooth * ((0.3 + 0.6 * skirt) * rough + 0.7 * streak * (1 - skirt))
    )
    return Relief(distance, albedo, height, 0.18)


def dumpling(patch: Patch) -> Relief:
    """A filled half-moon: a smooth belly, pleats along the closed edge, browned where it was fried."""
    belly = patch.v + 0.35
    radius = np.hypot(patch.u, belly * 0.74)
    distance = np.minimum((1 - radius) * patch.b, (belly + 0.03 * np.cos(patch.u * 16) + 0.30) * patch.b * 0.8)
    # The closed edge is where the radius is large; pleats run across it.
    seam = smoothstep((radius - 0.70) * 7)
    pleats = np.cos(np.arctan2(belly + 0.15, patch.u) * 15)
    albedo = patch.first * (1 + 0.05 * patch.noise(12))
    toast = smoothstep(patch.noise(12) * 0.7 + 0.4 - radius) * 0.6
    albedo = mix(albedo, second_or(patch, 0.68), toast)
    height = patch.b * (0.55 * dome(np.minimum(radius * 1.05, 1)) + 0.10 * plateau(distance, patch.b * 0.12))
    return Relief(distance, albedo, height + 0.9 * patch.unit * pleats * seam, 0.40)
