"""The plan of a build and its builder class: the same rows everywhere, and a cache that notices every change."""

import io
import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Image, load_dataset
from PIL import Image as PILImage

from dataset_builder.building.build import build
from dataset_builder.building.finished_build import read_build
from dataset_builder.building.plan import Plan
from dataset_builder.building.rows import mask_png
from dataset_builder.building.settings import BuildSettings
from dataset_builder.catalogue.ingredients import find_ingredients, reference_flavours, visible_ingredients
from dataset_builder.catalogue.serving import hidden_liquids, shows, vessel_for
from dataset_builder.columns import FLAVOURS, SPLITS
from dataset_builder.errors import BadInputError
from dataset_builder.flavour_sd import FlavourSD
from dataset_builder.labelling.calibration import reliability
from dataset_builder.labelling.rule import Labeller
from dataset_builder.pictures import prompts
from dataset_builder.pictures.settings import GenerationSettings, picture_seed
from dataset_builder.plating.pipeline import PlatingPipeline
from dataset_builder.schema import table_features
from tests.dataset_builder.conftest import RECIPES

SMALL = GenerationSettings(size=64, batch_size=4)


@pytest.fixture(scope="module")
def built(recipe_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    manifest = build(BuildSettings(recipe_file, seed=3, recipes_per_shard=4, generation=SMALL), out, processes=1)
    return out, manifest


def test_load_dataset_gives_the_one_table(built):
    out, manifest = built
    data = load_dataset(str(out))
    assert list(data) == list(SPLITS)
    for split in SPLITS:
        assert data[split].features == table_features(visible_ingredients())
        assert len(data[split]) == sum(manifest["counts"][split].values())
    assert sum(map(len, data.values())) == len(RECIPES)


def test_a_row_holds_recipe_label_picture_and_how_it_was_made(built):
    out, _ = built
    rows = {row["title"]: row for split in load_dataset(str(out)).values() for row in split}
    row = rows["Feta with olives"]
    assert row["id"] == "feta-with-olives-00-00"
    assert row["ingredients"] == ["feta", "black olive", "salt", "caper"]
    assert row["instructions"] == "Serve."
    assert FLAVOURS[row["flavour"]] == "salty"
    assert "feta" in row["label_votes"]["ingredients"]["salty"]
    assert sum(row["taste"]) == pytest.approx(1)
    assert row["image"].size == (64, 64)
    assert row["generation"]["prompt"] == "Feta with olives: feta, black olive, caper"
    assert row["generation"]["seed"] == picture_seed(3, row["id"])
    assert 3 <= len(row["captions"]) <= 5


def test_masks_are_8_bit_ids_that_agree_with_the_labels(built):
    out, _ = built
    for split in load_dataset(str(out)).values():
        for row in split.cast_column("mask", Image(decode=False)):
            with PILImage.open(io.BytesIO(row["mask"]["bytes"])) as mask:
                assert (mask.format, mask.mode) == ("PNG", "L")
                seen = sorted(set(np.unique(np.asarray(mask)).tolist()) - {0, 255})
            assert seen == row["ingredient_labels"]
            assert seen


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 48)])
def test_a_mask_read_by_pillow_is_the_mask_that_was_written(shape):
    mask = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with PILImage.open(io.BytesIO(mask_png(mask))) as image:
        image.verify()
    with PILImage.open(io.BytesIO(mask_png(mask))) as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), mask)


def test_jpeg_keeps_the_colours_of_the_picture(built):
    out, _ = built
    row = load_dataset(str(out))["train"][0]
    generator = torch.Generator().manual_seed(row["generation"]["seed"])
    drawn = PlatingPipeline()(row["generation"]["prompt"], height=64, width=64, generator=generator).images[0]
    difference = np.asarray(drawn, np.int16) - np.asarray(row["image"], np.int16)
    assert np.abs(difference).mean() < 3


def test_the_manifest_states_what_the_card_needs(built):
    out, manifest = built
    assert manifest == json.loads((out / "manifest.json").read_text())
    assert manifest["finished"] is True
    assert manifest["generator"]["pipeline"] == "plating"
    assert manifest["simulator"] is True
    assert manifest["seeds"] == {"build": 3}
    assert manifest["rows"] == len(RECIPES)
    assert manifest["skipped_recipes"] == {}
    assert manifest["given_up"] == {}
    assert len(manifest["lexicon_sha256"]) == 64
    assert read_build(out).counts == manifest["counts"]


def test_rows_without_label_title_or_ingredients_are_counted_and_named(tmp_path):
    table = tmp_path / "recipes.jsonl"
    rows = [
        {"title": "Feta with olives", "ingredients": ["feta", "black olive", "caper"]},
        {"title": "Ham and bacon", "ingredients": ["ham", "bacon", "anchovy"]},
        {"title": "Nothing known", "ingredients": ["xyzzy"]},
        {"title": "", "ingredients": ["salt"]},
        {"title": "Air", "ingredients": []},
    ]
    table.write_text("\n".join(map(json.dumps, rows)))
    manifest = build(BuildSettings(str(table), generation=SMALL), tmp_path / "out", processes=1)
    skipped = {reason: (entry["count"], entry["names"]) for reason, entry in manifest["skipped_recipes"].items()}
    assert skipped == {
        "without flavour": (1, ["Nothing known"]),
        "without title": (1, ["row 4"]),
        "without ingredients": (1, ["Air"]),
    }
    assert manifest["rows"] == 2
    data = load_dataset(str(tmp_path / "out"))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 1, "test": 1}


def test_rows_of_one_given_dish_id_share_a_split(tmp_path):
    table = tmp_path / "recipes.csv"
    lines = [f'{dish},{kind} {dish},"sugar, honey"' for dish in ("lasagne", "cake", "pie", "tart") for kind in "abc"]
    table.write_text("\n".join(["dish_id,Title,Ingredients", *lines]))
    plan = Plan(BuildSettings(str(table)))
    assert sorted(len(items) for items in plan.recipes.values()) == [3, 3, 6]
    for items in plan.recipes.values():
        assert {item.dish.dish_id: 3 for item in items} == Counter(item.dish.dish_id for item in items)
        assert [item.dish.variant for item in items] == [0, 1, 2] * (len(items) // 3)


def test_a_recipe_of_which_nothing_is_seen_is_given_up_and_named(tmp_path):
    table = tmp_path / "recipes.jsonl"
    rows = [
        {"title": "Feta with olives", "ingredients": ["feta", "black olive", "caper"]},
        {"title": "Feta with capers", "ingredients": ["feta", "caper", "anchovy"]},
        {"title": "Bacon with olives", "ingredients": ["bacon", "black olive", "anchovy"]},
        {"title": "Ham with olives", "ingredients": ["ham", "black olive", "anchovy"]},
        {"title": "Sweet nothing", "ingredients": ["sugar", "vanilla extract", "sugar syrup"]},
    ]
    table.write_text("\n".join(map(json.dumps, rows)))
    manifest = build(BuildSettings(str(table), generation=SMALL), tmp_path / "out", processes=1)
    assert list(manifest["given_up"]) == ["sweet-nothing-00-00"]
    assert len(manifest["given_up"]["sweet-nothing-00-00"]) == 4
    assert manifest["rejected"] == {"empty plate": 4}
    assert manifest["rows"] == 4


def test_a_split_of_which_nothing_is_left_is_refused(tmp_path):
    table = tmp_path / "recipes.jsonl"
    table.write_text(json.dumps({"title": "Sweet nothing", "ingredients": ["sugar", "vanilla extract"]}))
    with pytest.raises(BadInputError, match="every picture of train was given up"):
        build(BuildSettings(str(table), generation=SMALL), tmp_path / "out", processes=1)


def test_a_table_of_which_nothing_is_left_is_refused(tmp_path):
    table = tmp_path / "recipes.csv"
    table.write_text("title,ingredients\nNothing known,xyzzy\n")
    with pytest.raises(BadInputError, match="can be used: 1 without flavour"):
        Plan(BuildSettings(str(table)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"images_per_dish": 0}, "images_per_dish is 0"), ({"number": 0}, "number is 0"), ({"seed": -1}, "seed is -1")],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(BadInputError, match=message):
        BuildSettings(**settings)


def test_several_pictures_of_a_recipe_stay_in_one_group(recipe_file):
    plan = Plan(BuildSettings(recipe_file, images_per_dish=3, recipes_per_shard=5, generation=SMALL))
    for shard in plan.shards():
        groups = list(plan.groups(shard))
        assert [item for group in groups for item in group] == plan.recipes[shard.split][shard.first : shard.last]
        assert all(len(group) * 3 <= 4 or len(group) == 1 for group in groups)


@pytest.fixture(scope="module")
def full_plan():
    return Plan(BuildSettings())


def test_the_catalogue_is_planned_in_full(full_plan):
    plan = full_plan
    rows = sum(map(len, plan.recipes.values()))
    assert rows + sum(entry.count for entry in plan.skipped.values()) == 3600
    assert len(plan.recipes["test"]) >= 500
    flavours = Counter(item.label.flavour for items in plan.recipes.values() for item in items)
    assert min(flavours[name] for name in FLAVOURS) >= 0.08 * rows
    dishes = {split: {item.dish.dish_id for item in items} for split, items in plan.recipes.items()}
    assert not dishes["train"] & dishes["test"]
    assert not dishes["train"] & dishes["validation"]
    assert not dishes["test"] & dishes["validation"]


def test_soft_labels_are_those_of_the_label_model_and_calibrated(full_plan):
    """How sure they are is how often the authors agree; the plain shares of the votes are far less sure."""
    reference = reference_flavours()
    named = [item for items in full_plan.recipes.values() for item in items if item.dish.variant == 0]
    scores = np.array([item.label.taste for item in named])
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    truth = [reference[item.dish.dish_id][0] for item in named]
    labeller = Labeller()
    shares = np.array([labeller.label(item.dish.title, item.dish.ingredients).taste for item in named])
    assert reliability(scores, truth).error < 0.06 < reliability(shares, truth).error


def test_no_dish_of_the_catalogue_is_an_empty_plate(full_plan):
    recipes = [item.dish for items in full_plan.recipes.values() for item in items]
    nothing = []
    for dish in recipes:
        prompt = prompts.render("ingredients", dish.title, dish.ingredients)
        named, vessel = find_ingredients(prompt), vessel_for(prompt)
        if not any(item.visible and shows(vessel, item) for item in named) and not hidden_liquids(vessel, named):
            nothing.append(dish.title)
    assert nothing == []


def builder(recipe_file, cache, **settings):
    return FlavourSD(cache_dir=str(cache), config_name="tiny", recipes=recipe_file, **settings)


def test_the_builder_class_gives_the_rows_of_the_build(recipe_file, built, tmp_path):
    made = builder(recipe_file, tmp_path, seed=3)
    made.download_and_prepare()
    expected = Plan(BuildSettings(recipe_file, seed=3, generation=GenerationSettings(size=64)))
    for split, data in made.as_dataset().items():
        assert data["id"][:] == [item.row_id(0) for item in expected.recipes[split]]
        stored = pq.read_table(sorted((built[0] / "data").glob(f"{split}-*")))
        table = data.data.table
        for name in stored.column_names:
            if name != "generation":
                assert stored[name].to_pylist() == table[name].to_pylist(), name


def test_the_cache_folder_changes_with_whatever_shapes_the_rows(recipe_file, tmp_path, monkeypatch):
    folders = {builder(recipe_file, tmp_path, **settings).cache_dir for settings in ({}, {"seed": 1}, {"size": 128})}
    assert len(folders) == 3
    assert builder(recipe_file, tmp_path).cache_dir in folders
    monkeypatch.setattr("dataset_builder.pictures.revisions.pipeline_revision", lambda *_: "another drawing")
    assert builder(recipe_file, tmp_path).cache_dir not in folders


def test_the_builder_states_version_and_configurations():
    assert str(FlavourSD.VERSION) == "1.0.0"
    assert list(FlavourSD.builder_configs) == ["full", "tiny"]
