"""UPMC Food-101: photographs from recipe pages with the page title, 101 classes."""

import csv
import io
import re
from pathlib import Path

from datasets import ClassLabel, Value

from dataset_builder import columns
from dataset_builder.errors import BadInputError
from dataset_builder.importers.table import ImportedTable, Row, held_out, photo_features, photo_row, read_text
from dataset_builder.messages import shown
from dataset_builder.named_files import MISSING, NamedFile, RefusedFileError

HEADER = ("image_path", "text", "food")
MAX_TITLE_WORDS = 40
_SUFFIXES = (".jpg", ".jpeg", ".png")
VALIDATION_SHARE = 0.05


def clean_title(text: str) -> str:
    """Return the title as in Gallo et al. (IVCNZ 2020): letters only, at most 40 words."""
    return " ".join(re.sub(r"[^A-Za-z]+", " ", text).split()[:MAX_TITLE_WORDS])


def _read_part(folder: Path, part: str) -> list[dict[str, str]]:
    """Return the records of a table, with or without a header, in the folder or in `texts`."""
    tables = sorted(path for place in (folder, folder / "texts") for path in place.glob(f"*{part}*.csv"))
    if len(tables) != 1:
        raise BadInputError(
            f"{folder} holds {len(tables)} tables named *{part}*.csv; exactly one with {','.join(HEADER)} is expected"
        )
    # Strict, or a quote that is never closed would take the rows after it into one cell.
    reader = csv.reader(io.StringIO(read_text(tables[0]), newline=""), strict=True)
    try:
        records = list(reader)
    except csv.Error as error:
        raise BadInputError(
            f"{tables[0]}, up to line {reader.line_num}: no CSV ({error}); close the quotes, and write a quote inside "
            "a quoted cell twice"
        ) from error
    if not records:
        raise BadInputError(f"{tables[0]} is empty; {','.join(HEADER)} is expected")
    names = tuple(records[0])
    # A table without a header begins with a record, whose first cell is a file name.
    if set(HEADER) <= set(names):
        records = records[1:]
    elif Path(names[0]).suffix.lower() in _SUFFIXES and len(names) == len(HEADER):
        names = HEADER
    else:
        missing = ", ".join(name for name in HEADER if name not in names)
        raise BadInputError(f"{tables[0]} lacks the columns {missing}; expected {','.join(HEADER)}")
    short = next((number for number, record in enumerate(records) if record and len(record) != len(names)), None)
    if short is not None:
        raise BadInputError(f"{tables[0]}: `{','.join(records[short])[:60]}` has not {len(names)} fields; correct it")
    return [dict(zip(names, record, strict=True)) for record in records if record]


def _row(folder: Path, part: str, record: dict[str, str], index: dict[str, int]) -> Row:
    name = record["image_path"]
    # The set is passed on in several layouts; a picture that is in none of them is reported under the official one.
    candidates = [NamedFile(folder / place, name) for place in ("", "images")]
    with_class = f"{part}/{record['food']}/{name}"
    picture = next((one for one in candidates if _is_there(one)), NamedFile(folder / "images", with_class))
    return photo_row(name, picture, {columns.TITLE: clean_title(record["text"]), columns.LABEL: index[record["food"]]})


def _is_there(picture: NamedFile) -> bool:
    try:
        picture.resolve()
    except RefusedFileError as error:
        return str(error) != MISSING  # what is there and refused is reported under its own name
    return True


def read_upmc_food101(source: str) -> ImportedTable:
    """Read a folder with a train and a test table `image_path,text,food` and the pictures.

    Rows whose title has no letters stay, with an empty title. Validation is carved from train, stratified by class.
    """
    folder = Path(source)
    records = {part: _read_part(folder, part) for part in ("train", "test")}
    names = sorted({record["food"] for record in records["train"]})
    strange = sorted({record["food"] for record in records["test"]} - set(names))
    if strange:
        raise BadInputError(
            f"the test table has classes that train lacks: {', '.join(map(shown, strange[:5]))}; correct the tables"
        )
    index = {name: position for position, name in enumerate(names)}
    rows = {part: [_row(folder, part, record, index) for record in records[part]] for part in records}
    train, validation = held_out(
        rows["train"], VALIDATION_SHARE, key=lambda row: row[columns.ID], stratum=lambda row: row[columns.LABEL]
    )
    features = photo_features({columns.TITLE: Value("string"), columns.LABEL: ClassLabel(names=names)})
    return ImportedTable(features, {"train": train, "validation": validation, "test": rows["test"]})
