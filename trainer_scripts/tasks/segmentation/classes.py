"""Classes of mask ids: ingredients or food groups, all or some of them, always with an explicit map."""

from collections.abc import Sequence

import datasets
import numpy as np

from dataset_builder.catalogue.ingredients import ingredients
from dataset_builder.columns import BACKGROUND, BACKGROUND_NAME, FOOD_GROUPS, INGREDIENT_LABELS, UNKNOWN
from dataset_builder.errors import BadInputError
from trainer_scripts.data.masks import source_names
from trainer_scripts.settings.arguments import DataArguments


def class_names(rows: datasets.Dataset, column: str, arguments: DataArguments) -> list[str]:
    """Return the classes that masks are read as, background first: ingredients, or the food groups among them.

    Raises:
        BadInputError: an ingredient without a food group, or a name in `label_filter` that is no class.
    """
    names = source_names(rows)
    if arguments.label_level == "group":
        groups = _groups()
        strangers = [name for name in names[1:] if name not in groups]
        if strangers:
            raise BadInputError(f"{strangers[0]!r} has no food group; use --label_level ingredient for this data set")
        found = {groups[name] for name in names[1:]}
        names = [BACKGROUND_NAME, *(group for group in FOOD_GROUPS if group in found)]
    if arguments.label_filter:
        unknown = [name for name in arguments.label_filter if name not in names[1:]]
        if unknown:
            raise BadInputError(
                f"label_filter names {unknown[0]!r}, which is no class; there are {', '.join(names[1:])}"
            )
        # In the order of the data set, whatever the order of the filter.
        names = [names[BACKGROUND], *(name for name in names[1:] if name in arguments.label_filter)]
    return names


def _groups() -> dict[str, str]:
    return {ingredient.name: ingredient.group for ingredient in ingredients() if ingredient.visible}


def food_groups(names: Sequence[str]) -> tuple[list[str], list[int]] | None:
    """Return the food groups of ingredient classes, background first, and the group of each class.

    None where a class is no ingredient of the catalogue, as in data sets that others made.
    """
    groups = _groups()
    if any(name not in groups for name in names[1:]):
        return None
    found = {groups[name] for name in names[1:]}
    ordered = [BACKGROUND_NAME, *(group for group in FOOD_GROUPS if group in found)]
    return ordered, [BACKGROUND, *(ordered.index(groups[name]) for name in names[1:])]


def class_map(source: Sequence[str], classes: Sequence[str], level: str) -> list[int]:
    """Return for each mask id the class it stands for: itself or its food group, unknown where a filter left it out.

    >>> class_map(["background", "feta", "tomato"], ["background", "cheese"], "group")
    [0, 1, 255]
    >>> class_map(["background", "feta", "tomato"], ["background", "tomato"], "ingredient")
    [0, 255, 1]
    """
    number = {name: position for position, name in enumerate(classes)}
    names = [_groups()[name] for name in source[1:]] if level == "group" else source[1:]
    return [BACKGROUND, *(number.get(name, UNKNOWN) for name in names)]


def shown_classes(labels: np.ndarray, mapped: Sequence[int], classes: int) -> np.ndarray:
    """Return which classes each row shows, 0/1 `(rows, classes - 1)`; the background is no ingredient.

    Args:
        labels: 0/1 `(rows, mask ids)`.
        mapped: per mask id its class.
        classes: number of classes, background included.
    """
    shown = np.zeros((len(labels), classes), dtype=np.float32)
    for number, target in enumerate(mapped):
        if target != UNKNOWN:
            # Several ingredients may be of one group: the group is shown where any of them is.
            shown[:, target] = np.maximum(shown[:, target], labels[:, number])
    return shown[:, BACKGROUND + 1 :]


def read_ingredients(
    rows: datasets.Dataset, column: str, names: Sequence[str], ids: Sequence[str], where: str
) -> np.ndarray:
    """Return which mask ids each row shows, 0/1 `(rows, mask ids)`.

    Raises:
        BadInputError: no column of ingredients, or an id outside their names.
    """
    number = len(source_names(rows))
    shown = np.zeros((len(ids), number), dtype=np.float32)
    for row, values in enumerate(rows[INGREDIENT_LABELS]):
        for value in values or ():
            if not BACKGROUND < value < number:
                raise BadInputError(f"{where}, row {ids[row]}: {INGREDIENT_LABELS} {value} is no ingredient; mend it")
            shown[row, value] = 1
    return shown
