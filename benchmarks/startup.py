"""Seconds until `train.py --help` has answered, and until `import modeling_flavour` is done.

Both stand beside the imports that every program of this kind pays for: torch, torchvision, transformers and timm.
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

from measuring import Row, arguments_of, in_turns, milliseconds, ratios, report

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = "import torch, torchvision, timm; from transformers import PreTrainedModel, ProcessorMixin"
TRAINER = f"{LIBRARIES}, Trainer; import datasets, accelerate"


def run(*command: str) -> None:
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    given = arguments_of(__doc__)
    ways = {
        "libraries": partial(run, "-c", LIBRARIES),
        "family": partial(run, "-c", "import modeling_flavour"),
        "trainer libraries": partial(run, "-c", TRAINER),
        "help": partial(run, "trainer_scripts/train.py", "--help"),
    }
    # The work is in other processes, whose processor time is not ours.
    found = in_turns(ways, given.rounds, "wall")
    named = {name: milliseconds(seconds) for name, seconds in found.items()}
    report(
        [
            Row(
                f"import modeling_flavour: {named['family']}",
                f"import of its libraries: {named['libraries']}",
                ratios(found["libraries"], found["family"]),
            ),
            Row(
                f"train.py --help: {named['help']}",
                f"import of its libraries: {named['trainer libraries']}",
                ratios(found["trainer libraries"], found["help"]),
            ),
        ],
        given,
    )


if __name__ == "__main__":
    main()
