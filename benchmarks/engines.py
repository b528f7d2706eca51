"""Pictures per second of a build on each engine, with one and with two workers.

The same plan is drawn by processes of this machine and by actors of a Ray cluster that is started here, each with one
and two workers; ways take turns. The rate is that between the first and the last shard of all that were drawn, so that
it is not about how long workers take to start, which is said apart.

    python benchmarks/engines.py [--rounds 2] [--pictures 1200]
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import ray
from measuring import Row, arguments_of, report

from dataset_builder.building.drawing import Drawing
from dataset_builder.building.plan import Plan
from dataset_builder.building.settings import BuildSettings
from dataset_builder.building.shards import BuildFolder
from dataset_builder.engines.local import LocalEngine
from dataset_builder.engines.ray_engine import RayEngine
from dataset_builder.engines.work import Engine
from dataset_builder.pictures.settings import GenerationSettings

REQUIRED = 0.9
WORKERS = (1, 2)


def measure(plan: Plan, engine: Engine) -> tuple[float, float]:
    """Return pictures per second, and the seconds before the first shard."""
    with tempfile.TemporaryDirectory() as place:
        folder = BuildFolder(Path(place))
        folder.open(plan.fingerprint)
        start, ends = time.perf_counter(), []
        for _ in engine.run(Drawing(plan, folder), plan.shards()):
            ends.append(time.perf_counter())
        folder.close()
    rows = [plan.rows_in(shard) for shard in plan.shards()]
    return sum(rows[1:]) / (ends[-1] - ends[0]), ends[0] - start


def main() -> None:
    given = arguments_of(__doc__, rounds=2, pictures={"type": int, "default": 1200})
    settings = BuildSettings(number=given.pictures, recipes_per_shard=32, generation=GenerationSettings(size=128))
    ray.init(num_cpus=max(WORKERS), include_dashboard=False, log_to_driver=False, logging_level="error")
    with tempfile.TemporaryDirectory() as place:
        plan = Plan(settings, Path(place) / "plan")
        plan.keep(Path(place) / "plan")
        ways = {("local", n): LocalEngine(n) for n in WORKERS} | {("ray", n): RayEngine(None, n) for n in WORKERS}
        found: dict[tuple[str, int], list[tuple[float, float]]] = {way: [] for way in ways}
        for number in range(given.rounds):
            turn = number % len(ways)
            names = list(ways)
            for way in names[turn:] + names[:turn]:
                found[way].append(measure(plan, ways[way]))
    rows = []
    for workers in WORKERS:
        ours, theirs = found["ray", workers], found["local", workers]
        rate = {way: statistics.median(of[0] for of in found[way, workers]) for way in ("local", "ray")}
        first = {way: statistics.median(of[1] for of in found[way, workers]) for way in ("local", "ray")}
        rows.append(
            Row(
                f"ray, {workers} actors: {rate['ray']:.1f} pictures/s, first shard after {first['ray']:.1f} s",
                f"local, {workers} processes: {rate['local']:.1f} pictures/s, after {first['local']:.1f} s",
                [one[0] / other[0] for one, other in zip(ours, theirs, strict=True)],
                REQUIRED,
            )
        )
    report(rows, given)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
