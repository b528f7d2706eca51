"""The whole road on one machine: recipes in, published data set and models out (`make demo`).

Every step is skipped when its result is there, so an interrupted demo goes on where it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer_scripts.settings.command_line import ArgumentParser, command
from trainer_scripts.settings.options import COUNT, option


@dataclass
class DemoArguments:
    """Command line of `demo.py`."""

    task: Literal["flavour", "captioning", "segmentation", "text_to_image"] = option("flavour", "task of the models")
    recipes: str | None = option(None, "your own recipe table instead of the embedded catalogue")
    out: Path | None = option(None, "folder of the results (outputs/demo)")
    number: int | None = option(
        None, "number of recipes that are made from the catalogue (3600; 2000 for masks)", allowed=COUNT
    )
    epochs: float | None = option(None, "epochs of each training; default: the configuration's")


PARSER = ArgumentParser(DemoArguments, "demo.py", description=__doc__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the steps of one task."""
    with command(PARSER, arguments) as given:
        # Imported here, so that --help and a mistyped argument do not wait for slow libraries.
        from trainer_scripts.demos.run import run

        run(given)


if __name__ == "__main__":
    main()
