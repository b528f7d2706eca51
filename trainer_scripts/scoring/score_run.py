"""The steps of `score.py`: a model, its table, its answers, their scores, the card; one path for every task."""

import argparse
from pathlib import Path

from dataset_builder.engines.ranks import is_main
from dataset_builder.engines.work import Engine
from dataset_builder.errors import BadInputError
from dataset_builder.files import sole_writer
from dataset_builder.messages import echo
from trainer_scripts.evaluation.decisions import EXPECTED_F1
from trainer_scripts.scoring.results import refresh_card, save_scores, table_of_scores
from trainer_scripts.scoring.saved_model import load_model, load_table
from trainer_scripts.scoring.scored_models import LoadedModels
from trainer_scripts.scoring.spread import Answering, engine_for, everywhere, spread
from trainer_scripts.tasks.common.task import SavedModel, ScoringOptions


def run(given: argparse.Namespace) -> None:
    """Score one model on one split, with the options of the command line.

    Raises:
        BadInputError: the model cannot use the decision, or fails the health check of its task.
    """
    engine = engine_for(given.engine, given.address, given.processes)
    model = load_model(given.model, given.revision, given.columns, given.allow_outside)
    expected_f1 = given.decision == EXPECTED_F1
    if (expected_f1 or given.tune_thresholds) and not model.task.has_label_sets:
        option = "--tune_thresholds" if given.tune_thresholds else "--decision expected_f1"
        raise BadInputError(f"{option} is for several labels per row; {model.name} is of task {model.task.name}")
    if expected_f1 and given.tune_thresholds:
        raise BadInputError("--decision expected_f1 needs no thresholds; leave out --tune_thresholds")
    table = load_table(model, given.dataset, given.split, given.dataset_revision)
    out = given.out or default_folder(model, given.dataset, given.split)
    options = read_options(given, model, engine)
    if engine is not None:
        spread(engine, model, table, asked_of(given, given.model, given.revision, options))
    if not is_main():
        return
    compared = LoadedModels(
        {model.name: model}, [], {}, {model.name: table}, given.dataset, given.split, given.dataset_revision
    )
    with sole_writer(out):
        scored = model.task.score(model, compared, out, options)
        content = save_scores(model, scored, given.dataset, given.split, out, given.dataset_revision, given.decision)
    # The files are written all the same, so that the fault can be looked at.
    if scored.faults:
        raise BadInputError(
            f"{model.source} fails the health check: {'; '.join(scored.faults)}; train it anew, or longer"
        )
    refresh_card(model)
    echo(f"{given.model} on {given.dataset}, {given.split}: {content['rows']} rows in {content['groups']} groups")
    echo("\n".join([table_of_scores(content), *model.task.describe(scored.details)]))
    echo(f"written to {out}")


def asked_of(given: argparse.Namespace, model: str, revision: str, options: ScoringOptions) -> Answering:
    """Return what workers load to answer the rows of a command line with a model."""
    return Answering(
        everywhere(model),
        revision,
        given.columns,
        given.allow_outside,
        everywhere(given.dataset),
        given.split,
        given.dataset_revision,
        options,
    )


def read_options(given: argparse.Namespace, model: SavedModel, engine: Engine | None) -> ScoringOptions:
    """Return the options of a command line, with the answers of the classifier that is named.

    Raises:
        BadInputError: options for masks with another model, or a classifier of neither flavours nor ingredients.
    """
    if any((given.scales, given.flip, given.window, given.stride, given.classifier)) and not model.task.reads_masks:
        raise BadInputError(f"--scales, --flip, --window and --classifier are for masks, and {model.name} has none")
    # The classifier reads the same rows with its own columns.
    flavours = None
    if given.classifier is not None:
        other = load_model(given.classifier, columns=given.columns, allow_outside=given.allow_outside)
        table = load_table(other, given.dataset, given.split, given.dataset_revision)
        if engine is not None:
            spread(engine, other, table, asked_of(given, given.classifier, "main", ScoringOptions(given.batch_size)))
        flavours = other.task.flavours(other, table, given.batch_size)
        if flavours is None:
            raise BadInputError(
                f"{given.classifier} knows neither flavours nor ingredients; give a classifier of one of them"
            )
    return ScoringOptions(
        batch_size=given.batch_size,
        tune_thresholds=given.tune_thresholds,
        scales=None if given.scales is None else tuple(given.scales),
        flip=given.flip,
        window=given.window,
        stride=given.stride,
        classifier=given.classifier,
        classifier_flavours=flavours or (),
    )


def default_folder(model: SavedModel, dataset: str, split: str) -> Path:
    """Return where results go: into the model's own folder, so that its card shows them.

    Those on other data than its run's have a folder of that name, so that neither takes the place of the other.
    """
    # Two copies of one data set in different places have the same name, and so the same folder of results.
    local, name = Path(model.source), Path(dataset).resolve().name
    folder = local / "scores" if local.is_dir() else Path("outputs/scores") / model.name
    return folder / split if name == Path(model.arguments.dataset).name else folder / name / split
