"""Scoring a finished model of photograph and title: how fast it answers, and what its ablations add.

The model has a frozen MobileNetV2 and a frozen text encoder of MiniLM's shape, both at full size with fresh weights.
Answering from JPEG files, without anything stored, stands beside the transformers processor and the eager model in
batches of 32; answers with all ablations stand beside answers alone, with nothing stored for either. The graph for ONNX
Runtime, made once per command, is part of the time. The kernel's share of the time is printed.
"""

import os
import resource
import shutil
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from feature_cache import configuration_of, fresh_backbone
from measuring import Row, arguments_of, in_turns, per_second, ratios, report
from photographs import write_rows

from modeling_flavour.processing_flavour import open_picture
from trainer_scripts.data.table import Table, decode_bytes
from trainer_scripts.settings.command_line import keep_freed_memory
from trainer_scripts.tasks.common.task import SavedModel
from trainer_scripts.training.data import load_training_data

BATCH = 32


def made(dataset: Path, folder: Path) -> tuple[SavedModel, Table]:
    """A model as scoring holds it, and the rows to score."""
    configuration = configuration_of(dataset, fresh_backbone(folder / "mobilenet"), folder)
    data = load_training_data(configuration)
    model, processor = data.task.build(configuration, data)
    return SavedModel("model", str(folder), model.eval(), processor, data.task, configuration.data), data.train


@torch.inference_mode()
def loop(model: SavedModel, table: Table) -> None:
    """The straightforward way: the processor and the model, batch by batch."""
    cells = list(table.cells())
    for start in range(0, len(table), BATCH):
        rows = range(start, min(start + BATCH, len(table)))
        pictures = [open_picture(decode_bytes(cells[row], table.ids[row])) for row in rows]
        inputs = model.processor(images=pictures, text=[table.texts[row] for row in rows])
        model.model(**inputs).logits.softmax(-1).numpy()


def answers(model: SavedModel, table: Table, ablations: bool, stored: bool) -> None:
    """Ours, in the state of a command that has just started."""
    if not stored:
        shutil.rmtree(model.arguments.features_dir, ignore_errors=True)
    new = replace(model, kept={})
    new.task.answers(new, table, BATCH)
    if ablations:
        list(new.task.changes(new, table, BATCH))


def kernel_share(work: Any) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    kernel, own = after.ru_stime - before.ru_stime, after.ru_utime - before.ru_utime
    return f"{kernel / (kernel + own):.1%} of {kernel + own:.1f} s of processor time"


def main() -> None:
    number = {"type": int, "default": 512, "help": "photographs (%(default)s)"}
    given = arguments_of(__doc__, 3, pictures=number)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model, table = made(write_rows(folder, given.pictures), folder)
        ways = {
            "loop": partial(loop, model, table),
            "ours": partial(answers, model, table, False, False),
            "ablations": partial(answers, model, table, True, False),
            "stored": partial(answers, model, table, False, True),
        }
        found = in_turns(ways, given.rounds, given.clock)
        print(
            f"in the kernel: scoring {kernel_share(ways['ours'])}, with all ablations {kernel_share(ways['ablations'])}"
        )
    rate = {name: per_second(seconds, len(table), "rows") for name, seconds in found.items()}
    beside = f"processor + eager model: {rate['loop']}"
    report(
        [
            Row(f"scoring, nothing stored: {rate['ours']}", beside, ratios(found["loop"], found["ours"]), 5),
            Row(f"scoring, features stored: {rate['stored']}", beside, ratios(found["loop"], found["stored"]), 5),
            Row(
                f"with all ablations: {rate['ablations']}",
                f"scoring alone: {rate['ours']}",
                ratios(found["ours"], found["ablations"]),
                0.5,
            ),
        ],
        given,
    )


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
