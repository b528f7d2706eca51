"""Calibration, spread over seeds, and cost of each saved model of a comparison."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer_scripts.evaluation.intervals import fit_temperature, scale_temperature
from trainer_scripts.evaluation.lines import MODEL, Line
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import CLASSES
from trainer_scripts.scoring.results import weights_on_disk
from trainer_scripts.scoring.saved_model import load_model
from trainer_scripts.scoring.scored_models import LoadedModels
from trainer_scripts.tasks.common.trainer import megabytes
from trainer_scripts.training.folder import mean_and_spread

TIMED_ROWS = 64
REPEATS = 3
TIMED_SECONDS = 2.0  # no further pass after that


def calibration(comparison: LoadedModels) -> dict[str, dict[str, Any]]:
    """Return per saved classifier the temperature of the selection split, and test calibration before and after it."""
    found: dict[str, dict[str, Any]] = {}
    for name in comparison.selection_predictions:
        line, nll = comparison.line(name), comparison.score_named("nll")
        temperature = temperature_of(comparison, name)
        scaled = Line(name, MODEL, "", calibrated(line.predictions, temperature))
        found[name] = {"temperature": temperature}
        for score in (comparison.score_named("ece"), nll):
            found[name] |= {f"{score.name} before": line.score(score), f"{score.name} after": scaled.score(score)}
    return found


def temperature_of(comparison: LoadedModels, name: str) -> float:
    """Return the number for all logits of a classifier, fitted on rows that chose its checkpoint, not on test rows."""
    selection, nll = comparison.selection_predictions[name], comparison.score_named("nll")
    return fit_temperature(nll, selection.labels, selection.probabilities, selection.labels.ndim == 2)


def calibrated(predictions: Predictions, temperature: float) -> Predictions:
    """Return the predictions of a classifier with its logits divided by a temperature."""
    labels, probabilities = predictions.parts[CLASSES]
    scaled = scale_temperature(probabilities, temperature, labels.ndim == 2)
    return Predictions.of_classes(predictions.ids, predictions.groups, labels, scaled)


def spread(comparison: LoadedModels, batch_size: int) -> dict[str, dict[str, Any]]:
    """Return per model that was trained with several seeds the main scores of each on the test rows, and their spread.

    The line of the model in all other tables is its first seed, even where another seed scores higher.
    """
    found = {}
    for name, model in comparison.saved.items():
        folders = [path.parent for path in Path(model.source).glob("seed-*/model.safetensors")]
        folders.sort(key=lambda path: int(path.name.split("-")[1]))  # seed-10 after seed-9
        if not folders:
            continue
        values = {s.name: [comparison.line(name).grouped.value(s)] for s in comparison.decisive}
        for folder in folders:
            other = load_model(str(folder))
            predictions = other.task.answers(other, comparison.tables[name], batch_size, folder.name)
            for score in comparison.decisive:
                values[score.name].append(Line(folder.name, MODEL, "", predictions).grouped.value(score))
        found[name] = {
            score: {"seeds": len(of_score), **mean_and_spread(of_score)} for score, of_score in values.items()
        }
    return found


@torch.inference_mode()
def cost(comparison: LoadedModels) -> dict[str, dict[str, float]]:
    """Return per saved model parameters, MB on disk, and milliseconds per row from the table to the answer.

    Times are medians of a few passes over at most `TIMED_ROWS` rows after a warm-up, one by one and in batches of 32;
    nothing is read that an earlier pass has kept. Slow models are timed once.
    """
    found: dict[str, dict[str, float]] = {}
    for name, model in comparison.saved.items():
        table, found[name] = comparison.tables[name].first(TIMED_ROWS), {}
        plain = replace(model, keeps=False)
        # An exported graph does not list its parameters.
        if isinstance(model.model, torch.nn.Module):
            found[name]["parameters"] = sum(parameter.numel() for parameter in model.model.parameters())
        found[name]["MB on disk"] = weights_on_disk(model.source) or megabytes(model.model)
        for size in sorted({1, min(32, len(table))}):
            # A warm-up, which allocates memory.
            plain.task.answers(plain, table.first(size), size)
            times: list[float] = []
            while len(times) < REPEATS and sum(times) < TIMED_SECONDS:
                started = time.perf_counter()
                plain.task.answers(plain, table, size)
                times.append(time.perf_counter() - started)
            found[name][f"ms per row, batch {size}"] = 1000 * float(np.median(times)) / len(table)
    return found
