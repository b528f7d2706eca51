"""Run all benchmarks and print one table of ratios: `python benchmarks/all.py [NAME ...] [--rounds N] [--clock cpu]`.

Each runs in a process of its own, so that none inherits threads, caches or memory of another.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import CLOCKS, Row, table

HERE = Path(__file__).resolve().parent
NOT_MEASURED = {"all", "drawn_pictures", "measuring", "photographs", "real_pictures", "results"}


def main() -> int:
    names = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NOT_MEASURED)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(names)}; none: all")
    parser.add_argument("--rounds", type=int, help="how often each way is measured")
    parser.add_argument("--clock", choices=CLOCKS, help="wall or cpu")
    parser.add_argument("--out", type=Path, help="write the rows of the table here too, as JSON")
    given = parser.parse_args()
    unknown = set(given.names) - set(names)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    options = [f"--rounds={given.rounds}"] if given.rounds else []
    options += [f"--clock={given.clock}"] if given.clock else []
    rows, failed = [], []
    for name in given.names or names:
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "rows.json"
            command = [sys.executable, str(HERE / f"{name}.py"), f"--rows={found}", *options]
            if subprocess.run(command).returncode or not found.is_file():
                failed.append(name)
                continue
            rows += [Row(**row) for row in json.loads(found.read_text(encoding="utf-8"))]
    print(f"\n{table(rows)}")
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps([dataclasses.asdict(row) for row in rows]), encoding="utf-8")
    if failed:
        print(f"no figures from {', '.join(failed)}: see above", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
