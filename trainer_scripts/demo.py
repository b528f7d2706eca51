"""The whole road on one machine: recipes in, published data set and models out (`make demo`).

Every step is skipped when its result is there, so an interrupted demo goes on where it stopped.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dataset_builder.errors import exit_on_bad_input
from trainer_scripts.settings.command_line import ArgumentParser, let_waiting_threads_sleep

PROGRAM = "demo.py"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument(
        "--task", default="flavour", choices=("flavour", "captioning", "segmentation"), help="what to train"
    )
    parser.add_argument("--recipes", default=None, help="your own recipe table instead of the embedded catalogue")
    parser.add_argument("--out", type=Path, default=None, help="folder of the results (outputs/demo)")
    parser.add_argument("--number", type=int, default=3600, help="recipes the catalogue is widened to (%(default)s)")
    parser.add_argument(
        "--epochs", type=float, default=None, help="epochs of each training; default: the configuration's"
    )
    return parser


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
