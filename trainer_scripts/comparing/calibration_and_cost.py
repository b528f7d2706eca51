"""Calibration, spread over seeds, and cost of each saved model of a comparison."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.intervals import fit_temperature, scale_temperature
from trainer_scripts.evaluation.lines import MODEL, Line
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import CLASSES
from trainer_scripts.scoring.results import weights_on_disk
from trainer_scripts.scoring.saved_model import SavedModel, load_model
from trainer_scripts.scoring.scored_models import LoadedModels
from trainer_scripts.tasks.common.trainer import megabytes

TIMED_ROWS = 64
REPEATS = 3


def calibration(comparison: LoadedModels) -> dict[str, dict[str, Any]]:
    """Return per saved classifier the temperature of the selection split, and test calibration before and after it."""
    return {name: _calibrate(comparison, name) for name in comparison.selection_predictions}


def _calibrate(comparison: LoadedModels, name: str) -> dict[str, Any]:
    selection, predictions = comparison.selection_predictions[name], comparison.line(name).predictions
    many = predictions.labels.ndim == 2
    nll = comparison.score_named("nll")
    # One number for all logits, fitted on rows that chose the checkpoint and never on test rows.
    temperature = fit_temperature(nll, selection.labels, selection.probabilities, many)
    scaled = calibrated(predictions, temperature)
    found: dict[str, Any] = {"temperature": temperature}
    for score in (comparison.score_named("ece"), nll):
        found[f"{score.name} before"] = comparison.line(name).score(score)
        found[f"{score.name} after"] = Line(name, MODEL, "", scaled).score(score)
    return found


def calibrated(predictions: Predictions, temperature: float) -> Predictions:
    """Return the predictions of a classifier with its logits divided by a temperature."""
    labels, probabilities = predictions.parts[CLASSES]
    scaled = scale_temperature(probabilities, temperature, labels.ndim == 2)
    return Predictions.of_classes(predictions.ids, predictions.groups, labels, scaled)


def spread(comparison: LoadedModels, batch_size: int) -> dict[str, dict[str, Any]]:
    """Return per model that was trained with several seeds the main scores of each on the test rows, and their spread.

    The line of the model in all other tables is its first seed, whichever is best.
    """
    found = {}
    for name, model in comparison.saved.items():
        folders = [path for path in seed_folders(model.source) if (path / "model.safetensors").is_file()]
        if not folders:
            continue
        values = {s.name: [comparison.line(name).grouped.value(s)] for s in comparison.decisive}
        for folder in folders:
            other = load_model(str(folder))
            predictions = other.task.answers(other, comparison.tables[name], batch_size, folder.name)
            for score in comparison.decisive:
                values[score.name].append(Line(folder.name, MODEL, "", predictions).grouped.value(score))
        found[name] = {
            score: {
                "seeds": len(of_score),
                "mean": float(np.mean(of_score)),
                "std": float(np.std(of_score, ddof=1)),
                "min": min(of_score),
                "max": max(of_score),
            }
            for score, of_score in values.items()
        }
    return found


def seed_folders(source: str) -> list[Path]:
    """Return the folders of a run's further seeds."""
    return sorted(Path(source).glob("seed-*"), key=lambda path: int(path.name.split("-")[1]))


def cost(comparison: LoadedModels) -> dict[str, dict[str, float]]:
    """Return per saved model parameters, MB on disk, and milliseconds per row from the table to the answer.

    Times are medians of a few passes over at most `TIMED_ROWS` rows after a warm-up, one by one and in batches of 32.
    """
    return {name: _cost(comparison.tables[name], model) for name, model in comparison.saved.items()}


@torch.inference_mode()
def _cost(table: Table, model: SavedModel) -> dict[str, float]:
    table = table.first(TIMED_ROWS)
    found: dict[str, float] = {}
    if isinstance(model.model, torch.nn.Module):
        found["parameters"] = sum(parameter.numel() for parameter in model.model.parameters())
    found["MB on disk"] = weights_on_disk(model.source) or megabytes(model.model)
    for size in sorted({1, min(32, len(table))}):
        times = []
        for _ in range(REPEATS + 1):
            started = time.perf_counter()
            # The first pass is a warm-up: it allocates memory and is left out of the median.
            model.task.answers(model, table, size)
            times.append(time.perf_counter() - started)
        found[f"ms per row, batch {size}"] = 1000 * float(np.median(times[1:])) / len(table)
    return found
