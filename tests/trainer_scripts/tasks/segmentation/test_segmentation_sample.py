"""Segmentation on real photographs: from import to panels, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps
from transformers import pipeline

from dataset_builder.errors import BadInputError
from dataset_builder.importers import import_table
from tests.trainer_scripts.tasks.segmentation.conftest import arguments
from trainer_scripts import score, train


@pytest.fixture(scope="module")
def real_run(shared_data, tmp_path_factory):
    """Thirty-two real photographs from import to a trained model, for a moment."""
    folder = tmp_path_factory.mktemp("real")
    import_table("foodseg103", str(shared_data / "foodseg_sample"), folder / "data")
    settings = ["--label_level", "ingredient", "--num_train_epochs", "1"]
    train.main(arguments("segmentation", folder / "data", folder / "run", *settings))
    return folder


def test_real_photographs_run_from_import_to_panels(real_run):
    score.main([str(real_run / "run"), str(real_run / "data")])
    scores = real_run / "run" / "scores" / "test"
    content = json.loads((scores / "metrics.json").read_text())
    assert len(content["label_names"]) == 14
    assert Image.open(scores / "panels.png").size[0] > 4 * 150
    assert (scores / "flavour_map.png").is_file()
    assert "accuracy" not in content["details"]["flavour_map"]


def test_the_pipeline_answers_for_a_real_photograph(real_run, shared_data):
    photograph = next((shared_data / "foodseg_sample").rglob("*.jpg"))
    segmenter = pipeline("flavour-segmentation", model=str(real_run / "run"), trust_remote_code=True)
    found = segmenter(str(photograph))
    with Image.open(photograph) as picture:
        assert all(entry["mask"].size == ImageOps.exif_transpose(picture).size for entry in found)
    assert 0 <= sum(entry["area"] for entry in found) <= 1


def test_an_id_outside_the_classes_of_real_data_names_the_file(shared_data, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(shared_data / "foodseg_sample", source)
    path = sorted((source / "Images" / "ann_dir" / "train").glob("*.png"))[0]
    with Image.open(path) as mask:
        wrong = Image.fromarray(np.full((mask.height, mask.width), 200, np.uint8))
    wrong.save(path)
    with pytest.raises(BadInputError, match=f"{path.stem}.*200"):
        import_table("foodseg103", str(source), tmp_path / "data")
