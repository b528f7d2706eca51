"""Seconds and peak memory of importing many photographs, embedded into Parquet.

The set is made of hard links to a few JPEG files of 640 x 480, in the layout of COMP5329, with its quotes and commas.

    python benchmarks/importing.py [--pictures 40000]

The goal is a limit on memory: the ratio is what is allowed over what was used.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import Row, arguments_of, per_second, report
from PIL import Image

REQUIRED_GB = 3.0
DISTINCT = 20


def make_set(folder: Path, pictures: int) -> None:
    """Write `train.csv` and `data/` with that many pictures."""
    (folder / "data").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(min(DISTINCT, pictures)):
        coarse = generator.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((640, 480)).save(folder / "data" / f"{number}.jpg", quality=90)
    for number in range(DISTINCT, pictures):
        os.link(folder / "data" / f"{number % DISTINCT}.jpg", folder / "data" / f"{number}.jpg")
    lines = (f'{number}.jpg,1 3,"A sign, number {number}, that reads "stop."\n' for number in range(pictures))
    with (folder / "train.csv").open("w") as table:
        table.write("ImageID,Labels,Caption\n")
        table.writelines(lines)


def main() -> None:
    given = arguments_of(__doc__, rounds=1, pictures={"type": int, "default": 40_000})
    seconds, written = [], 0
    with tempfile.TemporaryDirectory() as place:
        source, out = Path(place) / "source", Path(place) / "out"
        make_set(source, given.pictures)
        command = [sys.executable, "-m", "dataset_builder.cli", "import", "comp5329", str(source), "--out", str(out)]
        for _ in range(given.rounds):
            shutil.rmtree(out, ignore_errors=True)
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - start)
        written = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    # The largest of all child processes, in kibibytes on Linux.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    rate = per_second(seconds, given.pictures, "pictures")
    print(f"{given.pictures:,} pictures ({written / 1e9:.2f} GB of Parquet) imported in {min(seconds):.0f} s, {rate}")
    report([Row(f"import: {peak:.2f} GB", f"limit: {REQUIRED_GB:g} GB", [REQUIRED_GB / peak], 1.0)], given)


if __name__ == "__main__":
    main()
