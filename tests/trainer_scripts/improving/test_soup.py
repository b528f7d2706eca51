"""`--seeds N --soup`: the mean of the seeds' weights, kept where it scores higher on the selection split."""

import json

import pytest
import torch

from tests.trainer_scripts.conftest import refused
from tests.trainer_scripts.tiny_runs import SMALL, run, weights
from trainer_scripts import score, train
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.improving import soup

TEXT = ("--modality", "text", "--num_train_epochs", "1", "--learning_rate", "0.01")


@pytest.fixture(scope="module")
def seeds(small_dataset, tmp_path_factory):
    """Three seeds and their mean, chosen by the loss, which a mean nearly always lowers."""
    folder = tmp_path_factory.mktemp("soup") / "run"
    return run(folder, small_dataset, *TEXT, "--seeds", "3", "--soup", "true", "--metric_for_best_model", "loss")


def test_the_mean_is_that_of_the_seeds_it_names_and_scores_higher(seeds, small_dataset):
    record = json.loads((seeds / "soup.json").read_text())
    assert record["tried"] == [17, 18, 19]
    assert len(record["kept"]) > 1
    folders = {17: seeds, 18: seeds / "seed-1", 19: seeds / "seed-2"}
    members = [weights(folders[seed]) for seed in record["kept"]]
    for name, value in weights(seeds / "soup").items():
        if value.is_floating_point():
            mean = torch.stack([one[name].double() for one in members]).mean(0)
            torch.testing.assert_close(value, mean.to(value.dtype), msg=name)
    single = min(read_metrics(one)["selection"]["loss"] for one in folders.values())
    found = read_metrics(seeds / "soup")
    assert found["selection"]["loss"] == pytest.approx(record["mean"])
    assert found["selection"]["loss"] < single == pytest.approx(record["best_seed"])
    # It is a model like any other, with a limit of its own below which it may abstain.
    limits = [json.loads((one / "config.json").read_text())["abstain_below"] for one in (seeds / "soup", seeds)]
    assert limits[0] > 0
    assert limits[0] != limits[1]
    score.main([str(seeds / "soup"), str(small_dataset)])
    assert "seeds" in (seeds / "README.md").read_text()


def test_a_repeated_command_makes_it_no_second_time(seeds, small_dataset, monkeypatch):
    monkeypatch.setattr(soup, "greedy_mean", None)
    words = (*TEXT, "--seeds", "3", "--soup", "true", "--metric_for_best_model", "loss")
    run(seeds, small_dataset, *words)


def test_seeds_of_a_soup_start_from_the_same_weights_and_see_other_orders(small_dataset, tmp_path):
    still = ("--learning_rate", "0", "--modality", "text", "--num_train_epochs", "1")
    folder = run(tmp_path / "run", small_dataset, *still, "--seeds", "2", "--soup", "true")
    first, second = weights(folder), weights(folder / "seed-1")
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    # Nothing is gained by the mean of two equal models.
    assert json.loads((folder / "soup.json").read_text())["kept"] == []
    assert not (folder / "soup").exists()
    # One that was kept of other seeds would pass for the mean of these.
    (folder / "soup").mkdir()
    (folder / "soup.json").unlink()
    run(folder, small_dataset, *still, "--seeds", "2", "--soup", "true")
    assert not (folder / "soup").exists()


def test_a_soup_of_one_is_refused(small_dataset, tmp_path, capsys):
    words = ["flavour_fusion_tiny", "--dataset", small_dataset, "--output_dir", tmp_path / "run", *SMALL]
    assert "give --seeds N, at least 2" in refused(capsys, train, *words, "--soup", "true")
