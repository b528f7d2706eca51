"""The steps of `predict.py`: the model, the rows of a table with their pictures, and the answers of the task."""

import argparse
import os

from dataset_builder.errors import BadInputError
from dataset_builder.files import sole_writer
from dataset_builder.messages import echo
from trainer_scripts.data.plain_table import KINDS
from trainer_scripts.evaluation.decisions import EXPECTED_F1
from trainer_scripts.scoring.predicted_rows import RowsWanted, read_items
from trainer_scripts.scoring.saved_model import load_model
from trainer_scripts.tasks.common.items import PredictionOptions
from trainer_scripts.tasks.common.task import SavedModel

# Endings of tables that are no CSV: whoever gives one expects that format.
OTHER_FORMATS = {".xlsx", *KINDS} - {".csv"}


def run(given: argparse.Namespace) -> None:
    """Predict every row of a table, with the options of the command line.

    Raises:
        BadInputError: the result is a folder, no CSV or the table itself, the model cannot use the decision, or the
            table cannot be read.
    """
    # Before anything is computed for it.
    if given.out.is_dir():
        raise BadInputError(f"--out {given.out} is a folder; name the file that is written")
    if given.out.suffix.lower() in OTHER_FORMATS:
        raise BadInputError(f"--out {given.out} is the name of no CSV, which is what is written; end it in .csv")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    model = load_model(given.model, given.revision)
    beside = model.task.reads_masks or not model.task.has_labels  # then OUT.json is written too
    for written in (given.out, *([given.out.with_suffix(".json")] if beside else [])):
        if written.exists() and os.path.exists(given.table) and written.samefile(given.table):
            raise BadInputError(f"{written} is the table itself, which the result would replace; give another --out")
    options = PredictionOptions(
        given.batch_size,
        given.missing_pictures,
        given.threshold,
        given.thresholds,
        given.decision,
        given.probabilities,
        given.abstain,
    )
    check_decision(model, options)
    items = read_items(given.table, rows_wanted(model, given))
    with sole_writer(given.out):
        message = model.task.predict(model, items, given.out, options)
    echo(message)


def rows_wanted(model: SavedModel, given: argparse.Namespace) -> RowsWanted:
    """Return which rows and columns the command line names, and those that the model was trained on."""
    trained = model.arguments

    def own(name: str) -> tuple[str, ...]:
        # What the data set of the run called it, then what the model calls it.
        return tuple(dict.fromkeys([trained.columns.get(name, name), name]))

    return RowsWanted(
        model.modality,
        given.images,
        given.id_column,
        given.text_column,
        given.image_column,
        given.split,
        given.allow_outside,
        own(trained.text_column),
        own(trained.image_column),
    )


def check_decision(model: SavedModel, options: PredictionOptions) -> None:
    """Raise BadInputError for a decision that the model cannot use, or for two of them."""
    if options.abstain and getattr(model.model.config, "abstain_below", None) is None:
        raise BadInputError(
            f"--abstain: {model.name} does not know when; models of one label per row learn it (familiar_share of "
            "train.py), those of earlier versions have not"
        )
    if options.probabilities and not model.task.has_labels:
        raise BadInputError(f"--probabilities is for models with labels; {model.name} writes captions; leave it out")
    named = [f"--{name}" for name in ("threshold", "thresholds", "decision") if getattr(options, name) is not None]
    if named and not model.task.has_label_sets:
        raise BadInputError(f"{named[0]} is for several labels per row; {model.name} is of task {model.task.name}")
    if options.threshold is not None and options.thresholds is not None:
        raise BadInputError("--threshold and --thresholds are two rules; give one of them")
    if options.decision == EXPECTED_F1 and len(named) > 1:
        raise BadInputError(f"--decision expected_f1 needs no thresholds; leave out {named[0]}")
