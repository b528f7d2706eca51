"""COMP5329-like tables: a photograph, its COCO category numbers and one caption per record."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets import ClassLabel, List, Value

from dataset_builder import columns
from dataset_builder.errors import BadInputError
from dataset_builder.importers.table import ImportedTable, describe_names, photo_features, photo_row, read_text
from dataset_builder.named_files import NamedFile

# The numbers are COCO category ids; 12 was never used there.
CATEGORY_IDS = {
    "person": 1, "bicycle": 2, "car": 3, "motorcycle": 4, "airplane": 5, "bus": 6, "train": 7, "truck": 8, "boat": 9,
    "traffic light": 10, "fire hydrant": 11, "stop sign": 13, "parking meter": 14, "bench": 15, "bird": 16, "cat": 17,
    "dog": 18, "horse": 19,
}  # fmt: skip
NAMES = {number: name for name, number in CATEGORY_IDS.items()}

TRAIN_HEADER = "ImageID,Labels,Caption"
TEST_HEADER = "ImageID,Caption"
UNLABELLED = "unlabelled"

# The last fifth of the labelled records is the test split of the published figures (6,000 of 30,000).
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1


# How a line begins that is surely meant as a record, whether or not it is one.
_PICTURE = re.compile(r"[^,]*\.(?:jpe?g|png|gif|bmp|webp|tiff?)[\"']?\s*(?:[,;\t]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Record:
    """One record; `labels` is empty for the unlabelled table."""

    image_id: str
    labels: tuple[int, ...]
    caption: str


def _start(header: str) -> re.Pattern:
    """Return how the first line of a record begins: a name with an ending, and labels where the header has them."""
    return re.compile(r"[^\s,]+\.\w+," + (r"[\d ]*," if header == TRAIN_HEADER else ""))


def begins_as_record(path: Path, header: str) -> bool:
    """Whether a table begins with a record, and is no plain CSV whose ids have no ending."""
    if path.suffix.lower() != ".csv":
        return False
    lines = read_text(path).split("\n")[1:]
    return bool(_start(header).match(next(filter(str.strip, lines), "")))


def read_records(path: Path, header: str) -> Iterator[Record]:
    """Yield the records of one table, which is no proper CSV.

    Captions hold bare quotes, commas and line breaks, so only the first commas separate fields, and a record goes on
    until a line begins like a record.

    Raises:
        BadInputError: no such file, another header, a line that begins no record, or names a picture as records do and
            goes on otherwise, a label outside the label set.
    """
    if not path.is_file():
        raise BadInputError(f"{path} is missing; the table `{header}` is expected there")
    fields, start = header.count(","), _start(header)
    # Only "\n" ends a line here: captions may hold other characters that `splitlines` would break at.
    first, *lines = read_text(path).split("\n")
    if first.strip() != header:
        raise BadInputError(f"{path} begins with `{first[:60]}`; the header `{header}` is expected")
    held: tuple[int, str] | None = None
    for number, line in enumerate(lines, start=2):
        if start.match(line):
            if held:
                yield _parse_record(path, held, fields)
            held = (number, line)
        elif _PICTURE.match(line):
            raise BadInputError(
                f"{path}, line {number}: `{line[:60]}` begins like a record, but is none of `{header}`; write a name "
                "without blanks, and labels as whole numbers with blanks between; or join the line to its caption"
            )
        elif held:
            held = (held[0], f"{held[1]}\n{line}")
        elif line.strip():
            raise BadInputError(f"{path}, line {number}: `{line[:60]}` begins no record of `{header}`")
    if held:
        yield _parse_record(path, held, fields)


def _parse_record(path: Path, held: tuple[int, str], fields: int) -> Record:
    number, text = held
    parts = text.split(",", fields)
    caption = parts[-1].strip().removeprefix('"').removesuffix('"')
    labels = tuple(int(label) for label in parts[1].split()) if fields == 2 else ()
    unknown = [label for label in labels if label not in NAMES]
    if unknown or (fields == 2 and not labels):
        raise BadInputError(
            f"{path}, line {number}: the labels `{parts[1]}` are not all among 1 to 19 without 12; correct the record"
        )
    return Record(parts[0], labels, " ".join(caption.split()))


def read_comp5329(source: str) -> ImportedTable:
    """Read a folder with `train.csv`, `data/` and, if there, `test.csv` (the split `unlabelled`).

    Of the labelled records, in file order, the tail is the test split and the part before it the validation split.

    Raises:
        BadInputError: see `read_records`; or two records of one picture.
    """
    folder = Path(source)
    labelled = list(read_records(folder / "train.csv", TRAIN_HEADER))
    test_start = len(labelled) - round(TEST_SHARE * len(labelled))
    validation_start = test_start - round(VALIDATION_SHARE * test_start)
    splits = {
        "train": labelled[:validation_start],
        "validation": labelled[validation_start:test_start],
        "test": labelled[test_start:],
    }
    if (folder / "test.csv").is_file():
        splits[UNLABELLED] = list(read_records(folder / "test.csv", TEST_HEADER))
    counts = Counter(record.image_id for records in splits.values() for record in records)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise BadInputError(
            f"ImageIDs that stand in several records: {describe_names(repeated)}; leave one record of each"
        )
    features = photo_features(
        {columns.CAPTIONS: List(Value("string")), columns.LABELS: List(ClassLabel(names=list(CATEGORY_IDS)))}
    )
    # A label is stored as its place in the label set, since the numbers of COCO have a gap.
    indices = {number: index for index, number in enumerate(CATEGORY_IDS.values())}
    rows = {
        split: [
            photo_row(
                record.image_id,
                NamedFile(folder / "data", record.image_id),
                {
                    columns.CAPTIONS: [record.caption] if record.caption else [],
                    columns.LABELS: sorted(indices[label] for label in record.labels),
                },
            )
            for record in records
        ]
        for split, records in splits.items()
    }
    empty = [record.image_id for records in splits.values() for record in records if not record.caption]
    return ImportedTable(features, rows, {"empty caption, of a picture that stays": empty})
