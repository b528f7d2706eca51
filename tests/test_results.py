"""`make results` writes what was measured into the README, between its marks and nowhere else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results: written by `make results` -->", "<!-- end of results -->"


def collect(folder):
    command = [sys.executable, str(ROOT / "benchmarks" / "results.py"), "--outputs", str(folder / "outputs")]
    return subprocess.run([*command, "--readme", str(folder / "README.md")], capture_output=True, text=True)


@pytest.fixture
def measured(tmp_path):
    demo = tmp_path / "outputs" / "demo"
    (demo / "comparison").mkdir(parents=True)
    (demo / "fusion").mkdir()
    (demo / "fusion" / "metrics.json").write_text(json.dumps({"seconds": 150.0}))
    value = {"accuracy": {"value": 0.7654, "low": 0.7, "high": 0.81}}
    entries = {
        "fusion": {"kind": "model", "scores": value},
        "majority": {"kind": "baseline", "scores": {"accuracy": {"value": 0.2}}},
        "words | only": {"kind": "baseline", "scores": {"accuracy": {"value": 0.6, "low": 0.5, "high": 0.7}}},
    }
    content = {"main_score": "accuracy", "entries": entries, "tested": "fusion", "task": "classification"}
    content |= {"dataset": "outputs/demo/flavour-sd", "split": "test", "rows": 541}
    (demo / "comparison" / "comparison.json").write_text(json.dumps(content))
    # A copy beside the model, as `compare.py` leaves it, is no second result.
    (demo / "fusion" / "comparison.json").write_text(json.dumps(content))
    row = {"what": "scoring", "against": "a loop", "ratios": [6.0, 7.0, 8.0], "required": 5}
    (tmp_path / "outputs" / "benchmarks.json").write_text(json.dumps([row]))
    (tmp_path / "README.md").write_text(f"# Title\n\n{BEGIN}\nold figures\n{END}\n\nThe rest.\n")
    return tmp_path


def test_the_table_stands_between_the_marks_and_the_rest_stays(measured):
    ended = collect(measured)
    assert ended.returncode == 0, ended.stderr
    text = (measured / "README.md").read_text()
    line = "| flavour: fusion | flavour-sd, test, 541 rows | accuracy 0.765 [0.700, 0.810] | "
    assert text.count(line + "words / only 0.600 [0.500, 0.700] | 2.5 min |") == 1
    assert "| scoring | a loop | 7.00 | [6.00, 8.00] | 5 | yes |" in text
    assert text.startswith("# Title\n\n")
    assert text.endswith(f"{END}\n\nThe rest.\n")
    assert "old figures" not in text
    assert "cores" in text
    assert (measured / "docs" / "results.png").stat().st_size > 1000
    assert collect(measured).returncode == 0
    assert (measured / "README.md").read_text() == text


def test_without_results_the_readme_says_so(tmp_path):
    (tmp_path / "README.md").write_text(f"{BEGIN}\n{END}\n")
    assert collect(tmp_path).returncode == 0
    assert "`make demo`, then `make results`" in (tmp_path / "README.md").read_text()


def test_a_readme_without_marks_is_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("# Title\n")
    ended = collect(tmp_path)
    assert ended.returncode == 1
    assert "each once" in ended.stderr
    assert (tmp_path / "README.md").read_text() == "# Title\n"


def test_the_readme_of_the_package_has_the_marks_near_its_top():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert lines.index(BEGIN) < 40
    assert lines.index(BEGIN) < lines.index(END)
