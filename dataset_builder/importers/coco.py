"""COCO captions and instances: photographs with captions and the categories of the objects in them."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from datasets import ClassLabel, List, Value

from dataset_builder import columns
from dataset_builder.boundaries import parse_json
from dataset_builder.errors import BadInputError
from dataset_builder.importers.table import ImportedTable, Row, held_out, photo_features, photo_row, read_text
from dataset_builder.messages import shown
from dataset_builder.named_files import NamedFile, RefusedFileError

# The labels of COCO's test set are not public, so the official validation part is the test split here.
OFFICIAL_SPLITS = {"train": "train", "val": "test"}
VALIDATION_SHARE = 0.05
# Kinds of values in an annotation file.
ID, TEXT = "id", "text"


def _load(path: Path, *keys: str) -> dict[str, list[Any]]:
    """Return the lists under the keys of an annotation file.

    Raises:
        BadInputError: it is no JSON, no object, or has no list under a key.
    """
    content = parse_json(read_text(path), str(path), "download the file again")
    if not isinstance(content, dict):
        raise BadInputError(f"{path} holds no JSON object but {_kind(content)}; a COCO annotation file is expected")
    missing = [key for key in keys if key not in content]
    if missing:
        raise BadInputError(f"{path} lacks {', '.join(missing)}; a COCO annotation file is expected")
    for key in keys:
        if not isinstance(content[key], list):
            raise BadInputError(f"{path}: {key} is {_kind(content[key])} where a list is expected; mend it")
    return {key: content[key] for key in keys}


def _kind(value: Any) -> str:
    """Return what a JSON value is, in its own words."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _values(entries: Iterable[Any], path: Path, **keys: str) -> Iterator[tuple[Any, ...]]:
    """Yield the values of each entry under the keys; each key's kind is "id" (number or text) or "text".

    Raises:
        BadInputError: an entry is no object, lacks a key, or has a value of another kind.
    """
    for number, entry in enumerate(entries, 1):
        place = f"{path}: entry {number} with {', '.join(keys)}"
        if not isinstance(entry, dict):
            raise BadInputError(f"{place} is {_kind(entry)} where an object is expected; mend it")
        for key, kind in keys.items():
            value = entry.get(key)
            if value is None:
                raise BadInputError(f"{place} has no {key}; mend it")
            if isinstance(value, bool) or not isinstance(value, str if kind == TEXT else int | str):
                expected = "text" if kind == TEXT else "a whole number"
                raise BadInputError(f"{place}: {key} is {_kind(value)} where {expected} is expected; mend it")
            if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
                raise BadInputError(f"{place}: {key} holds half of a character, which no text can keep; mend it")
        yield tuple(entry[key] for key in keys)


def _by_id(entries: Iterable[Any], path: Path, key: str) -> dict[int | str, str]:
    """Return the value of each entry by its id.

    Raises:
        BadInputError: an id comes twice.
    """
    values: dict[int | str, str] = {}
    for identifier, value in _values(entries, path, id=ID, **{key: TEXT}):
        if identifier in values:
            raise BadInputError(
                f"{path}: {shown(values[identifier])} and {shown(value)} have one id, {shown(identifier)}; give each "
                "its own"
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
    captions: dict[int | str, list[str]] = defaultdict(list)
    for image, caption in _values(content["annotations"], captions_file, image_id=ID, caption=TEXT):
        text = " ".join(caption.split())
        if text:
            captions[image].append(text)
        else:
            left_out["empty caption of image_id"].append(str(image))
    left_out["captions of an image_id that is not listed"] += [str(image) for image in captions if image not in listed]
    left_out["picture without caption"] += [name for image, name in listed.items() if image not in captions]
    # Rows keep the order of the file, so that `images` and `rows` stay parallel below.
    images = {image: name for image, name in listed.items() if image in captions}
    candidates = [folder / part, folder / "images" / part, folder / "images"]
    places = [candidate for candidate in candidates if candidate.is_dir()]
    if not places:
        raise BadInputError(f"the pictures of {part} are not in {', '.join(map(str, candidates))}; put them in one")
    rows = [
        photo_row(name, _picture(name, places), {columns.CAPTIONS: captions[image]}) for image, name in images.items()
    ]
    instances_file = captions_file.with_name(captions_file.name.replace("captions_", "instances_"))
    if not instances_file.is_file():
        return rows, None
    instances = _load(instances_file, "annotations", "categories")
    by_id = _by_id(instances["categories"], instances_file, "name")
    categories = {identifier: by_id[identifier] for identifier in sorted(by_id, key=lambda one: (str(type(one)), one))}
    twice = [name for name, count in Counter(categories.values()).items() if count > 1]
    if twice:
        raise BadInputError(
            f"{instances_file}: several categories are called {shown(twice[0])}; give each its own name"
        )
    index = {category: position for position, category in enumerate(categories)}
    seen: dict[int | str, set[int]] = defaultdict(set)
    for image, category in _values(instances["annotations"], instances_file, image_id=ID, category_id=ID):
        if category not in index:
            raise BadInputError(
                f"{instances_file}: the category_id {shown(category)} of image_id {shown(image)} is not among the "
                "categories; add or correct it"
            )
        seen[image].add(index[category])
    left_out["instances of an image_id that is not listed"] += [str(image) for image in seen if image not in listed]
    for image, row in zip(images, rows, strict=True):
        row[columns.LABELS] = sorted(seen[image])
    return rows, list(categories.values())


def _picture(name: str, places: Sequence[Path]) -> NamedFile:
    """Return the picture of a `file_name`, which may begin with the folder of the part; the first place has it else."""
    found = (NamedFile(place.parent if name.startswith(f"{place.name}/") else place, name) for place in places)
    candidates = [*found, *(NamedFile(place, name) for place in places)]
    for candidate in candidates:
        with suppress(RefusedFileError):
            candidate.resolve()
            return candidate
    return NamedFile(places[0], name)


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
