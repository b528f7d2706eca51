"""Training in several processes: how many, and that errors come through.

That they learn what one learns is in `training/test_two_processes.py`.
"""

import json
import os
from pathlib import Path

import pytest
import torch

from tests.trainer_scripts.tiny_runs import SMALL
from trainer_scripts.demos import all_cores
from trainer_scripts.demos.all_cores import process_count, train_on_all_cores


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


@pytest.mark.slow
def test_an_error_of_a_process_is_told_once_and_ends_with_its_status(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(all_cores, "process_count", lambda rows: 2)
    # Processes that were split off write where the first of them wrote, which another test has captured.
    monkeypatch.setattr(all_cores, "START", "spawn")
    places = ["--dataset", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        train_on_all_cores(["flavour_title_tiny", *places, *SMALL])
    assert ended.value.code == 2
    told = capfd.readouterr().err
    assert "there is no data set at" in told
    assert "Traceback" not in told


def tell_environment(rank, folder):
    told = {"at": os.environ["TOLD_AT"], "rows": os.environ["ROWS"], "threads": torch.get_num_threads()}
    Path(folder, f"{rank}.json").write_text(json.dumps(told))


def test_each_piece_of_work_has_the_environment_of_its_time(monkeypatch, tmp_path):
    for at in ("first", "second"):
        monkeypatch.setenv("TOLD_AT", at)
        (tmp_path / at).mkdir()
        all_cores._side_by_side(tell_environment, str(tmp_path / at), 2, {"rows": 7})
        told = [json.loads((tmp_path / at / f"{rank}.json").read_text()) for rank in range(2)]
        assert told == [{"at": at, "rows": "7", "threads": max(1, torch.get_num_threads() // 2)}] * 2
