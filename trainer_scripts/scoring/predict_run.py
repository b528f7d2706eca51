"""The steps of `predict.py`: the model, the rows of a table with their pictures, and the answers of the task."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from dataset_builder.errors import BadInputError
from dataset_builder.importers.comp5329 import TEST_HEADER, TRAIN_HEADER, read_records
from dataset_builder.recipes.tables import open_table
from trainer_scripts.evaluation.decisions import EXPECTED_F1
from trainer_scripts.scoring.saved_model import load_model
from trainer_scripts.tasks.common.task import Item, PredictionOptions, SavedModel


def run(given: argparse.Namespace) -> None:
    """Predict every row of a table, with the options of the command line."""
    check_out(given.out)
    model = load_model(given.model, given.revision)
    options = PredictionOptions(
        given.batch_size, given.missing_pictures, given.threshold, given.thresholds, given.decision
    )
    check_decision(model, options)
    items = read_items(given.table, given.images, given.id_column, given.text_column, model.modality)
    print(model.task.predict(model, items, given.out, options))


def check_out(out: Path) -> None:
    """Make the folder of the result, before anything is computed for it.

    Raises:
        BadInputError: the result itself is a folder.
    """
    if out.is_dir():
        raise BadInputError(f"--out {out} is a folder; name the file that is written")
    out.parent.mkdir(parents=True, exist_ok=True)


def check_decision(model: SavedModel, options: PredictionOptions) -> None:
    """Raise BadInputError for a decision that the model cannot use, or for two of them."""
    given = {
        "--threshold": options.threshold,
        "--thresholds": options.thresholds,
        "--decision": options.decision,
    }
    named = [option for option, value in given.items() if value is not None]
    if named and not model.task.has_label_sets:
        raise BadInputError(f"{named[0]} is for several labels per row; {model.name} is of task {model.task.name}")
    if options.threshold is not None and options.thresholds is not None:
        raise BadInputError("--threshold and --thresholds are two rules; give one of them")
    if options.decision == EXPECTED_F1 and len(named) > 1:
        raise BadInputError(f"--decision expected_f1 needs no thresholds; leave out {named[0]}")


def read_items(table: str, images: Path | None, id_column: str, text_column: str, modality: str) -> list[Item]:
    """Return the rows of a table in its order.

    Raises:
        BadInputError: no such table, no such columns, no row, a row without id or with cells beyond the header, or no
            folder of pictures for a model that sees them.
    """
    if modality != "text" and (images is None or not images.is_dir()):
        raise BadInputError(f"this model sees pictures and --images is {images}; give the folder that holds them")
    pairs = list(_read_pairs(table, id_column, text_column if modality != "image" else None))
    if not pairs:
        raise BadInputError(f"{table} has no rows")
    folder = images if modality != "text" else None
    return [Item(name, text, folder / name if folder is not None else None) for name, text in pairs]


def _read_pairs(source: str, id_column: str, text_column: str | None) -> Iterator[tuple[str, str | None]]:
    """Yield id and text of each row; the text is None where the model reads none, and empty where the row has none."""
    table = open_table(source)
    header = ",".join(table.columns)
    # These files quote captions in a way that no CSV reader takes.
    if header in (TEST_HEADER, TRAIN_HEADER) and Path(source).suffix == ".csv":
        for record in read_records(Path(source), header):
            yield record.image_id, record.caption if text_column else None
        return
    columns = [name for name in (id_column, text_column) if name is not None]
    for name in columns:
        if name not in table.columns:
            raise BadInputError(f"{source} has no column {name!r}; it has {', '.join(table.columns)}")
    for number, row in enumerate(table.rows(columns), start=1):
        if row.get(None):
            raise BadInputError(f"{source}, row {number} has more cells than the header; put its text in quotes")
        if row[id_column] in (None, ""):
            raise BadInputError(f"{source}, row {number} has no {id_column}; give it one or remove the row")
        text = row[text_column] if text_column else None
        joined = " ".join(text) if isinstance(text, list) else str(text or "")
        yield str(row[id_column]), joined if text_column else None
