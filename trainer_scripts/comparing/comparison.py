"""Several models on the same test rows: scores with intervals, tests, baselines, ablations, calibration, cost.

The differences between tasks are methods of `Task`; nothing here depends on the form of rows and answers.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from dataset_builder.errors import BadInputError
from dataset_builder.progress import progress
from dataset_builder.recipes.hub_names import pinned
from trainer_scripts.comparing.report import PER_CLASS, compared, shown, usage
from trainer_scripts.evaluation.ablations import drawn_rows
from trainer_scripts.evaluation.intervals import GroupedScores, Interval, holm
from trainer_scripts.evaluation.lines import MODEL, Line
from trainer_scripts.evaluation.predictions import PREDICTIONS, Predictions, check_comparable
from trainer_scripts.evaluation.score_file import read_scores
from trainer_scripts.evaluation.scores import CLASSES, TOKENS
from trainer_scripts.scoring.results import save_scores, scores_of_file
from trainer_scripts.scoring.saved_model import load_model, load_selection, load_table
from trainer_scripts.scoring.scored_models import FUSION, LoadedModels
from trainer_scripts.tasks.common.task import SavedModel, Scored

TEXT, IMAGE = "text", "image"


def gather(sources: Sequence[str], dataset: str | None, given: argparse.Namespace) -> LoadedModels:
    """Score every model on the test split, or read its prediction file, and check that the results can be compared.

    Args:
        sources: models and folders of `score.py`.
        dataset: folder or Hub id; None where only folders of `score.py` are given.
        given: the command line of `compare.py`.

    Raises:
        BadInputError: results on different rows or by different definitions, or a split that chose a checkpoint.
    """
    comparison = LoadedModels({}, [], {}, {}, dataset, given.split or "test", given.dataset_revision)
    for source in sources:
        if is_prediction_folder(source):
            _add_file(comparison, Path(source))
        else:
            name, revision = pinned(source)
            _add_model(comparison, load_model(name, revision or "main", given.columns, given.allow_outside), given)
    check_comparable({line.name: (line.predictions, comparison.metrics[line.name]) for line in comparison.models})
    # Baselines read the data by the columns of a model, so files of predictions alone have none.
    if comparison.saved:
        for name, model in comparison.saved.items():
            # Only class probabilities have a temperature to fit, or enter the product of two models.
            if CLASSES in comparison.line(name).predictions.parts:
                selection = load_selection(model, str(dataset), given.dataset_revision)
                beside = f"{model.name}, {selection.split}"
                comparison.selection_predictions[name] = model.task.answers(model, selection, given.batch_size, beside)
        comparison.baselines = comparison.task.baselines(comparison)
    return comparison


def is_prediction_folder(source: str) -> bool:
    """Whether a folder holds the files of `score.py`, and no model."""
    return (Path(source) / PREDICTIONS).is_file() and not (Path(source) / "config.json").is_file()


def _add_file(comparison: LoadedModels, folder: Path) -> None:
    predictions, metrics = Predictions.load(folder), read_scores(folder)
    _check_split(str(metrics.get("split")), metrics.get("selection_split"), metrics.get("train_split"))
    # Two folders of scores may be of one model on two data sets: the folder then tells the lines apart.
    name = Path(str(metrics.get("model") or folder)).name
    name = _free_name(comparison, str(folder) if name in comparison.metrics else name)
    own = {score.name: score for score in scores_of_file(metrics, name)}
    grouped = GroupedScores(predictions.groups, predictions.parts)
    for score in own.values():
        stated = metrics["metrics"].get(score.name, {}).get("value")
        # The file rounds nothing, but other versions of libraries may differ in the last digits.
        if stated is not None and grouped.has(score) and abs(grouped.value(score) - stated) > 1e-4:
            raise BadInputError(
                f"{name}: metrics.json says {score.name} {stated:.4f}, its predictions give "
                f"{grouped.value(score):.4f}; score the model anew"
            )
    comparison.split = str(metrics["split"])
    comparison.metrics[name] = metrics
    comparison.models.append(Line(name, MODEL, metrics.get("modality") or IMAGE, predictions, own))


def _add_model(comparison: LoadedModels, model: SavedModel, given: argparse.Namespace) -> None:
    split, dataset, out = given.split or "test", str(comparison.dataset), given.out / model.name
    _check_split(split, model.selection_split, model.arguments.train_split)
    name = _free_name(comparison, model.name)
    table = load_table(model, dataset, split, comparison.revision)
    model.ablation_rows = given.ablation_rows
    predictions = model.task.answers(model, table, given.batch_size, name)
    metrics = save_scores(model, Scored(predictions), dataset, split, out, comparison.revision)
    comparison.saved[name], comparison.tables[name], comparison.metrics[name] = model, table, metrics
    # Read back from the file, so that a model and its prediction file give the same figures.
    comparison.models.append(Line(name, MODEL, model.modality, Predictions.load(out)))


# A score is honest only on rows that took no part in training and in the choice of the checkpoint.
def _check_split(split: str, selection: str | None, train: str | None) -> None:
    if split == selection:
        raise BadInputError(f"{split!r} chose the checkpoints; compare on a split that nothing was chosen on")
    if split == train:
        raise BadInputError(f"{split!r} was trained on; compare on a split that no model has seen")


def _free_name(comparison: LoadedModels, name: str) -> str:
    if name in comparison.metrics:
        raise BadInputError(f"two models have the same name {name!r}; give them folders of different names")
    return name


def paired_tests(comparison: LoadedModels) -> dict[str, dict[str, Interval]]:
    """Return the gains of the tested model on each other line, for all scores but those of single classes."""
    shown = [score for score in comparison.scores if not score.name.startswith(PER_CLASS)]
    found: dict[str, dict[str, Interval]] = {}
    tested = comparison.tested
    for line in progress(comparison.lines, "paired tests", "lines"):
        if line is tested:
            continue
        found[line.name] = {}
        for score in shown:
            if not (tested.has(score) and line.has(score)):
                continue
            # Nats per token cannot be compared when one model has more tokens to predict than the other.
            if score.part == TOKENS:
                counts = [one.grouped.pair(score)[1][:, 2] for one in (tested, line)]
                if (counts[0] != counts[1]).any():
                    continue
            gain = tested.minus(line, score)
            if gain is not None:
                found[line.name][score.name] = gain
    return found


def adjusted(differences: dict[str, dict[str, Interval]], score: str) -> dict[str, float]:
    """Return the p-values of one score, adjusted for the number of lines that the tested model was compared with."""
    tested = {name: gains[score].p for name, gains in differences.items() if score in gains}
    return holm({name: p for name, p in tested.items() if p is not None})


def ablate(comparison: LoadedModels, batch_size: int, most_rows: int) -> dict[str, Any]:
    """Return per saved model its main score under each change of its input, the loss, and the input that it follows.

    A model answers anew for each change, so of more than `most_rows` rows a drawn part of the groups is taken.
    """
    found = {}
    for name, model in comparison.saved.items():
        whole, rows = comparison.line(name), drawn_rows(comparison.tables[name].groups, most_rows)
        table = comparison.tables[name].select(rows)
        line = replace(whole, predictions=whole.predictions.select(rows))
        # A model without masks is judged by its ingredients.
        score = next(score for score in comparison.decisive if line.has(score))
        report: dict[str, Any] = {"score": score.name, "rows": len(rows), "as it is": line.score(score)}
        report |= {"scores": {}, "losses": {}, "verdicts": {}}
        for change, predictions in model.task.changes(model, table, batch_size):
            changed = Line(change, MODEL, line.modality, predictions)
            report["scores"][change] = changed.score(score)
            report["losses"][change] = line.minus(changed, score)
            # An input that costs nothing when it comes from another dish is not used.
            if change.endswith("shuffled"):
                modality = change.split()[0]
                report["verdicts"][modality] = usage(modality, report["losses"][change], score)
            # With text and picture of different dishes, the same predictions are scored by the label of either.
            if change == f"{IMAGE} shuffled" and line.modality == FUSION:
                pairs = zip((TEXT, IMAGE), model.task.conflicting(table, predictions) or (), strict=False)
                report["follows"] = {
                    what: Line(what, MODEL, line.modality, held).score(score) for what, held in pairs if held.ids
                }
        found[name] = report
    return found


def stated_baselines(comparison: LoadedModels) -> dict[str, dict[str, float]]:
    """Return baseline -> score -> value as `score.py` found them, where no model is given to read the data by.

    They stand in the file of every model; those of the tested one count, as a baseline may read its features.
    """
    if comparison.saved:
        return {}
    known = {score.name for score in comparison.scores}
    baselines = comparison.metrics[comparison.tested.name]["baselines"]
    return {
        name: {score: entry["value"] for score, entry in line.items() if score in known}
        for name, line in baselines.items()
    }


def verdicts(comparison: LoadedModels, differences: dict[str, Any], ablations: dict[str, Any]) -> list[str]:
    """Return in words what intervals and tests show; no other claim is made."""
    tested, main, found = comparison.tested.name, comparison.main_score, []
    for other, gains in differences.items():
        for score in comparison.decisive:
            gain = gains.get(score.name)
            if gain is not None:
                found.append(f"- {tested} {compared(gain, score)} {other}: {shown(gain, score)}")
    if comparison.tested.has(main):
        own = comparison.tested.grouped.value(main)
        values = {line.name: line.grouped.value(main) for line in comparison.baselines if line.has(main)}
        values |= {name: line[main.name] for name, line in stated_baselines(comparison).items() if main.name in line}
        for name, value in values.items():
            if value > own if main.greater_is_better else value < own:
                found.append(f"- !!! A BASELINE SCORES HIGHER THAN {tested}: {name}, by {main.name}")
    for model, report in ablations.items():
        found += [f"- {model}: {text}" for text in report["verdicts"].values()]
    return [*found, *(f"- {text}" for text in comparison.task.verdicts(comparison))]


def as_plain(value: object) -> Any:
    """Return intervals and arrays as JSON holds them."""
    if isinstance(value, Interval):
        return {key: item for key, item in asdict(value).items() if item is not None}
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
