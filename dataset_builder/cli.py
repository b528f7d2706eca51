"""Command line `flavour-sd`: label, lint, build, audit, import, publish."""

import argparse
import sys
from collections.abc import Sequence

from dataset_builder.errors import exit_on_bad_input

PROGRAM = "flavour-sd"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; every verb sets `run`, a function of the parsed arguments that gives the exit status."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Recipes to a labelled, illustrated, versioned data set.")
    parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb; bad input ends with one line on stderr and status 2."""
    parsed = build_parser().parse_args(arguments)
    with exit_on_bad_input(f"{PROGRAM} {parsed.verb}"):
        sys.exit(parsed.run(parsed))


if __name__ == "__main__":
    main()
