"""Pretraining of the shipped image encoder: what its plates show, and the road from plates to a checkpoint."""

import json

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image
from transformers import AutoModel

from dataset_builder.catalogue.ingredients import catalogue_dishes, find_ingredients, ingredients_by_name
from dataset_builder.columns import FLAVOUR, FLAVOURS_PRESENT, IMAGE, INGREDIENT_LABELS, INGREDIENTS, MASK, TASTE, TITLE
from dataset_builder.errors import BadInputError
from dataset_builder.local_hub.store import card_errors
from trainer_scripts import pretrain
from trainer_scripts.pretraining import plates
from trainer_scripts.pretraining.plates import TRAIN, VALIDATION, PlateSettings, draw_row, random_names
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.common.package_weights import SHIPPED, package_folder, with_packages

NAME = "plates-resnet18"


def dishes() -> set[frozenset[str]]:
    return {
        frozenset(item.name for line in dish.ingredients for item in find_ingredients(line))
        for dish in catalogue_dishes()
    }


def test_no_plate_is_a_dish_of_the_catalogue():
    known = dishes()
    rng = np.random.default_rng(0)
    names = [random_names(rng) for _ in range(3000)]
    assert all(frozenset(each) not in known for each in names)
    visible = {name for each in names for name in each if ingredients_by_name()[name].visible}
    assert len(visible) > 240  # rare ingredients are drawn too


def test_a_set_that_is_a_dish_is_drawn_again(monkeypatch):
    drawn = random_names(np.random.default_rng(5))
    monkeypatch.setattr(plates, "catalogue_sets", lambda: frozenset({frozenset(drawn)}))
    assert set(random_names(np.random.default_rng(5))) != set(drawn)


def test_a_plate_follows_from_seed_and_number_and_has_no_label_of_taste():
    settings = PlateSettings(seed=3, size=64)
    row = draw_row(settings, TRAIN, 7)
    assert row == draw_row(settings, TRAIN, 7)
    assert row[IMAGE] != draw_row(settings, TRAIN, 8)[IMAGE]
    assert row[IMAGE] != draw_row(settings, VALIDATION, 7)[IMAGE]
    columns = set(plates.plate_features())
    assert columns == set(row)
    assert not columns & {FLAVOUR, FLAVOURS_PRESENT, TASTE, TITLE, "label_votes"}


def test_plates_are_drawn_once_in_files_that_load(tmp_path, monkeypatch):
    monkeypatch.setattr(plates, "PLATES_PER_SHARD", 2)
    settings = PlateSettings(train=3, validation=1, size=64)
    folder = tmp_path / "data"
    folder.mkdir()
    for shard in settings.shards():
        plates._draw_shard(settings, folder, shard)
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(times) == 3
    for shard in settings.shards():
        plates._draw_shard(settings, folder, shard)
    assert times == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    data = load_dataset(str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in data.items()} == {TRAIN: 3, VALIDATION: 1}
    for row in data[TRAIN]:
        ids = set(np.unique(np.asarray(row[MASK]))) - {0}
        assert ids == set(row[INGREDIENT_LABELS])
        assert isinstance(row[IMAGE], Image.Image)
        assert row[INGREDIENTS]


def test_plates_to_a_checkpoint_that_starts_a_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    work, out = tmp_path / "work", tmp_path / "encoder"
    command = ["--work", str(work), "--out", str(out), "--plates", "16", "--validation", "8", "--epochs", "1"]
    pretrain.main(command)
    record = json.loads((out / "training.json").read_text())
    assert record["plates"] == {"train": 16, "validation": 8, "seed": 0, "size": 128}
    assert "16 plated pictures" in (out / "README.md").read_text()
    encoder = AutoModel.from_pretrained(out).image_encoder
    assert encoder.place_head.out_features > 240
    with pytest.raises(SystemExit) as ended:
        pretrain.main([*command, "--seed", "1"])
    assert ended.value.code == 2
    assert "plates of other settings" in capsys.readouterr().err


def test_the_shipped_checkpoint_is_small_loads_by_name_and_says_what_made_it():
    folder = package_folder(NAME)
    assert folder == SHIPPED / NAME
    assert (folder / "model.safetensors").stat().st_size <= 6_000_000
    record = json.loads((folder / "training.json").read_text())
    assert record["plates"]["train"] >= 100_000
    encoder = AutoModel.from_pretrained(folder).image_encoder
    assert all(value.isfinite().all() for value in encoder.state_dict().values())


@pytest.mark.parametrize("folder", sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()))
def test_the_block_of_each_shipped_card_runs(folder, monkeypatch):
    monkeypatch.chdir(SHIPPED)
    card = (SHIPPED / folder / "README.md").read_text()
    assert card_errors(card) == []
    names: dict = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    loaded = [value for value in names.values() if isinstance(value, torch.nn.Module)]
    assert loaded
    assert all(value.isfinite().all() for value in loaded[0].state_dict().values())


def test_names_of_packaged_checkpoints_are_resolved_and_unknown_ones_refused(tmp_path):
    given = ["flavour_picture_tiny", "--init_image_encoder", f"package:{NAME}", "--output_dir", str(tmp_path)]
    configuration = parse_configuration(given)
    assert with_packages(configuration).model.init_image_encoder == str(package_folder(NAME))
    assert configuration.model.init_image_encoder == f"package:{NAME}"
    with pytest.raises(BadInputError, match=r"called 'nothing'; there are plates-resnet18, efficientnet"):
        package_folder("nothing")
