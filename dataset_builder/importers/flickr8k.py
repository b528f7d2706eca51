"""Flickr8k: photographs with five captions each, in the official splits."""

from collections import defaultdict
from pathlib import Path

from datasets import List, Value

from dataset_builder import columns
from dataset_builder.errors import BadInputError
from dataset_builder.importers.table import ImportedTable, Row, held_out, photo_features, photo_row, read_text
from dataset_builder.messages import shown
from dataset_builder.named_files import NamedFile

OFFICIAL_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
HEADERS = ("image,caption", "image_name,caption")
PICTURE_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images")


def read_captions(folder: Path) -> dict[str, list[str]]:
    """Return the captions of each picture from `Flickr8k.token.txt`, or else from `captions.txt`.

    A picture whose captions are all empty has an empty list.

    Raises:
        BadInputError: neither file is there, or a line is not of its form.
    """
    tokens, table = folder / "Flickr8k.token.txt", folder / "captions.txt"
    if tokens.is_file():
        path, separator = tokens, "\t"
    elif table.is_file():
        path, separator = table, ","
    else:
        raise BadInputError(f"{folder} holds neither {tokens.name} nor {table.name}; name the folder of Flickr8k")
    captions: dict[str, list[str]] = defaultdict(list)
    # Not read as CSV: captions hold unbalanced quotes.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        name, separated, caption = line.partition(separator)
        if not line.strip() or (number == 1 and line.replace(" ", "").casefold() in HEADERS):
            continue
        if not separated:
            raise BadInputError(f"{path}, line {number}: `{line[:60]}` has no caption; correct the line")
        if number == 1 and "." not in name:
            raise BadInputError(
                f"{path} begins with `{line[:60]}`, which names no picture; `image,caption` is expected"
            )
        # Without the quotes of the table, and with the full stop joined to the last word.
        caption = " ".join(caption.strip().strip('"').replace('""', '"').split())
        caption = caption.removesuffix(" .") + "." if caption.endswith(" .") else caption
        # The token file numbers the captions of a picture behind a number sign.
        known = captions[name.partition("#")[0].strip()]
        if caption and caption != ".":
            known.append(caption)
    return dict(captions)


def assign_splits(folder: Path, names: list[str]) -> dict[str, str]:
    """Return the split of each picture from the official lists, or by a hash of its name where there is none."""
    lists = {split: folder / f"Flickr_8k.{official}Images.txt" for official, split in OFFICIAL_SPLITS.items()}
    if not any(path.is_file() for path in lists.values()):
        train, rest = held_out(names, 0.2, key=str, stratum=lambda name: 0)
        validation, test = held_out(rest, 0.5, key=str, stratum=lambda name: 0)
        return {
            name: split
            for split, part in (("train", train), ("validation", validation), ("test", test))
            for name in part
        }
    missing = [path.name for path in lists.values() if not path.is_file()]
    if missing:
        raise BadInputError(f"{folder} lacks the split lists {', '.join(missing)}; give all three, or none")
    assigned: dict[str, str] = {}
    for split, path in lists.items():
        # One name a line, which may hold blanks.
        for name in filter(None, map(str.strip, read_text(path).split("\n"))):
            if assigned.setdefault(name, split) != split:
                raise BadInputError(
                    f"{shown(name)} stands in the lists of {assigned[name]} and of {split}; correct {path}"
                )
    return assigned


def read_flickr8k(source: str) -> ImportedTable:
    """Read a folder of Flickr8k: captions, split lists and one folder of pictures."""
    folder = Path(source)
    captions = read_captions(folder)
    pictures = next((folder / name for name in PICTURE_FOLDERS if (folder / name).is_dir()), None)
    if pictures is None:
        raise BadInputError(f"{folder} has no folder of pictures; expected one of {', '.join(PICTURE_FOLDERS)}")
    assigned = assign_splits(folder, list(captions))
    splits: dict[str, list[Row]] = {split: [] for split in OFFICIAL_SPLITS.values()}
    for name in captions:
        if name in assigned and captions[name]:
            picture = NamedFile(pictures, name)
            splits[assigned[name]].append(photo_row(name, picture, {columns.CAPTIONS: captions[name]}))
    left_out = {
        "in no split list": [name for name in captions if name not in assigned],
        "with empty captions alone": [name for name in captions if not captions[name]],
        "in a split list without a caption": [name for name in assigned if name not in captions],
    }
    return ImportedTable(photo_features({columns.CAPTIONS: List(Value("string"))}), splits, left_out)
