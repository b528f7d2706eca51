"""Which split a recipe belongs to: dishes and equal titles stay together, flavours are everywhere.

Everything is computed on arrays of hashes and counts, so that a million recipes take megabytes.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import xxhash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dataset_builder.columns import SPLITS

SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}
TRAIN, VALIDATION, TEST = range(len(SPLITS))


def hash_of(text: str) -> int:
    """Return a hash of 64 bits that is the same in every process."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))


class Groups(NamedTuple):
    """What never crosses splits: rows of one dish or of equal titles.

    Attributes:
        of_row: `(rows,)` the group of each row, numbered from 0.
        joined: `(groups,)` whether several dishes are in it, for their equal titles.
    """

    of_row: np.ndarray
    joined: np.ndarray


def find_groups(dishes: np.ndarray, titles: np.ndarray) -> Groups:
    """Return the groups of rows.

    Args:
        dishes: `(rows,)` hashes of the dish ids.
        titles: `(rows,)` hashes of the plain titles.
    """
    dish_of, title_of = (np.unique(each, return_inverse=True)[1].astype(np.int64) for each in (dishes, titles))
    count = int(dish_of.max(initial=-1)) + 1
    several = _with_several_dishes(dish_of, title_of)
    if not several.any():
        return Groups(dish_of, np.zeros(count, bool))
    # Dishes and titles are the nodes of a graph, and each row of a title that several dishes have is an edge.
    edges = (dish_of[several], count + title_of[several])
    size = count + int(title_of.max()) + 1
    linked = connected_components(coo_array((np.ones(len(edges[0]), np.int8), edges), shape=(size, size)), False)[1]
    of_dish = np.unique(linked[:count], return_inverse=True)[1]
    return Groups(of_dish[dish_of], np.bincount(of_dish) > 1)


def _with_several_dishes(dish_of: np.ndarray, title_of: np.ndarray) -> np.ndarray:
    """Return for each row whether its title occurs with more than one dish."""
    one = np.zeros(int(title_of.max(initial=-1)) + 1, np.int64)
    one[title_of] = dish_of  # of several dishes the last one
    mixed = np.zeros(len(one), bool)
    mixed[title_of[one[title_of] != dish_of]] = True
    return mixed[title_of]


def order_keys(groups: Groups, dish_ids: Iterable[str], seed: int) -> np.ndarray:
    """Return the `(groups, 2)` hashes of seed and name by which groups are ordered.

    The name of a group is its first dish id in the order of texts.

    Args:
        groups: of the rows.
        dish_ids: the dish id of each row, in order.
        seed: another seed gives another order.
    """
    keys = np.zeros((len(groups.joined), 2), np.uint64)
    names: dict[int, str] = {}
    joined, known = groups.joined, np.zeros(len(keys), bool)
    for group, dish_id in zip(groups.of_row, dish_ids, strict=True):
        if joined[group]:
            names[group] = min(names.get(group, dish_id), dish_id)
        elif not known[group]:
            known[group] = True
            keys[group] = _order_key(seed, dish_id)
    for group, name in names.items():
        keys[group] = _order_key(seed, name)
    return keys


def _order_key(seed: int, name: str) -> tuple[int, int]:
    digest = hashlib.sha256(f"{seed}|{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


def assign_splits(dish_ids: Sequence[str], flavours: Sequence[str], seed: int) -> list[str]:
    """Return the split of each row.

    Rows of one dish id share a split. Dishes are stratified by their main flavour (the one
    most of their rows have): within each flavour they are ordered by a hash of seed and id, and test, then validation
    take dishes until they hold their share of the flavour's rows; the rest is train. The order of the rows does not
    matter. A flavour of three or more dishes is in every split.

    Args:
        dish_ids: the dish of each row.
        flavours: the label of each row.
        seed: another seed draws another split.
    """
    dishes = np.array([hash_of(dish_id) for dish_id in dish_ids], np.uint64)
    groups = find_groups(dishes, dishes)
    found = np.unique(np.array(flavours, object), return_inverse=True)[1]
    splits = split_numbers(groups.of_row, order_keys(groups, dish_ids, seed), found)
    return [SPLITS[split] for split in splits.tolist()]


def split_numbers(groups: np.ndarray, keys: np.ndarray, flavours: np.ndarray) -> np.ndarray:
    """Return the split of each row as its place in `columns.SPLITS`, see `assign_splits`.

    Args:
        groups: `(rows,)` group of each row, numbered from 0.
        keys: `(groups, 2)` order of the groups, see `order_keys`.
        flavours: `(rows,)` label of each row, numbered in the order of their names.
    """
    kinds = int(flavours.max(initial=-1)) + 1
    counts = np.bincount(groups * kinds + flavours, minlength=len(keys) * kinds).reshape(len(keys), kinds)
    # The most frequent flavour, of equal ones the first by name.
    main, rows = counts.argmax(axis=1), counts.sum(axis=1)
    of_group = np.full(len(keys), TRAIN, np.int8)
    for kind in range(kinds):
        members = np.flatnonzero(main == kind)
        order = members[np.lexsort((keys[members, 1], keys[members, 0]))]
        test, validation = _divide(rows[order])
        of_group[order[:test]] = TEST
        of_group[order[test : test + validation]] = VALIDATION
    return of_group[groups]


def _divide(rows: np.ndarray) -> tuple[int, int]:
    """Return how many dishes, from the first on, fill test and then validation up to their shares.

    Of few dishes, train is served first, then test: with three or more, one each is left over for validation and train;
    with two, one for train.
    """

    def filling(share: float, of: np.ndarray, left_over: int) -> int:
        # A dish is taken as long as those before it hold less than the share.
        before = np.cumsum(of) - of
        return min(int(np.searchsorted(before, share * int(rows.sum()))), max(0, len(of) - left_over))

    test = filling(SHARES["test"], rows, min(2, max(1, len(rows) - 1)))
    return test, filling(SHARES["validation"], rows[test:], 1)
