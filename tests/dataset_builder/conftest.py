"""Fixtures of the data set builder's tests."""

import csv

import pytest
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from tests.tiny_pipelines import clip_tokenizer, save, tiny_pixart, tiny_stable_diffusion, tiny_stable_diffusion_xl

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


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory):
    """Folder of a tiny Stable Diffusion XL, whose scheduler is that of its turbo kind."""
    return save(tiny_stable_diffusion_xl(), tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """Folder of a tiny CLIP model with its processor."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = clip_tokenizer()
    small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config={**small, **ends, "vocab_size": len(tokenizer)},
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessor(**sizes), tokenizer).save_pretrained(folder)
    return str(folder)
