"""Predict labels for a table: `python trainer_scripts/predict.py MODEL TABLE --images DIR --out Predicted_labels.csv`.

The table has one row per picture: `ImageID,Caption` as in COMP5329 (broken quoting included), or CSV, TSV, JSON lines,
Parquet or a data set on a Hub whose columns of ids and texts are named. An id names the picture's file. Every row gets
one line, in the order of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer_scripts.evaluation.decisions import EXPECTED_F1, THRESHOLD
from trainer_scripts.settings.command_line import ArgumentParser, command
from trainer_scripts.settings.options import COUNT, REQUIRED, SHARE, option


@dataclass
class PredictArguments:
    """Command line of `predict.py`."""

    model: str = option(REQUIRED, "folder or Hub id", metavar="MODEL")
    table: str = option(REQUIRED, "CSV, TSV, JSON lines or Parquet file, or Hub id", metavar="TABLE")
    revision: str = option("main", "revision of a Hub model (%(default)s)")
    images: Path | None = option(None, "folder of the pictures")
    out: Path = option(Path("Predicted_labels.csv"), "result (%(default)s)")
    id_column: str = option("ImageID", "column of ids and picture names (%(default)s)")
    text_column: str = option("Caption", "column of texts (%(default)s)")
    threshold: float | None = option(None, "for several labels per row (0.5)", allowed=SHARE)
    thresholds: Path | None = option(None, "thresholds.json of score.py --tune_thresholds")
    # None and `threshold` differ: models without label sets refuse any decision that is given.
    decision: str | None = option(
        None,
        "for several labels per row: threshold, or the set with the highest expected F1 (threshold)",
        choices=(THRESHOLD, EXPECTED_F1),
    )
    missing_pictures: Literal["refuse", "text"] = option(
        "refuse", "refuse a table with missing or broken pictures, or predict those rows from their text alone"
    )
    allow_outside: bool = option(False, "open pictures that ids name outside the folder of the pictures")
    batch_size: int = option(32, "rows per batch (%(default)s)", allowed=COUNT)


PARSER = ArgumentParser(PredictArguments, "predict.py", description="Write `ImageID,Labels` for every row of a table.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict every row of a table."""
    with command(PARSER, arguments) as given:
        # Imported here, so that --help and a mistyped argument do not wait for slow libraries.
        from trainer_scripts.scoring.predict_run import run

        run(given)


if __name__ == "__main__":
    main()
