"""Masks that teach a classifier what lies at each place."""

import json

import pytest
import torch

from dataset_builder.errors import BadInputError
from tests.trainer_scripts.conftest import write_dataset
from trainer_scripts import train
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.classification.training import build, training_samples
from trainer_scripts.training.data import load_training_data

TINY = [
    "plates_resnet18",
    "--class_crops",
    "false",
    "--crop_size",
    "none",
    "--crop_scale",
    "0.6",
    "--crop_scale_most",
    "1",
    "--vision_config",
    '{"model_type": "timm_wrapper", "architecture": "test_resnet"}',
    "--image_size",
    "32",
]


def configuration_of(dataset, *arguments):
    return parse_configuration([*TINY, "--dataset", str(dataset), *arguments])


def samples_of(dataset, *arguments):
    configuration = configuration_of(dataset, *arguments)
    data = load_training_data(configuration)
    _, processor = build(configuration, data)
    return training_samples(configuration, data, processor)


@pytest.mark.parametrize("variation", [(), ("--crop_scale", "1", "--flip", "false", "--quarter_turns", "false")])
def test_masks_travel_with_their_pictures(small_dataset, variation):
    configuration = configuration_of(small_dataset, *variation)
    data = load_training_data(configuration)
    model, processor = build(configuration, data)
    samples = training_samples(configuration, data, processor)
    assert model.config.num_place_labels == len(data.train.rows.features["ingredient_labels"].feature.names)
    for index in range(6):
        sample = samples[index]
        assert sample["mask"].shape == sample["picture"].shape[-2:]
        # Each picture of this table shows one thing only.
        assert set(sample["mask"].unique().tolist()) == {data.train.rows[index]["ingredient_labels"][0]}


def test_a_turned_mask_lies_as_its_picture_does(small_dataset):
    samples = samples_of(small_dataset, "--color_jitter", "0")
    row, column = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    samples.masks = {0: (4 * row + column).to(torch.uint8)}
    samples.pictures = {0: samples.masks[0].expand(3, -1, -1).clone()}
    for epoch in range(5):
        samples.epoch = epoch
        sample = samples[0]
        # Interpolated pixels and nearest ids differ by less than a step of the ramp.
        difference = (sample["picture"][0].int() - sample["mask"].int()).abs().float()
        assert difference.median() <= 4, epoch


def test_what_a_crop_cuts_off_is_none_of_its_labels(small_dataset):
    crops = ("--class_crops", "true", "--crop_size", "8", "--crop_scale", "0.05", "--crop_scale_most", "0.1")
    samples = samples_of(small_dataset, *crops)
    mask = torch.zeros(32, 32, dtype=torch.uint8)
    mask[:, :12], mask[:, 28:] = 1, 2
    samples.masks = {0: mask}
    samples.table.labels[0, :3] = (0, 1, 1)
    found = set()
    for samples.epoch in range(20):
        sample = samples[0]
        assert sample["picture"].shape[-2:] == (8, 8)
        assert sample["labels"][1:3].tolist() == [bool((sample["mask"] == number).any()) for number in (1, 2)]
        found.add(tuple(sample["labels"][1:3].tolist()))
    assert found == {(1, 0), (0, 1)}


def test_crops_around_classes_need_masks(small_dataset):
    with pytest.raises(BadInputError, match="class_crops centres crops on the classes of masks"):
        samples_of(small_dataset, "--class_crops", "true", "--config", '{"image_pooling": "backbone"}')


def test_a_data_set_without_masks_is_refused(tmp_path, small_rows, capsys):
    from datasets import load_dataset

    folder = write_dataset(tmp_path / "whole", small_rows)
    bare = tmp_path / "bare" / "data"
    bare.mkdir(parents=True)
    for split, rows in load_dataset(str(folder)).items():
        rows.remove_columns(["mask"]).to_parquet(bare / f"{split}-00000-of-00001.parquet")
    with pytest.raises(SystemExit) as stop:
        train.main([*TINY, "--dataset", str(bare.parent), "--output_dir", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "there is no column 'mask'; leave them out of config" in capsys.readouterr().err


def test_picture_and_fusion_start_from_the_warm_up(small_dataset, tmp_path):
    common = ["--dataset", str(small_dataset), "--num_train_epochs", "1", *TINY[1:]]
    train.main(["plates_resnet18", "--output_dir", str(tmp_path / "warm"), *common])
    start = ["--init_image_encoder", str(tmp_path / "warm")]
    train.main(["flavour_fusion_tiny", "--output_dir", str(tmp_path / "fusion"), *start, *common])
    config = json.loads((tmp_path / "fusion" / "config.json").read_text())
    assert (config["image_pooling"], config["num_place_labels"]) == ("places", 6)
