"""Compare models honestly: `python trainer_scripts/compare.py MODEL MODEL ... DATASET [--out DIR]`.

A MODEL may also be a folder that `score.py` wrote; when all are, no DATASET is needed, and what needs a model or its
data is left out and named.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dataset_builder.errors import exit_on_bad_input
from trainer_scripts.parsers import ArgumentParser
from trainer_scripts.threads import let_waiting_threads_sleep

PROGRAM = "compare.py"
BATCH_SIZE = 64
ABLATION_ROWS = 2000


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = ArgumentParser(
        prog=PROGRAM, description="Models and baselines on the same test rows: scores, tests, ablations, plots."
    )
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="folders or Hub ids, or folders with predictions of score.py"
    )
    parser.add_argument("dataset", metavar="DATASET", help="folder or Hub id")
    parser.add_argument("--split", default="test", help="split to compare on (%(default)s)")
    parser.add_argument("--dataset_revision", default=None, help="revision of a Hub data set")
    parser.add_argument("--batch_size", type=int, default=BATCH_SIZE, help="rows per batch (%(default)s)")
    parser.add_argument(
        "--ablation_rows", type=int, default=ABLATION_ROWS, help="most rows that ablations are run on (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/comparison"), help="folder of the result (%(default)s)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare models on one split."""
    given = build_parser().parse_args(arguments)
    with exit_on_bad_input(PROGRAM):
        let_waiting_threads_sleep()
        # Only now: what --help and a mistyped argument need not wait for.
        from trainer_scripts.compare_steps import run

        run(given)


if __name__ == "__main__":
    main()
