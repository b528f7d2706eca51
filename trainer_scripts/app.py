"""See it, try it, correct it: `python trainer_scripts/app.py [MODEL ...] [--dataset DATA]`.

Serves a page on loopback with one tab per kind of model that is given, and one for the data set. MODEL is a folder, a
Hub id or `ID@REVISION`; without any model and data set the tab for dishes that change still works.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer_scripts.settings.command_line import ArgumentParser, command
from trainer_scripts.settings.options import COUNT, REQUIRED, Range, option


@dataclass
class AppArguments:
    """Command line of `app.py`."""

    models: list[str] = option(REQUIRED, "folders, Hub ids or ID@REVISION", metavar="MODEL", may_be_absent=True)
    dataset: str | None = option(None, "data set to look at and to correct: folder, Hub id or ID@REVISION")
    revision: str | None = option(None, "revision of Hub models that name none (main)")
    trust_remote_code: bool = option(False, "let a model whose classes are not of this package run its own code")
    pipeline: str = option("plating", "draws the plates of what-if: plating, or a diffusers pipeline (%(default)s)")
    examples: Path | None = option(None, "folder of pictures to try, with their titles in titles.json")
    host: str | None = option(None, "address to serve on; another than loopback lets others in (127.0.0.1)")
    port: int | None = option(None, "port (the first free one from 7860 on)", allowed=Range(1, 65535))
    waiting: int = option(100, "largest number of requests that wait (%(default)s)", allowed=COUNT)
    threads: int | None = option(None, "threads of the models (all cores)", allowed=COUNT)


PARSER = ArgumentParser(AppArguments, "app.py", description="A page to try models, and to see and correct a data set.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the app until it is interrupted."""
    with command(PARSER, arguments) as given:
        # Imported here, so that --help and a mistyped argument do not wait for slow libraries.
        from trainer_scripts.app_pages.run import run

        run(given)


if __name__ == "__main__":
    main()
