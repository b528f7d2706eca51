"""From masks to tastes: classes and groups, areas as weights, and the flag where a classifier disagrees."""

import numpy as np
import pytest
from PIL import Image

from dataset_builder.catalogue.ingredients import ingredients_by_name
from dataset_builder.columns import FLAVOURS, UNKNOWN
from trainer_scripts.tasks.segmentation.figures import FLAVOUR_COLOURS, taste_overlay
from trainer_scripts.tasks.segmentation.tastes import class_tastes, main_flavour, plate, plate_taste

NAMES = ["background", "lemon", "feta", "strawberry"]


def test_a_class_tastes_as_the_catalogue_says():
    tastes = class_tastes(NAMES, None, None)
    assert not tastes[0].any()
    for number, name in enumerate(NAMES[1:], start=1):
        np.testing.assert_allclose(tastes[number] * 3, ingredients_by_name()[name].taste)


def test_a_group_tastes_as_the_mean_of_its_ingredients_without_those_that_a_filter_left_out():
    tastes = class_tastes(["background", "food"], NAMES, [0, 1, 1, UNKNOWN])
    known = [ingredients_by_name()[name].taste for name in ("lemon", "feta")]
    np.testing.assert_allclose(tastes[1] * 3, np.mean(known, axis=0))


def test_names_of_other_data_sets_are_understood_and_strangers_taste_of_nothing():
    tastes = class_tastes(["background", "Lemon wedges", "zzz"], None, None)
    np.testing.assert_allclose(tastes[1] * 3, ingredients_by_name()["lemon"].taste)
    assert not tastes[2].any()


def test_areas_are_the_weights():
    tastes = np.zeros((3, 5))
    tastes[1, 0], tastes[2, 2] = 1.0, 0.5
    np.testing.assert_allclose(plate_taste(np.array([0.7, 0.1, 0.2]), tastes), [0.5, 0, 0.5, 0, 0])
    assert not plate_taste(np.array([1.0, 0, 0]), tastes).any()
    assert main_flavour(np.zeros(5)) is None


def test_the_flag_is_up_where_the_classifier_disagrees():
    tastes = np.zeros((3, 5))
    tastes[1, 0], tastes[2, 1] = 1.0, 1.0
    areas = np.array([0.5, 0.4, 0.1])
    assert "agrees" not in plate(areas, None, tastes)
    assert plate(areas, np.array([1, 0]), tastes)["agrees"] is True
    found = plate(areas, np.array([0, 1]), tastes)
    assert (found["flavour"], found["classifier"], found["agrees"]) == ("sweet", "salty", False)
    assert plate(areas, np.array([0, 1]), tastes, classifier="sweet")["agrees"] is True
    assert plate(np.array([1.0, 0, 0]), None, tastes)["flavour"] == "none"


def test_the_map_lays_the_colour_of_a_taste_over_its_ingredient_alone():
    tastes = np.zeros((2, 5))
    tastes[1, 0] = 1.0
    mask = np.zeros((4, 4), dtype=int)
    mask[:2] = 1
    drawn = np.asarray(taste_overlay(Image.new("RGB", (8, 8), (10, 20, 30)), mask, tastes)).astype(int)
    assert (drawn[2:] == (10, 20, 30)).all()
    wanted = 0.15 * np.array([10, 20, 30]) + 0.85 * np.array(FLAVOUR_COLOURS[FLAVOURS[0]])
    assert drawn[0, 0] == pytest.approx(wanted, abs=1)
