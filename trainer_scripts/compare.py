"""Compare models honestly: `python trainer_scripts/compare.py MODEL MODEL ... DATASET [--out DIR]`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset_builder.errors import BadInputError, exit_on_bad_input
from trainer_scripts import comparison_report, plots
from trainer_scripts.comparison import (
    Comparison,
    Entry,
    ablate,
    as_plain,
    calibration,
    cost,
    entries,
    paired_tests,
    score_all,
)
from trainer_scripts.predictions import METRICS, read_metrics, write_json
from trainer_scripts.scoring import load_model, refresh_card

PROGRAM = "compare.py"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Models and baselines on the same test rows: scores, tests, ablations, plots."
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folders or Hub ids")
    parser.add_argument("dataset", metavar="DATASET", help="folder or Hub id")
    parser.add_argument("--split", default="test", help="split to compare on (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/comparison"), help="folder of the result (%(default)s)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare models on one split."""
    given = build_parser().parse_args(arguments)
    with exit_on_bad_input(PROGRAM):
        content = compare(given.models, given.dataset, given.split, given.out)
        print((given.out / "comparison.md").read_text(encoding="utf-8"))
        print("\n".join(content["verdicts"]))
        print(f"written to {given.out}")


def compare(models: Sequence[str], dataset: str, split: str, out: Path) -> dict[str, Any]:
    """Write comparison.json, comparison.md and plots, and return the content of the first."""
    loaded = [load_model(model) for model in models]
    for model in loaded:
        if model.task.score is not None:
            raise BadInputError(
                f"{model.name} is a {model.task.name} model: score.py shows it beside its baselines and ablations"
            )
    comparison = score_all(loaded, dataset, split, out)
    if split == comparison.models[0].arguments.selection_split:
        raise BadInputError(f"{split!r} chose the checkpoints; compare on a split that nothing was chosen on")
    lines = entries(comparison)
    content = gather(comparison, lines)
    draw(comparison, lines, out)
    text = comparison_report.report(content, lines)
    (out / "comparison.md").write_text(text, encoding="utf-8")
    plain = as_plain(content)
    write_json(out / "comparison.json", plain)
    for model in comparison.models:
        refresh_card(model, out / "comparison.json")
    return plain


def gather(comparison: Comparison, lines: Sequence[Entry]) -> dict[str, Any]:
    """Return everything that the comparison found."""
    tested = comparison.of_modality("fusion") or comparison.models[0]
    differences = paired_tests(comparison, lines)
    ablations = {model.name: ablate(comparison, model) for model in comparison.models}
    first = comparison.results[tested.name][1]
    return {
        "dataset": comparison.dataset,
        "split": comparison.split,
        "rows": first["rows"],
        "groups": len(set(comparison.groups)),
        "rows_sha256": first["rows_sha256"],
        "task": tested.task.name,
        "main_score": comparison.main_score.name,
        "tested": tested.name,
        "verdicts": verdicts(comparison, differences, ablations),
        "entries": {line.name: {"kind": line.kind, "modality": line.modality, "scores": line.scores} for line in lines},
        "differences": differences,
        "ablations": ablations,
        "calibration": {model.name: calibration(comparison, model) for model in comparison.models},
        "cost": {model.name: cost(comparison, model) for model in comparison.models},
        "definitions": first["definitions"],
    }


def verdicts(comparison: Comparison, differences: dict[str, Any], ablations: dict[str, Any]) -> list[str]:
    """Return in words what the intervals say, and no more."""
    tested = comparison.of_modality("fusion") or comparison.models[0]
    score = comparison.main_score.name
    found = []
    for other, intervals in differences.items():
        gain = intervals[score]
        says = "is better than" if gain.low > 0 else "is WORSE than" if gain.high < 0 else "is NOT SHOWN to differ from"
        found.append(f"- {tested.name} {says} {other}: {gain.value:+.3f} {score} [{gain.low:+.3f}, {gain.high:+.3f}]")
    for model, report in ablations.items():
        found += [f"- {model}: {text}" for text in report["verdicts"].values()]
    return found


def draw(comparison: Comparison, lines: Sequence[Entry], out: Path) -> None:
    """Write the plots."""
    labels = comparison.labels
    if not comparison.multilabel:
        curves = {}
        for model in comparison.models:
            probabilities = comparison.results[model.name][0].probabilities
            plots.confusion_matrix(out / f"confusion_{model.name}.png", model.name, labels, probabilities, model.names)
            curves[model.name] = (probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)
        plots.reliability(out / "reliability.png", curves)
    histories = {
        model.name: read_metrics(Path(model.source))["history"]
        for model in comparison.models
        if (Path(model.source) / METRICS).is_file()
    }
    if histories:
        plots.training_curves(out / "training_curves.png", histories, comparison.main_score.name)


if __name__ == "__main__":
    main()
