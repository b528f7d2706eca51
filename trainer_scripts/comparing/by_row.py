"""Answers of all lines of a comparison side by side, row by row, for people who want to see where models differ."""

from pathlib import Path
from typing import Any

import numpy as np

from dataset_builder.files import write_csv
from trainer_scripts.evaluation.lines import Line
from trainer_scripts.evaluation.scores import CAPTIONS, CLASSES, Score, Values
from trainer_scripts.scoring.results import decision_of
from trainer_scripts.scoring.scored_models import LoadedModels

ROWS = "by_row.csv"
EXAMPLES = 3


def write_rows(comparison: LoadedModels, out: Path) -> None:
    """Write one line per test row: its truth, and the answer and the score of every model and baseline."""
    score = comparison.main_score
    lines = [line for line in comparison.lines if line.has(score)]
    part = score.part
    columns: dict[str, list[Any]] = {
        "id": comparison.models[0].predictions.ids,
        "group": comparison.models[0].predictions.groups,
        "truth": _texts(lines[0].predictions.parts[part][0], part, comparison.label_names),
    }
    for line in lines:
        if part in (CLASSES, CAPTIONS):
            columns[line.name] = _answers(comparison, line, part)
        values = score_of_rows(line, score)
        columns[f"{line.name}: {score.name}"] = [f"{value:.4f}" for value in values]
    write_csv(out / ROWS, list(columns), zip(*columns.values(), strict=True))


def examples(comparison: LoadedModels) -> list[dict[str, str]]:
    """Return the rows on which the first two models differ most; [] without two models whose answers are text."""
    score = comparison.main_score
    part, names = score.part, comparison.label_names
    models = [line for line in comparison.models if line.has(score)]
    # Masks and other arrays cannot be shown as text.
    if part not in (CLASSES, CAPTIONS) or len(models) < 2:
        return []
    first, second = models[:2]
    gain = score_of_rows(first, score) - score_of_rows(second, score)
    # From the rows on which the first model is furthest ahead to those of the second.
    order = np.argsort(-gain, kind="stable")
    chosen = [*(row for row in order[:EXAMPLES] if gain[row] > 0), *(row for row in order[-EXAMPLES:] if gain[row] < 0)]
    truth = _texts(first.predictions.parts[part][0], part, names)
    answers = {line.name: _answers(comparison, line, part) for line in (first, second)}
    return [
        {
            "id": first.predictions.ids[row],
            "truth": truth[row],
            **{name: texts[row] for name, texts in answers.items()},
            f"{score.name}, {first.name} minus {second.name}": f"{gain[row]:+.3f}",
        }
        for row in chosen
    ]


def score_of_rows(line: Line, score: Score) -> np.ndarray:
    """Return the score of each row taken alone, `(rows,)`."""
    score = line.grouped.own(score)
    assert score.rows is not None
    assert score.formula is not None
    return np.asarray(score.formula(np.asarray(score.rows(*line.grouped.pair(score)), dtype=np.float64)))


def _answers(comparison: LoadedModels, line: Line, part: str) -> list[str]:
    truth, answer = line.predictions.parts[part]
    if part == CAPTIONS:
        return answer
    # Each line decides by its own thresholds, as its scores do.
    decide = decision_of(comparison.metrics.get(line.name, {}))
    return _texts(answer.argmax(axis=1) if truth.ndim == 1 else decide(answer), part, comparison.label_names)


def _texts(values: Values, part: str, names: list[str]) -> list[str]:
    if part == CAPTIONS:
        return [" | ".join(row) for row in values]
    if part != CLASSES:
        return [""] * len(values)
    if np.ndim(values) == 1:
        return [names[int(value)] for value in values]
    return [" ".join(names[index] for index in np.flatnonzero(row)) for row in values]
