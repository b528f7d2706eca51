"""A small data set, tiny models of every page, and the app that serves them, started once."""

import csv
from argparse import Namespace
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the app needs gradio, which is not installed here")

from dataset_builder.building.build import build
from dataset_builder.building.plan import BuildSettings
from dataset_builder.files import write_json
from dataset_builder.pictures.settings import GenerationSettings
from modeling_flavour import FlavourForTransformerCaptioning
from tests.dataset_builder.conftest import RECIPES
from tests.modeling_flavour.contract import randomise
from tests.modeling_flavour.family import (
    caption_processor,
    captioner,
    classifier,
    fusion_processor,
    segmenter,
    whole_processor,
)
from trainer_scripts.app_pages.models import load_models
from trainer_scripts.app_pages.run import serve
from trainer_scripts.data.row_index import open_rows

# A stranger's title, which is shown on many pages and must be text on all of them.
HOSTILE = "<video src=x onerror=\"document.title='broken'\">${1+1} {{2+2}} Peach tart"
MODELS = {
    "fusion": (classifier(), fusion_processor),
    "several": (classifier(problem_type="multi_label_classification"), fusion_processor),
    "captioner": (captioner(FlavourForTransformerCaptioning), caption_processor),
    "segmenter": (segmenter(), whole_processor),
}


@pytest.fixture(scope="session")
def app_recipes(tmp_path_factory) -> Path:
    """A table of recipes, the first of which has a title that tries to be markup."""
    path = tmp_path_factory.mktemp("app") / "recipes.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Title", "Ingredients", "Instructions"])
        writer.writerow([HOSTILE, "['peach', 'sponge cake', 'sugar', 'honey']", "=1+1"])
        writer.writerows((title, str(names.split("|")), "Serve.") for title, names in RECIPES)
    return path


@pytest.fixture(scope="session")
def app_settings(app_recipes) -> BuildSettings:
    return BuildSettings(str(app_recipes), generation=GenerationSettings(size=64, batch_size=8))


@pytest.fixture(scope="session")
def app_data(app_settings, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("app-data") / "flavour-sd"
    build(app_settings, folder, 1)
    return folder


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory) -> dict[str, str]:
    root, folders = tmp_path_factory.mktemp("app-models"), {}
    for name, (make, processor) in MODELS.items():
        randomise(make()).save_pretrained(root / name)
        processor().save_pretrained(root / name)
        folders[name] = str(root / name)
    write_json(root / "fusion" / "comparison.json", {"calibration": {"fusion": {"temperature": 2.0}}})
    return folders


@pytest.fixture(scope="session")
def served(model_folders):
    """The models as the app holds them, by name."""
    return {one.name: one for one in load_models(list(model_folders.values()), None, False)}


@pytest.fixture(scope="session")
def rows(app_data):
    table = open_rows(str(app_data))
    assert table.read.wait(30)
    return table


@pytest.fixture(scope="session")
def app(model_folders, app_data):
    """The address of the app, with every page."""
    given = Namespace(
        models=list(model_folders.values()), dataset=str(app_data), revision=None, trust_remote_code=False,
        pipeline="plating", host=None, port=None, waiting=100, threads=None, examples=None,
    )  # fmt: skip
    with serve(given) as address:
        yield address
