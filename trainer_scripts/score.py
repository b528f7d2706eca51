"""Score a model: `python trainer_scripts/score.py MODEL DATASET [--split test] [--out DIR]`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dataset_builder.errors import exit_on_bad_input
from trainer_scripts.scoring import load_model, load_table, save_scores, score_model, table_of_scores

PROGRAM = "score.py"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Write predictions.parquet and metrics.json of a model.")
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id")
    parser.add_argument("dataset", metavar="DATASET", help="folder or Hub id")
    parser.add_argument("--split", default="test", help="split to score (%(default)s)")
    parser.add_argument("--revision", default="main", help="revision of a Hub model (%(default)s)")
    parser.add_argument("--dataset_revision", default=None, help="revision of a Hub data set")
    parser.add_argument("--out", type=Path, default=None, help="folder of the result (outputs/scores/MODEL)")
    parser.add_argument("--batch_size", type=int, default=64, help="rows per batch (%(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Score one model on one split."""
    given = build_parser().parse_args(arguments)
    with exit_on_bad_input(PROGRAM):
        model = load_model(given.model, given.revision)
        table = load_table(model, given.dataset, given.split, given.dataset_revision)
        out = given.out or Path("outputs/scores") / model.name
        if model.task.score is not None:
            print(model.task.score(model, table, given.dataset, given.split, out, given.batch_size))
            return
        predictions = score_model(model, table, given.batch_size)
        content = save_scores(model, predictions, given.dataset, given.split, out)
        print(f"{given.model} on {given.dataset}, split {given.split}, {content['rows']} rows")
        print(table_of_scores(content))
        print(f"written to {out}")


if __name__ == "__main__":
    main()
