"""A wheel is enough for a user: installed in an empty environment, every command works from any folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dataset_builder", "modeling_flavour", "trainer_scripts", "model_cards")


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


def use_everything(commands: Path, folder: Path) -> None:
    """Run what the README promises from a folder that is no checkout."""

    def user_runs(*command: str) -> str:
        return run(commands / command[0], *command[1:], cwd=folder, env=user_environment()).stdout

    assert str(ROOT) not in user_runs("python", "-c", "import trainer_scripts; print(trainer_scripts.__file__)")
    assert "streamed:" in user_runs(
        "python", "-m", "trainer_scripts.demo", "--out", "demo", "--number=60", "--epochs=1"
    )
    (folder / "recipes.csv").write_text("Title,Ingredients\nLemon tart,\"['lemon', 'sugar', 'flour']\"\n", "utf-8")
    user_runs("flavour-sd", "build", "recipes.csv", "--size", "64", "--out", "data")
    launch = ("python", "-m", "accelerate.commands.launch", "--num_processes=1", "-m", "trainer_scripts.train")
    user_runs(*launch, "flavour_title_tiny", "--dataset=demo/flavour-sd", "--output_dir=model", "--num_train_epochs=1")
    assert (folder / "model" / "model.safetensors").is_file()
    for verb in ("score", "compare", "predict", "export"):
        user_runs("python", "-m", f"trainer_scripts.{verb}", "--help")


def test_the_wheel_does_everything_from_any_folder(commands, tmp_path):
    use_everything(commands, tmp_path)


@pytest.mark.slow
def test_the_wheel_with_the_libraries_that_pip_chooses(wheel, tmp_path):
    made = make_environment(tmp_path / "environment")
    run(made / "python", "-m", "pip", "install", "-q", wheel, env=user_environment())
    use_everything(made, tmp_path)
