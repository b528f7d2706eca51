"""A publication whose process is killed at any request leaves no half and no moved tag, and repeated it finishes."""

import os
import subprocess
import sys

import pytest
from huggingface_hub import HfApi

from dataset_builder.errors import BadInputError
from dataset_builder.publishing.publish import publish
from tests.dataset_builder.tiny_build import make_rows, write_build

DATA = "org/flavour-sd"
# Killed as the request arrives, or when the Hub has done it and before it answers.
BEFORE, AFTER = "drop", "lose"
MOMENTS = [
    pytest.param(kind, when, marks=() if (kind, when) == ("commit", AFTER) else pytest.mark.slow)
    for kind in ("create", "preupload", "batch", "commit", "tag")
    for when in (BEFORE, AFTER)
]


def killed_at(hub, words, kind, when) -> int:
    """Run a command of `flavour-sd` that is killed at its first request of a kind; return its exit status."""
    command = [sys.executable, "-m", "dataset_builder.cli", *map(str, words)]
    child = subprocess.Popen(
        command, env=hub.environment("hf_writer"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def fault(of: str) -> str | None:
        if of != kind or child.poll() is not None:
            return None
        child.kill()
        child.wait()
        return when

    usual, hub.next_fault = hub.next_fault, fault
    try:
        return child.wait(120)
    finally:
        hub.next_fault = usual


def tags(repo, kind):
    try:
        return {tag.name: tag.target_commit for tag in HfApi().list_repo_refs(repo, repo_type=kind).tags}
    except OSError:  # the repository is not made yet
        return {}


@pytest.mark.parametrize(("kind", "when"), MOMENTS)
def test_a_killed_publication_of_data_is_whole_or_not_there_and_can_be_repeated(connected_hub, tmp_path, kind, when):
    build = write_build(tmp_path / "build", make_rows())
    if kind == "batch":  # large files alone ask for it
        (build / "notes.bin").write_bytes(os.urandom(2_000_000))
    words = ["publish", build, "--repo", DATA, "--version", "1.0.0", "--license", "cc-by-4.0"]
    ended = killed_at(connected_hub, words, kind, when)
    assert ended in (-9, 0), "killed, or without such a request"
    left = tags(DATA, "dataset")
    if left:
        names = HfApi().list_repo_files(DATA, repo_type="dataset", revision="v1.0.0")
        assert {"README.md", "manifest.json"} <= set(names), "a tag is set on what is whole"
    assert bool(left) == (ended == 0 or (kind, when) == ("tag", AFTER))
    if left:  # it had ended, and a repetition says so
        with pytest.raises(BadInputError, match=r"has v1\.0\.0 already and a tag is never moved"):
            publish(build, DATA, "1.0.0", "cc-by-4.0")
    else:
        publish(build, DATA, "1.0.0", "cc-by-4.0")
    done = tags(DATA, "dataset")
    assert set(done) == {"v1.0.0"}
    assert left in ({}, done), "a tag is never moved"
    assert [commit.title for commit in HfApi().list_repo_commits(DATA, repo_type="dataset")].count("Version 1.0.0") == 1
