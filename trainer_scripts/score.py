"""Score a model: `python trainer_scripts/score.py MODEL DATASET [--split test] [--out DIR]`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dataset_builder.errors import exit_on_bad_input
from trainer_scripts.evaluation.decisions import EXPECTED_F1, THRESHOLD
from trainer_scripts.settings.command_line import (
    ArgumentParser,
    add_columns,
    at_least,
    factor,
    let_waiting_threads_sleep,
)

PROGRAM = "score.py"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = ArgumentParser(prog=PROGRAM, description="Write predictions.parquet and metrics.json of a model.")
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id")
    parser.add_argument("dataset", metavar="DATASET", help="folder or Hub id")
    parser.add_argument("--split", default="test", help="split to score (%(default)s)")
    parser.add_argument("--revision", default="main", help="revision of a Hub model (%(default)s)")
    parser.add_argument("--dataset_revision", default=None, help="revision of a Hub data set")
    parser.add_argument("--out", type=Path, default=None, help="folder of the result (MODEL/scores/SPLIT)")
    parser.add_argument(
        "--tune_thresholds",
        action="store_true",
        help="for several labels per row: the best threshold per label on the selection split; lifts macro-F1",
    )
    parser.add_argument(
        "--decision",
        choices=(THRESHOLD, EXPECTED_F1),
        default=THRESHOLD,
        help="for several labels per row: threshold, or the set with the highest expected F1; lifts samples-F1",
    )
    add_columns(parser)
    parser.add_argument("--batch_size", type=at_least(1), default=64, help="rows per batch (%(default)s)")
    masks = parser.add_argument_group("models that give masks")
    masks.add_argument("--scales", type=factor, nargs="+", help="average the answers at these factors on the size")
    masks.add_argument("--flip", action="store_true", help="average with the answer to the mirrored picture")
    masks.add_argument(
        "--window", type=at_least(1), help="slide windows of so many pixels over the picture at its own size"
    )
    masks.add_argument("--stride", type=at_least(1), help="pixels from one window to the next (two thirds of a window)")
    masks.add_argument(
        "--classifier", metavar="MODEL", help="model of flavours or ingredients that the flavour map is held against"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Score one model on one split."""
    given = build_parser().parse_args(arguments)
    with exit_on_bad_input(PROGRAM):
        let_waiting_threads_sleep()
        # Slow imports come last, so that --help and a mistyped argument are answered at once.
        from trainer_scripts.scoring.score_run import run

        run(given)


if __name__ == "__main__":
    main()
