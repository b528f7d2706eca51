"""Everything in a picture that is not food: table, plate, bowl, board or glass, napkin, cutlery and ice."""

import functools
from dataclasses import dataclass

import numpy as np

from dataset_builder.catalogue.serving import BOARD, BOWL, GLASS, PLATE
from dataset_builder.plating.canvas import Array, Canvas, Patch, Placement, Relief, mix, noise_tile, smoothstep
from dataset_builder.plating.pieces import cube, dome, plateau


@dataclass(frozen=True)
class Vessel:
    """The room for food: a circle in canvas pixels, flattened to `tilt` of its width."""

    kind: str
    x: float
    y: float
    room: float
    tilt: float


def _colour(*channels: int) -> Array:
    return np.array(channels, np.float32)[:, None, None] / 255


TABLES: tuple[tuple[str, Array, Array], ...] = (
    ("wood", _colour(146, 101, 62), _colour(94, 60, 36)),
    ("wood", _colour(196, 160, 116), _colour(150, 112, 74)),
    ("wood", _colour(92, 66, 50), _colour(54, 37, 28)),
    ("linen", _colour(222, 214, 198), _colour(188, 176, 156)),
    ("linen", _colour(118, 138, 152), _colour(84, 104, 120)),
    ("linen", _colour(172, 78, 64), _colour(136, 52, 44)),
    ("marble", _colour(236, 234, 230), _colour(176, 178, 182)),
    ("marble", _colour(62, 66, 68), _colour(128, 132, 132)),
    ("slate", _colour(74, 78, 84), _colour(48, 51, 56)),
    ("slate", _colour(128, 126, 120), _colour(96, 96, 92)),
)
GLAZES: tuple[tuple[Array, Array], ...] = (
    (_colour(246, 244, 239), _colour(246, 244, 239)),
    (_colour(246, 244, 239), _colour(60, 88, 140)),
    (_colour(240, 232, 214), _colour(150, 106, 66)),
    (_colour(58, 60, 66), _colour(96, 92, 88)),
    (_colour(186, 204, 208), _colour(120, 150, 160)),
    (_colour(156, 172, 152), _colour(112, 128, 108)),
    (_colour(226, 214, 200), _colour(226, 214, 200)),
    (_colour(232, 196, 176), _colour(206, 150, 126)),
)


MATS = ((232, 226, 214), (160, 118, 76), (60, 62, 66), (176, 64, 56), (120, 146, 128))


@functools.lru_cache(maxsize=16)
def _table_tile(side: int, kind: str) -> Array:
    """Return how much of the second table colour shows, 0..1, over 1.75 canvas sides."""
    width, unit = int(side * 1.75), side / 256
    rows, columns = np.mgrid[:width, :width].astype(np.float32) / unit
    coarse, middle, fine = (noise_tile(side, grain) for grain in (70, 12, 2))
    if kind == "wood":
        # Planks of 58 reference pixels, each with its own phase and tone, a dark seam between them.
        planks = np.floor(columns / 58)
        seam = smoothstep(1.6 - np.abs(columns / 58 - np.round(columns / 58)) * 58)
        streaks = np.asarray(noise_tile(side, 5)[:: max(1, int(unit * 9))])
        streaks = np.repeat(streaks, max(1, int(unit * 9)), axis=0)[:width]
        lines = np.sin(columns * 0.55 + 2.2 * coarse + 9 * np.sin(planks * 5.1) + 0.4 * middle)
        tone = 0.40 + 0.20 * lines + 0.10 * streaks + 0.12 * np.sin(planks * 7.3) + 0.05 * fine + 0.9 * seam
    elif kind == "linen":
        weave = np.sin(rows * 1.7 + 0.8 * middle) + np.sin(columns * 1.7 + 0.8 * middle.T)
        tone = 0.42 + 0.15 * weave + 0.10 * noise_tile(side, 30) + 0.08 * fine
    elif kind == "marble":
        # Veins follow the zero crossings of smooth noise.
        vein = np.exp(-np.abs(coarse + 0.55 * noise_tile(side, 30).T + 0.16 * middle) * 9)
        tone = 0.10 + 0.75 * vein + 0.10 * noise_tile(side, 30) + 0.02 * fine
    else:
        tone = 0.45 + 0.18 * noise_tile(side, 30) + 0.12 * middle + 0.10 * noise_tile(side, 5).T
    return np.clip(tone, 0, 1).astype(np.float32)


def draw_table(canvas: Canvas) -> None:
    """Cover the canvas with wood, linen, marble or slate."""
    kind, light, dark = TABLES[canvas.rng.integers(len(TABLES))]
    tile = _table_tile(canvas.side, kind)
    top, left = canvas.rng.integers(0, tile.shape[0] - canvas.side + 1, 2)
    tone = tile[top : top + canvas.side, left : left + canvas.side]
    if canvas.rng.random() < 0.5:
        tone = tone.T
    shift = canvas.rng.normal(0, 0.02, (3, 1, 1)).astype(np.float32)
    canvas.pixels[:] = mix(light + shift, dark + shift, tone)


def _polar(canvas: Canvas, x: float, y: float, tilt: float) -> tuple[Array, Array, Array]:
    """Return distance from `(x, y)` and its direction, over the whole canvas."""
    across = np.arange(canvas.side, dtype=np.float32)[None, :] - x
    down = (np.arange(canvas.side, dtype=np.float32)[:, None] - y) / tilt
    away = np.sqrt(across * across + down * down) + 1e-3
    return away, across / away, down / away


def _cast_shadow(canvas: Canvas, distance: Array, lift: float, strength: float) -> None:
    """Darken the table round a vessel whose outline lies at `distance` 0; more on the side away from the lamp."""
    shift = [int(-part * lift) for part in canvas.light[:2]]
    moved = np.roll(distance, (shift[1], shift[0]), (0, 1))
    soft = smoothstep(moved / (14 * canvas.unit) + 0.65)
    canvas.pixels *= 1 - strength * soft


def _draw_round(canvas: Canvas, kind: str, x: float, y: float, radius: float, tilt: float) -> float:
    """Draw a plate or a bowl and return the radius of its room."""
    rng, unit = canvas.rng, canvas.unit
    glaze, band = GLAZES[rng.integers(len(GLAZES))]
    away, east, south = _polar(canvas, x, y, tilt)
    distance = radius - away
    _cast_shadow(canvas, distance, 9 * unit, 0.5)
    reach = away / radius
    room = 0.77 if kind == PLATE else 0.85
    # Profiles of slope, tone and painted stripe over the radius, 1 at the outer edge. A plate is flat up to its rim,
    # the wall of a bowl rises from half the radius, and both end in a rounded lip.
    steps = np.linspace(0, 1.1, 512, dtype=np.float32)
    if kind == PLATE:
        slope = 0.16 * (steps > room + 0.02) + 0.75 * np.exp(-(((steps - room - 0.01) / 0.022) ** 2))
    else:
        slope = 1.0 * smoothstep((steps - 0.50) / 0.45) * (steps < 0.93)
    slope = slope + 1.2 * np.exp(-(((steps - 0.965) / 0.014) ** 2)) - 1.8 * np.exp(-(((steps - 0.995) / 0.012) ** 2))
    tone: Array = np.ones_like(steps)
    if kind == BOWL:
        tone = 1 - 0.22 * smoothstep((0.95 - steps) * 8)
    stripe = smoothstep(1 - np.abs(steps - rng.choice([0.975, 0.93, 0.82])) / rng.choice([0.02, 0.035]))
    # One look-up for all three profiles is far cheaper than three functions of every pixel.
    index = np.minimum((reach * (511 / 1.1)).astype(np.int32), 511)
    steepness = slope.astype(np.float32)[index]
    colours = mix(glaze[..., 0], band[..., 0], stripe.astype(np.float32)) * tone
    albedo: Array = np.take(colours.astype(np.float32), index, axis=1)
    if rng.random() < 0.3:
        speckle = noise_tile(canvas.side, 2)[: canvas.side, : canvas.side]
        albedo = np.multiply(albedo, 1 - 0.35 * (speckle > 1.9), dtype=np.float32)
    colour = canvas.lit(albedo, steepness * east * 0.55, steepness * south * 0.55, 0.16)
    alpha = np.clip(distance + 0.5, 0, 1)
    canvas.pixels += (colour - canvas.pixels) * alpha
    return room * radius


def _draw_board(canvas: Canvas, x: float, y: float, radius: float, tilt: float) -> float:
    """Draw a wooden board, with corners or round, and return the radius of its room."""
    light, dark = TABLES[canvas.rng.integers(0, 3)][1:]
    tile = _table_tile(canvas.side, "wood")
    top, left = canvas.rng.integers(0, tile.shape[0] - canvas.side + 1, 2)
    tone = tile[top : top + canvas.side, left : left + canvas.side].T
    turn = canvas.rng.uniform(-0.25, 0.25)
    away, east, south = _polar(canvas, x, y, tilt)
    if canvas.rng.random() < 0.6:
        across = np.abs(east * np.cos(turn) + south * np.sin(turn)) * away
        down = np.abs(south * np.cos(turn) - east * np.sin(turn)) * away
        # Signed distance to a rectangle with round corners, in coordinates turned with the board.
        corner = 12 * canvas.unit
        over_x = np.maximum(across - 0.99 * radius + corner, 0)
        over_y = np.maximum(down - 0.88 * radius + corner, 0)
        distance = corner - np.sqrt(over_x * over_x + over_y * over_y)
    else:
        distance = radius - away
    _cast_shadow(canvas, distance, 8 * canvas.unit, 0.55)
    edge = np.clip(1 - distance / (5 * canvas.unit), 0, 1) * (distance > 0)
    colour = canvas.lit(mix(light, dark, tone * 0.8) * 1.12, edge * east * -0.8, edge * south * -0.8, 0.05)
    canvas.pixels += (colour - canvas.pixels) * np.clip(distance + 0.5, 0, 1)
    return 0.82 * radius


def _draw_glass(canvas: Canvas, x: float, y: float, radius: float, tilt: float, drink: Array) -> float:
    """Draw a glass from above on its coaster, a drink in it, and return the radius of its room."""
    away, east, south = _polar(canvas, x, y, tilt)
    mat = _colour(*MATS[canvas.rng.integers(len(MATS))])
    coaster = 1.10 * radius - away
    _cast_shadow(canvas, coaster, 4 * canvas.unit, 0.4)
    canvas.pixels += (mat - canvas.pixels) * np.clip(coaster + 0.5, 0, 1)
    _cast_shadow(canvas, radius - away, 14 * canvas.unit, 0.45)
    reach = away / radius
    wall = smoothstep((reach - 0.89) * 45)
    ripple = noise_tile(canvas.side, 30)[: canvas.side, : canvas.side]
    foam = smoothstep((np.abs(reach - 0.85) - 0.02) * -40)
    albedo = drink[:, None, None] * (
        1 + 0.05 * ripple + 0.12 * foam - 0.20 * smoothstep((reach - 0.60) * 4) * (1 - foam)
    )
    clear = 0.55 * canvas.pixels + 0.45 * _colour(230, 242, 247)
    albedo = mix(albedo, clear, wall)
    # The wall of the glass is a rounded ring: its slope goes up and down once over its width.
    bend = np.clip((reach - 0.89) / 0.11, 0, 1)
    slope = 1.1 * np.sin(bend * 2 * np.pi)
    # Reflections on the wall towards the lamp and opposite of it.
    glints = smoothstep(np.abs(east * float(canvas.light[0]) + south * float(canvas.light[1])) * 6 - 3.4)
    colour = canvas.lit(np.clip(albedo, 0, 1), slope * east, slope * south, 0.25 + 0.5 * wall)
    colour += 0.45 * glints * smoothstep(1 - np.abs(bend - 0.5) * 4)
    canvas.pixels += (colour - canvas.pixels) * np.clip(radius - away + 0.5, 0, 1)
    return 0.88 * radius


def draw_vessel(canvas: Canvas, kind: str, drink: Array) -> Vessel:
    """Set the vessel on the table and return the room it leaves for food.

    Args:
        canvas: the table.
        kind: one of `VESSELS`.
        drink: colour of what a glass holds, `(3,)`.
    """
    side, rng = canvas.side, canvas.rng
    x, y = (float(value) for value in side / 2 + rng.normal(0, 0.018, 2) * side)
    tilt = rng.uniform(0.93, 1.0)
    # Large vessels reach over the edge of the picture, as in photographs.
    radius = side * rng.uniform(0.49, 0.57)
    if kind == BOARD:
        room = _draw_board(canvas, x, y, radius, tilt)
    elif kind == GLASS:
        radius *= 0.86
        room = _draw_glass(canvas, x, y, radius, tilt, drink)
    else:
        room = _draw_round(canvas, kind, x, y, radius, tilt)
    return Vessel(kind, x, y, room, tilt)


def _knife(patch: Patch) -> Relief:
    blade = patch.u > 0.05
    # The blade narrows to its tip on one side only; the handle is 0.62 wide.
    wide = np.where(blade, 1 - np.clip((patch.u - 0.6) * 2.2, 0, 1) ** 2 * (patch.v > -0.2), 0.62)
    distance = np.minimum((wide - np.abs(patch.v)) * patch.b, (1 - np.abs(patch.u)) * patch.a)
    height = patch.b * np.where(blade, 0.25 * (1 - patch.v), 0.6 * dome(np.abs(patch.v)))
    return Relief(distance, patch.first, height, 0.7)


def _spoon(patch: Patch) -> Relief:
    scale = patch.a / patch.b
    cup = np.hypot((patch.u - 0.62) / 0.38, patch.v)
    stem = np.minimum(0.24 + 0.10 * patch.u * (patch.u < 0) - np.abs(patch.v), (patch.u + 1) * scale)
    distance = np.maximum((1 - cup) * patch.b, np.where(patch.u < 0.62, stem * patch.b, -9))
    hollow = smoothstep((0.9 - cup) * 6)
    height = patch.b * np.where(cup < 1, -0.5 * dome(np.minimum(cup, 1)) * hollow, 0.2 * dome(np.abs(patch.v) * 3))
    return Relief(distance, patch.first, height, 0.8)


def _fork(patch: Patch) -> Relief:
    across = np.abs(patch.v)
    neck = 0.24 + 0.76 * smoothstep((patch.u - 0.18) * 4.5)
    outline = (neck - across) * patch.b
    # Three slots make four tines.
    slot = np.minimum(np.abs(across - 0.56), across) - 0.15
    tines = np.minimum(outline, slot * patch.b)
    distance = np.where(patch.u > 0.52, tines, outline)
    distance = np.minimum(distance, (1 - np.abs(patch.u)) * patch.a)
    return Relief(distance, patch.first, patch.b * 0.25 * plateau(distance, patch.b * 0.3), 0.7)


def _napkin(patch: Patch) -> Relief:
    distance = np.minimum((1 - np.abs(patch.u)) * patch.a, (1 - np.abs(patch.v)) * patch.b)
    distance = distance + patch.noise(30) * patch.unit
    stripe = smoothstep((np.abs(np.abs(patch.v) - 0.78) - 0.05) * -40)
    weave = np.sin(patch.u * patch.a * 1.4 / patch.unit) + np.sin(patch.v * patch.b * 1.4 / patch.unit)
    albedo = mix(patch.first, patch.first * 0.55, stripe * 0.8) * (1 + 0.03 * weave)
    height = patch.unit * (3.0 * patch.noise(30) + 2 * plateau(distance, 4 * patch.unit))
    return Relief(distance, np.clip(albedo, 0, 1), height, 0.0)


_CUTLERY = (_knife, _spoon, _fork)
_METALS = (_colour(196, 198, 204), _colour(206, 176, 110), _colour(120, 122, 128))


def one_place(x: float, y: float, angle: float, length: float, width: float) -> Placement:
    """Return the placement of a single piece."""
    return Placement(*(np.array([value], np.float32) for value in (x, y, angle, length, width)))


def draw_napkin(canvas: Canvas) -> None:
    """Sometimes put a napkin on the table, under the vessel."""
    rng, side = canvas.rng, canvas.side
    if rng.random() > 0.35:
        return
    corner = rng.integers(0, 2, 2) * side + rng.normal(0, 0.05, 2) * side
    tint = np.clip(_colour(*rng.integers(70, 245, 3)), 0, 1) * 0.6 + 0.3
    placement = one_place(corner[0], corner[1], rng.uniform(0, np.pi), rng.uniform(0.5, 0.8) * side, 0.5 * side)
    canvas.lay(canvas.paint(_napkin, placement, (tint[:, 0], None), shadow=0.4)[0])


def draw_cutlery(canvas: Canvas, vessel: Vessel) -> None:
    """Sometimes lay a fork, knife or spoon over the rim; the mask has background there."""
    rng, side = canvas.rng, canvas.side
    if rng.random() > 0.30:
        return
    brush = _CUTLERY[rng.integers(len(_CUTLERY))]
    metal = _METALS[rng.integers(len(_METALS))]
    around = rng.uniform(0, 2 * np.pi)
    reach = vessel.room * rng.uniform(1.15, 1.4)
    x, y = vessel.x + reach * np.cos(around), vessel.y + reach * np.sin(around)
    angle = around + np.pi + rng.choice([-1, 1]) * rng.uniform(0.5, 1.2)
    width = (0.032 if brush is _knife else 0.085 if brush is _fork else 0.075) * side * rng.uniform(0.9, 1.2)
    canvas.lay(canvas.paint(brush, one_place(x, y, angle, 0.72 * side, width), (metal[:, 0], None), shadow=0.5)[0])


def draw_ice(canvas: Canvas, vessel: Vessel) -> None:
    """Put ice into half of the drinks; it is transparent, so the mask shows what is under it."""
    rng = canvas.rng
    if rng.random() < 0.5:
        return
    count = int(rng.integers(2, 5))
    around = rng.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count
    reach = vessel.room * rng.uniform(0.3, 0.62, count)
    size = vessel.room * rng.uniform(0.42, 0.52, count)
    x, y = vessel.x + reach * np.cos(around), vessel.y + reach * np.sin(around)
    placement = Placement(
        *(part.astype(np.float32) for part in (x, y, rng.uniform(0, np.pi, count), size, size * rng.uniform(0.85, 1)))
    )
    tint = np.repeat(_colour(232, 243, 250)[:, 0], count, axis=1)
    for sticker in canvas.paint(cube, placement, (tint, None), shadow=0.1):
        sticker.alpha *= 0.42
        canvas.lay(sticker)
