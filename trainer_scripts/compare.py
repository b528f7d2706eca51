"""Compare models honestly: `python trainer_scripts/compare.py MODEL MODEL ... DATASET [--out DIR]`.

A MODEL may also be `ID@REVISION` on a Hub, or a folder that `score.py` wrote; when all are such folders no DATASET is
given, and what needs a model or its data is left out and named.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dataset_builder.errors import exit_on_bad_input
from trainer_scripts.settings.command_line import ArgumentParser, add_columns, at_least, let_waiting_threads_sleep

PROGRAM = "compare.py"
BATCH_SIZE = 64
ABLATION_ROWS = 2000


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [options] MODEL [MODEL ...] DATASET\n       {PROGRAM} [options] SCORES [SCORES ...]",
        description="Models and baselines on the same test rows: scores, tests, ablations, plots.",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="MODEL ... DATASET",
        help="models (folders, Hub ids or ID@REVISION; folders that score.py wrote stand for theirs), and last the "
        "data set (folder or Hub id), which is left out where all models are such folders",
    )
    parser.add_argument("--split", help="split to compare on (test)")
    parser.add_argument("--dataset_revision", default=None, help="revision of a Hub data set")
    add_columns(parser)
    parser.add_argument("--batch_size", type=at_least(1), default=BATCH_SIZE, help="rows per batch (%(default)s)")
    parser.add_argument(
        "--ablation_rows",
        type=at_least(2),
        default=ABLATION_ROWS,
        help="most rows that ablations are run on (%(default)s)",
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
        # Slow imports come last, so that --help and a mistyped argument are answered at once.
        from trainer_scripts.comparing.run import run

        run(given)


if __name__ == "__main__":
    main()
