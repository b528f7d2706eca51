"""The steps of `predict.py`: the rows of a table, their pictures, answers, and the file of labels."""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dataset_builder.errors import BadInputError
from dataset_builder.importers.comp5329 import CATEGORY_IDS, TEST_HEADER, TRAIN_HEADER, read_records
from dataset_builder.recipes.tables import open_table
from modeling_flavour.processing_flavour import open_picture
from trainer_scripts.data.table import MULTILABEL
from trainer_scripts.evaluation.decisions import EXPECTED_F1, Decision, ExpectedF1Decision
from trainer_scripts.scoring.saved_model import SavedModel, load_model

NAMED = 5


@dataclass(frozen=True)
class Item:
    """One row to predict: its id as given, its text, its picture file."""

    item_id: str
    text: str | None
    picture: Path | None


def run(given: argparse.Namespace) -> None:
    """Predict every row of a table, as the command line asks."""
    check_out(given.out)
    model = load_model(given.model, given.revision)
    check_decision(model, given)
    items = read_items(given.table, given.images, given.id_column, given.text_column, model.modality)
    if model.task.predict is not None:
        print(model.task.predict(model, items, given.out, given.batch_size))
        return
    probabilities, broken = predict_items(model, items, given.batch_size, given.missing_pictures == "text")
    labels = label_cells(model, probabilities, make_decision(model, given))
    write_labels(given.out, items, labels)
    report("pictures missing or broken, predicted from text alone", broken)
    report(
        "rows without text, predicted from the picture and an empty one",
        [item.item_id for item in items if item.text is not None and not item.text.strip()],
    )
    print(f"{len(items)} rows written to {given.out}")


def check_out(out: Path) -> None:
    """Make the folder of the result, before anything is computed for it.

    Raises:
        BadInputError: the result itself is a folder.
    """
    if out.is_dir():
        raise BadInputError(f"--out {out} is a folder; name the file that is written")
    out.parent.mkdir(parents=True, exist_ok=True)


def report(what: str, ids: Sequence[str]) -> None:
    """Count and name the rows that something is wrong with."""
    if ids:
        more = ", ..." if len(ids) > NAMED else ""
        print(f"{len(ids)} {what}: {', '.join(ids[:NAMED])}{more}", file=sys.stderr)


def check_decision(model: SavedModel, given: argparse.Namespace) -> None:
    """Raise BadInputError for a decision that the model has no use for, or two of them."""
    options = {"--threshold": given.threshold, "--thresholds": given.thresholds, "--decision": given.decision}
    asked = [option for option, value in options.items() if value is not None]
    if asked and model.task.name != MULTILABEL:
        raise BadInputError(f"{asked[0]} is for several labels per row; {model.name} is of task {model.task.name}")
    if given.threshold is not None and given.thresholds is not None:
        raise BadInputError("--threshold and --thresholds are two rules; give one of them")
    if given.decision == EXPECTED_F1 and len(asked) > 1:
        raise BadInputError(f"--decision expected_f1 needs no thresholds; leave out {asked[0]}")


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


@torch.inference_mode()
def predict_items(
    model: SavedModel, items: Sequence[Item], batch_size: int, without_picture: bool
) -> tuple[np.ndarray, list[str]]:
    """Return probabilities `(rows, labels)` and the ids whose picture is missing or broken.

    Raises:
        BadInputError: such a picture, unless `without_picture` and the model reads texts too; or a row with neither
            picture nor text.
    """
    found, broken = [], []
    for start in tqdm(range(0, len(items), batch_size), desc=model.name, disable=None):
        batch = items[start : start + batch_size]
        pictures = None
        if model.modality != "text":
            pictures = []
            for item in batch:
                picture, reason = _open(item)
                if picture is None:
                    if not (without_picture and model.modality == "fusion"):
                        hint = ", or give --missing_pictures text" if model.modality == "fusion" else ""
                        raise BadInputError(f"row {item.item_id}: {reason}; mend it or remove the row{hint}")
                    broken.append(item.item_id)
                pictures.append(picture)
        texts = [item.text for item in batch] if model.modality != "image" else None
        for row, item in enumerate(batch):
            seen = pictures is not None and pictures[row] is not None
            if not seen and not (item.text or "").strip():
                raise BadInputError(f"row {item.item_id} has no text to predict from; give it one or remove the row")
        inputs = model.processor(images=pictures, text=texts)
        logits = model.model(**{name: value.to(model.model.device) for name, value in inputs.items()}).logits
        found.append(model.task.probabilities(logits.float()).cpu().numpy())
    return np.concatenate(found), broken


def _open(item: Item):
    """Return the picture, or None and the reason why there is none."""
    try:
        return open_picture(item.picture), ""
    except (OSError, ValueError) as error:
        return None, str(error)


def read_thresholds(model: SavedModel, path: Path | None) -> tuple[float, ...] | None:
    """Return the thresholds of a file in label order; None without a file."""
    if path is None:
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return tuple(float(saved[name]) for name in model.names)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"{path} holds no threshold for every label of {model.name}: {error}") from error


def make_decision(model: SavedModel, given: argparse.Namespace) -> Callable[[np.ndarray], np.ndarray]:
    """Return what turns probabilities into sets of labels."""
    if given.decision == EXPECTED_F1:
        return ExpectedF1Decision()
    return Decision(read_thresholds(model, given.thresholds) or (0.5 if given.threshold is None else given.threshold))


def label_cells(model: SavedModel, probabilities: np.ndarray, decide: Callable[[np.ndarray], np.ndarray]) -> list[str]:
    """Return the `Labels` cell of each row: COCO category numbers where the labels are such, else names."""
    names = model.names
    if model.task.name != MULTILABEL:
        return [names[index] for index in probabilities.argmax(axis=1)]
    chosen = decide(probabilities)
    if set(names) <= set(CATEGORY_IDS):
        numbers = np.array([CATEGORY_IDS[name] for name in names])
        return [" ".join(str(number) for number in sorted(numbers[row])) for row in chosen]
    return ["|".join(name for name, is_chosen in zip(names, row, strict=True) if is_chosen) for row in chosen]


def write_labels(path: Path, items: Sequence[Item], labels: Sequence[str]) -> None:
    """Write one line per row, in the order of the table; the file appears whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ImageID", "Labels"])
        writer.writerows((item.item_id, cell) for item, cell in zip(items, labels, strict=True))
    partial.replace(path)
