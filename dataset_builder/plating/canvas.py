"""The canvas that plates are drawn on: lit height fields, laid over one another like stickers.

Every shape is a height field over a small patch. Its slopes are lit by one lamp, so that the seeds of a cucumber, the
veins of a leaf and the rim of a bowl all agree where the light comes from. The canvas keeps, beside the colours, the
number of the piece that lies on top of every pixel; masks, areas and counts are read from that map.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dataset_builder.catalogue.ingredients import Ingredient

Array = np.ndarray

# Side of the canvas for which the brushes give their lengths; they are scaled by side / REFERENCE_SIDE.
REFERENCE_SIDE = 256
NOISE_GRAINS = (2, 5, 12, 30, 70)


def smoothstep(x: Array) -> Array:
    """Return `x` clipped to 0..1 with flat ends."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def ink(red: float, green: float, blue: float) -> Array:
    """Return a colour of 0..1 as brushes use it, `(3, 1, 1, 1)`.

    Channels come first in all colours here: then every other field, `(n, h, w)`, meets them without a copy.
    """
    return np.array([red, green, blue], np.float32)[:, None, None, None]


def mix(first: Array, second: Array, share: Array) -> Array:
    """Blend two colours by the `share` of the second."""
    return first + (second - first) * share


@functools.lru_cache(maxsize=8)
def sensor_noise(side: int) -> Array:
    """Return white noise of unit deviation, `(3, 2 * side, 2 * side)`, to cut the noise of a picture from."""
    return np.random.default_rng(5).standard_normal((3, 2 * side, 2 * side), np.float32)


@functools.lru_cache(maxsize=64)
def noise_tile(side: int, grain: int) -> Array:
    """Return a square of smooth noise, zero mean, unit deviation, 1.75 canvas sides wide.

    Args:
        side: canvas side in pixels.
        grain: feature length in pixels of the reference canvas.
    """
    width = int(side * 1.75)
    # Few random cells, enlarged smoothly: the features of the noise are as large as a cell.
    cells = max(3, round(width / max(1.0, grain * side / REFERENCE_SIDE)))
    rng = np.random.default_rng(1000 + grain)
    cloud = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
    values = np.asarray(cloud.resize((width, width), Image.Resampling.BICUBIC), np.float32)
    return (values - values.mean()) / values.std()


def _rotated_ellipse(x: float, y: float, length: float, width: float, angle: float) -> list[tuple[float, float]]:
    turn = np.linspace(0, 2 * np.pi, 14)
    along, across = length * np.cos(turn), width * np.sin(turn)
    cosine, sine = np.cos(angle), np.sin(angle)
    return list(zip(x + along * cosine - across * sine, y + along * sine + across * cosine, strict=True))


@functools.lru_cache(maxsize=16)
def grain_tile(side: int, slender: bool) -> Array:
    """Return the relief, 0..1, of a heap of grains: `slender` as rice, or round as couscous and lentils."""
    width, unit = int(side * 1.75), side / REFERENCE_SIDE
    rng = np.random.default_rng(7)
    tile = Image.new("L", (width, width), 30)
    draw = ImageDraw.Draw(tile)
    long, thin = ((6.4, 2.5) if slender else (3.6, 3.2)) if unit > 0 else (0, 0)
    # So many that grains lie 2.6 deep on average and no ground shows.
    for _ in range(int(2.6 * width * width / (np.pi * long * thin * unit * unit))):
        x, y, angle = rng.uniform(0, width), rng.uniform(0, width), rng.uniform(0, np.pi)
        low = rng.integers(60, 150)
        # Each grain is three nested ellipses, the inner ones lighter, so that it rises to its middle.
        for share, tone in ((1.0, low), (0.72, low + 60), (0.4, low + 95)):
            draw.polygon(_rotated_ellipse(x, y, long * unit * share, thin * unit * share, angle), fill=int(tone))
    tile = tile.filter(ImageFilter.GaussianBlur(0.5 * unit))
    return np.asarray(tile, np.float32) / 255


@functools.lru_cache(maxsize=8)
def strand_tile(side: int) -> Array:
    """Return the relief, 0..1, of tangled noodles: arcs of many nests laid over one another."""
    width, unit = int(side * 1.75), side / REFERENCE_SIDE
    rng = np.random.default_rng(11)
    tile = Image.new("L", (width, width), 20)
    draw = ImageDraw.Draw(tile)
    for _ in range(760):
        x, y = rng.uniform(-0.1, 1.1, 2) * width
        radius = rng.uniform(16, 75) * unit
        start, sweep = rng.uniform(0, 360), rng.uniform(70, 230)
        stretch = rng.uniform(0.75, 1.3)
        turn = np.radians(np.linspace(start, start + sweep, 26))
        path = list(zip(x + radius * stretch * np.cos(turn), y + radius * np.sin(turn), strict=True))
        low = rng.integers(60, 140)
        # From a dark outline to a light core, which makes the noodle round and parts it from those below.
        for share, tone in ((8.2, 30), (6.8, low), (4.6, low + 60), (2.2, low + 100)):
            draw.line(path, fill=int(tone), width=max(1, round(share * unit)), joint="curve")
    tile = tile.filter(ImageFilter.GaussianBlur(0.8 * unit))
    return np.asarray(tile, np.float32) / 255


@dataclass
class Relief:
    """Shape and colour of `n` pieces as a brush returns them, each over the same patch of `h` x `w` pixels.

    Attributes:
        distance: `(n, h, w)` pixels to the outline, positive inside.
        albedo: colour before light, 0..1, that broadcasts to `(3, n, h, w)`.
        height: `(n, h, w)` pixels above the ground.
        gloss: strength of the highlight, 0 matt to 1 wet; a number or `(n, h, w)`.
    """

    distance: Array
    albedo: Array
    height: Array
    gloss: float | Array = 0.0


@dataclass
class Patch:
    """The coordinates and colours from which a brush paints `n` pieces at once.

    Attributes:
        u: `(n, h, w)` position along the piece, -1..1 from end to end.
        v: `(n, h, w)` position across the piece, -1..1 from side to side.
        a: `(n, 1, 1)` half length in pixels.
        b: `(n, 1, 1)` half width in pixels.
        first: `(3, n, 1, 1)` main colour of each piece.
        second: colour of rim, skin, yolk or veins, as `first`; `None` for an ingredient of one colour.
        subject: the ingredient; `None` for things that are not food.
        unit: canvas pixels per reference pixel.
        side: canvas side in pixels.
        rng: source of every choice.
    """

    u: Array
    v: Array
    a: Array
    b: Array
    first: Array
    second: Array | None
    subject: Ingredient | None
    unit: float
    side: int
    rng: np.random.Generator

    @property
    def count(self) -> int:
        """Number of pieces."""
        return len(self.a)

    @property
    def group(self) -> str:
        """Food group of the ingredient, empty for things that are no food."""
        return self.subject.group if self.subject else ""

    @property
    def name(self) -> str:
        """Name of the ingredient, empty for things that are no food."""
        return self.subject.name if self.subject else ""

    def each(self, low: float, high: float) -> Array:
        """Return one number per piece, uniform in `low`..`high`, shape `(n, 1, 1)`."""
        return self.rng.uniform(low, high, (self.count, 1, 1)).astype(np.float32)

    def crop(self, tile: Array) -> Array:
        """Return another random window of `tile` for every piece, `(n, h, w)`."""
        height, width = self.u.shape[1:]
        tops = self.rng.integers(0, tile.shape[0] - height + 1, self.count)
        lefts = self.rng.integers(0, tile.shape[1] - width + 1, self.count)
        return np.stack([tile[y : y + height, x : x + width] for y, x in zip(tops, lefts, strict=True)])

    def noise(self, grain: int) -> Array:
        """Return noise with features of about `grain` reference pixels (one of `NOISE_GRAINS`), `(n, h, w)`."""
        return self.crop(noise_tile(self.side, grain))

    def wobble(self) -> Array:
        """Return noise whose features are about as long as the pieces, for outlines that no machine has cut."""
        length = float(self.b.mean()) / self.unit
        return self.noise(min(NOISE_GRAINS, key=lambda grain: abs(grain - length)))


Brush = Callable[[Patch], Relief]


@dataclass
class Placement:
    """Where `n` pieces lie: arrays of shape `(n,)`, lengths in canvas pixels, angles in radians."""

    x: Array
    y: Array
    angle: Array
    length: Array
    width: Array


@dataclass
class Sticker:
    """One lit piece, ready to be laid on the canvas."""

    left: int
    top: int
    colour: Array
    alpha: Array
    shadow: Array
    lift: float
    owner: int


@dataclass
class Canvas:
    """A square picture that is being drawn.

    Attributes:
        side: width and height in drawn pixels.
        rng: source of every choice.
        light: unit vector that points to the lamp.
        pixels: `(3, side, side)` float32 colours, 0..1.
        pieces: `(side, side)` number of the piece on top; 0 where there is none.
        owners: ingredient id by piece number; number 0 and the things that are no food belong to 0.
        drawn_areas: pixels by piece number before anything was laid over it.
    """

    side: int
    rng: np.random.Generator
    light: Array = field(init=False)
    pixels: Array = field(init=False)
    pieces: Array = field(init=False)
    owners: list[int] = field(default_factory=lambda: [0])
    drawn_areas: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        azimuth, rise = self.rng.uniform(0, 2 * np.pi), np.radians(self.rng.uniform(42, 58))
        self.light = np.array(
            [np.cos(azimuth) * np.cos(rise), np.sin(azimuth) * np.cos(rise), np.sin(rise)], np.float32
        )
        self.pixels = np.zeros((3, self.side, self.side), np.float32)
        self.pieces = np.zeros((self.side, self.side), np.uint16)

    @property
    def unit(self) -> float:
        """Canvas pixels per reference pixel."""
        return self.side / REFERENCE_SIDE

    def lit(
        self, albedo: Array, slope_x: Array, slope_y: Array, gloss: float | Array, pale: float | Array = 0.0
    ) -> Array:
        """Return `albedo` under the lamp, for a surface with the given slopes.

        Args:
            albedo: colour that broadcasts to `(3, ...)`.
            slope_x: rise per pixel to the right.
            slope_y: rise per pixel downwards.
            gloss: strength of the highlight.
            pale: 0..1, how much light is scattered below the surface and fills the shadows, as in milk and rice.
        """
        x, y, z = (float(value) for value in self.light)
        # Lambert's law: the light on the surface is the product of the lamp's direction with its normal,
        # (-slope_x, -slope_y, 1) / sqrt(1 + slope_x^2 + slope_y^2). `upright` becomes one over that root; all in place,
        # because these arrays are the bulk of the work.
        upright = slope_x * slope_x
        upright += slope_y * slope_y
        upright += 1
        np.sqrt(upright, out=upright)
        np.reciprocal(upright, out=upright)
        lean = slope_x * x
        lean += slope_y * y
        shade = (z - lean) * upright
        # Relative to a flat surface, which keeps its albedo.
        shade -= z
        shade *= 0.85 - 0.42 * pale
        np.clip(shade, -0.65, 0.3, out=shade)
        colour = np.empty((3, *shade.shape), np.float32)
        # Shadows on food are warm: blue falls faster than red.
        for channel, strength in enumerate((0.92, 1.0, 1.12)):
            np.multiply(albedo[channel], strength * shade + 1, out=colour[channel])
        if isinstance(gloss, np.ndarray) or gloss > 0:
            # Blinn's highlight for a viewer straight above: the product of the normal with the direction halfway
            # between viewer and lamp, squared five times, which is its 32nd power.
            half = 1 / math.sqrt(x * x + y * y + (z + 1) ** 2)
            lean *= -half
            lean += half * (z + 1)
            lean *= upright
            np.clip(lean, 0, 1, out=lean)
            for _ in range(5):
                lean *= lean
            lean *= gloss
            for channel in range(3):
                colour[channel] += lean
        return colour

    def paint(
        self,
        brush: Brush,
        placement: Placement,
        colours: tuple[Array, Array | None],
        owner: int = 0,
        subject: Ingredient | None = None,
        shadow: float = 0.5,
    ) -> list[Sticker]:
        """Return the stickers of `n` pieces of one ingredient; `lay` puts them down in any order.

        Args:
            brush: the form.
            placement: where the pieces lie.
            colours: main and second colour, each `(3, n)`; the second may be `None`.
            owner: ingredient id for the mask.
            subject: the ingredient; `None` for things that are no food.
            shadow: darkness of the cast shadow, 0..1.
        """
        a, b = ((0.5 * value).astype(np.float32)[:, None, None] for value in (placement.length, placement.width))
        margin = 4 * self.unit
        # One square window fits the longest piece at any angle; the margin leaves room for the shadow.
        half = min(math.ceil(float(max(a.max(), b.max())) * 1.15 + margin), int(0.87 * self.side))
        steps = np.arange(-half, half + 1, dtype=np.float32)
        cosine = np.cos(placement.angle).astype(np.float32)[:, None, None]
        sine = np.sin(placement.angle).astype(np.float32)[:, None, None]
        # Canvas coordinates are turned into those of each piece, -1..1 along its length and its width.
        u = (steps[None, None, :] * cosine + steps[None, :, None] * sine) / a
        v = (steps[None, :, None] * cosine - steps[None, None, :] * sine) / b
        first, second = (None if one is None else one.astype(np.float32)[..., None, None] for one in colours)
        assert first is not None
        relief = brush(Patch(u, v, a, b, first, second, subject, self.unit, self.side, self.rng))
        # Central differences; the border lies outside every piece and stays flat.
        slope_x, slope_y = np.zeros_like(relief.height), np.zeros_like(relief.height)
        slope_x[:, :, 1:-1] = 0.5 * (relief.height[:, :, 2:] - relief.height[:, :, :-2])
        slope_y[:, 1:-1] = 0.5 * (relief.height[:, 2:] - relief.height[:, :-2])
        # Colours whose darkest channel is bright are those of milk, rice and egg white.
        pale = np.clip(first.min(axis=0) * 2.2 - 1, 0, 1)
        colour = self.lit(relief.albedo, slope_x, slope_y, relief.gloss, pale)
        # Half a pixel on either side of the outline is blended, so that edges do not look jagged.
        alpha = np.clip(relief.distance + 0.5, 0, 1)
        softness = 3.0 * self.unit
        cast = shadow * smoothstep(relief.distance / (2 * softness) + 0.5) if shadow else np.zeros_like(alpha)
        lift = np.minimum(b[:, 0, 0] * 0.3, 5 * self.unit)
        return [
            Sticker(
                int(placement.x[i]) - half,
                int(placement.y[i]) - half,
                colour[:, i],
                alpha[i],
                cast[i],
                float(lift[i]),
                owner,
            )
            for i in range(len(placement.x))
        ]

    def _window(self, left: int, top: int, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the slices of the canvas and of a patch where the two overlap."""
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = max(x0, min(self.side, left + shape[1])), max(y0, min(self.side, top + shape[0]))
        return (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))

    def lay(self, sticker: Sticker) -> None:
        """Put a sticker on top of everything that is there, with its shadow."""
        # The shadow falls away from the lamp, the farther the higher the piece lies.
        away_x, away_y = (-round(float(part) * sticker.lift * 1.3) for part in self.light[:2])
        there, here = self._window(sticker.left + away_x, sticker.top + away_y, sticker.shadow.shape)
        self.pixels[:, there[0], there[1]] *= 1 - sticker.shadow[here]
        there, here = self._window(sticker.left, sticker.top, sticker.alpha.shape)
        alpha = sticker.alpha[here]
        ground = self.pixels[:, there[0], there[1]]
        ground += (sticker.colour[:, here[0], here[1]] - ground) * alpha
        self.owners.append(sticker.owner)
        # A pixel belongs to the piece that covers more than half of it: masks have no soft edges.
        inside = alpha > 0.5
        self.pieces[there][inside] = len(self.owners) - 1
        self.drawn_areas.append(int(np.count_nonzero(sticker.alpha > 0.5)))
