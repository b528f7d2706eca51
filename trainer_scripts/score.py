"""Score a model: `python trainer_scripts/score.py MODEL DATASET [--split test] [--out DIR]`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_builder.engines.choice import ENGINES, LOCAL
from trainer_scripts.evaluation.decisions import EXPECTED_F1, THRESHOLD
from trainer_scripts.settings.command_line import ArgumentParser, DatasetOptions, ModelOptions, command
from trainer_scripts.settings.options import COUNT, POSITIVE, REQUIRED, option

# Heading in `--help`; other models refuse these options.
_MASKS = "models that give masks"


@dataclass(kw_only=True)
class ScoreArguments(ModelOptions, DatasetOptions):
    """Command line of `score.py`."""

    dataset: str = option(REQUIRED, "folder or Hub id", metavar="DATASET")
    split: str = option("test", "split to score (%(default)s)")
    out: Path | None = option(None, "folder of the result (MODEL/scores/SPLIT)")
    tune_thresholds: bool = option(
        False, "for several labels per row: the best threshold per label on the selection split; lifts macro-F1"
    )
    decision: str = option(
        THRESHOLD,
        "for several labels per row: threshold, or the set with the highest expected F1; lifts samples-F1",
        choices=(THRESHOLD, EXPECTED_F1),
    )
    allow_outside: bool = option(False, "open pictures that rows name outside the folder of the data set")
    batch_size: int = option(64, "rows per batch (%(default)s)", allowed=COUNT)
    processes: int | None = option(
        None, "workers that answer, each with a model of its own (1; with Ray one per core or GPU)", allowed=COUNT
    )
    engine: str = option(LOCAL, "what runs the workers: processes of this machine, or Ray", choices=ENGINES)
    address: str | None = option(None, "of a Ray cluster; without one that of this machine", metavar="HOST:PORT")
    scales: list[float] | None = option(
        None, "average the predictions at these multiples of the picture size", group=_MASKS, allowed=POSITIVE
    )
    flip: bool = option(False, "average with the prediction for the mirrored picture", group=_MASKS)
    window: int | None = option(
        None, "side in pixels of a window that slides over the picture at its own size", group=_MASKS, allowed=COUNT
    )
    stride: int | None = option(
        None, "pixels from one window to the next (two thirds of a window)", group=_MASKS, allowed=COUNT
    )
    classifier: str | None = option(
        None,
        "model of flavours or ingredients that the flavour map is compared with",
        group=_MASKS,
        metavar="MODEL",
    )


PARSER = ArgumentParser(
    ScoreArguments, "score.py", description="Write predictions.parquet and metrics.json of a model."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Score one model on one split."""
    with command(PARSER, arguments) as given:
        # Imported here, so that --help and a mistyped argument do not wait for slow libraries.
        from trainer_scripts.scoring.score_run import run

        run(given)


if __name__ == "__main__":
    main()
