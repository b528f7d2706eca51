"""Data as it comes: a last batch of one row, masks with -100, tables with paths of pictures."""

import csv
import re

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_flavour.segmentation_losses_flavour import segmentation_loss
from tests.modeling_flavour.tiny import mask_batch, tiny_segmenter
from tests.trainer_scripts.conftest import refused
from tests.trainer_scripts.tiny_runs import SMALL, make_trainer, run
from trainer_scripts import score, train
from trainer_scripts.data.splits import open_dataset
from trainer_scripts.tasks.segmentation.scores import confusion_matrix


def test_a_last_batch_of_one_row_trains(small_dataset, tmp_path):
    """Pictures of 32 pixels shrink to one place, where batch normalisation has no statistics of one row."""
    one = ("--max_train_samples", "16", "--modality", "image", "--num_train_epochs", "1")
    trainer = make_trainer(small_dataset, tmp_path, *one)
    before = {name: value.clone() for name, value in trainer.model.named_buffers() if name.endswith("running_mean")}
    norms = [module for module in trainer.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    trainer.train()
    assert trainer.state.global_step == 2
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.named_buffers() if name in before)
    batch = trainer.data_collator([trainer.train_dataset[0]])
    trainer.model.train()
    loss = trainer.training_step(trainer.model, batch)
    assert loss.isfinite()
    assert all(module.training for module in norms)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "dice", "lovasz"])
def test_what_pytorch_ignores_in_masks_is_unknown(kind):
    batch = mask_batch(ingredients=False)
    model = tiny_segmenter(loss=kind).eval()
    other = {**batch, "labels": batch["labels"].masked_fill(batch["labels"] == 255, -100)}
    torch.testing.assert_close(model(**other).loss, model(**batch).loss)
    logits = torch.randn(2, 3, 4, 4)
    assert segmentation_loss(logits, torch.full((2, 4, 4), -100), kind, 255) == 0
    truth = np.array([[0, -100], [255, 1]])
    assert confusion_matrix(truth, np.array([[0, 1], [1, 1]]), 2).tolist() == [[1, 0], [0, 1]]


@pytest.fixture(scope="module")
def csv_folder(tmp_path_factory):
    """A folder with two CSV files and the pictures that they name; one has none."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "photos").mkdir()
    draw = np.random.default_rng(0)
    for split, number in (("train", 30), ("test", 10)):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "title", "flavour"])
            for index in range(number):
                name = f"photos/{split}-{index}.png"
                Image.fromarray(draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / name)
                writer.writerow([name, f"{split} dish {index}", ("sweet", "salty")[index % 2]])
    return folder


def test_csv_with_picture_paths_is_trained_on_and_scored(csv_folder, tmp_path):
    settings = ("--group_column", "none", "--num_train_epochs", "1", "--config", "{}")
    folder = run(tmp_path / "run", csv_folder, *settings)
    score.main([str(folder), str(csv_folder), "--split", "test", "--out", str(tmp_path / "scores")])
    assert (tmp_path / "scores" / "metrics.json").is_file()


def test_a_single_csv_file_is_a_data_set_and_a_lost_picture_is_named(csv_folder, tmp_path, capsys):
    rows = open_dataset(str(csv_folder / "train.csv"))["train"]
    assert rows[0]["image"].size == (32, 32)
    (tmp_path / "train.csv").write_text("image,title,flavour\n1.png,one,sweet\n2.png,two,salty\n")
    command = ["flavour_fusion_tiny", "--dataset", tmp_path / "train.csv", "--group_column", "none", *SMALL]
    command += ["--output_dir", tmp_path / "run"]
    message = refused(capsys, train, *command, "--config", "{}")
    assert re.search(r"[12]\.png cannot be read", message)
