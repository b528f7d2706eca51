"""Pretrain a model of plates from nothing: `python trainer_scripts/pretrain.py --model plates-resnet18 --out FOLDER`.

All learn from plates of random ingredients, which are drawn once: `plates-resnet18`, an image encoder, names what lies
at each place; `plates-autoencoder` turns pictures into latents and back; `plates-ldm`, a latent diffusion model around
it, draws plates. The first two ship with this package.
An interrupted command goes on where it stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer_scripts.settings.command_line import ArgumentParser, command
from trainer_scripts.settings.options import COUNT, POSITIVE, SEED, option


@dataclass
class PretrainArguments:
    """Command line of `pretrain.py`."""

    model: Literal["plates-resnet18", "plates-autoencoder", "plates-ldm"] = option(
        "plates-resnet18", "what is trained (%(default)s)"
    )
    out: Path | None = option(None, "folder of the checkpoint (outputs/MODEL)")
    work: Path = option(Path("outputs/pretraining"), "folder of the plates and of all trainings (%(default)s)")
    plates: int = option(100_000, "training plates (%(default)s)", allowed=COUNT)
    validation: int = option(1000, "plates that choose nothing but are scored during training", allowed=COUNT)
    seed: int = option(0, "of the plates (%(default)s)", allowed=SEED)
    epochs: float | None = option(None, "epochs of each training; default: the configuration's", allowed=POSITIVE)


PARSER = ArgumentParser(PretrainArguments, "pretrain.py", description=__doc__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the plates, train on them, and write the checkpoint."""
    with command(PARSER, arguments) as given:
        # Imported here, so that --help and a mistyped argument do not wait for slow libraries.
        from trainer_scripts.pretraining import autoencoder, diffusion, encoder

        steps = {"plates-resnet18": encoder, "plates-autoencoder": autoencoder, "plates-ldm": diffusion}
        steps[given.model].run(given)


if __name__ == "__main__":
    main()
