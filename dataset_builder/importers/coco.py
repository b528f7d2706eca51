"""COCO captions and instances: photographs with captions and the categories that are seen in them."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Features, Image, List, Value

from dataset_builder import columns
from dataset_builder.errors import BadInputError
from dataset_builder.importers.table import ImportedTable, Row, held_out

# COCO keeps the labels of its test set to itself, so the official validation part is the test split here.
OFFICIAL_SPLITS = {"train": "train", "val": "test"}
VALIDATION_SHARE = 0.05


def _load(path: Path, *keys: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BadInputError(f"{path} is no JSON: {error}; download the file again") from error
    missing = [key for key in keys if key not in content]
    if missing:
        raise BadInputError(f"{path} lacks {', '.join(missing)}; a COCO annotation file is expected")
    return {key: content[key] for key in keys}


def _picture_folder(folder: Path, part: str) -> Path:
    candidates = [folder / part, folder / "images" / part, folder / "images"]
    found = next((candidate for candidate in candidates if candidate.is_dir()), None)
    if found is None:
        raise BadInputError(f"the pictures of {part} are not in {', '.join(map(str, candidates))}; put them in one")
    return found


def _read_part(folder: Path, captions_file: Path, part: str) -> tuple[list[Row], list[str] | None]:
    """Return the rows of one official part, and the category names where there is an instances file."""
    content = _load(captions_file, "images", "annotations")
    captions: dict[int, list[str]] = defaultdict(list)
    for annotation in content["annotations"]:
        captions[annotation["image_id"]].append(" ".join(annotation["caption"].split()))
    pictures = _picture_folder(folder, part)
    rows: list[Row] = [
        {
            columns.ID: image["file_name"],
            columns.DISH_ID: image["file_name"],
            columns.IMAGE: pictures / image["file_name"],
            columns.CAPTIONS: captions[image["id"]],
        }
        for image in content["images"]
    ]
    instances_file = captions_file.with_name(captions_file.name.replace("captions_", "instances_"))
    if not instances_file.is_file():
        return rows, None
    instances = _load(instances_file, "annotations", "categories")
    categories = sorted(instances["categories"], key=lambda category: category["id"])
    index = {category["id"]: position for position, category in enumerate(categories)}
    seen: dict[int, set[int]] = defaultdict(set)
    for annotation in instances["annotations"]:
        seen[annotation["image_id"]].add(index[annotation["category_id"]])
    for image, row in zip(content["images"], rows, strict=True):
        row[columns.LABELS] = sorted(seen[image["id"]])
    return rows, [category["name"] for category in categories]


def read_coco(source: str) -> ImportedTable:
    """Read a folder with `annotations/captions_{train,val}YYYY.json`, the matching instances files, and the pictures.

    Part of the official training set becomes the validation split; the official validation set is the test split.
    """
    folder = Path(source)
    files = sorted((folder / "annotations").glob("captions_*.json"))
    if not files:
        raise BadInputError(f"{folder}/annotations holds no captions_*.json; name the folder of a COCO-format set")
    splits: dict[str, list[Row]] = {}
    names: list[str] | None = None
    for path in files:
        part = path.stem.removeprefix("captions_")
        kind = re.sub(r"\d+$", "", part)
        if kind not in OFFICIAL_SPLITS:
            raise BadInputError(f"{path}: the part `{kind}` is unknown; expected {' or '.join(OFFICIAL_SPLITS)}")
        rows, part_names = _read_part(folder, path, part)
        if splits and part_names != names:
            raise BadInputError(f"{path}: the categories differ from those of the other part; give matching files")
        names = part_names
        splits[OFFICIAL_SPLITS[kind]] = splits.get(OFFICIAL_SPLITS[kind], []) + rows
    if "train" in splits:
        splits["train"], splits["validation"] = held_out(
            splits["train"], VALIDATION_SHARE, key=lambda row: row[columns.ID], stratum=lambda row: 0
        )
    features = Features(
        {
            columns.ID: Value("string"),
            columns.DISH_ID: Value("string"),
            columns.IMAGE: Image(),
            columns.CAPTIONS: List(Value("string")),
            **({columns.LABELS: List(ClassLabel(names=names))} if names else {}),
        }
    )
    order = [split for split in columns.SPLITS if split in splits]
    return ImportedTable(features, {split: splits[split] for split in order})
