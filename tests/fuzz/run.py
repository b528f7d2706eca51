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
from pathlib import Path

from dataset_builder.progress import quiet_libraries
from tests.fuzz.families import FAMILIES, damaged, fault

CORPUS = Path(__file__).parent / "corpus"


def main() -> int:
    """Try inputs until the time is over; return 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    given = parser.parse_args()
    quiet_libraries()
    tried: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    end = time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory() as folder:
        for seed in count(given.seed):
            if time.monotonic() > end:
                break
            for name, family in FAMILIES.items():
                content = damaged(family, seed)
                started = time.monotonic()
                # What readers print about so many inputs is of no use.
                with redirect_stderr(io.StringIO()):
                    wrong = fault(family, content, Path(folder))
                tried[name] += 1
                if wrong is None and time.monotonic() - started > 20:
                    wrong = "it took over 20 s"
                if wrong is not None:
                    failed[name] += 1
                    print(f"{name} {seed}: {wrong}", flush=True)
                    CORPUS.mkdir(exist_ok=True)
                    (CORPUS / f"{name}-{seed}").write_bytes(content)
    for name in FAMILIES:
        print(f"{name:16s} {tried[name]:7d} inputs, {failed[name]} faults")
    print(f"{'all':16s} {sum(tried.values()):7d} inputs, {sum(failed.values())} faults")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
