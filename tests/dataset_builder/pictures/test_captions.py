"""Captions: true of the plate, complete, and in good English."""

import re

import numpy as np
import pytest
import torch

from dataset_builder.catalogue.ingredients import catalogue_dishes, find_ingredients, ingredient_id, ingredients
from dataset_builder.columns import UNKNOWN
from dataset_builder.pictures.captions import (
    article,
    captions_from_plate,
    captions_from_prompt,
    measured,
    place,
    plural,
)
from dataset_builder.plating.pipeline import Plate, PlateItem, PlatingPipeline


def item(
    name: str, pieces: int = 1, area: float = 0.1, x: float = 0.5, y: float = 0.5, spread: float = 0.1
) -> PlateItem:
    group = next(entry.group for entry in ingredients() if entry.name == name)
    return PlateItem(name, group, pieces, area, x, y, spread)


@pytest.fixture(scope="module")
def plates():
    dishes = catalogue_dishes()[::30]
    prompts = [f"{dish.title}: {', '.join(dish.ingredients)}" for dish in dishes]
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(dishes))]
    return list(zip(dishes, PlatingPipeline()(prompts, height=64, generator=generators).plates, strict=True))


def test_the_first_caption_names_exactly_the_plate_by_area(plates):
    for seed, (dish, plate) in enumerate(plates):
        first = captions_from_plate(plate, dish.title, seed)[0]
        assert [found.name for found in find_ingredients(first)] == [shown.name for shown in plate.items], first


def test_no_caption_names_what_is_not_to_be_seen(plates):
    for seed, (dish, plate) in enumerate(plates):
        visible = {shown.name for shown in plate.items}
        for caption in captions_from_plate(plate, dish.title, seed):
            assert {found.name for found in find_ingredients(caption)} <= visible, caption


def test_three_to_five_different_sentences(plates):
    openings = set()
    for seed, (dish, plate) in enumerate(plates):
        captions = captions_from_plate(plate, dish.title, seed)
        assert 3 <= len(captions) <= 5
        assert len(set(captions)) == len(captions)
        openings.update(caption.split()[0] for caption in captions)
        for caption in captions:
            assert re.fullmatch(r"[A-Z\W\d].*\.", caption), caption
            assert "  " not in caption
            assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", caption), caption
    assert len(openings) > 8


def test_every_visible_ingredient_is_worded_so_that_it_is_found_again():
    for entry in ingredients():
        if entry.visible:
            for pieces in (1, 3, 12):
                plate = Plate("plate", (item(entry.name, pieces),))
                for seed in range(3):
                    for caption in captions_from_plate(plate, "", seed):
                        assert {found.name for found in find_ingredients(caption)} == {entry.name}, caption


def test_captions_repeat_with_their_seed_and_vary_without():
    plate = Plate("bowl", (item("rice", area=0.3), item("prawn", 4), item("lime", 2, x=0.2), item("coriander", 5)))
    assert captions_from_plate(plate, "Prawns", 1) == captions_from_plate(plate, "Prawns", 1)
    assert len({tuple(captions_from_plate(plate, "Prawns", seed)) for seed in range(10)}) > 5


def test_the_title_is_told_only_where_it_keeps_its_promise():
    plate = Plate("plate", (item("chicken"), item("lemon", 3)))
    kept = [caption for seed in range(30) for caption in captions_from_plate(plate, "Sunday chicken", seed)]
    broken = [caption for seed in range(30) for caption in captions_from_plate(plate, "Chicken and rice", seed)]
    assert "Sunday chicken on a plate." in kept
    assert not any("rice" in caption for caption in broken)


@pytest.mark.parametrize(
    ("shown", "phrase"),
    [
        (item("cucumber", 3), "three slices of cucumber"),
        (item("prawn", 8), "eight prawns"),
        (item("prawn", 9), "many prawns"),
        (item("feta", 1), "a cube of feta"),
        (item("poached egg", 1), "a poached egg"),
        (item("omelette", 1), "a slice of omelette"),
        (item("basil", 2), "two leaves of basil"),
        (item("cherry tomato", 5), "five cherry tomatoes"),
    ],
)
def test_amounts(shown, phrase):
    import random

    assert measured(shown, random.Random(0)) == phrase


@pytest.mark.parametrize(
    ("shown", "where"),
    [
        (item("rice"), "in the centre"),
        (item("rice", x=0.3), "on the left"),
        (item("rice", x=0.7), "on the right"),
        (item("rice", y=0.3), "at the top"),
        (item("rice", x=0.7, y=0.7), "at the bottom right"),
        (item("rice", spread=0.3), "all over"),
    ],
)
def test_places(shown, where):
    assert place(shown) == where


def test_left_stays_left():
    """Captions once told left and right the wrong way round."""
    plate = Plate("plate", (item("salmon", x=0.25), item("rice", x=0.75)))
    told = {caption for seed in range(40) for caption in captions_from_plate(plate, "", seed)}
    assert {"The salmon is to the left of the rice.", "The rice is to the right of the salmon."} <= told
    assert "The salmon is to the right of the rice." not in told
    above = Plate("plate", (item("salmon", y=0.8), item("rice", y=0.2)))
    told = {caption for seed in range(40) for caption in captions_from_plate(above, "", seed)}
    assert "The rice is above the salmon." in told
    assert "The salmon is above the rice." not in told


def test_an_empty_plate_is_called_empty():
    captions = captions_from_plate(Plate("bowl", ()), "Chicken soup", 0)
    assert captions[0] == "An empty bowl."
    assert len(captions) == 3


def test_a_drink_is_called_a_drink_and_an_empty_glass_is_not_claimed():
    captions = captions_from_plate(Plate("glass", (), liquid=True), "Teh tarik", 0)
    assert captions == ["A drink in a glass.", "A glass with a drink, seen from above.", "Teh tarik in a glass."]
    captions = captions_from_plate(Plate("bowl", (), liquid=True), "Soy sauce dip", 0)
    assert captions[0] == "A liquid in a bowl."
    assert not any(find_ingredients(caption) for caption in captions)


def test_plural_and_article():
    assert plural("egg noodle") == "egg noodles"
    assert plural("strawberry") == "strawberries"
    assert plural("anchovy") == "anchovies"
    assert article("anchovy") == "an anchovy"


def test_captions_of_a_prompt_name_what_it_names():
    captions = captions_from_prompt("Greek salad: cucumber, tomato, feta, salt", None, 0)
    assert {found.name for found in find_ingredients(captions[0])} == {"cucumber", "tomato", "feta"}
    assert len(captions) == 3


def test_captions_of_a_prompt_follow_the_mask_where_there_is_one():
    mask = np.full((8, 8), UNKNOWN, np.uint8)
    mask[:2], mask[2:6] = ingredient_id("feta"), ingredient_id("tomato")
    captions = captions_from_prompt("Greek salad: cucumber, tomato, feta", mask, 3)
    assert [found.name for found in find_ingredients(captions[0])] == ["tomato", "feta"]
    assert not any("cucumber" in caption for caption in captions)


def test_captions_of_a_prompt_tell_places_and_amounts_by_the_mask_alone():
    mask = np.zeros((20, 20), np.uint8)
    mask[6:14, :7], mask[16:, 16:], mask[:5, 15:] = ingredient_id("tomato"), ingredient_id("feta"), UNKNOWN
    captions = captions_from_prompt("Greek salad: cucumber, tomato, feta", mask, 3)
    assert 3 < len(captions) <= 5
    assert "The tomato is on the left and the feta is at the bottom right." in captions
    assert any("mostly tomato" in caption.lower() for caption in captions)
    without = " ".join(captions_from_prompt("Greek salad: cucumber, tomato, feta", None, 3))
    assert "the left" not in without
    assert "mostly" not in without.lower()


def test_captions_of_a_prompt_whose_mask_knows_nothing_claim_nothing():
    mask = np.full((8, 8), UNKNOWN, np.uint8)
    assert captions_from_prompt("Greek salad: tomato", mask, 0)[0] == "Greek salad."


def test_captions_of_a_prompt_without_ingredients_repeat_its_title():
    assert captions_from_prompt("Grandmother's dream", None, 0)[0] == "Grandmother's dream."
    assert all(captions_from_prompt("", None, 0))
