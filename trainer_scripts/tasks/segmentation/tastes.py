"""Tastes of classes, tastes of plates by the areas of their classes, and the agreement with a classifier."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from dataset_builder.catalogue.ingredients import MAX_INTENSITY, find_ingredients, ingredients
from dataset_builder.columns import BACKGROUND, FLAVOURS, UNKNOWN


def class_tastes(names: Sequence[str], source: Sequence[str] | None, mapped: Sequence[int] | None) -> np.ndarray:
    """Return how strongly each class tastes of each flavour, `(classes, 5)` from 0 to 1.

    A class tastes of the ingredients that it stands for, by the catalogue: a food group of the mean of its
    ingredients. The background, and a class that no ingredient of the catalogue is named like, taste of nothing.

    Args:
        names: classes, background first.
        source: names of the mask ids, where classes stand for several of them.
        mapped: per mask id its class.
    """
    members: list[list[str]] = [[name] for name in names]
    if source is not None and mapped is not None:
        members = [[] for _ in names]
        for name, number in zip(source, mapped, strict=True):
            if number != UNKNOWN:
                members[number].append(name)
    tastes = np.zeros((len(names), len(FLAVOURS)))
    for number, spellings in enumerate(members):
        known = [taste for name in spellings if (taste := _taste(name)) is not None]
        if number != BACKGROUND and known:
            tastes[number] = np.mean(known, axis=0) / MAX_INTENSITY
    return tastes


def _taste(name: str) -> tuple[int, ...] | None:
    exact = {ingredient.name: ingredient.taste for ingredient in ingredients()}
    if name in exact:
        return exact[name]
    # Other data sets use longer names, such as "fresh tomato" for a tomato.
    found = find_ingredients(name)
    return found[0].taste if found else None


def tastes_of(config: PreTrainedConfig) -> np.ndarray:
    """Return `class_tastes` of a segmenter's classes."""
    names = [config.id2label[number] for number in sorted(config.id2label)]
    return class_tastes(names, config.source_labels, config.class_map)


def plate_taste(shares: np.ndarray, tastes: np.ndarray) -> np.ndarray:
    """Return the taste vector of a plate, `(5,)` summing to 1: tastes weighted by the areas of their classes.

    All zero where nothing that tastes of anything is on the plate.

    Args:
        shares: area of each class, or how surely it is there, `(classes,)`; the background does not count.
        tastes: of `class_tastes`.
    """
    weights = np.asarray(shares, dtype=np.float64).copy()
    weights[BACKGROUND] = 0
    # The more of the plate a class covers, the more it counts.
    taste = weights @ tastes
    total = taste.sum()
    return taste / total if total > 0 else taste


def main_flavour(taste: np.ndarray) -> str | None:
    """Return the flavour that a taste vector holds most of; None for one that is all zero.

    >>> main_flavour(np.array([0.1, 0.6, 0.0, 0.0, 0.3]))
    'salty'
    """
    return FLAVOURS[int(taste.argmax())] if taste.any() else None


def plate(
    shares: np.ndarray, named: np.ndarray | None, tastes: np.ndarray, classifier: str | None = None
) -> dict[str, Any]:
    """Return the `taste` and `flavour` of a plate, the flavour by a `classifier`, and whether it `agrees`.

    A plate of nothing that tastes has the flavour "none".

    Args:
        shares: area of each class, `(classes,)`.
        named: 0/1 per class but the background, from an ingredient head: its flavour is that of these ingredients,
            each counted once. None where the model has no such head.
        tastes: of `class_tastes`.
        classifier: flavour that another classifier gives the plate; it takes the place of the ingredient head.
    """
    taste = plate_taste(shares, tastes)
    answer: dict[str, Any] = {"taste": taste.round(4).tolist(), "flavour": main_flavour(taste) or "none"}
    if classifier is None and named is not None:
        classifier = main_flavour(plate_taste(np.concatenate([[0], named]), tastes)) or "none"
    if classifier is not None:
        answer |= {"classifier": classifier, "agrees": classifier == answer["flavour"]}
    return answer
