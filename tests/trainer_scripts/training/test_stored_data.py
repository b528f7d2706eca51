"""Data sets in a store, by URL: trained on, streamed, scored, compared and predicted as those in a folder."""

import csv
import json

import fsspec
import pytest

from dataset_builder.errors import BadInputError
from dataset_builder.hub_files import sha256_of
from tests.trainer_scripts.conftest import make_row, refused, write_dataset
from tests.trainer_scripts.tiny_runs import assert_equal_weights, run
from trainer_scripts import compare, predict, score, train
from trainer_scripts.data.splits import open_dataset
from trainer_scripts.evaluation.predictions import Predictions

STREAMED = ("--streaming", "true", "--max_steps", "4", "--eval_steps", "2", "--save_steps", "2", "--num_train_epochs",
            "1", "--eval_strategy", "steps", "--save_strategy", "steps")  # fmt: skip


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder)
    return folder


def stored_in_memory(folder, name: str) -> str:
    """Copy a data set into the store that this process has in memory."""
    system = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe_file(f"/{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"memory://{name}"


def test_a_set_in_a_bucket_trains_scores_compares_and_predicts_as_one_in_a_folder(
    s3, small_dataset, tmp_path, own_cache, capsys
):
    s3.put(str(small_dataset), "sets/flavour-sd", recursive=True)
    url = "s3://sets/flavour-sd"
    here, stored = tmp_path / "here", tmp_path / "stored"
    for folder, dataset in ((here, small_dataset), (stored, url)):
        run(folder / "run", dataset)
        score.main([str(folder / "run"), str(dataset)])
        predict.main([str(folder / "run"), str(dataset), "--split", "test", "--out", str(folder / "answers.csv")])
    assert_equal_weights(stored / "run", here / "run")
    # Results on the set of the run stand in its own folder, whatever way leads to that set.
    first, second = (Predictions.load(folder / "run" / "scores" / "test") for folder in (here, stored))
    assert first.rows_sha256() == second.rows_sha256()
    assert (first.probabilities == second.probabilities).all()
    answers = [list(csv.reader((folder / "answers.csv").open())) for folder in (here, stored)]
    assert len(answers[0]) == 31
    assert answers[0] == answers[1]
    run(stored / "stream", url, *STREAMED)
    compare.main([str(stored / "stream"), url, "--out", str(tmp_path / "compared")])
    assert json.loads((tmp_path / "compared" / "comparison.json").read_text())["entries"]
    # Copied once for all of these commands; what was fetched is kept in one form alone.
    assert len(list((own_cache / "stores").iterdir())) == 1
    assert not list(own_cache.rglob("*.parquet"))
    capsys.readouterr()
    error = refused(capsys, train, "flavour_fusion_tiny", "--dataset", url, "--dataset_revision", "v1")
    assert f"{url} is a folder in a store, which has no revision 'v1'" in error
    error = refused(capsys, score, stored / "run", "s3://sets/nothing")
    assert "s3://sets/nothing holds no shards" in error


def test_a_stored_set_that_changed_is_read_anew_and_a_damaged_one_refused(tmp_path, own_cache):
    def written(name: str, first: int) -> str:
        rows = {"train": [make_row("train", index) for index in range(first, first + 3)]}
        folder = write_dataset(tmp_path / name, rows)
        hashes = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in folder.rglob("*.p*")}
        (folder / "manifest.json").write_text(json.dumps({"finished": True, "hashes": hashes}))
        return stored_in_memory(folder, "changed/set")

    url = written("one", 0)
    assert open_dataset(url)["train"]["id"][0] == "train-000-00-00"
    assert written("two", 5) == url
    assert open_dataset(url)["train"]["id"][0] == "train-005-00-00"
    system = fsspec.filesystem("memory")
    (shard,) = system.ls("/changed/set/data", detail=False)
    system.pipe_file(shard, system.cat_file(shard)[:-1] + b"?")
    system.pipe_file("/changed/set/manifest.json", system.cat_file("/changed/set/manifest.json") + b" ")
    # The manifest means the same, so that only its other form makes this another set.
    assert open_dataset(url)["train"]["id"][0] == "train-005-00-00"
    written_anew = json.loads(system.cat_file("/changed/set/manifest.json")) | {"schema_version": "9"}
    system.pipe_file("/changed/set/manifest.json", json.dumps(written_anew).encode())
    with pytest.raises(BadInputError, match=r"train-00000-of-00001.parquet is not the file that manifest.json"):
        open_dataset(url)


def test_a_set_in_memory_trains_and_is_scored(small_dataset, tmp_path, own_cache):
    url = stored_in_memory(small_dataset, "flavour-sd")
    run(tmp_path / "run", url, "--num_train_epochs", "1", "--modality", "text")
    score.main([str(tmp_path / "run"), url])
    assert (tmp_path / "run" / "scores" / "test" / "metrics.json").is_file()
