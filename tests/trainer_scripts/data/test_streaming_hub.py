"""Training rows that stream from a Hub, read by the real client libraries, in one process and shared out to two."""

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from dataset_builder.local_hub.server import LocalHub
from tests.trainer_scripts.conftest import write_dataset
from tests.trainer_scripts.data.test_streaming import STREAM, tokens
from tests.trainer_scripts.tiny_runs import INTERRUPTED, SMALL, assert_equal_weights, interrupted_after, run
from trainer_scripts import train
from trainer_scripts.data.streaming import StreamSamples
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training.checkpoints import newest_checkpoint
from trainer_scripts.training.data import load_training_data

ROOT = Path(__file__).resolve().parents[3]
# Two processes share four files out, and read all of three.
CUTS = {"org/four-files": (0, 20, 35, 50, 60), "org/three-files": (0, 25, 40, 60)}
STEPS = ("--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "2", "--eval_steps", "2")
STEPS += ("--load_best_model_at_end", "false")  # the best checkpoint may be older than the interruption

UPLOAD = """
import sys
from huggingface_hub import HfApi
for name, folder in {folders!r}.items():
    HfApi().create_repo(name, repo_type="dataset")
    HfApi().upload_folder(repo_id=name, repo_type="dataset", folder_path=folder)
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory, small_rows):
    folder = tmp_path_factory.mktemp("streamed")
    folders = {}
    for name, cuts in CUTS.items():
        folders[name] = str(write_dataset(folder / name, small_rows, {"train": cuts}))
    with LocalHub(folder / "hub", tokens={"hf_writer": "org"}) as hub:
        hub.run_python(UPLOAD.format(folders=folders), token="hf_writer")
        yield hub


@pytest.fixture
def connected(hub, monkeypatch, tmp_path):
    from tests.conftest import connect

    connect(hub, monkeypatch, tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    return hub


def two_rounds(dataset: str, folder: Path) -> dict:
    """What this process is given in two rounds, and again when it goes on from a position after 13 samples."""
    configuration = parse_configuration(
        ["flavour_fusion_tiny", "--dataset", dataset, "--output_dir", str(folder), *SMALL, *STREAM]
    )
    data = load_training_data(configuration)
    _, processor = data.task.build(configuration, data)

    def make_stream() -> StreamSamples:
        arguments = configuration.training
        return StreamSamples(configuration, data, processor, arguments.process_index, arguments.world_size)

    def rest(position: dict | None = None) -> list[list]:
        stream = make_stream()
        if position is not None:
            stream.load_state_dict(json.loads(json.dumps(position)))
        found = []
        for sample in stream:
            if (number := stream.state_dict()["round"]) == 2:
                return found
            found.append([number, *tokens([sample])])

    first = make_stream()
    list(islice(iter(first), 13))
    return {"whole": rest(), "resumed": rest(first.state_dict())}


def main(folder: str) -> None:
    """Run by each of two processes."""
    found = {name: two_rounds(name, Path(folder) / "run") for name in CUTS}
    Path(folder, f"{os.environ['RANK']}.json").write_text(json.dumps(found))


def launch(hub: LocalHub, *command: str) -> subprocess.CompletedProcess:
    """Run a script in two processes that know the Hub on loopback alone."""
    environment = {**hub.environment(), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return subprocess.run([*launcher, *command], capture_output=True, text=True, timeout=500, env=environment)


@pytest.mark.slow
def test_two_processes_are_given_every_row_once_per_round_and_go_on_from_their_positions(hub, tmp_path):
    ended = launch(hub, __file__, str(tmp_path))
    assert ended.returncode == 0, ended.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    for name in CUTS:
        orders = []
        for number in range(2):
            halves = [[tuple(ids) for found, ids in part[name]["whole"] if found == number] for part in (first, second)]
            assert all(halves)
            assert len(halves[0]) + len(halves[1]) == len({*halves[0], *halves[1]}) == 60
            orders.append(halves[0])
        assert orders[0] != orders[1]
        for part in (first, second):
            assert part[name]["resumed"] == part[name]["whole"][13:]


def test_a_run_on_rows_of_a_hub_that_is_interrupted_ends_with_the_same_weights(connected, tmp_path, monkeypatch):
    name = "org/four-files"
    whole = run(tmp_path / "whole", name, *STREAM, *STEPS)
    with monkeypatch.context() as patch, interrupted_after(patch, 3):
        run(tmp_path / "broken", name, *STREAM, *STEPS)
    run(tmp_path / "broken", name, *STREAM, *STEPS)
    assert_equal_weights(whole, tmp_path / "broken")
    assert any("/resolve/" in request.path and "train-" in request.path for request in connected.requests)


@pytest.mark.slow
def test_two_processes_on_rows_of_a_hub_that_are_interrupted_end_with_the_same_weights(hub, tmp_path):
    common = ["flavour_fusion_tiny", "--dataset", "org/four-files", *SMALL, *STREAM, *STEPS]
    common += ["--save_steps", "1", "--eval_steps", "1"]
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    whole, broken = ([*common, "--output_dir", str(tmp_path / name)] for name in ("whole", "broken"))
    ended = launch(hub, train.__file__, *whole)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert launch(hub, str(script), *broken).returncode != 0
    assert newest_checkpoint(tmp_path / "broken").name == "checkpoint-1"
    ended = launch(hub, train.__file__, *broken)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert_equal_weights(tmp_path / "whole", tmp_path / "broken")


if __name__ == "__main__":
    main(sys.argv[1])
