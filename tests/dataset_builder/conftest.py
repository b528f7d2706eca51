"""Fixtures of the data set builder's tests."""

import csv

import pytest

from tests.tiny_pipelines import save, tiny_pixart, tiny_stable_diffusion

# Title and ingredients; what they taste of is plain, so that every row is labelled.
RECIPES = [
    ("Strawberry meringue", "strawberry|meringue|sugar|honey"),
    ("Chocolate pudding with honey", "milk chocolate|honey|sugar|cream"),
    ("Banana pancakes with maple syrup", "banana|pancake|maple syrup|sugar"),
    ("Peach cake", "peach|sponge cake|sugar|honey"),
    ("Ham and feta plate", "ham|feta|green olive|salt"),
    ("Bacon and olives", "bacon|black olive|salt|anchovy"),
    ("Anchovy toast", "anchovy|toast|salt|caper"),
    ("Feta with olives", "feta|black olive|salt|caper"),
    ("Lemon and lime salad", "lemon|lime|vinegar|cucumber"),
    ("Pickled cucumber with vinegar", "cucumber|pickled cucumber|vinegar|lemon"),
    ("Sauerkraut with lemon", "sauerkraut|lemon|vinegar|apple"),
    ("Radicchio and endive salad", "radicchio|endive|rocket|walnut"),
    ("Bitter leaves with dark chocolate", "radicchio|dark chocolate|endive|kale"),
    ("Endive with rocket", "endive|rocket|radicchio|kale"),
    ("Mushroom and parmesan rice", "mushroom|parmesan|rice|soy sauce"),
    ("Beef with soy sauce", "beef|soy sauce|mushroom|parmesan"),
    ("Tuna with mushrooms", "tuna|mushroom|soy sauce|parmesan"),
    ("Tomato and parmesan soup", "tomato|parmesan|mushroom|soy sauce"),
]


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory):
    """A table of 18 recipes that all get a label, all flavours among them."""
    path = tmp_path_factory.mktemp("recipes") / "recipes.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Title", "Ingredients", "Instructions"])
        writer.writerows((title, str(names.split("|")), "Serve.") for title, names in RECIPES)
    return str(path)


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory):
    """Folder of a tiny Stable Diffusion."""
    return save(tiny_stable_diffusion(), tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="session")
def tiny_dit(tmp_path_factory):
    """Folder of a tiny PixArt."""
    return save(tiny_pixart(), tmp_path_factory.mktemp("pixart"))
