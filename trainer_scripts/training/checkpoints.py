"""Checkpoints to go on from: whole ones, because going on from half of one leads to other weights without a word."""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers.trainer_pt_utils import safe_globals
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from dataset_builder.boundaries import outside, parse_json, read_text
from dataset_builder.errors import BadInputError

TRAINER_STATE = "trainer_state.json"
RANDOM_STATE = "rng_state*.pth"
READ_BY_TRAINER = ("optimizer.pt", "scheduler.pt")
# Sharded training (FSDP, DeepSpeed) keeps optimizer and weights in files and folders of its own.
SHARDED = ("pytorch_model_fsdp*", "optimizer_*", "optimizer.bin", "global_step*")


def checkpoints(folder: Path, needed: Sequence[str] = ()) -> list[Path]:
    """Return the checkpoints whose writing was finished, the one with the most steps first.

    Args:
        folder: output folder of a run.
        needed: files that callbacks write after those of the Trainer.
    """
    found = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rsplit("-", 1)[1].isdigit()]
    # The state is the last file that the Trainer writes.
    finished = [path for path in found if _state(path) and all((path / name).is_file() for name in needed)]
    return sorted(finished, key=lambda path: -int(path.name.rsplit("-", 1)[1]))


def newest_checkpoint(folder: Path, needed: Sequence[str] = ()) -> Path | None:
    """Return the finished checkpoint with the most steps; `needed` names files beside those of the Trainer."""
    return next(iter(checkpoints(folder, needed)), None)


def sound_checkpoint(found: Iterable[Path]) -> tuple[Path | None, list[str]]:
    """Return the first checkpoint that is whole, and a sentence for each before it that is not."""
    faults: list[str] = []
    for path in found:
        fault = fault_of(path)
        if fault is None:
            return path, faults
        faults.append(f"{path} {fault}")
    return None, faults


def fault_of(checkpoint: Path) -> str | None:
    """Return what a checkpoint lacks for going on as if there had been no interruption, or None."""
    names = [path.name for path in checkpoint.iterdir()]
    wanted = [RANDOM_STATE, "scheduler.pt"]
    sharded = any(any(checkpoint.glob(pattern)) for pattern in SHARDED)
    wanted += [] if sharded else ["optimizer.pt", "*.safetensors"]
    lacking = [pattern for pattern in wanted if not any(checkpoint.glob(pattern))]
    if lacking:
        return f"has no {' and no '.join(lacking)}"
    for name in sorted(names):
        path = checkpoint / name
        try:
            with outside("is damaged"):
                if name.endswith((".pt", ".pth")):
                    _read_through(path)
                elif name.endswith(".safetensors"):
                    with safe_open(path, "pt") as file:
                        file.keys()
        except BadInputError as error:
            return f"holds a {name} that {error}"
    return None


def _read_through(path: Path) -> None:
    """Raise an error of the library unless a file of torch is a whole archive that the Trainer will read."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise ValueError(f"{broken} in it is not what was written")
    if path.name in READ_BY_TRAINER or path.match(RANDOM_STATE):
        # As the Trainer does, but without taking memory for the numbers.
        with safe_globals():
            torch.load(path, map_location="meta", mmap=True, weights_only=True)


def _state(checkpoint: Path) -> dict[str, Any] | None:
    """Return the Trainer's state, None where it was not written whole."""
    try:
        state = parse_json(read_text(checkpoint / TRAINER_STATE, ""), TRAINER_STATE, "")
    except (FileNotFoundError, BadInputError):
        return None
    return state if isinstance(state, dict) else None
