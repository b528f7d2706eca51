"""Seconds until every command's `--help` has answered, and until `import modeling_flavour` is done.

Each stands beside the imports that any program of its kind pays for: torch, torchvision, transformers and timm for the
models, the Trainer's arguments for `train.py`, which lists them without these imports, and argparse for the others.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

from measuring import Row, arguments_of, in_turns, milliseconds, ratios, report

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = "import torch, torchvision, timm; from transformers import PreTrainedModel, ProcessorMixin"
SCRIPTS = ["trainer_scripts/score.py", "trainer_scripts/compare.py", "trainer_scripts/predict.py"]
SCRIPTS += ["trainer_scripts/export.py", "dataset_builder/cli.py"]
PAIRS = {
    "import modeling_flavour": (["-c", "import modeling_flavour"], "import of its libraries", LIBRARIES),
    "train.py --help": (
        ["trainer_scripts/train.py", "--help"],
        "import of the Trainer's arguments",
        "from transformers import HfArgumentParser, TrainingArguments",
    ),
    **{
        f"{'flavour-sd' if 'cli' in script else Path(script).name} --help": (
            [script, "--help"],
            "import of argparse",
            "import argparse",
        )
        for script in SCRIPTS
    },
}


def run(*command: str) -> None:
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    given = arguments_of(__doc__)
    rows = []
    for name, (command, beside, imports) in PAIRS.items():
        # The work is in other processes, whose processor time is not ours.
        found = in_turns({"ours": partial(run, *command), "least": partial(run, "-c", imports)}, given.rounds, "wall")
        ours, least = found["ours"], found["least"]
        rows.append(Row(f"{name}: {milliseconds(ours)}", f"{beside}: {milliseconds(least)}", ratios(least, ours)))
    report(rows, given)


if __name__ == "__main__":
    main()
