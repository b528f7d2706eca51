"""The steps of `score.py`: a model, its table, its answers, their scores, the card."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from dataset_builder.columns import FLAVOURS, MASK
from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from trainer_scripts.data.table import CLASSIFICATION, MULTILABEL
from trainer_scripts.evaluation.decisions import EXPECTED_F1, Decision
from trainer_scripts.evaluation.predictions import THRESHOLDS
from trainer_scripts.evaluation.scores import tuned_thresholds
from trainer_scripts.scoring.results import refresh_card, save_scores, score_model, table_of_scores
from trainer_scripts.scoring.saved_model import SavedModel, load_model, load_selection, load_table
from trainer_scripts.tasks.segmentation.answers import answer
from trainer_scripts.tasks.segmentation.scoring import samples_for
from trainer_scripts.tasks.segmentation.tastes import main_flavour, plate_taste, tastes_of
from trainer_scripts.tasks.segmentation.views import Views


def run(given: argparse.Namespace) -> None:
    """Score one model on one split, as the command line asks."""
    model = load_model(given.model, given.revision, given.columns)
    check_decision(given, model)
    table = load_table(model, given.dataset, given.split, given.dataset_revision)
    out = given.out or default_folder(model, given.dataset, given.split)
    if model.task.score is not None:
        options = mask_options(given, model)
        print(model.task.score(model, table, given.dataset, given.split, out, given.batch_size, **options))
        refresh_card(model)
        print(f"written to {out}")
        return
    tuned = tune(given, model, out) if given.tune_thresholds else None
    predictions = score_model(model, table, given.batch_size)
    content = save_scores(model, predictions, given.dataset, given.split, out, tuned, given.decision)
    refresh_card(model)
    print(f"{given.model} on {given.dataset}, {given.split}: {content['rows']} rows in {content['groups']} groups")
    print(table_of_scores(content))
    print(f"written to {out}")


def mask_options(given: argparse.Namespace, model: SavedModel) -> dict[str, Any]:
    """Return the views that are averaged and what the classifier says, for a model of masks; {} where none are asked.

    Raises:
        BadInputError: they are asked of a model without masks, or the classifier knows no flavours and no ingredients.
    """
    asked = {name: getattr(given, name) for name in ("scales", "flip", "window", "stride") if getattr(given, name)}
    if not asked and given.classifier is None:
        return {}
    if model.task.label_column != MASK:
        raise BadInputError(f"--scales, --flip, --window and --classifier are for masks, and {model.name} has none")
    options: dict[str, Any] = {"testing": Views(**{**asked, "scales": tuple(given.scales or (1.0,))})}
    if given.classifier is not None:
        said = flavours_said(given.classifier, given)
        options["classifier"] = (given.classifier, said)
    return options


def check_decision(given: argparse.Namespace, model: SavedModel) -> None:
    """Raise BadInputError for a decision that the model has no use for, or two of them."""
    asked = "--tune_thresholds" if given.tune_thresholds else "--decision expected_f1"
    if (given.decision == EXPECTED_F1 or given.tune_thresholds) and model.task.name != MULTILABEL:
        raise BadInputError(f"{asked} is for several labels per row; {model.name} is of task {model.task.name}")
    if given.decision == EXPECTED_F1 and given.tune_thresholds:
        raise BadInputError("--decision expected_f1 needs no thresholds; leave out --tune_thresholds")


def default_folder(model: SavedModel, dataset: str, split: str) -> Path:
    """Return where results go: into the model's own folder, so that its card shows them.

    Those on other data than its run's have a folder of that name, so that neither takes the place of the other.
    """
    local, name = Path(model.source), Path(dataset).resolve().name
    folder = local / "scores" if local.is_dir() else Path("outputs/scores") / model.name
    return folder / split if name == Path(model.arguments.dataset).name else folder / name / split


def tune(given: argparse.Namespace, model: SavedModel, out: Path) -> tuple[float, ...]:
    """Return a threshold per label tuned on the selection split, and write them for predict.py."""
    selection = load_selection(model, given.dataset, given.dataset_revision)
    thresholds = tuned_thresholds(selection.labels, score_model(model, selection, given.batch_size).probabilities)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / THRESHOLDS, dict(zip(model.names, thresholds, strict=True)))
    return thresholds


def flavours_said(source: str, given: argparse.Namespace) -> list[str]:
    """Return the flavour of each row by a classifier of flavours, or by the tastes that an ingredient model names.

    Args:
        source: the model.
        given: command line of `score.py`, which names the rows.

    Raises:
        BadInputError: the model knows neither flavours nor ingredients.
    """
    model = load_model(source, columns=given.columns)
    table = load_table(model, given.dataset, given.split, given.dataset_revision)
    if model.task.name == CLASSIFICATION and set(model.names) <= set(FLAVOURS):
        return [model.names[best] for best in score_model(model, table, given.batch_size).probabilities.argmax(axis=1)]
    if getattr(model.model.config, "ingredient_head", False):
        return _tasted(
            model, answer(model.model, samples_for(model, table), given.batch_size, model.name).probabilities
        )
    raise BadInputError(f"{source} knows neither flavours nor ingredients; give a classifier of one of them")


def _tasted(model: SavedModel, probabilities: np.ndarray) -> list[str]:
    tastes = tastes_of(model.model.config)
    named = Decision()(probabilities)
    return [main_flavour(plate_taste(np.concatenate([[0], row]), tastes)) or "none" for row in named]
