"""Pretrain the tiny image encoder that ships with this package: `python trainer_scripts/pretrain.py --out FOLDER`.

It draws plates of random ingredients, trains an encoder to name what lies at each place, and writes its checkpoint. An
interrupted command goes on where it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer_scripts.settings.command_line import ArgumentParser, command
from trainer_scripts.settings.options import COUNT, POSITIVE, SEED, option


@dataclass
class PretrainArguments:
    """Command line of `pretrain.py`."""

    out: Path = option(Path("outputs/plates-resnet18"), "folder of the checkpoint (%(default)s)")
    work: Path = option(Path("outputs/pretraining"), "folder of the plates and of both trainings (%(default)s)")
    plates: int = option(100_000, "training plates (%(default)s)", allowed=COUNT)
    validation: int = option(1000, "plates that choose nothing but are scored during training", allowed=COUNT)
    seed: int = option(0, "of the plates (%(default)s)", allowed=SEED)
    epochs: float | None = option(None, "epochs of each training; default: the configuration's", allowed=POSITIVE)


PARSER = ArgumentParser(PretrainArguments, "pretrain.py", description=__doc__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the plates, train on them, and write the checkpoint."""
    with command(PARSER, arguments) as given:
        # Imported here, so that --help and a mistyped argument do not wait for slow libraries.
        from trainer_scripts.pretraining.run import run

        run(given)


if __name__ == "__main__":
    main()
