"""Try damaged inputs on every reader for some time: `python -m tests.fuzz.run --seconds 600 [--seed N]`.

Inputs that fail are kept in `tests/fuzz/corpus/FAMILY-SEED`, where the tests try them from then on.
"""

import argparse
import io
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stderr
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

from dataset_builder.progress import quiet_libraries
from tests.fuzz.families import FAMILIES, damaged, fault
from tests.fuzz.watching import Place, watched

CORPUS = Path(__file__).parent / "corpus"


def try_inputs(to: Connection, start: Place, end: float) -> None:
    """Try inputs from a place on until the time is over, and tell of each before (its place) and after it.

    Args:
        to: takes places, and places with what is wrong (None for nothing).
        start: where to begin.
        end: of the time, as `time.monotonic` has it.
    """
    quiet_libraries()
    names = list(FAMILIES)
    first = names.index(start[1])
    with tempfile.TemporaryDirectory() as folder:
        for seed in count(start[0]):
            for name in names[first:]:
                if time.monotonic() > end:
                    return
                to.send((seed, name))
                started = time.monotonic()
                # What readers print about so many inputs is of no use.
                with redirect_stderr(io.StringIO()):
                    wrong = fault(FAMILIES[name], damaged(FAMILIES[name], seed), Path(folder))
                if wrong is None and time.monotonic() - started > 20:
                    wrong = "it took over 20 s"
                to.send((seed, name, wrong))
            first = 0


def main() -> int:
    """Try inputs until the time is over; return 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    given = parser.parse_args()
    tried: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    end, names = time.monotonic() + given.seconds, list(FAMILIES)
    start = (given.seed, names[0])
    while time.monotonic() < end:
        for (seed, name), wrong in watched(try_inputs, start, end):
            tried[name] += 1
            following = names.index(name) + 1
            start = (seed, names[following]) if following < len(names) else (seed + 1, names[0])
            if wrong is not None:
                failed[name] += 1
                print(f"{name} {seed}: {wrong}", flush=True)
                CORPUS.mkdir(exist_ok=True)
                (CORPUS / f"{name}-{seed}").write_bytes(damaged(FAMILIES[name], seed))
    for name in FAMILIES:
        print(f"{name:16s} {tried[name]:7d} inputs, {failed[name]} faults")
    print(f"{'all':16s} {sum(tried.values()):7d} inputs, {sum(failed.values())} faults")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
