"""Each verb, killed with SIGKILL at several moments and then repeated, leaves what an undisturbed run leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image
from safetensors.torch import load_file

from tests.trainer_scripts.conftest import small_dataset, small_rows  # noqa: F401 (fixtures)
from tests.trainer_scripts.tiny_runs import run

# Shares of the time of an undisturbed run.
MOMENTS = (0.5, 0.75, 0.9, 0.97)
SD, TRAINER = ("dataset_builder.cli",), "trainer_scripts."
# Verb -> its command; IN is the folder of its inputs, OUT the folder of its results.
VERBS = {
    "label": (*SD, "label", "IN/recipes.csv", "--out", "OUT/labels.parquet"),
    "build": (*SD, "build", "--number", "40", "--size", "64", "--seed", "3", "--processes", "1", "--out", "OUT/data"),
    "import": (*SD, "import", "comp5329", "IN/photos", "--out", "OUT/data"),
    "audit": (*SD, "audit", "IN/built", "--out", "OUT"),
    "publish": (*SD, "publish", "IN/built", "--repo", "org/dishes", "--version", "1.0.0", "--license", "mit",
                "--dry-run", "OUT/release"),
    "train": (f"{TRAINER}train", "flavour_fusion_tiny", "--modality", "text", "--dataset", "IN/rows",
              "--output_dir", "OUT/run", "--num_train_epochs", "6", "--save_strategy", "epoch"),
    "score": (f"{TRAINER}score", "IN/model", "IN/rows", "--out", "OUT/scores"),
    "predict": (f"{TRAINER}predict", "IN/model", "IN/titles.csv", "--out", "OUT/answers.csv"),
    "compare": (f"{TRAINER}compare", "IN/model", "IN/rows", "--out", "OUT/comparison"),
    "export": (f"{TRAINER}export", "IN/model", "--dataset", "IN/rows", "--out", "OUT/onnx"),
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(small_dataset, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("kills")
    (folder / "rows").symlink_to(small_dataset)
    run(folder / "model", small_dataset, "--num_train_epochs", "1", "--modality", "text")
    lines = [f'dish {number},"[""sugar"", ""lemon"", ""soy sauce""]"' for number in range(30_000)]
    (folder / "recipes.csv").write_text("\n".join(["title,ingredients", *lines]))
    (folder / "titles.csv").write_text("\n".join(["ImageID,title", *(f"{n},Lemon cake {n}" for n in range(2000))]))
    (folder / "photos" / "data").mkdir(parents=True)
    for number in range(301):
        Image.effect_noise((90, 90), 40).save(folder / "photos" / "data" / f"{number}.jpg")
    rows = [f"{number}.jpg,1 3,A dish on a table" for number in range(300)]
    (folder / "photos" / "train.csv").write_text("\n".join(["ImageID,Labels,Caption", *rows]))
    (folder / "photos" / "test.csv").write_text("ImageID,Caption\n300.jpg,A dish\n")
    execute("build", folder, folder, ("--number", "60", "--size", "64"), place="built")
    return folder


def words(verb: str, inputs: Path, out: Path, place: str | None) -> list[str]:
    given = [word.replace("IN/", f"{inputs}/").replace("OUT", str(out)) for word in VERBS[verb]]
    if place:
        given[given.index("--out") + 1] = str(out / place)
    return [sys.executable, "-m", *given]


def execute(verb: str, inputs: Path, out: Path, more=(), place: str | None = None) -> float:
    started = time.monotonic()
    ended = subprocess.run([*words(verb, inputs, out, place), *more], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    return time.monotonic() - started


def content(folder: Path) -> dict[str, object]:
    """Every file by its name: weights by value, JSON and pages without times, everything else but logs by its bytes."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or "checkpoint-" in name or path.suffix == ".png":
            continue
        if path.suffix == ".safetensors":
            found[name] = {key: value.tolist() for key, value in load_file(path).items()}
        elif path.name in ("metrics.json", "comparison.json", "export.json", "trainer_state.json"):
            found[name] = sorted(json.loads(path.read_text()))
        elif path.name == "report.html":
            # The page of a comparison has one line of measured times.
            lines = path.read_text().splitlines()
            found[name] = [line for line in lines if "ms per row" not in line]
        elif path.suffix not in (".md", ".yaml") and path.name != "training_args.bin":
            found[name] = path.read_bytes()
        else:
            found[name] = None
    return found


def wait_for_the_end_of(session: int) -> None:
    """Helpers of a killed process end by themselves."""
    deadline = time.monotonic() + 20
    while left := [process for process in psutil.pids() if session_of(process) == session]:
        assert time.monotonic() < deadline, f"{len(left)} processes outlive the one that was killed"
        time.sleep(0.1)


def session_of(process: int) -> int | None:
    try:
        return os.getsid(process)
    except ProcessLookupError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_was_killed_and_is_repeated_leaves_the_same(verb, inputs, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    seconds = execute(verb, inputs, whole)
    for moment in MOMENTS:
        child = subprocess.Popen(
            words(verb, inputs, killed, None),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            child.wait(moment * seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
        wait_for_the_end_of(child.pid)
    if verb == "publish" and (killed / "release").exists():
        pass  # The last attempt had ended before its kill; a release is never written over.
    else:
        execute(verb, inputs, killed)
    assert content(killed) == content(whole)
