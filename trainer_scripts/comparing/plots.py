"""The plots of a comparison: confusion matrices, reliability, scores with intervals, training curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from dataset_builder.labelling.calibration import calibration_curve
from trainer_scripts.comparing.calibration_and_cost import calibrated
from trainer_scripts.evaluation.intervals import Interval
from trainer_scripts.evaluation.predictions import METRICS, read_metrics
from trainer_scripts.evaluation.scores import CALIBRATION_BINS, CLASSES
from trainer_scripts.scoring.scored_models import LoadedModels
from trainer_scripts.tasks.classification.comparing import confidences

matplotlib.use("Agg")


def draw(comparison: LoadedModels, content: dict[str, Any], out: Path) -> None:
    """Write the plots."""
    scores(out / "scores.png", content["entries"], content["decisive"])
    curves = {}
    for line in comparison.models:
        if CLASSES not in line.predictions.parts:
            continue
        labels, probabilities = line.predictions.parts[CLASSES]
        # Rows with several labels have no single predicted class.
        if labels.ndim == 1:
            path = out / f"confusion_{line.name.replace('/', '-')}.png"
            confusion_matrix(path, line.name, labels, probabilities, comparison.label_names)
        curves[line.name] = [confidences(line.predictions)]
        if line.name in content["calibration"]:
            scaled = calibrated(line.predictions, content["calibration"][line.name]["temperature"])
            curves[line.name].append(confidences(scaled))
    if curves:
        reliability(out / "reliability.png", curves)
    if any(labels.ndim == 1 for labels in (line.predictions.parts[CLASSES][0] for line in comparison.models
                                           if CLASSES in line.predictions.parts)):  # fmt: skip
        coverage(out / "coverage.png", {name: kinds[0] for name, kinds in curves.items()})
    histories = {
        name: read_metrics(Path(model.source)).get("history", [])
        for name, model in comparison.saved.items()
        if (Path(model.source) / METRICS).is_file()
    }
    if histories:
        training_curves(out / "training_curves.png", histories, comparison.main_score.name)


def confusion_matrix(
    path: Path, title: str, labels: np.ndarray, probabilities: np.ndarray, names: Sequence[str]
) -> None:
    """Draw how often each true class is taken for each class, rows summing to 1."""
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (labels, probabilities.argmax(axis=1)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = pyplot.subplots(figsize=(1.6 + 0.7 * len(names), 1.4 + 0.6 * len(names)), layout="constrained")
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(*counts.shape):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(
        range(len(names)), [f"{name} ({int(n)})" for name, n in zip(names, counts.sum(axis=1), strict=True)]
    )
    axes.set(title=title, xlabel="predicted", ylabel="true")
    _save(figure, path)


def reliability(path: Path, curves: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> None:
    """Draw the share of correct answers against confidence; a point is as large as the share of answers in its bin.

    Args:
        path: the picture.
        curves: model -> (confidence, correct) as they are and, if any, after temperature scaling.
    """
    figure, axes = pyplot.subplots(figsize=(4.8, 4.4), layout="constrained")
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    for index, (name, kinds) in enumerate(curves.items()):
        for style, what, (confidence, correct) in zip(("-", "--"), ("", ", calibrated"), kinds, strict=False):
            curve = calibration_curve(confidence, correct, CALIBRATION_BINS)
            filled = curve.counts > 0
            x, y = curve.confidence[filled], curve.accuracy[filled]
            axes.plot(x, y, style, color=f"C{index}", linewidth=1, label=name + what)
            axes.scatter(x, y, 4 + 120 * curve.counts[filled] / len(confidence), color=f"C{index}", alpha=0.5)
    axes.set(title="Reliability", xlabel="confidence", ylabel="share correct", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(fontsize=8)
    _save(figure, path)


def coverage(path: Path, answers: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Draw the accuracy of the most confident answers against the share of rows that they are (`--abstain`).

    Args:
        path: the picture.
        answers: line -> (confidence, correct).
    """
    figure, axes = pyplot.subplots(figsize=(4.8, 4.0), layout="constrained")
    for name, (confidence, correct) in answers.items():
        share, accuracy = coverage_curve(confidence, correct)
        axes.plot(share, accuracy, linewidth=1, label=name)
    axes.set(title="Coverage", xlabel="share of rows answered, the surest first", ylabel="share correct", xlim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


def coverage_curve(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return shares of rows answered, from the surest row to all, and the accuracy of each share, `(rows,)` both.

    >>> coverage_curve(np.array([0.9, 0.4, 0.7]), np.array([True, False, True]))[1].round(2).tolist()
    [1.0, 1.0, 0.67]
    """
    order = np.argsort(-confidence, kind="stable")
    counts = np.arange(1, len(order) + 1)
    return counts / len(order), np.cumsum(correct[order]) / counts


def scores(path: Path, entries: dict[str, Any], names: Sequence[str]) -> None:
    """Draw the named scores of all lines with their intervals, one panel each; models dark, baselines light."""
    height = 0.9 + 0.32 * len(entries)
    figure, panels = pyplot.subplots(1, len(names), figsize=(2.5 + 4 * len(names), height), layout="constrained",
                                     squeeze=False, sharey=True)  # fmt: skip
    for axes, name in zip(panels[0], names, strict=True):
        for row, entry in enumerate(entries.values()):
            score = entry["scores"].get(name)
            if score is None:
                continue
            value, whiskers = score, None
            if isinstance(score, Interval):
                value = score.value
                whiskers = np.abs([[value - score.low], [score.high - value]])
            colour = "C0" if entry["kind"] == "model" else "C7"
            axes.errorbar([value], [row], xerr=whiskers, fmt="o", color=colour, capsize=3)
        axes.set(xlabel=f"{name}, 95 % interval over groups")
        axes.grid(axis="x", alpha=0.3)
    panels[0][0].set_yticks(range(len(entries)), list(entries))
    panels[0][0].invert_yaxis()
    _save(figure, path)


def training_curves(path: Path, histories: dict[str, list[dict[str, Any]]], metric: str) -> None:
    """Draw training loss, selection loss and the score that chose the checkpoint, per model and epoch."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    curves = ((left, "loss", "-"), (left, "eval_loss", "--"), (right, f"eval_{metric}", "-"))
    for index, (name, history) in enumerate(histories.items()):
        for axes, key, style in curves:
            # The first value of each epoch, because the last line of a history repeats the chosen checkpoint's.
            points: dict[float, float] = {}
            for line in history:
                if key in line:
                    points.setdefault(line["epoch"], line[key])
            if points:
                label = f"{name}, {key}" if axes is left else name
                axes.plot(list(points), list(points.values()), style, color=f"C{index}", label=label)
    left.set(title="Loss", xlabel="epoch")
    right.set(title=f"{metric} on the selection split", xlabel="epoch")
    for axes in (left, right):
        if axes.has_data():
            axes.legend(fontsize=7)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
