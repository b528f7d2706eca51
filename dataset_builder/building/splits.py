"""Train, validation and test splits that keep all rows of a dish together and every flavour in each split."""

import hashlib
from collections import Counter
from collections.abc import Sequence

SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}


def assign_splits(dish_ids: Sequence[str], flavours: Sequence[str], seed: int) -> list[str]:
    """Return the split of each row.

    Rows of one `dish_id` share a split. Dishes are stratified by their main flavour (the one most of their rows have):
    within each flavour they are ordered by a hash of seed and id, and test, then validation take dishes until they hold
    their share of the flavour's rows; the rest is train. The order of the rows does not matter. A flavour of three or
    more dishes is in every split.

    Args:
        dish_ids: the dish of each row.
        flavours: the label of each row.
        seed: another seed draws another split.
    """
    votes: dict[str, Counter[str]] = {}
    for dish_id, flavour in zip(dish_ids, flavours, strict=True):
        votes.setdefault(dish_id, Counter())[flavour] += 1
    strata: dict[str, list[str]] = {}
    for dish_id, counts in votes.items():
        # The most frequent flavour, of equal ones the first by name.
        main = min(counts, key=lambda flavour: (-counts[flavour], flavour))
        strata.setdefault(main, []).append(dish_id)
    split_of: dict[str, str] = {}
    for dishes in strata.values():
        dishes.sort(key=lambda dish_id: hashlib.sha256(f"{seed}|{dish_id}".encode()).digest())
        split_of |= _divide(dishes, {dish_id: votes[dish_id].total() for dish_id in dishes})
    return [split_of[dish_id] for dish_id in dish_ids]


def _divide(dishes: Sequence[str], rows: dict[str, int]) -> dict[str, str]:
    """Fill test, then validation up to their shares; of few dishes, train is served first, then test."""
    total = sum(rows.values())
    split_of = dict.fromkeys(dishes, "train")
    position = 0
    # Dishes that must be left over: with three or more, one each for validation and train; with two, one for train.
    for split, kept_for_others in (("test", min(2, max(1, len(dishes) - 1))), ("validation", 1)):
        filled = 0
        while len(dishes) - position > kept_for_others and filled < SHARES[split] * total:
            split_of[dishes[position]] = split
            filled += rows[dishes[position]]
            position += 1
    return split_of
