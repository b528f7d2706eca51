"""Every benchmark can be part of `make bench`: it takes the options that the runner gives to all of them."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
NO_BENCHMARKS = {"all", "drawn_pictures", "measuring", "photographs", "real_pictures", "results"}
# Of extras that not every environment of the tests has.
NEEDED = {"app_latency": ("gradio",), "engines": ("ray",)}
NAMES = sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem not in NO_BENCHMARKS)


class Parsed(Exception):
    """The arguments are read; nothing is measured here."""


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_takes_the_options_of_all(name, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    for library in NEEDED.get(name, ()):
        pytest.importorskip(library)
    measuring = importlib.import_module("measuring")
    read = measuring.arguments_of
    found = []

    def watched(*given, **options):
        found.append(read(*given, **options))
        raise Parsed

    rows = tmp_path / "rows.json"
    monkeypatch.setattr(measuring, "arguments_of", watched)
    monkeypatch.setattr(sys, "argv", [name, f"--rows={rows}", "--rounds=2", "--clock=cpu"])
    with pytest.raises(Parsed):
        importlib.import_module(name).main()
    assert (found[0].rows, found[0].rounds, found[0].clock) == (rows, 2, "cpu")


def test_the_runner_knows_them_all_and_a_row_reaches_it(tmp_path):
    ended = subprocess.run([sys.executable, BENCHMARKS / "all.py", "--help"], capture_output=True, text=True)
    assert f"any of {', '.join(NAMES)}; none: all" in " ".join(ended.stdout.split())
    rows = tmp_path / "rows.json"
    command = [sys.executable, BENCHMARKS / "importing.py", "--pictures=30", f"--rows={rows}"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    (row,) = json.loads(rows.read_text())
    assert row["required"] == 1
    assert row["ratios"][0] > 1
