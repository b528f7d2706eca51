"""Compare models honestly: `python trainer_scripts/compare.py MODEL MODEL ... DATASET [--out DIR]`.

A MODEL may also be `ID@REVISION` on a Hub, or a folder that `score.py` wrote; when all are such folders no DATASET is
given, and what needs a model or its data is left out and named.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer_scripts.settings.command_line import ArgumentParser, DatasetOptions, command
from trainer_scripts.settings.options import COUNT, REQUIRED, Range, option


@dataclass
class CompareArguments(DatasetOptions):
    """Command line of `compare.py`."""

    sources: list[str] = option(
        REQUIRED,
        "models (folders, Hub ids or ID@REVISION; folders that score.py wrote stand for theirs), and last the "
        "data set (folder or Hub id), which is left out where all models are such folders",
        metavar="MODEL ... DATASET",
    )
    split: str | None = option(None, "split to compare on (test)")
    also: str | None = option(
        None, "second data set (folder or Hub id): the same models there, such as on photographs after drawings"
    )
    also_split: str | None = option(None, "the one split of --also that is scored (all)")
    also_columns: dict[str, str] | None = option(None, "column mapping of --also, as --columns")
    allow_outside: bool = option(False, "open pictures that rows name outside the folder of the data set")
    batch_size: int = option(64, "rows per batch (%(default)s)", allowed=COUNT)
    ablation_rows: int = option(2000, "largest number of rows for the ablations (%(default)s)", allowed=Range(2))
    out: Path = option(Path("outputs/comparison"), "folder of the result (%(default)s)")


PARSER = ArgumentParser(
    CompareArguments,
    "compare.py",
    usage="%(prog)s [options] MODEL [MODEL ...] DATASET\n       %(prog)s [options] SCORES [SCORES ...]",
    description="Models and baselines on the same test rows: scores, tests, ablations, plots.",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare models on one split."""
    with command(PARSER, arguments) as given:
        # Imported here, so that --help and a mistyped argument do not wait for slow libraries.
        from trainer_scripts.comparing.run import run

        run(given)


if __name__ == "__main__":
    main()
