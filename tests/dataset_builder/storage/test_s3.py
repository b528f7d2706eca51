"""The real S3 client against a server on loopback: build, kill, go on, audit, publish, stream; and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from dataset_builder import cli
from dataset_builder.building.build import build
from dataset_builder.building.settings import BuildSettings
from dataset_builder.pictures.settings import GenerationSettings
from dataset_builder.publishing import release
from dataset_builder.storage.places import files_in, place
from tests.conftest import S3_SECRET, connect
from tests.dataset_builder.building.test_cli_build import contents


def stored(system, root: str) -> dict[str, bytes]:
    system.invalidate_cache()
    return {name.removeprefix(f"{root}/"): system.cat_file(name) for name in system.find(root)}


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, arguments)])
    return int(ended.value.code or 0)


def test_a_set_in_a_bucket_is_built_killed_gone_on_with_audited_published_and_streamed(
    s3, recipe_file, tmp_path, monkeypatch, local_hub, capfd
):
    flags = [recipe_file, "--size", "64", "--images-per-dish", "12", "--batch-size", "2", "--processes", "1"]
    assert run("build", *flags, "--out", tmp_path / "local") == 0
    url = "s3://sets/one"
    command = [sys.executable, "-m", "dataset_builder.cli", "build", *flags, "--out", url]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not files_in(place(url) / "data") and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    told = killed.communicate()[1]
    assert 0 < len(files_in(place(url) / "data")) < 3, told
    assert run("build", *flags, "--out", url) == 0
    assert stored(s3, "sets/one") == contents(tmp_path / "local")
    assert run("audit", url) == 0
    assert "AUDIT.md" in stored(s3, "sets/one")
    # Published from the bucket, in several commits, with the tag last.
    connect(local_hub, monkeypatch, tmp_path / "cache")
    monkeypatch.setattr(release, "FILES_PER_COMMIT", 2)
    assert run("publish", url, "--repo", "org/set", "--version", "1.0.0", "--license", "cc-by-4.0") == 0
    from huggingface_hub import HfApi

    commits = [one.title for one in HfApi().list_repo_commits("org/set", repo_type="dataset")]
    assert [one for one in commits if one.startswith("Version")] == [f"Version 1.0.0, {n}/3" for n in (3, 2, 1)]
    (tag,) = HfApi().list_repo_refs("org/set", repo_type="dataset").tags
    assert tag.name == "v1.0.0"
    assert HfApi().list_repo_commits("org/set", repo_type="dataset")[0].commit_id == tag.target_commit
    # Streamed in training, by the same URL.
    from trainer_scripts.data.splits import open_dataset

    rows = open_dataset(url, streaming=True)
    assert sum(1 for split in rows.values() for _ in split.select_columns(["id"])) == 216
    everything = "".join(capfd.readouterr()) + told
    assert S3_SECRET not in everything


def test_a_bucket_that_is_not_there_or_not_writable_is_one_line_before_any_work(
    s3, recipe_file, tmp_path, monkeypatch, capsys
):
    assert run("build", recipe_file, "--size", 64, "--out", "s3://no-such-bucket/set") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "s3://no-such-bucket/set cannot be used: there is no such bucket or folder" in error
    # As a store answers to credentials that may read only.
    call = type(s3)._call_s3

    async def refuse(self, method, *given, **more):
        if method == "put_object":
            raise PermissionError("Access Denied")
        return await call(self, method, *given, **more)

    monkeypatch.setattr(type(s3), "_call_s3", refuse)
    assert run("build", recipe_file, "--size", 64, "--out", "s3://sets/refused") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "s3://sets/refused cannot be used: Access Denied; check the name" in error
    for verb in (
        ("audit", "s3://no-such-bucket/set"),
        ("publish", "s3://no-such-bucket/set", "--repo", "org/x", "--version", "1.0.0", "--license", "mit"),
    ):
        assert run(*verb) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "s3://no-such-bucket/set" in error
        assert "Traceback" not in error


def test_two_parts_at_once_state_their_settings_once(s3, recipe_file, tmp_path):
    settings = BuildSettings(recipe_file, generation=GenerationSettings(size=64))
    out = place("s3://sets/parts")
    assert build(settings, out, processes=1, part="1/2") == {}
    kept = json.loads(s3.cat_file("sets/parts/.unfinished/settings.json"))
    other = BuildSettings(recipe_file, seed=1, generation=GenerationSettings(size=64))
    with pytest.raises(ValueError, match=r"holds parts of a build with other settings: .*seed was 0 and is 1"):
        build(other, out, processes=1, part="2/2")
    assert kept == json.loads(s3.cat_file("sets/parts/.unfinished/settings.json"))
    assert build(settings, out, processes=1, part="2/2") == {}
    assert build(settings, out, processes=1, finish=True)["rows"] == 18
    assert not [name for name in stored(s3, "sets/parts") if name.startswith(".")]
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1")
