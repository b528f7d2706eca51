"""The whole road on one machine: recipes in, published data set and models out (`make demo`).

Every step is skipped when its result is there, so an interrupted demo goes on where it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dataset_builder.errors import exit_on_bad_input
from trainer_scripts.settings.command_line import ArgumentParser, let_waiting_threads_sleep
from trainer_scripts.settings.options import option

PROGRAM = "demo.py"


@dataclass
class DemoArguments:
    """Command line of `demo.py`."""

    task: Literal["flavour", "captioning", "segmentation"] = option("flavour", "task of the models")
    recipes: str | None = option(None, "your own recipe table instead of the embedded catalogue")
    out: Path | None = option(None, "folder of the results (outputs/demo)")
    number: int = option(3600, "number of recipes that are made from the catalogue (%(default)s)")
    epochs: float | None = option(None, "epochs of each training; default: the configuration's")


def build_parser() -> ArgumentParser:
    """Return the parser."""
    return ArgumentParser(DemoArguments, PROGRAM, description=__doc__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the steps of one task."""
    given = build_parser().parse_args(arguments)
    with exit_on_bad_input(PROGRAM):
        let_waiting_threads_sleep()
        # Only now: what --help and a mistyped argument need not wait for.
        from trainer_scripts.demos.run import run

        run(given)


if __name__ == "__main__":
    main()
