"""Figures of masks: panels, bars per class, confused ingredients, and plates coloured by their taste."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch
from PIL import Image, ImageDraw

from dataset_builder.columns import BACKGROUND, FLAVOURS, UNKNOWN

PANEL_SIDE = 192
LEGEND_WIDTH = 150
LEGEND_LINES = 11
LARGEST_TABLE = 40
FLAVOUR_COLOURS = {
    "sweet": (236, 92, 160),
    "salty": (70, 130, 220),
    "sour": (196, 210, 40),
    "bitter": (92, 60, 40),
    "umami": (226, 110, 20),
}


def colours(classes: int) -> np.ndarray:
    """Return a colour per class, `(classes, 3)` uint8: black for the background, hues far apart for neighbours."""
    # Steps of the golden ratio spread any number of hues evenly.
    hues = (np.arange(classes) * 0.618034) % 1
    palette = [Image.new("HSV", (1, 1), (int(hue * 255), 200, 235)).convert("RGB").getpixel((0, 0)) for hue in hues]
    return np.array([(0, 0, 0), *palette[1:]], dtype=np.uint8)


def panels(
    pictures: Sequence[Image.Image],
    truths: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    names: Sequence[str],
    path: Path,
) -> None:
    """Draw a row of picture, truth, prediction and overlay per picture, with the names of the largest classes in it.

    Args:
        pictures: as they are.
        truths: class ids `(height, width)`; unknown pixels are drawn grey.
        masks: predicted class ids `(height, width)`.
        names: classes, background first.
        path: PNG file.
    """
    # Every id has a colour, those that are no class (unknown pixels) a grey one.
    palette = np.full((UNKNOWN + 1, 3), 128, dtype=np.uint8)
    palette[: len(names)] = colours(len(names))
    sheet = Image.new("RGB", (4 * PANEL_SIDE + LEGEND_WIDTH, len(pictures) * PANEL_SIDE), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (picture, truth, mask) in enumerate(zip(pictures, truths, masks, strict=True)):
        plate = picture.convert("RGB").resize((PANEL_SIDE, PANEL_SIDE))
        drawn = [Image.fromarray(palette[ids]).resize(plate.size, Image.Resampling.NEAREST) for ids in (truth, mask)]
        for column, panel in enumerate((plate, *drawn, Image.blend(plate, drawn[1], 0.5))):
            sheet.paste(panel, (column * PANEL_SIDE, row * PANEL_SIDE))
        areas = np.bincount(np.concatenate([truth.ravel(), mask.ravel()]), minlength=UNKNOWN + 1)
        areas[[BACKGROUND, UNKNOWN]] = 0
        # The legend has few lines, so that it names the largest areas first.
        present = [int(number) for number in np.argsort(-areas, kind="stable") if areas[number]]
        for line, number in enumerate(present[:LEGEND_LINES]):
            top, left = row * PANEL_SIDE + 6 + 16 * line, 4 * PANEL_SIDE + 6
            draw.rectangle((left, top, left + 10, top + 10), fill=tuple(palette[number].tolist()))
            draw.text((left + 16, top - 1), names[number], fill="black")
    sheet.save(path)


def class_bars(per_class: dict[str, dict[str, float | None]], path: Path) -> None:
    """Draw the IoU of each class that occurs, the best first, beside its share of the pixels.

    Args:
        per_class: of `segmentation_scores.class_table`.
        path: PNG file.
    """
    known = [(name, entry["iou"], entry["share_of_pixels"]) for name, entry in per_class.items()]
    known = sorted((line for line in known if line[1] is not None), key=lambda line: line[1] or 0)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8, 1 + 0.22 * len(known)), sharey=True, layout="constrained", width_ratios=(2, 1)
    )
    names = [name for name, *_ in known]
    left.barh(names, [iou or 0 for _, iou, _ in known], color="C0")
    left.set(title="IoU", xlim=(0, 1))
    right.barh(names, [100 * (share or 0) for *_, share in known], color="C7")
    right.set(title="% of the pixels", xscale="log")
    left.tick_params(axis="y", labelsize=7)
    left.margins(y=0.01)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def confusions(matrix: np.ndarray, names: Sequence[str], most: int = 20) -> list[dict[str, Any]]:
    """Return the pairs of ingredients with most confused pixels, without the background.

    Args:
        matrix: pixels by true (rows) and predicted class.
        names: classes, background first.
        most: how many pairs.
    """
    wrong = matrix.astype(np.float64).copy()
    np.fill_diagonal(wrong, 0)
    # Edges confuse every ingredient with the background, which would fill the list.
    wrong[BACKGROUND], wrong[:, BACKGROUND] = 0, 0
    shares = wrong / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    order = np.argsort(-wrong, axis=None)[:most]
    pairs = [np.unravel_index(place, wrong.shape) for place in order if wrong.flat[place] > 0]
    return [
        {
            "true": names[true],
            "taken_for": names[predicted],
            "pixels": int(wrong[true, predicted]),
            "share_of_true": float(shares[true, predicted]),
        }
        for true, predicted in pairs
    ]


def confusion_table(matrix: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draw the confusion matrix with rows that sum to 1; of many classes, those with most pixels."""
    present = np.flatnonzero(matrix.sum(axis=1) > 0)
    shown = np.sort(present[np.argsort(-matrix.sum(axis=1)[present], kind="stable")[:LARGEST_TABLE]])
    shares = (matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1))[np.ix_(shown, shown)]
    side = 2.5 + 0.24 * len(shown)
    figure, axes = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    drawn = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    labels = [names[number] for number in shown]
    axes.set_xticks(range(len(shown)), labels, rotation=90, fontsize=7)
    axes.set_yticks(range(len(shown)), labels, fontsize=7)
    axes.set(title="share of a class's pixels", xlabel="seen as", ylabel="true")
    figure.colorbar(drawn, shrink=0.6)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def taste_overlay(picture: Image.Image, mask: np.ndarray, tastes: np.ndarray) -> Image.Image:
    """Return the picture with each ingredient in the colours of its tastes, the stronger the more opaque."""
    palette = np.array([FLAVOUR_COLOURS[flavour] for flavour in FLAVOURS], dtype=np.float64)
    strength = tastes.max(axis=1)
    mixed = tastes @ palette / np.maximum(tastes.sum(axis=1, keepdims=True), 1e-9)
    # Classes without a taste keep the colours of the picture.
    opacity = np.where(strength > 0, 0.35 + 0.5 * strength, 0)[mask][..., None]
    plate = np.asarray(picture.convert("RGB").resize((mask.shape[1], mask.shape[0])), dtype=np.float64)
    return Image.fromarray((plate * (1 - opacity) + mixed[mask] * opacity).round().astype(np.uint8))


def flavour_maps(
    pictures: Sequence[Image.Image],
    masks: Sequence[np.ndarray],
    class_table: np.ndarray,
    plates: Sequence[dict[str, Any]],
    path: Path,
) -> None:
    """Draw per picture the plate, its flavour map and its taste vector; a red title where the classifier disagrees.

    Args:
        pictures: as they are.
        masks: predicted class ids `(height, width)`.
        class_table: tastes per class, `(classes, 5)`.
        plates: per picture `taste`, `flavour` and, where there is a classifier, `classifier` and `agrees`.
        path: PNG file.
    """
    figure, grid = plt.subplots(len(pictures), 3, figsize=(7.5, 2.3 * len(pictures)), squeeze=False)
    shades = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in map(FLAVOUR_COLOURS.__getitem__, FLAVOURS)]
    for axes, picture, mask, plate in zip(grid, pictures, masks, plates, strict=True):
        axes[0].imshow(picture.convert("RGB"))
        axes[1].imshow(taste_overlay(picture, mask, class_table))
        axes[2].barh(FLAVOURS, plate["taste"], color=shades)
        axes[2].invert_yaxis()
        axes[2].set_xlim(0, 1)
        axes[2].tick_params(labelsize=7)
        for side in axes[:2]:
            side.axis("off")
        other = plate.get("classifier")
        differs = other is not None and not plate["agrees"]
        sign = "" if other is None else f"  {'≠' if differs else '='}  classifier: {other}"
        axes[2].set_title(f"{plate['flavour']}{sign}", fontsize=8, color="red" if differs else "black")
    patches = [Patch(color=shade) for shade in shades]
    figure.legend(patches, list(FLAVOURS), ncols=5, fontsize=8, loc="lower center")
    figure.tight_layout(rect=(0, 0.5 / (2.3 * len(pictures)), 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
