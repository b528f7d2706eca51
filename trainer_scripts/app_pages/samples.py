"""Examples of the pages: rows of the data set that is shown, or plates of the catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dataset_builder import columns
from dataset_builder.catalogue.ingredients import catalogue_dishes
from dataset_builder.errors import BadInputError
from dataset_builder.files import read_json
from dataset_builder.messages import shown
from dataset_builder.named_files import RefusedFileError, resolve
from dataset_builder.pictures.prompts import render
from dataset_builder.plating.pipeline import PlatingPipeline
from dataset_builder.publishing.space import DISHES, TITLES
from trainer_scripts.data.row_index import RowTable, picture_of

NUMBER = 4
SIZE = 256


@dataclass(frozen=True)
class Sample:
    """An example: a file of the app and the title of its dish."""

    path: Path
    title: str
    ingredients: Sequence[str] = ()


def plated_samples(folder: Path, number: int = NUMBER) -> list[Sample]:
    """Draw plates of the catalogue as examples.

    Args:
        folder: of the pictures.
        number: of examples.
    """
    known = {dish.dish_id: dish for dish in catalogue_dishes()}
    chosen = [known[name] for name in DISHES if name in known] or list(known.values())
    chosen = [*chosen, *(dish for dish in known.values() if dish not in chosen)][:number]
    folder.mkdir(parents=True, exist_ok=True)
    pipeline, samples = PlatingPipeline(), []
    for place, dish in enumerate(chosen):
        prompt = render("ingredients", dish.title, dish.ingredients)
        output: Any = pipeline(prompt, height=SIZE, width=SIZE, generator=torch.Generator().manual_seed(place))
        path = folder / f"{dish.dish_id}.jpg"
        output.images[0].save(path, quality=92)
        samples.append(Sample(path, dish.title, dish.ingredients))
    return samples


def folder_samples(folder: Path) -> list[Sample]:
    """Return the pictures of a folder whose titles are in its `titles.json`.

    Raises:
        BadInputError: there is no such file, or it names a picture that is not there.
    """
    titles = read_json(folder / TITLES, "give a folder with pictures and their titles")
    if titles is None:
        raise BadInputError(f"{folder} has no {TITLES}, a mapping of pictures to titles; write one")
    samples = []
    for name, title in titles.items():
        try:
            samples.append(Sample(resolve(name, folder), str(title)))
        except RefusedFileError as error:
            raise BadInputError(f"the example {shown(name)} of {folder} is {error}; mend {TITLES}") from error
    return samples


def row_samples(rows: RowTable, folder: Path, most: int = NUMBER) -> list[Sample]:
    """Return rows of a data set as examples, spread over its flavours, of the test split where there is one.

    Args:
        rows: of the data set.
        folder: of the pictures.
        most: of examples.
    """
    if columns.TITLE not in rows.features or columns.IMAGE not in rows.features:
        return []
    number = next((place for place, file in enumerate(rows.files) if file.split == "test"), 0)
    listed = rows.listed(number)
    first: dict[str, int] = {}
    for place, flavour in enumerate(listed["flavour"].to_pylist()):
        first.setdefault(str(flavour), place)
    chosen = list(first.values())
    chosen = [*chosen, *(place for place in range(len(listed)) if place not in chosen)][:most]
    samples = []
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (columns.IMAGE, columns.TITLE, columns.INGREDIENTS)
    for place, row in enumerate(rows.rows(listed.take(chosen), wanted)):
        try:
            picture = picture_of(row.get(columns.IMAGE))
        except BadInputError:
            continue
        if picture is not None and row[columns.TITLE]:
            path = folder / f"example-{place}.jpg"
            picture.save(path, quality=92)
            samples.append(Sample(path, row[columns.TITLE], tuple(row.get(columns.INGREDIENTS) or ())))
    return samples
