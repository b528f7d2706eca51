"""Command line `flavour-sd`: label, lint, build, audit, import, publish."""

import argparse
import sys
from collections.abc import Sequence

from dataset_builder.errors import exit_on_bad_input

PROGRAM = "flavour-sd"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; every verb sets `run`, a function of the parsed arguments that gives the exit status."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Recipes to a labelled, illustrated, versioned data set."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_import(verbs)
    return parser


def _add_import(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("import", help="read another system's data into the columns of the one table")
    verb.add_argument("name", choices=("comp5329", "flickr8k", "coco", "foodseg103", "upmc-food101"))
    verb.add_argument("source", metavar="SRC", help="folder in the layout of that set; for foodseg103 also a Hub id")
    verb.add_argument("--out", required=True, metavar="DIR", help="new folder for the Parquet files")
    verb.add_argument(
        "--reference", action="store_true", help="refer to the pictures by path instead of embedding them"
    )
    verb.add_argument("--strict", action="store_true", help="a missing or broken picture is an error")
    verb.set_defaults(run=_run_import)


def _run_import(parsed: argparse.Namespace) -> int:
    from dataset_builder.importers import import_table

    summary = import_table(parsed.name, parsed.source, parsed.out, embed=not parsed.reference, strict=parsed.strict)
    print(summary)
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb; bad input ends with one line on stderr and status 2."""
    parsed = build_parser().parse_args(arguments)
    with exit_on_bad_input(f"{PROGRAM} {parsed.verb}"):
        sys.exit(parsed.run(parsed))


if __name__ == "__main__":
    main()
