"""Recipes planned per second, and the memory of all processes, at 10,000, 100,000 and 1,000,000 recipes.

A plan is what a build does before its first picture: it reads the table, labels, finds equal titles, splits and
divides into shards. Recipes are those of `labelling.py`, widened from the catalogue with quantities. Memory is the sum
over the main process and its workers, shared pages counted once (PSS), sampled ten times a second.

    python benchmarks/planning.py [--sizes 10000 100000 1000000] [--processes 2]
"""

import csv
import resource
import sys
import tempfile
import time
from pathlib import Path

import psutil
from labelling import make_recipes
from measuring import Row, arguments_of, report

PLAN = """
import sys
from pathlib import Path
from dataset_builder.building.plan import Plan
from dataset_builder.building.settings import BuildSettings
from dataset_builder.engines.local import LocalEngine
engine = LocalEngine(int(sys.argv[3])) if int(sys.argv[3]) else None
kept = Path(sys.argv[2]) / "plan"
Plan(BuildSettings(sys.argv[1]), kept, engine).keep(kept)
"""
MOST_SECONDS, MOST_MEMORY = 120, 1000  # for a million recipes on two cores


def write_table(path: Path, number: int) -> None:
    """Write a table in portions, so that a million recipes do not fill the memory of the benchmark itself."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["Title", "Ingredients", "Instructions"])
        for portion in range(0, number, 10_000):
            rows = make_recipes(min(10_000, number - portion), distinct=False, seed=portion)
            writer.writerows((f"{title} {portion}", str(lines), "Mix, then serve.") for title, lines in rows)


def measure(number: int, processes: int) -> tuple[float, float, int]:
    """Return seconds by the clock, of processor time in all processes, and megabytes of one plan."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "recipes.csv"
        write_table(table, number)
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        child = psutil.Popen([sys.executable, "-c", PLAN, str(table), folder, str(processes)])
        most = 0
        while child.poll() is None:
            most = max(most, memory_of(child))
            time.sleep(0.1)
        if child.returncode:
            raise SystemExit(f"the plan of {number} recipes failed")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return time.perf_counter() - start, used, most >> 20


def memory_of(process: psutil.Process) -> int:
    """Return the bytes that a process and those it started hold."""
    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_full_info().pss
    except psutil.Error:  # it ended meanwhile
        return total
    return total


def main() -> None:
    sizes = {"nargs": "+", "type": int, "default": [10_000, 100_000, 1_000_000]}
    given = arguments_of(__doc__, rounds=1, sizes=sizes, processes={"type": int, "default": 0})
    rows = []
    for number in given.sizes:
        seconds, used, memory = measure(number, given.processes)
        rate = f"{seconds:.0f} s, {number / seconds:,.0f} recipes/s, {used:.0f} s of processor time, {memory} MB"
        print(f"{number:>9,} recipes: {rate}", flush=True)
        wanted = MOST_SECONDS * number / 1_000_000 if number >= 1_000_000 else None
        rows.append(
            Row(
                f"plan of {number:,} recipes: {number / seconds:,.0f} recipes/s",
                f"{MOST_SECONDS} s for a million; {memory} MB in all processes",
                [(wanted or MOST_SECONDS) / seconds],
                1.0 if wanted else None,
            )
        )
    report(rows, given)


if __name__ == "__main__":
    main()
