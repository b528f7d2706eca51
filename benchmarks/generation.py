"""Pictures per second of a build against a bare loop over the same pipeline and batch size.

The bare loop calls the pipeline and keeps nothing: no checks, no masks, no captions, no files. A second bare loop does
the least that anyone needs who wants the pictures: it saves each as PNG. The build does all of its work, from prompt to
fsynced Parquet. The three take turns, several rounds, in one thread, and processor time is compared: it is what they
differ in, and another program on the machine does not change it.

    python benchmarks/generation.py [--rounds 5]
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from dataset_builder import prompts
from dataset_builder.flavour_sd import BuildSettings, LabelledDish, Plan
from dataset_builder.generation import GenerationSettings, Illustrator, picture_seed
from dataset_builder.shards import Shard, write_table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.tiny_pipelines import save, tiny_stable_diffusion

BATCH = 8
REQUIRED = 0.97


def bare_loop(illustrator: Illustrator, recipes: list[LabelledDish], folder: Path | None) -> None:
    """Call the pipeline batch by batch; save the pictures where a folder is given."""
    settings = illustrator.settings
    for start in range(0, len(recipes), BATCH):
        batch = recipes[start : start + BATCH]
        texts = [prompts.render("ingredients", item.dish.title, item.dish.ingredients) for item in batch]
        output = illustrator.pipeline(
            texts,
            num_inference_steps=settings.steps or 1,
            height=settings.size,
            width=settings.size,
            generator=[torch.Generator().manual_seed(picture_seed(0, item.row_id(0))) for item in batch],
        )
        if folder is not None:
            for number, image in enumerate(output.images):
                image.save(folder / f"{start + number}.png")


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Return how long a call takes and how much of it the processor worked for this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def ratio(took: dict[str, list[tuple[float, float]]], way: str, clock: int) -> float:
    """Return the speed of the build over that of another way: the median over neighbours in time."""
    return statistics.median(other[clock] / own[clock] for other, own in zip(took[way], took["build"], strict=True))


def compare(name: str, generation: GenerationSettings, pictures: int, rounds: int) -> float:
    """Measure one pipeline, print a line, return the build's speed over that of the bare loop."""
    plan = Plan(BuildSettings(number=1400, generation=generation))
    illustrator = plan.illustrator()
    shard = Shard("train", 0, 1, 0, pictures)
    recipes = plan.recipes["train"][:pictures]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        ways: dict[str, Callable[[], None]] = {
            "bare": lambda: bare_loop(illustrator, recipes, None),
            "saving": lambda: bare_loop(illustrator, recipes, folder),
            "build": lambda: write_table(folder / shard.file_name, plan.draw_shard(shard, illustrator)),
        }
        for work in ways.values():
            work()
        took: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, work in ways.items():
                took[way].append(seconds(work))
    speed = pictures / statistics.median(wall for wall, _ in took["build"])
    print(
        f"{name}: build {speed:.1f} pictures/s; of a bare loop {ratio(took, 'bare', 1):.3f} "
        f"(by the clock {ratio(took, 'bare', 0):.3f}), of one that saves PNG files {ratio(took, 'saving', 1):.3f}"
    )
    return ratio(took, "bare", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        stable_diffusion = save(tiny_stable_diffusion(), Path(folder))
        ratios = [
            compare("plating, 128 px", GenerationSettings(size=128, batch_size=BATCH), 96, rounds),
            compare(
                "tiny Stable Diffusion, 64 px, 10 steps",
                GenerationSettings(stable_diffusion, size=64, steps=10, batch_size=BATCH),
                32,
                rounds,
            ),
        ]
    verdict = "as required" if min(ratios) >= REQUIRED else "too slow"
    print(f"least ratio {min(ratios):.3f}, required {REQUIRED}: {verdict}")


if __name__ == "__main__":
    main()
