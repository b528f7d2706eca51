"""A disk that is full ends a command with one line, and what was there before is still there."""

import subprocess

import pytest

from dataset_builder import cli
from tests.test_kills import VERBS, inputs, small_dataset, small_rows  # noqa: F401 (fixtures)
from trainer_scripts import compare, export, predict, score, train

QUICK = ("label", "import", "train")
PROGRAMS = {"train": train, "score": score, "predict": predict, "compare": compare, "export": export}


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    "verb",
    [pytest.param(verb, marks=() if verb in QUICK else pytest.mark.slow) for verb in VERBS if verb != "audit"],
)
def test_a_full_disk_is_one_line(verb, inputs, small_disk, capfd):  # noqa: F811
    before = small_disk / "mine.txt"
    # Results of these verbs are small.
    kept = b"kept" * (15_000 if verb in ("score", "predict") else 1)
    before.write_bytes(kept)
    words = [word.replace("IN/", f"{inputs}/").replace("OUT", str(small_disk)) for word in VERBS[verb][1:]]
    program = PROGRAMS.get(verb, cli)
    with pytest.raises(SystemExit) as ended:
        program.main(words)
    message = capfd.readouterr().err
    assert ended.value.code == 2
    assert "Traceback" not in message
    assert "No space left on device" in message.splitlines()[-1]
    assert str(small_disk) in message.splitlines()[-1]
    assert before.read_bytes() == kept
