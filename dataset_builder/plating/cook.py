"""Arranges a plate: how much of each ingredient there is, where it lies, and what lies over what."""

from dataclasses import dataclass

import numpy as np

from dataset_builder.catalogue.ingredients import Ingredient
from dataset_builder.catalogue.serving import BEDS, BOWL, GLASS, shows
from dataset_builder.plating.beds import FORMS, melt, soup
from dataset_builder.plating.canvas import Array, Brush, Canvas, Placement, Sticker
from dataset_builder.plating.pieces import DOLLOPED
from dataset_builder.plating.vessels import Vessel, draw_ice

PLATE_MM = 260.0
# Small things are drawn larger and large ones smaller than life, so that both can be recognised at 96 pixels.
TYPICAL_MM = 40.0
SIZE_EXPONENT = 0.70
ASPECTS = {
    "fillet": 0.52, "strip": 0.22, "crescent": 0.66, "cube": 0.92, "chunk": 0.80, "blob": 0.90, "tube": 0.34,
    "leaf": 0.52, "fleck": 0.62, "shave": 0.46, "mushroom": 0.88, "shellfish": 0.64, "drizzle": 0.80, "hoop": 0.94,
    "dumpling": 0.72,
}  # fmt: skip
FEWEST = {"fillet": 1, "scoop": 1, "yolk": 1, "drizzle": 1, "fleck": 8, "leaf": 3, "citrus": 2}
MOST = {"fillet": 2, "scoop": 3, "yolk": 2, "drizzle": 1, "fleck": 26, "citrus": 4, "blob": 10, "tube": 8, "leaf": 11}
USUAL_MOST = 10
# Room that a form takes in proportion to the others.
APPETITES = {"fleck": 0.42, "drizzle": 0.5, "fillet": 1.5, "yolk": 1.1, "scoop": 1.2, "citrus": 0.8}
GROUP_APPETITES = {"herb": 0.5, "nut": 0.75, "pickle": 0.8}
# Least share of the picture that an ingredient shows when nothing hides it.
LEAST_AREA = 0.018
LEAST_AREA_OF_FLECKS = 0.009
COLOUR_SPREAD = 0.045


@dataclass
class Portion:
    """One ingredient on this plate: how it is painted and how much of it there is."""

    ingredient: Ingredient
    owner: int
    brush: Brush
    first: Array
    second: Array | None
    length: float
    width: float
    pieces: int

    @property
    def flat(self) -> bool:
        """Whether it is strewn or poured over the rest."""
        return self.ingredient.form in ("fleck", "drizzle")


class Cook:
    """Lays the visible ingredients of one dish into its vessel.

    Args:
        canvas: the picture, with its vessel drawn.
        vessel: the room for food.
    """

    def __init__(self, canvas: Canvas, vessel: Vessel):
        self.canvas, self.vessel, self.rng = canvas, vessel, canvas.rng
        self.swims = vessel.kind == GLASS
        self.scale = canvas.side * 0.98 / PLATE_MM
        self.zoom = self.rng.uniform(1.15, 1.38)
        self.room = vessel.room * 0.95
        self.taken: list[tuple[float, float, float]] = []

    def serve(self, ingredients: list[tuple[int, Ingredient]]) -> None:
        """Draw the ingredients, given with their ids, the most important first."""
        # In a glass nothing milled or steeped shows, only what floats in it or fills it.
        beds = [pair for pair in ingredients if pair[1].form in BEDS and shows(self.vessel.kind, pair[1])]
        pieces = [pair for pair in ingredients if pair[1].form not in BEDS]
        covered = self._lay_beds(beds)
        if self.vessel.kind == GLASS:
            draw_ice(self.canvas, self.vessel)
        portions = self._portions(pieces, covered)
        for sticker in self._arrange(portions):
            self.canvas.lay(sticker)
        self._top_up(portions)

    def _shades(self, ingredient: Ingredient, count: int) -> tuple[Array, Array | None]:
        """Return `(3, count)` colours: one shift for the plate, a smaller one for every piece."""
        # Colour cast and brightness of the whole ingredient, then of each piece: pieces of one ingredient look related.
        shift = self.rng.normal(0, COLOUR_SPREAD * 0.6, 3) + self.rng.normal(0, COLOUR_SPREAD)
        shades = []
        for colour in ingredient.colours[:2]:
            base = np.array(colour, np.float32) / 255 * (1 + shift)
            own = 1 + self.rng.normal(0, COLOUR_SPREAD, (count, 1)) + self.rng.normal(0, 0.012, (count, 3))
            shades.append(np.clip(base * own, 0.02, 0.98).astype(np.float32).T)
        return shades[0], shades[1] if len(shades) > 1 else None

    def _lay_beds(self, beds: list[tuple[int, Ingredient]]) -> float:
        """Lay pools, grain, noodles and dough; return the share of the room they cover."""
        liquid = self.vessel.kind in (BOWL, GLASS)
        # Dough carries its sauce, but in a bowl the liquid is at the bottom.
        rank = {"pool": 0 if liquid else 2, "round": 1, "slab": 1, "grain": 3, "strand": 3}
        beds = sorted(beds, key=lambda pair: rank[pair[1].form])
        dough: float | None = None
        turn = self.rng.uniform(0, 2 * np.pi)
        for number, (owner, ingredient) in enumerate(beds):
            form, brush = ingredient.form, FORMS[ingredient.form]
            length = self.room * 2 * min(1.0, 0.62 + 0.32 * ingredient.size_mm / 150) * self.rng.uniform(0.95, 1.06)
            length = min(length, 2 * self.room)
            off = 0.0 if number == 0 else self.room * 0.36
            # The first pool of a bowl or glass is its liquid and fills it from wall to wall.
            fill = form == "pool" and number == 0 and liquid
            self.swims = self.swims or fill
            if fill:
                brush, length, off = soup, 2.05 * self.vessel.room, 0.0
            elif dough is not None and form == "pool":
                # The first sauce on dough is spread over it; anything later, such as cheese, melts on top.
                brush = FORMS["pool"] if number == 1 else melt
                length, off = dough * 0.80, 0.0
            # A second bed lies beside the first one and is smaller.
            elif number > 0:
                length *= 0.66
            elif len(beds) > 1 and form not in ("pool", "round", "slab"):
                off = self.room * 0.25
            # A spoonful, such as mustard, is a small pool at the side.
            if ingredient.size_mm < 60:
                length, off = self.room * 0.62, self.room * 0.5
            # The golden angle, about 2.4, spreads any number of beds over all directions.
            angle = turn + number * 2.4
            x = self.vessel.x + off * np.cos(angle)
            y = self.vessel.y + off * np.sin(angle) * self.vessel.tilt
            narrow = self.rng.uniform(0.70, 0.82) if form == "slab" else self.rng.uniform(0.92, 1.0)
            narrow = self.vessel.tilt if fill else narrow
            tilt = 0.0 if fill else self.rng.uniform(0, np.pi)
            placement = Placement(*(np.array([value], np.float32) for value in (x, y, tilt, length, length * narrow)))
            colours = self._shades(ingredient, 1)
            shadow = 0.15 if fill else 0.5
            self.canvas.lay(self.canvas.paint(brush, placement, colours, owner, ingredient, shadow)[0])
            if form in ("round", "slab"):
                dough = max(dough or 0.0, length)
                # What follows lies on the dough, not beside it.
                self.room = min(self.room, dough * 0.46)
        return 0.0 if not beds else 0.5

    def _portions(self, pieces: list[tuple[int, Ingredient]], covered: float) -> list[Portion]:
        """Decide size and number of pieces so that the food fills the room and no ingredient is lost in it."""
        # Ingredients are given by importance: each gets 7 % less room than the one before.
        wishes = [
            APPETITES.get(item.form, 1.0) * GROUP_APPETITES.get(item.group, 1.0) * 0.93**rank
            for rank, (_, item) in enumerate(pieces)
        ]
        filling = (0.66 if covered else 1.2) * self.rng.uniform(0.85, 1.1)
        if self.swims:
            filling *= 0.8
        # A dish of one or two ingredients does not fill the whole room with them.
        total = max(sum(wishes), 2.2 if covered else 1.4)
        picture = self.canvas.side**2
        portions = []
        for (owner, item), wish in zip(pieces, wishes, strict=True):
            area = np.pi * self.room**2 * filling * wish / total
            # Half as much again as must be visible, because other pieces will hide some.
            area = max(area, picture * (LEAST_AREA_OF_FLECKS if item.form == "fleck" else LEAST_AREA) * 1.5)
            length = TYPICAL_MM * (item.size_mm / TYPICAL_MM) ** SIZE_EXPONENT * self.scale * self.zoom
            aspect = self._aspect(item)
            # Of very small pieces up to twice as many are laid.
            most = MOST.get(item.form, USUAL_MOST) * (2 if length < 24 * self.canvas.unit else 1)
            if item.form == "blob" and item.group in DOLLOPED:
                most = 4
            fewest = FEWEST.get(item.form, 2)
            count = int(np.clip(round(area / (0.72 * length * length * aspect)), fewest, most))
            # Too few to fill their share: larger pieces, within reason.
            grow = np.sqrt(area / (count * 0.72 * length * length * aspect))
            length = min(length * float(np.clip(grow, 0.85, 1.5)), 1.5 * self.room)
            if item.form == "drizzle":
                length, count = 1.7 * self.room, 1
            first, second = self._shades(item, count)
            portions.append(Portion(item, owner, FORMS[item.form], first, second, length, length * aspect, count))
        return portions

    def _aspect(self, item: Ingredient) -> float:
        """Return width by length of one piece."""
        if item.form == "tube" and item.group != "pasta":
            return 0.16 if item.group in ("vegetable", "fruit") else 0.28
        if item.form == "fleck" and item.group in ("berry", "fruit", "vegetable"):
            return 0.86
        return ASPECTS.get(item.form, 0.98)

    def _arrange(self, portions: list[Portion]) -> list[Sticker]:
        """Return the stickers of all portions from the bottom to the top."""
        # A tossed dish mixes everything; otherwise each ingredient has its own corner of the plate.
        tossed = self.rng.random() < 0.45 or self.swims or any(p.ingredient.form == "leaf" for p in portions[:2])
        turn = self.rng.uniform(0, 2 * np.pi)
        solid = [portion for portion in portions if not portion.flat]
        placed: list[tuple[float, Sticker]] = []
        for number, portion in enumerate(sorted(portions, key=lambda p: (p.flat, -p.length * p.width))):
            whole = tossed or portion.flat or len(solid) == 1
            angle = turn + 2 * np.pi * number / max(1, len(solid))
            placement = self._place(portion, None if whole else angle)
            for sticker in self._stickers(portion, placement):
                placed.append((self._depth(portion, number, tossed), sticker))
        placed.sort(key=lambda pair: pair[0])
        return [sticker for _, sticker in placed]

    def _depth(self, portion: Portion, number: int, tossed: bool) -> float:
        """Return how far up a piece lies: leaves low, large before small, what is strewn on top."""
        if portion.ingredient.form == "drizzle":
            return 30 + self.rng.uniform(0, 20)
        if portion.ingredient.form == "fleck":
            return 60
        if portion.ingredient.group == "herb":
            return 50
        low = -20 if portion.ingredient.group == "leaf" else 0
        if tossed:
            return low + self.rng.uniform(0, 10) - 4 * portion.length / self.room
        return low + number

    def _stickers(self, portion: Portion, placement: Placement) -> list[Sticker]:
        count = len(placement.x)
        second = None if portion.second is None else portion.second[:, :count]
        return self.canvas.paint(
            portion.brush,
            placement,
            (portion.first[:, :count], second),
            portion.owner,
            portion.ingredient,
            0.30 if self.swims else 0.5,
        )

    def _place(self, portion: Portion, angle: float | None, count: int | None = None) -> Placement:
        """Choose a position for every piece, each as far from the others as a few tries allow.

        Args:
            portion: what is placed.
            angle: direction of its corner of the plate; `None` for anywhere.
            count: number of pieces, by default all of the portion.
        """
        count = portion.pieces if count is None else count
        size = 0.5 * float(np.sqrt(portion.length * portion.width))
        reach = max(0.0, self.room - 0.42 * portion.length)
        if portion.ingredient.form == "drizzle":
            reach = 0.08 * self.room
        heart_x, heart_y, spread = 0.0, 0.0, reach
        if angle is not None:
            away = 0.52 * reach
            heart_x, heart_y = away * np.cos(angle), away * np.sin(angle)
            spread = min(reach, 1.05 * size * np.sqrt(count) + 0.1 * self.room)
        xs, ys = np.empty(count, np.float32), np.empty(count, np.float32)
        for piece in range(count):
            tries = 1 if portion.flat and portion.ingredient.form == "drizzle" else 9
            # The root makes the points uniform over the disc.
            radius = spread * np.sqrt(self.rng.random(tries))
            around = self.rng.uniform(0, 2 * np.pi, tries)
            x, y = heart_x + radius * np.cos(around), heart_y + radius * np.sin(around)
            beyond = np.maximum(np.hypot(x, y) - reach, 0)
            # Close to the middle of its heap rather than far from it, or heaps would have a hole in the middle.
            score = -3 * beyond / self.room - (0.0 if portion.flat else 0.3) * radius / self.room
            if self.taken:
                taken = np.array(self.taken)
                # Distance to the nearest piece in units of the two radii; from 1.15 on more distance gains nothing.
                gap = np.hypot(x[:, None] - taken[:, 0], y[:, None] - taken[:, 1]) / (taken[:, 2] + size)
                score = score + np.minimum(gap.min(axis=1), 1.15)
            best = int(np.argmax(score))
            xs[piece], ys[piece] = x[best], y[best]
            if not portion.flat:
                self.taken.append((float(x[best]), float(y[best]), size))
        angles = self.rng.uniform(0, 2 * np.pi, count)
        # Long pieces of one heap lie side by side, along the heap or across it.
        if angle is not None and portion.ingredient.form in ("strip", "tube", "fillet", "shave", "leaf"):
            angles = angle + np.pi / 2 * self.rng.integers(0, 2) + self.rng.normal(0, 0.25, count)
        vary = self.rng.uniform(0.9, 1.1, count)
        return Placement(
            xs + self.vessel.x,
            ys * self.vessel.tilt + self.vessel.y,
            angles.astype(np.float32),
            (portion.length * vary).astype(np.float32),
            (portion.width * vary).astype(np.float32),
        )

    def _top_up(self, portions: list[Portion]) -> None:
        """Lay a few more pieces of every ingredient of which too little is visible."""
        areas = np.bincount(np.array(self.canvas.owners)[self.canvas.pieces.ravel()], minlength=256)
        for portion in portions:
            flecks = portion.ingredient.form == "fleck"
            least = (LEAST_AREA_OF_FLECKS if flecks else LEAST_AREA) * self.canvas.side**2
            missing = least - areas[portion.owner]
            if missing <= 0 or portion.ingredient.form == "drizzle":
                continue
            count = min(portion.pieces, int(np.ceil(missing / (0.6 * portion.length * portion.width))))
            for sticker in self._stickers(portion, self._place(portion, None, count)):
                self.canvas.lay(sticker)
