"""The card of a published build states what its manifest and rows hold, and what the publisher wrote before it."""

import csv
import json
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, HfApi

from dataset_builder.building.build import build
from dataset_builder.building.settings import BuildSettings
from dataset_builder.cli import main
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.settings import GenerationSettings
from dataset_builder.publishing.publish import publish
from tests.dataset_builder.tiny_build import make_row, make_rows, write_build

REPO = "org/flavour-sd"
LICENCE = "cc-by-4.0"
GENERATION = GenerationSettings(size=64)
OWN = (
    """---
language: de
pretty_name: Geschmack
tags: [essen]
size_categories: [n>1T]
configs: []
---
# {{ name }}

"""
    + "Words about it. " * 20
)


def dry_card(folder, tmp_path, repo=REPO, name="dry"):
    publish(folder, repo, "1.0.0", LICENCE, dry_run=tmp_path / name)
    return DatasetCard.load(tmp_path / name / "README.md")


def build_of(recipes, out, **settings):
    """Draw recipes, given as (title, ingredients)."""
    table = out.with_suffix(".csv")
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Title", "Ingredients"])
        writer.writerows((title, str(names)) for title, names in recipes)
    build(BuildSettings(str(table), generation=GENERATION, **settings), out, processes=1)
    return out


def published(name, repo=REPO):
    """Return the text of a file of the newest version."""
    return Path(HfApi().hf_hub_download(repo, name, repo_type="dataset")).read_text()


def refused(folder, capsys, repo=REPO):
    """Publish by the command; return its one line on stderr."""
    with pytest.raises(SystemExit) as stopped:
        main(["publish", str(folder), "--repo", repo, "--version", "1.0.0", "--license", LICENCE])
    assert stopped.value.code == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    return line


def test_the_language_is_known_of_the_catalogue_alone(tmp_path):
    assert dry_card(write_build(tmp_path / "own", make_rows()), tmp_path).data.language == ["en"]
    other = write_build(tmp_path / "other", make_rows(), {"settings": {"recipes": "рецепты.csv"}})
    assert dry_card(other, tmp_path, name="second").data.language is None


def test_what_the_publisher_states_of_the_data_stands(tmp_path):
    folder = write_build(tmp_path / "build", make_rows())
    (folder / "README.md").write_text(OWN, encoding="utf-8-sig")
    data = dry_card(folder, tmp_path).data
    assert (data.language, data.pretty_name, data.tags) == ("de", "Geschmack", ["essen"])
    assert (data.license, data.size_categories) == (LICENCE, ["n<1K"])
    assert [one["split"] for one in data.configs[0]["data_files"]] == ["train", "validation", "test"]


def test_two_licences_are_refused(tmp_path):
    folder = write_build(tmp_path / "build", make_rows())
    (folder / "README.md").write_text(OWN.replace("tags", "license: mit\ntags"))
    with pytest.raises(BadInputError, match=r"states the licence mit, --license cc-by-4\.0; make them agree"):
        dry_card(folder, tmp_path)


@pytest.mark.parametrize(
    ("column", "nothing", "task"),
    [("mask", None, "image-segmentation"), ("captions", [], "image-to-text")],
)
def test_tasks_are_those_that_the_columns_allow(tmp_path, column, nothing, task):
    full = dry_card(write_build(tmp_path / "full", make_rows()), tmp_path)
    assert task in full.data.task_categories
    rows = make_rows()
    for row in (row for split in rows.values() for row in split):
        row[column] = nothing
    empty = dry_card(write_build(tmp_path / "empty", rows), tmp_path, name="second")
    assert task not in empty.data.task_categories
    if column == "mask":
        assert "\n\nDrawn plates know where each ingredient lies, so `mask` and `captions` are exact.\n\n" in full.text
        assert "are exact" not in empty.text


def test_how_the_pictures_were_made_is_stated_in_full(tmp_path):
    rows = make_rows()
    for row in (row for split in rows.values() for row in split):
        row["generation"] |= {"lora": "org/plates@abc", "dtype": "float16", "prompt": "a photograph of | soup"}
    generator = {
        "pipeline": "org/sd", "template": "photo", "negative_prompt": "blurry", "masks": "attention", "clip": None,
        "attempts": 3,
    }  # fmt: skip
    text = dry_card(write_build(tmp_path / "build", rows, {"generator": generator, "simulator": False}), tmp_path).text
    for line in (
        "| plating | 1 | org/plates@abc | float16 | 48 x 48 |",
        "- prompt template: photo\n",
        "- negative prompt: blurry\n",
        "- masks from: attention\n",
        "- attempts at a picture before its row is given up: 3\n",
        "- the first prompt, as an example: a photograph of \\| soup\n",
    ):
        assert line in text
    assert "CLIP" not in text


def test_names_and_rows_may_hold_words_that_placeholders_hold(connected_hub, tmp_path):
    repo = "org/todo-recipes"
    publish(write_build(tmp_path / "first", make_rows()), repo, "1.0.0", LICENCE)
    rows = make_rows()
    rows["train"].append(make_row(50, id="todo", dish_id="todo", title="TBD <!-- {{ x }} [optional]"))
    publish(write_build(tmp_path / "second", rows), repo, "1.1.0", LICENCE)
    assert "added: `todo`" in published("README.md", repo)


def test_a_change_of_ingredients_alone_is_a_change(connected_hub, tmp_path, recipe_file):
    with open(recipe_file, newline="") as file:
        recipes = [(row["Title"], row["Ingredients"]) for row in csv.DictReader(file)]
    first = build_of(recipes, tmp_path / "first")
    publish(first, REPO, "1.0.0", LICENCE)
    recipes[3] = (recipes[3][0], recipes[3][1].replace("'honey'", "'honey', 'a pinch of nutmeg'"))
    publish(build_of(recipes, tmp_path / "second"), REPO, "1.1.0", LICENCE)
    text = published("README.md")
    assert "| 1.1.0 | 18 | 1.0.0 | 0 | 0 | 0 | 0 | 0 | 1 |" in text
    assert "- recipe changed: `peach-cake-00-00`" in text
    assert json.loads(published("manifest.json"))["history"][1]["recipe_changed"] == 1


def test_several_pictures_of_a_dish_are_published(connected_hub, tmp_path, recipe_file):
    out = tmp_path / "build"
    build(BuildSettings(recipe_file, images_per_dish=3, generation=GENERATION), out, processes=1)
    publish(out, REPO, "1.0.0", LICENCE)
    assert "holds 54 pictures of 18 dishes" in published("README.md")
    assert "settings of the rule: rule weighed, min_lead 0.0" in published("README.md")
    printed = connected_hub.run_python(
        """
from datasets import load_dataset
rows = load_dataset("org/flavour-sd", revision="v1.0.0")
sets = [set(split["dish_id"]) for split in rows.values()]
print(sum(map(len, rows.values())), len(set().union(*sets)), sum(map(len, sets)))
print(len({image.tobytes() for split in rows.values() for image in split["image"]}))
"""
    )
    assert printed.split() == ["54", "18", "18", "54"]


def test_a_build_whose_splits_are_empty_is_published(connected_hub, tmp_path):
    recipes = [("Strawberry meringue", ["strawberry", "sugar", "honey"]), ("Ham and feta", ["ham", "feta", "salt"])]
    out = build_of(recipes, tmp_path / "build")
    publish(out, REPO, "1.0.0", LICENCE)
    card = published("README.md")
    assert "There are no rows of validation and test: the recipes were too few" in card
    assert 'split="test"' not in card
    printed = connected_hub.run_python(
        """
from datasets import load_dataset
print({split: len(rows) for split, rows in load_dataset("org/flavour-sd", revision="v1.0.0").items()})
"""
    )
    assert printed.strip() == "{'train': 2}"
    more = build_of([*recipes, ("Feta and ham", ["feta", "ham", "olive", "salt"])], tmp_path / "more")
    publish(more, REPO, "1.1.0", LICENCE)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("README.md", "# Ragoût\n".encode("latin-1"), "README.md is not UTF-8"),
        ("manifest.json", b"[]", "holds no JSON object but list; build again"),
        ("manifest.json", b"\xff", "is not UTF-8"),
    ],
)
def test_broken_files_of_a_build_are_one_line(connected_hub, tmp_path, capsys, name, content, message):
    folder = write_build(tmp_path / "build", make_rows())
    (folder / name).write_bytes(content)
    assert message in refused(folder, capsys)
    assert connected_hub.store.repos("datasets") == []


def test_a_manifest_of_other_shapes_is_one_line(tmp_path, capsys):
    folder = write_build(tmp_path / "build", make_rows(), {"counts": [1], "generator": "me"})
    assert "manifest.json: generator holds me (str) where a mapping of names" in refused(folder, capsys)
