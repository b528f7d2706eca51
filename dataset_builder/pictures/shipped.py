"""Diffusion pipelines that come with this package, by name. No model library is imported here."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "pipelines"


@dataclass(frozen=True)
class DrawingDefaults:
    """How a pipeline draws unless the settings say otherwise.

    Attributes:
        steps: denoising steps.
        guidance: guidance scale.
    """

    steps: int | None = None
    guidance: float | None = None


# A pipeline folder cannot state these itself, and those of diffusers are made for large models. Chosen on dishes of the
# validation split, see the card of the pipeline.
_DEFAULTS = {"plates-ldm": DrawingDefaults(steps=25, guidance=3.0)}


def shipped_folder(name: str) -> Path | None:
    """Return the folder of a pipeline of this package; None for any other name, and where a folder here has it."""
    if Path(name).exists() or not name or Path(name).name != name:
        return None
    folder = FOLDER / name
    return folder if (folder / "model_index.json").is_file() else None


def drawing_defaults(name: str) -> DrawingDefaults:
    """Return how a pipeline draws unless the settings say otherwise; nothing for pipelines of others."""
    return _DEFAULTS.get(name, DrawingDefaults()) if shipped_folder(name) is not None else DrawingDefaults()
