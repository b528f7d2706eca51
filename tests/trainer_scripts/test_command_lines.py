"""Command lines answer `--help` and mistyped arguments from any folder, without the libraries that only work needs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trainer_scripts import compare, export, predict, score

ROOT = Path(__file__).resolve().parents[2]
# What takes seconds to import and answers nothing about arguments.
WORK = {"datasets", "diffusers", "evaluate", "matplotlib", "nltk", "onnx", "onnxruntime", "pandas", "pyarrow"}
WORK |= {"rouge_score", "sacrebleu", "sklearn", "torchmetrics"}
MODELS = {"accelerate", "modeling_flavour", "timm", "torch", "torchvision", "transformers"}


def run(folder: Path, *command: str, **variables: str) -> tuple[str, int, set[str]]:
    """Run Python; return what it said, its exit status and the packages that it imported."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        capture_output=True, text=True, cwd=folder, env={**environment, **variables},
    )  # fmt: skip
    lines = ended.stderr.splitlines()
    imported = {line.split("|")[-1].strip().split(".")[0] for line in lines if line.startswith("import time:")}
    said = [line for line in lines if not line.startswith("import time:")]
    return ended.stdout + "\n".join(said), ended.returncode, imported


@pytest.fixture(scope="module")
def libraries(tmp_path_factory) -> set[str]:
    """What transformers' Trainer and generation import themselves; transformers 5.20 imports more than later ones."""
    code = "import transformers.trainer, transformers.generation.utils"
    return run(tmp_path_factory.mktemp("libraries"), "-c", code)[2]


VERBS = [path.stem for path in (ROOT / "trainer_scripts").glob("*.py") if path.stem != "__init__"]


@pytest.mark.parametrize(
    ("script", "argument", "message", "status"),
    [(script, "--help", "--port" if script == "app" else "--out", 0) for script in VERBS]
    + [(script, "--outt", "error: ", 2) for script in ("score", "compare", "predict", "export", "demo")],
)
def test_help_and_mistyped_arguments_of_the_verbs_need_no_library(tmp_path, script, argument, message, status):
    # In a process of its own, as this one has imported everything.
    said, ended, imported = run(tmp_path, str(ROOT / "trainer_scripts" / f"{script}.py"), argument)
    assert message in said
    assert ended == status
    assert "argparse" in imported
    assert not imported & (WORK | MODELS)


@pytest.mark.parametrize(
    ("script", "model", "option"),
    [
        (score, ["MODEL", "DATA"], "--batch_size"),
        (compare, ["MODEL", "DATA"], "--ablation_rows"),
        (predict, ["MODEL", "TABLE"], "--batch_size"),
        (export, ["MODEL"], "--max_rows"),
    ],
)
def test_options_of_several_words_are_spelled_with_hyphens_or_underscores(script, model, option):
    for spelling in (option, "--" + option[2:].replace("_", "-")):
        assert vars(script.PARSER.parse_args([*model, spelling, "7"]))[option[2:]] == 7


def test_the_help_of_flavour_sd_needs_no_library(tmp_path):
    said, ended, imported = run(tmp_path, "-m", "dataset_builder.cli", "build", "--help")
    assert "--images-per-dish" in said
    assert ended == 0
    assert not imported & (WORK | MODELS)


@pytest.mark.parametrize(
    ("arguments", "message", "status", "variables", "spins"),
    [
        (["default", "--freeze_text", "2"], "freeze-text: ", 2, {}, False),
        (["default", "--freeze_tex", "true"], "did you mean freeze_text", 2, {"OMP_WAIT_POLICY": "ACTIVE"}, True),
    ],
    ids=["mistyped value", "mistyped name"],
)
def test_training_reads_its_arguments_with_the_trainers_and_no_more_and_lets_waiting_threads_sleep(
    tmp_path, libraries, arguments, message, status, variables, spins
):
    script = str(ROOT / "trainer_scripts" / "train.py")
    said, ended, imported = run(tmp_path, script, *arguments, OMP_DISPLAY_ENV="VERBOSE", **variables)
    assert message in said
    assert ended == status
    assert "transformers" in imported
    assert not (imported - libraries) & (WORK | {"modeling_flavour", "timm"})
    # What the runtimes say that read the variables, one by one; other runtimes than GNU's do not count spins.
    rounds = [int(found) for found in re.findall(r"GOMP_SPINCOUNT = '(\d+)'", said)]
    assert all((found > 0) is spins for found in rounds)
    assert rounds or sys.platform != "linux"


def test_the_model_family_imports_nothing_that_makes_data_or_trains(tmp_path, libraries):
    _, ended, imported = run(tmp_path, "-c", "import modeling_flavour")
    assert ended == 0
    assert "timm" in imported
    assert not (imported - libraries) & (WORK | {"dataset_builder", "trainer_scripts", "model_cards"})


@pytest.mark.skipif(sys.platform != "linux", reason="about the allocator of Linux")
def test_commands_do_not_give_memory_back_that_they_will_need_again(tmp_path):
    code = (
        "import resource\n"
        "import numpy as np\n"
        "from trainer_scripts.settings.command_line import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(20): np.full(2**24, 1, np.uint8)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "plain = faults()\n"
        "keep_freed_memory(); faults()\n"
        "print(faults(), plain)\n"
    )
    for environment, fewer in (({}, True), ({"MALLOC_TRIM_THRESHOLD_": "0"}, False)):
        # On Linux large arrays of NumPy are mapped in pages of 4 kB or of 2 MB; both count as faults.
        said, _, _ = run(tmp_path, "-c", code, NUMPY_MADVISE_HUGEPAGE="0", PYTHONPATH=str(ROOT), **environment)
        kept, plain = map(int, said.split()[:2])
        assert (kept < plain / 4) is fewer
