"""Training in several processes: how many, that they do the work of one, and that errors come through."""

import os

import pytest
import torch

from tests.trainer_scripts.conftest import ROWS
from tests.trainer_scripts.tiny_runs import SMALL
from trainer_scripts.demos import all_cores
from trainer_scripts.demos.all_cores import process_count, train_on_all_cores
from trainer_scripts.evaluation.predictions import read_metrics


@pytest.mark.parametrize(
    ("cores", "rows", "count"), [(1, 64, 1), (2, 32, 2), (8, 32, 4), (3, 32, 2), (4, 8, 1), (2, 17, 1)]
)
def test_batches_are_shared_out_evenly(monkeypatch, cores, rows, count):
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert process_count(rows) == count


def test_a_gpu_needs_one_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert process_count(64) == 1


def arguments(dataset, out, *more):
    return ["flavour_title_tiny", "--dataset", str(dataset), "--output_dir", str(out), *SMALL, *more]


def test_two_processes_take_the_steps_of_one(monkeypatch, small_dataset, tmp_path):
    monkeypatch.setattr(all_cores, "process_count", lambda rows: 2)
    given = arguments(small_dataset, tmp_path / "two", "--per_device_train_batch_size", "16", "--num_train_epochs", "1")
    before = dict(os.environ)
    train_on_all_cores(given)
    assert dict(os.environ) == before
    assert read_metrics(tmp_path / "two")["steps"] == -(-ROWS["train"] // 16)
    assert (tmp_path / "two" / "model.safetensors").is_file()


@pytest.mark.slow
def test_an_error_of_a_process_is_told_once_and_ends_with_its_status(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(all_cores, "process_count", lambda rows: 2)
    with pytest.raises(SystemExit) as ended:
        train_on_all_cores(arguments(tmp_path / "nowhere", tmp_path / "out"))
    assert ended.value.code == 2
    told = capfd.readouterr().err
    assert "there is no data set at" in told
    assert "Traceback" not in told
