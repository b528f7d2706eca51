"""A small table with masks, and the three models of the system, trained on it for a moment."""

import numpy as np
import pytest

from dataset_builder.columns import UNKNOWN
from tests.trainer_scripts.conftest import ROWS, make_row, png, write_dataset
from trainer_scripts import train
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training.data import load_training_data

TINY = [
    "--vision_config", '{"model_type": "timm_wrapper", "architecture": "test_resnet"}', "--image_size", "32",
    "--per_device_train_batch_size", "10", "--use_cpu", "true", "--disable_tqdm", "true", "--num_train_epochs", "3",
    "--precision", "fp32", "--learning_rate", "5e-3", "--image_learning_rate", "none", "--warmup_steps", "0",
    "--ema_decay", "0.7", "--freeze_image", "false",
    "--crop_size", "32", "--crop_scale_most", "1", "--mask_stride", "1", "--class_weights", "true",
    "--eval_strategy", "epoch", "--save_strategy", "epoch",
]  # fmt: skip
HEADS = {
    "segmentation": '{"head": "deeplabv3plus", "aspp_channels": 16, "aspp_rates": [1, 2], "dropout": 0.0}',
    "multitask": '{"ingredient_head": true, "ingredients_from": "masks"}',
    "ingredients": '{"head": "none", "ingredient_head": true, "dropout": 0.0}',
}


def arguments(kind, dataset, out, *more):
    configuration = "ingredients_tiny" if kind == "ingredients" else f"{kind}_deeplabv3_tiny"
    return [configuration, *TINY, "--config", HEADS[kind], "--dataset", str(dataset), "--output_dir", str(out), *more]


def parts_of(dataset, folder, *more):
    """A segmentation configuration, its data, model and processor."""
    configuration = parse_configuration(arguments("segmentation", dataset, folder / "run", *more))
    data = load_training_data(configuration)
    model, processor = data.task.build(configuration, data)
    return configuration, data, model, processor


@pytest.fixture(scope="session")
def mask_data(tmp_path_factory):
    """Pictures whose left half shows one ingredient on black, with a corner that nobody knows."""
    rows = {}
    for split, number in ROWS.items():
        rows[split] = []
        for index in range(number):
            row = make_row(split, index * 3 + 1)
            pixels = np.zeros((32, 32, 3), dtype=np.uint8)
            draw = np.random.default_rng([index, number, len(split)])
            colour = np.array([(230, 90, 120), (220, 200, 90), (120, 220, 90), (70, 50, 240), (250, 250, 250)])
            pixels[:, :16] = np.clip(colour[row["flavour"]] + draw.integers(-20, 20, (32, 16, 3)), 0, 255)
            mask = np.zeros((32, 32), dtype=np.uint8)
            mask[:, :16] = row["flavour"] + 1
            mask[:4, :4] = UNKNOWN
            row["image"], row["mask"] = ({"bytes": png(array), "path": None} for array in (pixels, mask))
            rows[split].append(row)
    return write_dataset(tmp_path_factory.mktemp("masks") / "data", rows)


@pytest.fixture(scope="session")
def runs(mask_data, tmp_path_factory):
    """The three models of the system, trained for a moment."""
    folder = tmp_path_factory.mktemp("runs")
    for kind in HEADS:
        start = ["--init_segmenter", str(folder / "segmentation")] if kind == "multitask" else []
        settings = ["--num_train_epochs", "6", *(["--gradient_log_steps", "5"] if start else [])]
        train.main(arguments(kind, mask_data, folder / kind, *start, *settings))
    return folder
