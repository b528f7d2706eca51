import csv
from collections import Counter
from importlib.resources import files

import pytest

from dataset_builder.catalogue import ingredients as catalogue
from dataset_builder.catalogue.ingredients import (
    SETTINGS,
    additions,
    catalogue_dishes,
    dish_facts,
    find_ingredients,
    find_mentions,
    ingredient_id,
    ingredients,
    ingredients_by_name,
    reference_flavours,
    visible_ingredients,
)
from dataset_builder.catalogue.matching import phrase_key
from dataset_builder.columns import FLAVOURS, FOOD_GROUPS, MAX_VISIBLE_INGREDIENTS, SEASONING
from dataset_builder.errors import BadInputError

INGREDIENT = {
    "name": "fig", "aliases": "", "group": "fruit", "sweet": "3", "salty": "0", "sour": "0", "bitter": "0",
    "umami": "0", "form": "ring", "colours": "#c8506a", "size_mm": "36",
}  # fmt: skip
DISH = {
    "dish_id": "fig-plate",
    "title": "Fig plate",
    "cuisine": "Greek",
    "course": "dessert",
    "vessel": "plate",
    "ingredients": "fig; honey; walnut",
}


def names(text):
    return [item.name for item in find_ingredients(text)]


def test_there_are_at_least_300_ingredients_and_the_visible_ones_fit_a_mask():
    assert len(ingredients()) >= 300
    assert 200 <= len(visible_ingredients()) <= MAX_VISIBLE_INGREDIENTS


def test_every_visible_food_group_is_well_populated():
    sizes = Counter(item.group for item in ingredients() if item.visible)
    assert set(sizes) == set(FOOD_GROUPS) - {SEASONING}
    assert min(sizes.values()) >= 5


def test_every_flavour_has_strong_carriers_seen_and_unseen():
    for position, flavour in enumerate(FLAVOURS):
        for visible in (True, False):
            strong = [item.name for item in ingredients() if item.visible == visible and item.taste[position] >= 2]
            assert len(strong) >= 8, (flavour, visible, strong)


def test_a_name_or_alias_belongs_to_one_ingredient():
    owners = Counter(key for item in ingredients() for key in {phrase_key(name) for name in (item.name, *item.aliases)})
    assert [key for key, count in owners.items() if count > 1] == []


def test_two_visible_ingredients_never_look_exactly_alike():
    looks = Counter((item.form, item.colours) for item in ingredients() if item.visible)
    assert max(looks.values()) == 1


def test_ids_count_visible_ingredients_from_one_in_file_order():
    assert [ingredient_id(name) for name in visible_ingredients()] == list(range(1, len(visible_ingredients()) + 1))
    with pytest.raises(KeyError):
        ingredient_id("salt")


def test_there_are_600_named_dishes_of_20_cuisines():
    assert len(catalogue_dishes()) >= 600
    assert len({facts.cuisine for facts in dish_facts().values()}) >= 20


def test_dishes_are_distinct():
    dishes = catalogue_dishes()
    for key in (
        lambda dish: dish.dish_id,
        lambda dish: dish.title.casefold(),
        lambda dish: frozenset(dish.ingredients),
    ):
        assert [value for value, count in Counter(map(key, dishes)).items() if count > 1] == []


def test_every_dish_has_ingredients_of_the_table_and_something_to_see():
    for dish in catalogue_dishes():
        assert set(dish.ingredients) <= set(ingredients_by_name())
        assert 2 <= len(dish.ingredients) <= 14, dish
    unseen = [dish.title for dish in catalogue_dishes() if not set(dish.ingredients) & set(visible_ingredients())]
    # Teas, coffees and clear drinks may have nothing in them that could be drawn.
    assert len(unseen) <= 0.01 * len(catalogue_dishes()), unseen


def test_every_dish_has_a_reference_and_no_flavour_is_rare():
    reference = reference_flavours()
    assert set(reference) == {dish.dish_id for dish in catalogue_dishes()}
    counts = Counter(flavour for flavour, _ in reference.values())
    assert min(counts[flavour] for flavour in FLAVOURS) >= 0.08 * len(reference)


def test_additions_name_ingredients_of_the_table_that_carry_their_flavour():
    for addition in additions():
        item = ingredients_by_name()[addition.ingredient]
        assert addition.setting in SETTINGS
        assert addition.flavour is None or item.taste[FLAVOURS.index(addition.flavour)] >= 1, addition
        for words in (addition.phrase, addition.adjective):
            assert {found.name for found in find_ingredients(words)} <= {item.name}, addition


def test_data_files_are_read_whole():
    for name in ("ingredients.csv", "dishes.csv", "dish_tastes.csv", "additions.csv"):
        text = files("dataset_builder").joinpath("data", name).read_text(encoding="utf-8")
        rows = list(csv.reader(text.splitlines()))
        assert {len(row) for row in rows} == {len(rows[0])}, name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1 - 2L (1/4 - 1/2 gal) milk", ["milk"]),
        ("~150g bacon cubes", ["bacon"]),
        ("5-6 cloves of garlic", ["garlic"]),
        ("Greek salad: cucumber, feta, olives, oregano", ["cucumber", "feta", "green olive", "oregano"]),
        ("2 goats cheese logs", ["goat cheese"]),
        ("Gruyère", ["gruyere"]),
        ("3 anchovies, no added salt", ["anchovy"]),
        ("unsalted butter", ["butter"]),
        ("boiling it crisply in virgin steam", []),
        ("tomatoes and more tomatoes", ["tomato"]),
    ],
)
def test_ingredients_are_found_in_what_people_write(text, found):
    assert names(text) == found


def test_a_mention_says_where():
    text = "Duck with figs"
    assert [(text[mention.start : mention.end], mention.ingredient.name) for mention in find_mentions(text)] == [
        ("Duck", "duck"),
        ("figs", "fig"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": "fruits"}, "group 'fruits' is unknown"),
        ({"form": "ball"}, "form 'ball' is unknown"),
        ({"group": "seasoning"}, "a seasoning is what cannot be seen"),
        ({"sweet": "4"}, "a taste lies in 0..3"),
        ({"colours": "red"}, "are not #rrggbb"),
        ({"size_mm": ""}, "visible means one or two colours and a size"),
    ],
)
def test_a_broken_ingredient_is_refused(change, message):
    with pytest.raises(BadInputError, match=message):
        catalogue._ingredient({**INGREDIENT, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ingredients": "fig; figment"}, "unknown ingredients figment"),
        ({"ingredients": "fig; fig"}, "an ingredient is named twice"),
        ({"course": "supper"}, "course 'supper' is unknown"),
        ({"vessel": "bucket"}, "vessel 'bucket' is unknown"),
        ({"dish_id": "Fig plate"}, "the id is not a slug"),
    ],
)
def test_a_broken_dish_is_refused(change, message):
    with pytest.raises(BadInputError, match=message):
        catalogue._dish({**DISH, **change})
