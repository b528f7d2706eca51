"""COCO captions and instances: photographs with captions and the categories of the objects in them."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import ClassLabel, List, Value

from dataset_builder import columns
from dataset_builder.errors import BadInputError
from dataset_builder.importers.table import ImportedTable, Row, held_out, photo_features, photo_row, read_text

# The labels of COCO's test set are not public, so the official validation part is the test split here.
OFFICIAL_SPLITS = {"train": "train", "val": "test"}
VALIDATION_SHARE = 0.05


def _load(path: Path, *keys: str) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise BadInputError(f"{path} is no JSON: {error}; download the file again") from error
    missing = [key for key in keys if key not in content]
    if missing:
        raise BadInputError(f"{path} lacks {', '.join(missing)}; a COCO annotation file is expected")
    return {key: content[key] for key in keys}


def _values(entries: Iterable[dict[str, Any]], path: Path, *keys: str) -> Iterator[tuple[Any, ...]]:
    """Yield the values of each entry under the keys.

    Raises:
        BadInputError: an entry lacks one.
    """
    for number, entry in enumerate(entries, 1):
        values = tuple(entry.get(key) for key in keys)
        if None in values:
            raise BadInputError(
                f"{path}: entry {number} with {', '.join(keys)} has no {keys[values.index(None)]}; mend it"
            )
        yield values


def _by_id(entries: Iterable[dict[str, Any]], path: Path, key: str) -> dict[int, str]:
    """Return the value of each entry by its id.

    Raises:
        BadInputError: an id comes twice.
    """
    values: dict[int, str] = {}
    for identifier, value in _values(entries, path, "id", key):
        if identifier in values:
            raise BadInputError(
                f"{path}: {values[identifier]} and {value} have one id, {identifier}; give each its own"
            )
        values[identifier] = value
    return values


def _read_part(
    folder: Path, captions_file: Path, part: str, left_out: dict[str, list[str]]
) -> tuple[list[Row], list[str] | None]:
    """Return the rows of one official part, and the category names where there is an instances file.

    Entries without a counterpart are added to `left_out`: captions and instances of unlisted pictures by their image
    id, pictures without a caption by their name.
    """
    content = _load(captions_file, "images", "annotations")
    listed = _by_id(content["images"], captions_file, "file_name")
    captions: dict[int, list[str]] = defaultdict(list)
    for image, caption in _values(content["annotations"], captions_file, "image_id", "caption"):
        captions[image].append(" ".join(caption.split()))
    left_out["captions of an image_id that is not listed"] += [str(image) for image in captions if image not in listed]
    left_out["picture without caption"] += [name for image, name in listed.items() if image not in captions]
    # Rows keep the order of the file, so that `images` and `rows` stay parallel below.
    images = {image: name for image, name in listed.items() if image in captions}
    candidates = [folder / part, folder / "images" / part, folder / "images"]
    pictures = next((candidate for candidate in candidates if candidate.is_dir()), None)
    if pictures is None:
        raise BadInputError(f"the pictures of {part} are not in {', '.join(map(str, candidates))}; put them in one")
    rows = [photo_row(name, pictures / name, {columns.CAPTIONS: captions[image]}) for image, name in images.items()]
    instances_file = captions_file.with_name(captions_file.name.replace("captions_", "instances_"))
    if not instances_file.is_file():
        return rows, None
    instances = _load(instances_file, "annotations", "categories")
    categories = dict(sorted(_by_id(instances["categories"], instances_file, "name").items()))
    index = {category: position for position, category in enumerate(categories)}
    seen: dict[int, set[int]] = defaultdict(set)
    for image, category in _values(instances["annotations"], instances_file, "image_id", "category_id"):
        if category not in index:
            raise BadInputError(
                f"{instances_file}: the category_id {category} of image_id {image} is not among the categories; add or "
                "correct it"
            )
        seen[image].add(index[category])
    left_out["instances of an image_id that is not listed"] += [str(image) for image in seen if image not in listed]
    for image, row in zip(images, rows, strict=True):
        row[columns.LABELS] = sorted(seen[image])
    return rows, list(categories.values())


def read_coco(source: str) -> ImportedTable:
    """Read a folder with `annotations/captions_{train,val}YYYY.json`, the matching instances files, and the pictures.

    Part of the official training set becomes the validation split; the official validation set is the test split.
    """
    folder = Path(source)
    files = sorted((folder / "annotations").glob("captions_*.json"))
    if not files:
        raise BadInputError(f"{folder}/annotations holds no captions_*.json; name the folder of a COCO-format set")
    splits: dict[str, list[Row]] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    names: list[str] | None = None
    for path in files:
        part = path.stem.removeprefix("captions_")
        # The year at the end of a part differs between releases.
        kind = re.sub(r"\d+$", "", part)
        if kind not in OFFICIAL_SPLITS:
            raise BadInputError(f"{path}: the part `{kind}` is unknown; expected {' or '.join(OFFICIAL_SPLITS)}")
        rows, part_names = _read_part(folder, path, part, left_out)
        if splits and part_names != names:
            raise BadInputError(f"{path}: the categories differ from those of the other part; give matching files")
        names = part_names
        splits[OFFICIAL_SPLITS[kind]] = splits.get(OFFICIAL_SPLITS[kind], []) + rows
    if "train" in splits:
        splits["train"], splits["validation"] = held_out(
            splits["train"], VALIDATION_SHARE, key=lambda row: row[columns.ID], stratum=lambda row: 0
        )
    labels = {columns.LABELS: List(ClassLabel(names=names))} if names else {}
    features = photo_features({columns.CAPTIONS: List(Value("string")), **labels})
    order = [split for split in columns.SPLITS if split in splits]
    return ImportedTable(features, {split: splits[split] for split in order}, dict(left_out))
