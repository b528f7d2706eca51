from collections import Counter

import pytest

from dataset_builder.catalogue import variants
from dataset_builder.catalogue.ingredients import catalogue_dishes, dish_facts, find_ingredients, ingredients_by_name
from dataset_builder.catalogue.variants import widen
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.recipes.recipes import Dish

NUMBER = 3600


@pytest.fixture(scope="module")
def recipes():
    return widen(catalogue_dishes(), NUMBER, seed=1)


def test_the_size_is_as_asked_and_named_dishes_come_first(recipes):
    assert len(recipes) == NUMBER
    assert [dish for dish in recipes if dish.variant == 0] == catalogue_dishes()
    numbers = Counter(dish.dish_id for dish in recipes)
    assert max(numbers.values()) - min(numbers.values()) <= 1


def test_the_same_seed_gives_the_same_recipes_and_another_seed_others():
    dishes = catalogue_dishes()[::10]
    assert widen(dishes, 400, seed=1) == widen(dishes, 400, seed=1)
    assert widen(dishes, 400, seed=1) != widen(dishes, 400, seed=2)


def test_recipes_and_titles_are_distinct(recipes):
    assert len({frozenset(dish.ingredients) for dish in recipes}) == NUMBER
    assert len({dish.title.casefold() for dish in recipes}) == NUMBER


def test_a_variant_has_ingredients_of_the_table_each_once(recipes):
    for dish in recipes:
        assert set(dish.ingredients) <= set(ingredients_by_name())
        assert len(set(dish.ingredients)) == len(dish.ingredients)


def test_a_title_names_nothing_that_the_variant_lacks(recipes):
    base = {dish.dish_id: dish for dish in recipes if dish.variant == 0}
    for dish in recipes:
        given = base[dish.dish_id]
        excused = {item.name for item in find_ingredients(given.title)} - set(given.ingredients)
        named = {item.name for item in find_ingredients(dish.title)}
        assert named <= set(dish.ingredients) | excused, dish


def test_what_is_the_dish_stays_unless_the_title_changes_with_it(recipes):
    base = {dish.dish_id: dish for dish in recipes if dish.variant == 0}
    for dish in recipes:
        given = base[dish.dish_id]
        named = {item.name for item in find_ingredients(given.title)}
        for name in given.ingredients[: variants.PROTECTED]:
            assert name in dish.ingredients or name in named, dish


def test_titles_tell_a_part_of_the_changes_only(recipes):
    base = {dish.dish_id: set(dish.ingredients) for dish in recipes if dish.variant == 0}
    told = Counter()
    for dish in recipes:
        named = {item.name for item in find_ingredients(dish.title)}
        for name in set(dish.ingredients) - base[dish.dish_id]:
            told[ingredients_by_name()[name].visible, name in named] += 1
    for visible in (True, False):
        share = told[visible, True] / (told[visible, True] + told[visible, False])
        assert 0.2 < share < 0.9


def test_the_variants_lean_to_every_flavour(recipes):
    added = Counter()
    base = {dish.dish_id: set(dish.ingredients) for dish in recipes if dish.variant == 0}
    for dish in recipes:
        for name in set(dish.ingredients) - base[dish.dish_id]:
            added.update(dict(zip(FLAVOURS, ingredients_by_name()[name].taste, strict=True)))
    assert min(added.values()) >= 0.08 * sum(added.values())


def test_sweets_are_not_topped_like_a_roast(recipes):
    base = {dish.dish_id: set(dish.ingredients) for dish in recipes if dish.variant == 0}
    allowed = variants._suits()["sweet"]
    for dish in recipes:
        if dish_facts()[dish.dish_id].course == "dessert":
            assert set(dish.ingredients) - base[dish.dish_id] <= allowed


def test_a_recipe_as_people_write_it_is_widened_too():
    soup = Dish(
        "pea-soup", "Pea soup", ("500 g peas", "1 L vegetable stock", "2 onions", "a pinch of salt", "mystery herb")
    )
    widened = widen([soup], 8, seed=0)
    assert len(widened) == 8
    assert widened[0] == soup
    assert len({dish.title for dish in widened}) == 8
    assert all(dish.image_path is None and dish.instructions == "" for dish in widened[1:])


def test_fewer_than_the_dishes_is_a_sample_of_them():
    few = widen(catalogue_dishes(), 10, seed=0)
    assert len(few) == 10
    assert all(dish.variant == 0 for dish in few)
    assert few != catalogue_dishes()[:10]


def test_more_than_can_be_made_is_refused(monkeypatch):
    monkeypatch.setattr(variants, "_additions_for", lambda setting, flavour: ())
    with pytest.raises(BadInputError, match=r"50 recipes are wanted, but only .* can be made of 1 dishes"):
        widen([Dish("water", "Water", ("mystery",))], 50, seed=0)


def test_swapping_replaces_the_name_in_the_title():
    by_name = ingredients_by_name()
    assert variants._replace_in_title("Duck with figs", by_name["duck"], by_name["lamb"]) == "Lamb with figs"
    assert variants._replace_in_title("Duck with figs", by_name["fig"], by_name["grape"]) == "Duck with grapes"
