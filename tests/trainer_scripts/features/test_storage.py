"""Features on disk: resumed, shared by runs that start at once, taken over from killed ones, never half read."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from accelerate.utils.other import get_free_port

from trainer_scripts.features.storage import DONE, FINISHED, stored_features

ROWS, VIEWS, BATCH = 100, 2, 3
KEY = {"part": "image", "views": VIEWS}
EXPECTED = np.array([[place, place**2] for place in range(VIEWS * ROWS)], np.float32)


class Squares:
    """Features that take a while, and a list of those that were computed."""

    def __init__(self, fail_at: int | None = None, log: Path | None = None, seconds: float = 0.0):
        self.fail_at, self.log, self.seconds, self.ran = fail_at, log, seconds, []

    def prepare(self):
        pass

    def load(self, place):
        return place

    def run(self, loaded):
        if self.fail_at in loaded:
            raise KeyboardInterrupt
        time.sleep(self.seconds)
        self.ran += loaded
        if self.log is not None:
            with self.log.open("a") as file:
                file.write("".join(f"{place}\n" for place in loaded))
        return np.array([[place, place**2] for place in loaded], np.float32)


def one_run(folder: Path, log: Path, seconds: float) -> None:
    """What one of several runs does: all features are right as soon as it has them."""
    stored = stored_features(folder, KEY, ROWS, Squares(log=log, seconds=seconds), batch_size=BATCH)
    sys.exit(0 if np.array_equal(stored.values, EXPECTED) else 3)


def start(folder: Path, log: Path, seconds: float = 0.002) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=one_run, args=(folder, log, seconds))
    process.start()
    return process


def ended_well(*processes: multiprocessing.Process) -> bool:
    for process in processes:
        process.join(120)
    return all(process.exitcode == 0 for process in processes)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def marked(folder: Path) -> int:
    """How many batches are done."""
    return sum(int(np.load(path).sum()) for path in folder.glob(f"*/{DONE}"))


def computed(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()]


def test_an_interrupted_computation_goes_on_where_it_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        stored_features(tmp_path, KEY, ROWS, Squares(fail_at=150), batch_size=BATCH)
    (folder,) = tmp_path.iterdir()
    assert not (folder / FINISHED).exists()
    done = marked(tmp_path)
    second = Squares()
    stored = stored_features(tmp_path, KEY, ROWS, second, batch_size=BATCH)
    assert min(second.ran) == BATCH * done > 0
    assert stored.views == VIEWS
    assert torch.equal(stored.of(7, epoch=3), torch.tensor([107.0, 107.0**2]))
    third = Squares()
    stored_features(tmp_path, KEY, ROWS, third, batch_size=BATCH)
    assert third.ran == []


def test_runs_that_start_at_once_compute_everything_once(tmp_path):
    log = tmp_path / "log"
    assert ended_well(*[start(tmp_path / "features", log) for _ in range(4)])
    # Place 0 once more: it tells the shape.
    assert sorted(computed(log)) == [0, *range(VIEWS * ROWS)]


def test_a_run_takes_over_from_a_killed_one_and_trusts_only_what_was_marked(tmp_path, capfd):
    folder, log = tmp_path / "features", tmp_path / "log"
    killed = start(folder, log, seconds=0.02)
    wait_for(lambda: marked(folder) > 0)
    second_log = tmp_path / "second"
    waiting = start(folder, second_log)
    time.sleep(0.3)
    assert killed.is_alive()
    assert not second_log.exists()
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    done = marked(folder)
    assert not list(folder.glob(f"*/{FINISHED}"))
    assert ended_well(waiting)
    assert "another run computes" in capfd.readouterr().err
    assert computed(second_log) == list(range(BATCH * done, VIEWS * ROWS))


@pytest.mark.parametrize("missing", [DONE, "features.npy"])
def test_a_run_killed_while_it_made_room_leaves_nothing_that_is_trusted(tmp_path, missing):
    with pytest.raises(KeyboardInterrupt):
        stored_features(tmp_path, KEY, ROWS, Squares(fail_at=5), batch_size=BATCH)
    (folder,) = tmp_path.iterdir()
    (folder / DONE).unlink()
    (folder / missing).unlink(missing_ok=True)
    stored = stored_features(tmp_path, KEY, ROWS, Squares(), batch_size=BATCH)
    assert np.array_equal(stored.values, EXPECTED)


def one_process(rank: int, port: int, folder: Path, log: Path) -> None:
    """What a launcher starts: a process that knows its rank and meets the other one."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo",
    )  # fmt: skip
    PartialState._reset_state()  # forked from a process that may have one
    PartialState(cpu=True)
    one_run(folder, Path(f"{log}-{rank}"), 0.02)


def launch(processes: int, *command: str) -> subprocess.Popen:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    return subprocess.Popen([*launcher, *command], stderr=subprocess.PIPE, text=True, env=environment)


def ended_without_error(*launched: subprocess.Popen) -> None:
    for process in launched:
        _, said = process.communicate(timeout=500)
        assert process.returncode == 0, said[-2000:]


def test_two_launched_processes_share_the_work_beside_another_run(tmp_path):
    folder, log, port = tmp_path / "features", tmp_path / "log", get_free_port()
    context = multiprocessing.get_context("fork")
    launched = [context.Process(target=one_process, args=(rank, port, folder, log)) for rank in range(2)]
    for process in launched:
        process.start()
    other = tmp_path / "other"
    wait_for(lambda: marked(folder) > 0 or not any(process.is_alive() for process in launched))
    beside = start(folder, other)
    assert ended_well(*launched, beside)
    places = [place for rank in range(2) for place in computed(Path(f"{log}-{rank}"))]
    assert sorted(places) == [0, *range(VIEWS * ROWS)]
    assert not other.exists()


@pytest.mark.slow
def test_two_training_runs_at_once_in_two_processes_each_learn_what_one_alone_does(small_dataset, tmp_path):
    from safetensors.torch import load_file

    from tests.trainer_scripts.features.test_frozen import FROZEN, HEADS
    from trainer_scripts import train

    config = json.dumps({"text_pooling": "lstm", "lstm_hidden_size": 8, "lstm_layers": 1, **HEADS})
    common = ["flavour_fusion_tiny", "--dataset", str(small_dataset), *FROZEN, "--config", config]
    common += ["--frozen_features", "store"]
    shared = ["--features_dir", str(tmp_path / "features")]
    runs = [launch(2, train.__file__, *common, *shared, "--output_dir", str(tmp_path / name)) for name in "ab"]
    ended_without_error(*runs)
    assert len(list((tmp_path / "features").glob(f"*/{FINISHED}"))) == 4
    alone = ["--features_dir", str(tmp_path / "own"), "--output_dir", str(tmp_path / "c")]
    ended_without_error(launch(2, train.__file__, *common, *alone))
    expected = load_file(tmp_path / "c" / "model.safetensors")
    for name in "ab":
        found = load_file(tmp_path / name / "model.safetensors")
        assert all(torch.equal(found[key], value) for key, value in expected.items())
