"""Pictures per second of a build against a bare loop over the same pipeline and batch size.

The bare loop calls the pipeline and keeps nothing: no checks, no masks, no captions, no files. A second bare loop does
the least that anyone needs who wants the pictures: it saves each as PNG. The build does all of its work, from prompt to
fsynced Parquet. The three take turns batch by batch, several rounds, in one thread; processor time is compared, as it
is what they differ in and suffers least from other programs on the machine.

Of plating, which uses one core a process, the last row is time by the clock: all shards as the command draws them,
on every core, against the bare loop.

    python benchmarks/generation.py [--rounds 5]
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from measuring import Row, arguments_of, in_turns, per_second, ratios, report

from dataset_builder.building.drawing import draw_shards
from dataset_builder.building.plan import Plan
from dataset_builder.building.rows import LabelledDish
from dataset_builder.building.settings import BuildSettings
from dataset_builder.building.shards import BuildFolder, Shard, write_table
from dataset_builder.engines.local import LocalEngine
from dataset_builder.pictures import prompts
from dataset_builder.pictures.illustrator import Illustrator
from dataset_builder.pictures.settings import GenerationSettings, picture_seed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.tiny_pipelines import save, tiny_stable_diffusion

BATCH = 8
SHARD = BuildSettings().recipes_per_shard
REQUIRED = 0.97


def bare_call(illustrator: Illustrator, batch: list[LabelledDish], folder: Path | None = None) -> None:
    """Call the pipeline for one batch; save the pictures where a folder is given."""
    settings = illustrator.settings
    output = illustrator.pipeline(
        [prompts.render("ingredients", item.dish.title, item.dish.ingredients) for item in batch],
        num_inference_steps=settings.steps or 1,
        height=settings.size,
        width=settings.size,
        generator=[torch.Generator().manual_seed(picture_seed(0, item.row_id(0))) for item in batch],
    )
    if folder is not None:
        for number, image in enumerate(output.images):
            image.save(folder / f"{number}.png")


def compare(name: str, generation: GenerationSettings, pictures: int, rounds: int) -> list[Row]:
    """Measure one pipeline: the build beside the bare loop, and beside the one that saves."""
    plan = Plan(BuildSettings(number=1400, generation=generation))
    illustrator = plan.illustrator()
    groups = list(plan.groups(Shard("train", 0, 1, 0, pictures)))
    for group in groups:
        bare_call(illustrator, group)  # fill whatever the pipeline keeps between calls
    found: dict[str, list[float]] = {"bare": [], "saving": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for _ in range(rounds):
            sums, rows = dict.fromkeys(("bare", "saving", "build"), 0.0), []
            for number, group in enumerate(groups):
                ways: list[tuple[str, Callable[[], Any]]] = [
                    ("bare", partial(bare_call, illustrator, group)),
                    ("build", lambda group=group: list(plan.draw(group, illustrator))),
                    ("saving", partial(bare_call, illustrator, group, folder)),
                ]
                turn = number % len(ways)  # nobody is always the first
                for way, work in ways[turn:] + ways[:turn]:
                    start = time.process_time()
                    drawn = work()
                    sums[way] += time.process_time() - start
                    if way == "build":
                        rows += [row for _, row, _ in drawn if row is not None]
            start = time.process_time()
            write_table(folder / "shard.parquet", pa.Table.from_pylist(rows, schema=plan.schema))
            sums["build"] += time.process_time() - start
            for way, values in found.items():
                values.append(sums[way] / sums["build"])
    rate = {way: f"{pictures / seconds:.1f} pictures/s" for way, seconds in sums.items()}
    build = f"build with {name}: {rate['build']}"
    return [
        Row(build, f"bare loop over the pipeline: {rate['bare']}", found["bare"], REQUIRED),
        Row(build, f"loop that saves PNG files: {rate['saving']}", found["saving"]),
    ]


def compare_by_the_clock(generation: GenerationSettings, rounds: int) -> Row:
    """Measure all shards of a plan in the processes of the command against the bare loop over the same pictures."""
    plan = Plan(BuildSettings(number=1400, generation=generation))
    illustrator = plan.illustrator()
    groups = [group for shard in plan.shards() for group in plan.groups(shard)]
    cores = os.cpu_count() or 1

    def build() -> None:
        with tempfile.TemporaryDirectory() as place:
            folder = BuildFolder(Path(place))
            folder.open(plan.fingerprint)
            draw_shards(plan, folder, plan.shards(), LocalEngine(cores))
            folder.close()

    def bare_loop() -> None:
        for group in groups:
            bare_call(illustrator, group)

    taken = in_turns({"bare": bare_loop, "build": build}, rounds)
    rate = {way: per_second(seconds, sum(map(len, groups)), "pictures") for way, seconds in taken.items()}
    return Row(
        f"build with plating, by the clock, {cores} processes: {rate['build']}",
        f"bare loop over the pipeline: {rate['bare']}",
        ratios(taken["bare"], taken["build"]),
        REQUIRED,
    )


def main() -> None:
    given = arguments_of(__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        stable_diffusion = GenerationSettings(
            save(tiny_stable_diffusion(), Path(folder)), size=64, steps=10, batch_size=BATCH
        )
        plating = GenerationSettings(size=128, batch_size=BATCH)
        rows = compare("plating, 128 px", plating, SHARD, given.rounds)
        rows.append(compare_by_the_clock(plating, given.rounds))
        rows += compare("tiny Stable Diffusion, 64 px, 10 steps", stable_diffusion, 32, given.rounds)
    report(rows, given)


if __name__ == "__main__":
    main()
