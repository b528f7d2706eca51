"""A wheel is enough for a user: installed in an empty environment, every command works from any folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from trainer_scripts import compare, demo

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dataset_builder", "modeling_flavour", "trainer_scripts", "model_cards")
DEMO = ["--out", "demo", "--number=60", "--epochs=1"]


def run(*command: str | Path, **options) -> subprocess.CompletedProcess:
    """Run a command and show what it printed where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built from a copy, as building leaves folders behind."""
    source, out = tmp_path_factory.mktemp("source") / "copy", tmp_path_factory.mktemp("wheel")
    source.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, source)
    return next(out.glob("*.whl"))


def make_environment(folder: Path) -> Path:
    """Make an environment and return the folder of its commands."""
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    return folder / ("Scripts" if os.name == "nt" else "bin")


@pytest.fixture(scope="module")
def commands(wheel, tmp_path_factory) -> Path:
    """The commands of an environment with the wheel, and with the libraries of this one (but not its packages).

    Libraries come by a `.pth` file; `.pth` files in the folder that it names are not followed, so an editable install
    of this checkout is not seen.
    """
    folder = tmp_path_factory.mktemp("environment")
    made = make_environment(folder)
    own = user_environment()
    run(made / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, env=own)
    site = run(made / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", env=own).stdout.strip()
    (Path(site) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return made


def user_environment() -> dict[str, str]:
    """The environment of a user, without the path of this checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**kept, "ACCELERATE_USE_CPU": "true"}


def use_everything(commands: Path, folder: Path) -> str:
    """Run what the README promises from a folder that is no checkout; return what the demo printed."""

    def user_runs(*command: str) -> str:
        return run(commands / command[0], *command[1:], cwd=folder, env=user_environment()).stdout

    assert str(ROOT) not in user_runs("python", "-c", "import trainer_scripts; print(trainer_scripts.__file__)")
    made = run(commands / "python", "-m", "trainer_scripts.demo", *DEMO, cwd=folder, env=user_environment())
    assert "it/s]" not in made.stderr, "libraries show no bars of their own"
    assert "[transformers]" not in made.stderr
    (folder / "recipes.csv").write_text("Title,Ingredients\nLemon tart,\"['lemon', 'sugar', 'flour']\"\n", "utf-8")
    user_runs("flavour-sd", "label", "recipes.csv", "--out", "labels.parquet")
    launch = ("python", "-m", "accelerate.commands.launch", "--num_processes=1", "-m", "trainer_scripts.train")
    user_runs(*launch, "flavour_title_tiny", "--dataset=demo/flavour-sd", "--output_dir=model", "--num_train_epochs=1")
    assert (folder / "model" / "model.safetensors").is_file()
    user_runs("python", "-m", "trainer_scripts.export", "--help")
    return made.stdout


@pytest.fixture(scope="module")
def used(commands, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a user who did everything with the wheel, and what the demo printed."""
    folder = tmp_path_factory.mktemp("user")
    return folder, use_everything(commands, folder)


def test_the_wheel_does_everything_from_any_folder(used):
    """The whole road, tiny: recipes in, data set and model out, both used by a process that knows nothing of us."""
    folder, printed = used
    comparison = json.loads((folder / "demo" / "comparison" / "comparison.json").read_text())
    assert {"fusion", "title", "picture"} <= set(comparison["entries"])
    assert comparison["split"] == "test"
    for name in ("comparison.md", "reliability.png", "training_curves.png", "confusion_fusion.png"):
        assert (folder / "demo" / "comparison" / name).stat().st_size > 0
    for model in ("title", "picture", "fusion"):
        assert (folder / "demo" / model / "model.safetensors").is_file()
    assert "streamed:" in printed
    assert "umami" in printed


def test_the_last_screen_of_the_demo_has_the_table_the_places_and_the_lines_that_use_the_model(used):
    _, printed = used
    last = printed[printed.rindex("== one page about the data") :]
    assert "TF-IDF" in last
    assert f'AutoModel.from_pretrained("{Path("demo/fusion")}", trust_remote_code=True)' in last
    assert str(Path("demo/fusion/README.md")) in last


def test_a_second_demo_reuses_what_is_finished(used, monkeypatch, capfd):
    folder, _ = used
    monkeypatch.chdir(folder)
    before = {path: path.stat().st_mtime_ns for path in (folder / "demo").glob("*/model.safetensors")}
    assert len(before) == 3
    manifest = (folder / "demo" / "flavour-sd" / "manifest.json").stat().st_mtime_ns
    # What follows is made anew each time: the comparison and the publication.
    monkeypatch.setattr(compare, "main", lambda arguments: None)
    monkeypatch.setattr("trainer_scripts.demos.run.publish_and_read", lambda data, out: None)
    demo.main(DEMO)
    assert {path: path.stat().st_mtime_ns for path in (folder / "demo").glob("*/model.safetensors")} == before
    assert (folder / "demo" / "flavour-sd" / "manifest.json").stat().st_mtime_ns == manifest
    assert capfd.readouterr().out.count("is finished; --overwrite true trains it anew") == 3


@pytest.mark.slow
def test_the_wheel_with_the_libraries_that_pip_chooses(wheel, tmp_path):
    made = make_environment(tmp_path / "environment")
    run(made / "python", "-m", "pip", "install", "-q", wheel, env=user_environment())
    use_everything(made, tmp_path)
