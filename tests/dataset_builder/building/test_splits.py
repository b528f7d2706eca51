"""Splits keep dishes together and flavours everywhere."""

import random
from collections import Counter

import pytest

from dataset_builder.building.splits import SHARES, assign_splits
from dataset_builder.columns import FLAVOURS, SPLITS


def rows(dishes: int, variants: int, seed: int = 0) -> tuple[list[str], list[str]]:
    draw = random.Random(seed)
    dish_ids, flavours = [], []
    for dish in range(dishes):
        main = draw.choices(FLAVOURS, weights=[5, 4, 2, 1, 6])[0]
        for _ in range(draw.randint(1, variants)):
            dish_ids.append(f"dish-{dish}")
            flavours.append(main if draw.random() < 0.8 else draw.choice(FLAVOURS))
    return dish_ids, flavours


def test_rows_of_a_dish_share_a_split():
    dish_ids, flavours = rows(200, 6)
    split_of: dict[str, set[str]] = {}
    for dish_id, split in zip(dish_ids, assign_splits(dish_ids, flavours, seed=0), strict=True):
        split_of.setdefault(dish_id, set()).add(split)
    assert all(len(splits) == 1 for splits in split_of.values())


def test_every_flavour_is_in_every_split_with_about_its_share():
    dish_ids, flavours = rows(600, 8)
    splits = assign_splits(dish_ids, flavours, seed=0)
    counts = Counter(zip(splits, flavours, strict=True))
    for split in SPLITS:
        assert splits.count(split) / len(splits) == pytest.approx(SHARES[split], abs=0.03)
        assert all(counts[split, flavour] for flavour in FLAVOURS)


def test_a_catalogue_of_3600_rows_tests_on_at_least_500():
    dish_ids = [f"dish-{number % 610}" for number in range(3600)]
    flavours = [FLAVOURS[number % 610 % 5] for number in range(3600)]
    assert assign_splits(dish_ids, flavours, seed=3).count("test") >= 500


def test_a_table_of_300_recipes_still_tests_each_flavour():
    dish_ids, flavours = rows(300, 1)
    splits = assign_splits(dish_ids, flavours, seed=0)
    assert 40 <= splits.count("test") <= 60
    tested = {flavour for flavour, split in zip(flavours, splits, strict=True) if split == "test"}
    assert tested == set(FLAVOURS)


def test_order_of_rows_does_not_matter_and_seed_does():
    dish_ids, flavours = rows(100, 4)
    order = list(range(len(dish_ids)))
    random.Random(1).shuffle(order)
    splits = assign_splits(dish_ids, flavours, seed=0)
    shuffled = assign_splits([dish_ids[i] for i in order], [flavours[i] for i in order], seed=0)
    assert [splits[i] for i in order] == shuffled
    assert assign_splits(dish_ids, flavours, seed=1) != splits


@pytest.mark.parametrize(
    ("dishes", "expected"),
    [(1, {"train"}), (2, {"train", "test"}), (3, {"train", "validation", "test"})],
)
def test_few_dishes_serve_train_first_then_test(dishes, expected):
    assert set(assign_splits([f"d{n}" for n in range(dishes)], ["sweet"] * dishes, seed=0)) == expected
