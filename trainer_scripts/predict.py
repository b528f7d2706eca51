"""Predict labels for a table: `python trainer_scripts/predict.py MODEL TABLE --images DIR --out Predicted_labels.csv`.

The table has one row per picture: `ImageID,Caption` as in COMP5329 (broken quoting included), or CSV, TSV, JSON lines,
Parquet, the folder of a data set or one on a Hub. An id names the picture's file in `--images`, with or without its
ending; or a column holds the pictures themselves, as those of flavour-sd do, or their paths (`--image_column`). Every
row gets one line, in the order of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer_scripts.evaluation.decisions import EXPECTED_F1, THRESHOLD
from trainer_scripts.settings.command_line import ArgumentParser, ModelOptions, command
from trainer_scripts.settings.options import COUNT, REQUIRED, SHARE, option


@dataclass(kw_only=True)
class PredictArguments(ModelOptions):
    """Command line of `predict.py`."""

    table: str = option(REQUIRED, "CSV, TSV, JSON lines or Parquet file, folder or Hub id", metavar="TABLE")
    images: Path | None = option(None, "folder of the pictures that ids or the image column name")
    out: Path = option(Path("Predicted_labels.csv"), "result (%(default)s)")
    id_column: str | None = option(None, "column of ids, which name the pictures in --images (ImageID, or id)")
    text_column: str | None = option(None, "column of texts (Caption, or that of the model's training data)")
    image_column: str | None = option(
        None, "column of pictures, or of their paths (without --images: that of the model's training data)"
    )
    split: str | None = option(None, "the one split of a data set to predict (all)")
    probabilities: bool = option(False, "write the probability of every label too, a column each")
    abstain: bool = option(
        False, "leave the label empty where nothing of a row is familiar, or no label is as sure as the model asks for"
    )
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
