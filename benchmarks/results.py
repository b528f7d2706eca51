"""Collect what the demos and the benchmarks of this machine have measured into the README: `make results`.

Reads the comparisons below `outputs/` that `make demo` wrote, and `outputs/benchmarks.json` of `make bench`. Writes one
table of each between two marks of the README, and a plot beside the documentation. Nothing is typed by hand.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import Row

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results: written by `make results` -->", "<!-- end of results -->"
PLOT = Path("docs/results.png")
NOTHING = "Nothing has been measured here yet: `make demo`, then `make results`."
COMPARISONS = ("comparison", "verdict")  # folders of the demos
# Scores that say more than those that choose a checkpoint.
SCORES = {"captioning": "ingredient_f1", "segmentation": "group_miou"}
TASKS = {"classification": "flavour", "multilabel": "several labels"}


@dataclass(frozen=True)
class Result:
    """One model of a comparison beside its best baseline."""

    system: str
    data: str
    score: str
    value: dict[str, float]
    baseline: str
    baseline_value: dict[str, float]
    seconds: float | None

    def cells(self) -> list[str]:
        time = "" if self.seconds is None else f"{self.seconds / 60:.1f} min"
        beside = f"{self.baseline} {interval(self.baseline_value)}" if self.baseline else ""
        return [self.system, self.data, f"{self.score} {interval(self.value)}", beside, time]


def interval(value: dict[str, float]) -> str:
    limits = f" [{value['low']:.3f}, {value['high']:.3f}]" if "low" in value else ""
    return f"{value['value']:.3f}{limits}"


def results_of(outputs: Path) -> Iterator[Result]:
    """The models of every comparison, the tested one of each first."""
    for path in sorted(outputs.glob("**/comparison.json")):
        # A copy beside a model is no second result.
        if path.parent.name not in COMPARISONS:
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        entries, score = content["entries"], SCORES.get(content["task"], "")
        if not any(score in entry["scores"] for entry in entries.values()):
            score = content["main_score"]
        # Baselines of scored folders have a plain value.
        scored = {
            name: value if isinstance(value := entry["scores"][score], dict) else {"value": value}
            for name, entry in entries.items()
            if score in entry["scores"]
        }
        baselines = {name: value for name, value in scored.items() if entries[name]["kind"] == "baseline"}
        best = max(baselines, key=lambda name: baselines[name]["value"], default="")
        models = [name for name in scored if name not in baselines]
        for name in sorted(models, key=lambda name: name != content["tested"]):
            yield Result(
                f"{TASKS.get(content['task'], content['task'])}: {name}",
                f"{Path(content['dataset'] or '').name}, {content['split']}, {content['rows']} rows",
                score,
                scored[name],
                best,
                baselines.get(best, {}),
                seconds_of(path.parent.parent / name),
            )


def seconds_of(folder: Path) -> float | None:
    """How long a model was trained, as its run recorded it."""
    path = folder / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")).get("seconds") if path.is_file() else None


def machine() -> str:
    """Processor, cores and memory of this machine."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    name = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    return f"{name or platform.machine()}, {os.cpu_count()} cores{memory}, {platform.system()}"


def markdown(header: list[str], lines: list[list[str]]) -> str:
    # A bar would end the cell.
    rows = [[cell.replace("|", "/") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *rows])


def section(outputs: Path) -> str:
    """What stands between the marks."""
    results, bench = list(results_of(outputs)), outputs / "benchmarks.json"
    if not results and not bench.is_file():
        return NOTHING
    parts = [f"Measured on one machine ({machine()}); times are those of training."]
    if results:
        header = ["system", "data", "score [95 % interval]", "best baseline", "time"]
        parts.append(markdown(header, [result.cells() for result in results]))
        parts.append(f"![Scores beside their best baselines]({PLOT})")
    if bench.is_file():
        rows = [Row(**row).cells() for row in json.loads(bench.read_text(encoding="utf-8"))]
        parts.append(markdown(["speed of", "against", "ratio", "least, most", "goal", "met"], rows))
    return "\n\n".join(parts)


def written(readme: str, content: str) -> str:
    """The README with new content between its marks."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise SystemExit(f"results.py: error: the README must hold {BEGIN} and, after it, {END}, each once")
    before, _, rest = readme.partition(BEGIN)
    return f"{before}{BEGIN}\n{content}\n{END}{rest.partition(END)[2]}"


def draw(results: list[Result], path: Path) -> None:
    """Bars of the models' scores with their intervals, and a line for the best baseline of each."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 0.5 * len(results) + 1))
    for place, result in enumerate(results):
        value: Any = result.value
        low, high = value.get("low", value["value"]), value.get("high", value["value"])
        axis.barh(place, value["value"], xerr=[[value["value"] - low], [high - value["value"]]], color="#4c78a8")
        if result.baseline:
            axis.plot([result.baseline_value["value"]] * 2, [place - 0.4, place + 0.4], color="#e45756", linewidth=3)
    axis.set_yticks(range(len(results)), [f"{result.system}, {result.score}" for result in results])
    axis.invert_yaxis()
    axis.set_xlabel("score; red: the best baseline")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, default=ROOT / "outputs", help="folder of results (%(default)s)")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="file that is written (%(default)s)")
    given = parser.parse_args()
    readme, content = given.readme.read_text(encoding="utf-8"), section(given.outputs)
    given.readme.write_text(written(readme, content), encoding="utf-8")
    results = list(results_of(given.outputs))
    if results:
        (given.readme.parent / PLOT).parent.mkdir(exist_ok=True)
        draw(results, given.readme.parent / PLOT)
    print(content)


if __name__ == "__main__":
    sys.exit(main())
