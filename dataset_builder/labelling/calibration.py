"""Calibration of confidences: bins, the expected calibration error, and reliability diagrams."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_builder.columns import FLAVOURS


@dataclass(frozen=True)
class Reliability:
    """Accuracy of predictions in bins of their confidence.

    Attributes:
        edges: `(bins + 1,)` borders of the bins of confidence, equally wide from 0 to 1.
        counts, confidence, accuracy: `(bins,)` rows, mean confidence and share right; nan in an empty bin.
        error: expected calibration error, the mean distance of the two weighted by the rows of a bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def bin_numbers(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin of each confidence, `(rows,)`: bins of equal width, open below and closed above."""
    return np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)


def calibration_curve(confidence: np.ndarray, correct: np.ndarray, bins: int) -> Reliability:
    """Bin answers by their confidence (Guo et al. 2017, equation 3).

    Args:
        confidence: `(rows,)` in 0..1.
        correct: `(rows,)` 1 or True where the answer is right.
        bins: number of bins.
    """
    numbers = bin_numbers(confidence, bins)
    counts = np.bincount(numbers, minlength=bins)
    # Empty bins become nan, and `nansum` leaves them out of the error.
    divisor = np.where(counts > 0, counts, np.nan)
    mean_confidence, share_right = (
        np.bincount(numbers, weights=values, minlength=bins) / divisor for values in (confidence, correct)
    )
    error = float(np.nansum(np.abs(mean_confidence - share_right) * counts) / len(confidence))
    return Reliability(np.linspace(0, 1, bins + 1), counts, mean_confidence, share_right, error)


def reliability(scores: np.ndarray, reference: Sequence[str], bins: int = 10) -> Reliability:
    """Return the calibration of `(rows, 5)` scores: of their best flavour against the reference flavour.

    Raises:
        ValueError: scores and reference of different length, or empty.
    """
    if len(scores) != len(reference) or not len(scores):
        raise ValueError(
            f"{len(scores)} rows of scores and {len(reference)} references; give equally many, at least one"
        )
    correct = scores.argmax(axis=1) == [FLAVOURS.index(flavour) for flavour in reference]
    return calibration_curve(scores.max(axis=1), correct, bins)


def picture_kinds() -> list[str]:
    """Return the file endings that `plot_reliability` can write."""
    from matplotlib.backend_bases import FigureCanvasBase

    return sorted(FigureCanvasBase.get_supported_filetypes())


def plot_reliability(figures: dict[str, Reliability], path: str | Path) -> None:
    """Draw one or more reliability diagrams, such as before and after calibration, into one picture file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(figures), 4), layout="constrained")
    panels = figure.subplots(1, len(figures), squeeze=False)[0]
    for axes, (name, entry) in zip(panels, figures.items(), strict=True):
        width = entry.edges[1] - entry.edges[0]
        # Bars show the accuracy of each bin, the dashed diagonal perfect calibration, dots the mean confidence.
        axes.bar(
            entry.edges[:-1], np.nan_to_num(entry.accuracy), width, align="edge", color="#7aa6c2", edgecolor="white"
        )
        axes.plot([0, 1], [0, 1], color="#444444", linestyle="--", linewidth=1)
        axes.plot(entry.confidence, entry.accuracy, "o", color="#b5442e", markersize=4)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share right")
        axes.set_title(f"{name}: expected calibration error {entry.error:.3f}", fontsize=9)
    figure.savefig(path, dpi=120)
