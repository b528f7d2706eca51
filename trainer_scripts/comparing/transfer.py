"""The models of a comparison on a second data set: scores there, differences, calibration, confusions.

Nothing is fitted on the second data set: temperatures and checkpoints were chosen on the first one's selection split.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dataset_builder.errors import BadInputError
from trainer_scripts.comparing.calibration_and_cost import calibrated, temperature_of
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.ablations import drawn_rows
from trainer_scripts.evaluation.baselines import shares
from trainer_scripts.evaluation.lines import BASELINE, MODEL, Line
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import CLASSES
from trainer_scripts.scoring.saved_model import load_table
from trainer_scripts.scoring.scored_models import LoadedModels
from trainer_scripts.settings.arguments import JsonMapping
from trainer_scripts.tasks.common.task import SavedModel

CONFUSIONS = 6
EVERY_SPLIT = "all splits"
LEFT_OUT = "left out"
HERE_AND_THERE = "Here and there"


def check_also(given: argparse.Namespace, dataset: str | None) -> None:
    """Raise BadInputError for a second data set that is the first one, or that no model would answer on."""
    for option in ("also_split", "also_columns"):
        if given.also is None and getattr(given, option) is not None:
            raise BadInputError(f"--{option} is about the data set of --also, which is not given; leave it out")
    if given.also is None:
        return
    if dataset is None:
        raise BadInputError("--also scores models on a second data set; give models and their data set, not scores")
    if _same(given.also, dataset) and given.also_split is None:
        raise BadInputError(f"--also {given.also} is the data set that is compared on; name another, or --also_split")


def transfer(comparison: LoadedModels, given: argparse.Namespace) -> dict[str, Any]:
    """Return the content of `transfer` in comparison.json: the models of a comparison on the rows of `--also`.

    Raises:
        BadInputError: a model was trained on these rows, or they lack columns or have labels that it does not know.
    """
    where = given.also_split or EVERY_SPLIT
    lines: dict[str, Line] = {}
    tables: dict[str, Table] = {}
    changed: dict[str, list[tuple[Line, Line]]] = {}
    for name, model in comparison.saved.items():
        _check_unseen(model, given)
        columns = model.arguments.columns if given.also_columns is None else JsonMapping(given.also_columns)
        # Of its own, so that nothing kept of the first data set is taken for the second.
        there = replace(model, arguments=replace(model.arguments, columns=columns), kept={})
        tables[name] = load_table(there, given.also, given.also_split)
        predictions = model.task.answers(there, tables[name], given.batch_size, f"{name}, {Path(given.also).name}")
        lines[name] = Line(name, MODEL, model.modality, predictions, comparison.line(name).own)
        rows = drawn_rows(tables[name].groups, given.ablation_rows)
        part = replace(lines[name], predictions=predictions.select(rows))
        changed[name] = [
            (Line(change, MODEL, model.modality, answered), part)
            for change, answered in model.task.changes(there, tables[name].select(rows), given.batch_size)
            if change.endswith(LEFT_OUT)
        ]
    first = next(iter(tables.values()))
    tested = lines.get(comparison.tested.name, next(iter(lines.values())))
    scores = [score for score in comparison.scores if not score.name.startswith("f1_")]
    return {
        "dataset": given.also,
        "split": where,
        "rows": len(first),
        "groups": len(set(first.groups)),
        "score": comparison.main_score.name,
        "titles_in_training": _seen_titles(comparison, tables),
        "entries": {
            line.name: {
                "modality": line.modality,
                "scores": {score.name: line.score(score) for score in scores if line.has(score)},
            }
            for line in (*lines.values(), *_shares(comparison, first))
        },
        "models": {name: _of_model(comparison, line, changed[name]) for name, line in lines.items()},
        "tested": tested.name,
        "differences": {
            name: {score.name: tested.minus(line, score) for score in comparison.decisive if line.has(score)}
            for name, line in lines.items()
            if line is not tested
        },
    }


def _of_model(comparison: LoadedModels, there: Line, changed: list[tuple[Line, Line]]) -> dict[str, Any]:
    here, name = comparison.line(there.name), there.name
    score = next(score for score in comparison.decisive if there.has(score))
    found: dict[str, Any] = {
        "score": score.name,
        "here": here.score(score),
        "there": there.score(score),
        "difference": there.grouped.apart(here.grouped, score),
        "without": {
            line.name: {"value": line.score(score), "gain of all inputs": whole.minus(line, score)}
            for line, whole in changed
        },
        "confusions": confusions(there.predictions, comparison.label_names),
    }
    if name in comparison.selection_predictions:
        found["calibration"] = _calibration(comparison, here, there)
    return found


def _calibration(comparison: LoadedModels, here: Line, there: Line) -> dict[str, Any]:
    """Return calibration error and likelihood there, before and after the temperature of the selection split."""
    temperature = temperature_of(comparison, there.name)
    scaled = Line(there.name, MODEL, "", calibrated(there.predictions, temperature))
    ece, nll = (comparison.score_named(name) for name in ("ece", "nll"))
    found: dict[str, Any] = {"temperature": temperature, "ece here": here.score(ece)}
    for score in (ece, nll):
        found |= {f"{score.name} there": there.score(score), f"{score.name} there, scaled": scaled.score(score)}
    return found


def confusions(predictions: Predictions, names: list[str]) -> list[dict[str, Any]]:
    """Return the most frequent wrong answers: truth, answer, their rows, and their share of the rows of that truth.

    With several labels per row a label that is wrongly given or missed counts; `truth` or `answer` is then "none".
    """
    if CLASSES not in predictions.parts:
        return []
    truth, answer = predictions.labels, predictions.probabilities
    if truth.ndim == 1:
        matrix = np.zeros((len(names), len(names)), dtype=int)
        np.add.at(matrix, (truth, answer.argmax(axis=1)), 1)
        pairs = {(t, a): int(matrix[t, a]) for t in range(len(names)) for a in range(len(names)) if t != a}
        totals, known = matrix.sum(axis=1), [*names]
    else:
        given, shown = answer >= 0.5, truth > 0
        known, none = [*names, "none"], len(names)
        pairs = {(n, none): int((shown[:, n] & ~given[:, n]).sum()) for n in range(none)}
        pairs |= {(none, n): int((~shown[:, n] & given[:, n]).sum()) for n in range(none)}
        totals = np.append(shown.sum(axis=0), len(truth))
    most = sorted((pair for pair in pairs if pairs[pair]), key=lambda pair: -pairs[pair])[:CONFUSIONS]
    return [
        {"truth": known[t], "answer": known[a], "rows": pairs[t, a], "share": pairs[t, a] / max(1, int(totals[t]))}
        for t, a in most
    ]


def _shares(comparison: LoadedModels, table: Table) -> list[Line]:
    """Return the lines of the most frequent label: that of the training rows, and that of these very rows."""
    if table.labels.dtype == object or table.labels.ndim != 1 or not comparison.label_names:
        return []
    count = len(comparison.label_names)
    known = {"most frequent label there": shares(table.labels, count)}
    if comparison.has_train:
        known = {"most frequent label of training": shares(comparison.train.labels, count)} | known
    return [
        Line(
            name,
            BASELINE,
            "none",
            Predictions.of_classes(table.ids, table.groups, table.labels, np.tile(prior, (len(table), 1))),
        )
        for name, prior in known.items()
    ]


def _seen_titles(comparison: LoadedModels, tables: dict[str, Table]) -> int | None:
    """Return how many rows have a text that is in the training rows; None where no texts or no such rows are read."""
    table = next((table for table in tables.values() if table.texts is not None), None)
    if table is None or not comparison.has_train or comparison.train.texts is None:
        return None
    known = {" ".join(text.casefold().split()) for text in comparison.train.texts}
    return sum(" ".join(text.casefold().split()) in known for text in table.texts or [])


def _check_unseen(model: SavedModel, given: argparse.Namespace) -> None:
    if not _same(given.also, model.arguments.dataset):
        return
    chosen = (model.arguments.train_split, model.selection_split)
    if given.also_split is None or given.also_split in chosen:
        raise BadInputError(
            f"{model.name} was trained on {given.also}; give --also_split with a split that it has not seen"
        )


def _same(one: str, other: str) -> bool:
    return one == other or (Path(one).exists() and Path(other).exists() and Path(one).samefile(other))


def tables(content: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the tables of a transfer by their heading: line -> column -> value."""
    models = content["models"]
    found = {
        HERE_AND_THERE: {
            name: {"here": one["here"], "there": one["there"], "difference": one["difference"]}
            for name, one in models.items()
        },
        "Calibration there": {name: one["calibration"] for name, one in models.items() if "calibration" in one},
        "With an input left out": {
            f"{name}, {change}": values for name, one in models.items() for change, values in one["without"].items()
        },
    }
    for name, one in models.items():
        found[f"Most common confusions of {name}"] = {
            f"{each['truth']} taken for {each['answer']}": {"rows": each["rows"], "share of that truth": each["share"]}
            for each in one["confusions"]
        }
    return {heading: rows for heading, rows in found.items() if rows}
