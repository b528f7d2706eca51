"""Size, accuracy and latency of an exported graph beside the model it was made of."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.intervals import GroupedScores
from trainer_scripts.scoring.onnx_model import OnnxModel
from trainer_scripts.tasks.common.task import SavedModel

LATENCY_BATCHES = (1, 32)
LATENCY_ROUNDS = 15
LATENCY_SECONDS = 6.0


@dataclass
class Latency:
    """Milliseconds of one call: median and quartiles over rounds."""

    median: float
    low: float
    high: float


@dataclass
class Measurement:
    """One line of the table.

    Attributes:
        name: which form of the model.
        megabytes: on disk, 10^6 bytes.
        scores: split -> score -> value.
        latencies: batch size -> milliseconds per call.
    """

    name: str
    megabytes: float
    scores: dict[str, dict[str, float]]
    latencies: dict[int, Latency] = field(default_factory=dict)


def scores_of(
    model: SavedModel, answering: PreTrainedModel | OnnxModel, tables: Mapping[str, Table], batch_size: int, name: str
) -> dict[str, dict]:
    """Return split -> score -> value of a model or graph that answers in the place of `model.model`.

    Args:
        model: the exported model, whose task and labels count.
        answering: what answers.
        tables: rows by split.
        batch_size: rows at once.
        name: of the form, for the progress bar.
    """
    stand_in, found = replace(model, model=answering), {}
    for split, table in tables.items():
        predictions = model.task.answers(stand_in, table, batch_size, f"{name}, {split}")
        grouped = GroupedScores(predictions.groups, predictions.parts)
        scores = model.task.scores(model.names)
        found[split] = {score.name: grouped.value(score) for score in scores if grouped.has(score)}
    return found


@torch.inference_mode()
def latencies(
    calls: Mapping[str, Callable[[Mapping], Any]], rows: Mapping[str, torch.Tensor]
) -> dict[str, dict[int, Latency]]:
    """Return name -> batch size -> latency; all take turns, so that a busy machine slows all alike.

    Args:
        calls: name -> function of a batch.
        rows: a batch of real samples; it is repeated up to the largest batch size.
    """
    found: dict[str, dict[int, Latency]] = {name: {} for name in calls}
    for size in LATENCY_BATCHES:
        # The rows again and again, until there are as many as the batch has.
        batch = {
            name: value.repeat(-(-size // len(value)), *[1] * (value.ndim - 1))[:size].contiguous()
            for name, value in rows.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        # A warm-up, as the first call allocates memory.
        for call in calls.values():
            call(batch)
        deadline = time.perf_counter() + LATENCY_SECONDS * len(calls)
        for number in range(LATENCY_ROUNDS):
            for name, call in calls.items():
                start = time.perf_counter()
                call(batch)
                seconds[name].append(time.perf_counter() - start)
            # Slow models end early, but never with fewer than three rounds.
            if number >= 2 and time.perf_counter() > deadline:
                break
        for name, values in seconds.items():
            low, median, high = np.percentile(np.array(values) * 1000, (25, 50, 75))
            found[name][size] = Latency(float(median), float(low), float(high))
    return found


def table_of(measurements: Sequence[Measurement], score: str, chosen: str) -> str:
    """Return the size-accuracy-latency table as Markdown; changes are in points against the first line."""
    splits = list(measurements[0].scores)
    heads = ["form", "MB", *(f"{score} {split}" for split in splits), *(f"ms, batch {n}" for n in LATENCY_BATCHES)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for line in measurements:
        cells = [f"**{line.name}**" if line.name == chosen else line.name, f"{line.megabytes:.2f}"]
        for split in splits:
            value, first = line.scores[split][score], measurements[0].scores[split][score]
            cells.append(f"{value:.4f}" + ("" if line is measurements[0] else f" ({(value - first) * 100:+.2f})"))
        for size in LATENCY_BATCHES:
            taken = line.latencies.get(size)
            cells.append("-" if taken is None else f"{taken.median:.1f} [{taken.low:.1f}, {taken.high:.1f}]")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def points_lost(reference: Measurement, other: Measurement, split: str, score: str) -> float:
    """Return by how many points (hundredths) a score is lower than the reference's."""
    return (reference.scores[split][score] - other.scores[split][score]) * 100
