"""Train a model: `accelerate launch trainer_scripts/train.py [CONFIGURATION] [--argument value ...]`.

Without an argument the default configuration is trained, on the embedded data set, which is built first when it is
missing.
"""

import sys
from collections.abc import Sequence

from dataset_builder.errors import exit_on_bad_input
from dataset_builder.messages import echo
from trainer_scripts.settings.command_line import prepare_process
from trainer_scripts.settings.train_help import asks_for_help, help_page


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what the command line describes; bad input ends with one line on stderr and status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    if asks_for_help(given):
        echo(help_page().rstrip("\n"))
        return
    with exit_on_bad_input("train.py"):
        prepare_process(any(word.split("=")[0] == "--verbose" for word in given))
        # Imported here, so that --help does not wait for transformers, nor a mistyped argument for slower libraries.
        from trainer_scripts.settings.configurations import parse_configuration

        configuration = parse_configuration(given)
        from trainer_scripts.improving.run import run

        run(configuration)


if __name__ == "__main__":
    main()
