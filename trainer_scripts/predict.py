"""Predict labels for a table: `python trainer_scripts/predict.py MODEL TABLE --images DIR --out Predicted_labels.csv`.

The table has one row per picture: `ImageID,Caption` as in COMP5329 (broken quoting included), or CSV, TSV, JSON lines,
Parquet or a data set on a Hub whose columns of ids and texts are named. An id names the picture's file. Every row gets
one line, in the order of the table.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dataset_builder.errors import exit_on_bad_input
from trainer_scripts.evaluation.decisions import EXPECTED_F1, THRESHOLD
from trainer_scripts.settings.command_line import ArgumentParser, at_least, let_waiting_threads_sleep, probability

PROGRAM = "predict.py"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = ArgumentParser(prog=PROGRAM, description="Write `ImageID,Labels` for every row of a table.")
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id")
    parser.add_argument("table", metavar="TABLE", help="CSV, TSV, JSON lines or Parquet file, or Hub id")
    parser.add_argument("--revision", default="main", help="revision of a Hub model (%(default)s)")
    parser.add_argument("--images", type=Path, help="folder of the pictures")
    parser.add_argument("--out", type=Path, default=Path("Predicted_labels.csv"), help="result (%(default)s)")
    parser.add_argument("--id_column", default="ImageID", help="column of ids and picture names (%(default)s)")
    parser.add_argument("--text_column", default="Caption", help="column of texts (%(default)s)")
    parser.add_argument("--threshold", type=probability, help="for several labels per row (0.5)")
    parser.add_argument("--thresholds", type=Path, help="thresholds.json of score.py --tune_thresholds")
    parser.add_argument(
        "--decision",
        choices=(THRESHOLD, EXPECTED_F1),
        help="for several labels per row: threshold, or the set with the highest expected F1 (threshold)",
    )
    parser.add_argument(
        "--missing_pictures",
        choices=("refuse", "text"),
        default="refuse",
        help="refuse a table with missing or broken pictures, or predict those rows from their text alone",
    )
    parser.add_argument("--batch_size", type=at_least(1), default=32, help="rows per batch (%(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict every row of a table."""
    given = build_parser().parse_args(arguments)
    with exit_on_bad_input(PROGRAM):
        let_waiting_threads_sleep()
        # Slow imports come last, so that --help and a mistyped argument are answered at once.
        from trainer_scripts.scoring.predict_run import run

        run(given)


if __name__ == "__main__":
    main()
