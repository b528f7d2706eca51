"""The steps of `predict.py`: the model, the rows of a table with their pictures, and the answers of the task."""

import argparse
from pathlib import Path

from dataset_builder.errors import BadInputError
from dataset_builder.files import sole_writer
from dataset_builder.importers.comp5329 import TEST_HEADER, TRAIN_HEADER, read_records
from dataset_builder.messages import echo
from dataset_builder.recipes.tables import open_table
from trainer_scripts.evaluation.decisions import EXPECTED_F1
from trainer_scripts.scoring.saved_model import load_model
from trainer_scripts.tasks.common.task import Item, PredictionOptions, SavedModel


def run(given: argparse.Namespace) -> None:
    """Predict every row of a table, with the options of the command line.

    Raises:
        BadInputError: the result is a folder, the model cannot use the decision, or the table cannot be read.
    """
    # Before anything is computed for it.
    if given.out.is_dir():
        raise BadInputError(f"--out {given.out} is a folder; name the file that is written")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    model = load_model(given.model, given.revision)
    options = PredictionOptions(
        given.batch_size, given.missing_pictures, given.threshold, given.thresholds, given.decision
    )
    check_decision(model, options)
    items = read_items(
        given.table, given.images, given.id_column, given.text_column, model.modality, given.allow_outside
    )
    with sole_writer(given.out):
        message = model.task.predict(model, items, given.out, options)
    echo(message)


def check_decision(model: SavedModel, options: PredictionOptions) -> None:
    """Raise BadInputError for a decision that the model cannot use, or for two of them."""
    named = [f"--{name}" for name in ("threshold", "thresholds", "decision") if getattr(options, name) is not None]
    if named and not model.task.has_label_sets:
        raise BadInputError(f"{named[0]} is for several labels per row; {model.name} is of task {model.task.name}")
    if options.threshold is not None and options.thresholds is not None:
        raise BadInputError("--threshold and --thresholds are two rules; give one of them")
    if options.decision == EXPECTED_F1 and len(named) > 1:
        raise BadInputError(f"--decision expected_f1 needs no thresholds; leave out {named[0]}")


def read_items(
    table: str, images: Path | None, id_column: str, text_column: str, modality: str, allow_outside: bool = False
) -> list[Item]:
    """Return the rows of a table in its order; `allow_outside` lets ids name pictures outside the folder.

    Raises:
        BadInputError: no such table, no such columns, no row, a row without id or with cells beyond the header, or no
            folder of pictures for a model that reads them.
    """
    if modality != "text" and (images is None or not images.is_dir()):
        raise BadInputError(f"this model sees pictures and --images is {images}; give the folder that holds them")
    folder = None if modality == "text" else images
    reads_text, source = modality != "image", open_table(table)
    header = ",".join(source.columns)
    # These files quote captions in a way that no CSV reader takes.
    if header in (TEST_HEADER, TRAIN_HEADER) and Path(table).suffix == ".csv":
        pairs = [(record.image_id, record.caption) for record in read_records(Path(table), header)]
    else:
        pairs, columns = [], [id_column, *([text_column] if reads_text else [])]
        for name in columns:
            if name not in source.columns:
                raise BadInputError(f"{table} has no column {name!r}; it has {', '.join(source.columns)}")
        for number, row in enumerate(source.rows(columns), start=1):
            # A CSV reader keeps the cells beyond the header under the key None.
            if row.get(None):
                raise BadInputError(f"{table}, row {number} has more cells than the header; put its text in quotes")
            if row[id_column] in (None, ""):
                raise BadInputError(f"{table}, row {number} has no {id_column}; give it one or remove the row")
            text = row[text_column] if reads_text else ""
            pairs.append((str(row[id_column]), " ".join(text) if isinstance(text, list) else str(text or "")))
    if not pairs:
        raise BadInputError(f"{table} has no rows")
    return [
        Item(name, text if reads_text else None, None if folder is None else folder / name, folder, allow_outside)
        for name, text in pairs
    ]
