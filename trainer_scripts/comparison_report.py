"""A comparison as text: the same tables for the terminal and as Markdown."""

from collections.abc import Sequence
from typing import Any

from trainer_scripts.comparison import Entry
from trainer_scripts.intervals import Interval

PER_CLASS = "f1_"


def _cell(value: Interval | float) -> str:
    if isinstance(value, Interval):
        return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
    return f"{value:.3f}"


def _difference(value: Interval) -> str:
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}] p={value.p:.4f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table, readable as it is on a terminal."""
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def score_table(lines: Sequence[Entry]) -> str:
    """Return the main scores with their intervals."""
    names = [name for name in lines[0].scores if not name.startswith(PER_CLASS)]
    rows = [[line.name, line.modality, *(_cell(line.scores[name]) for name in names)] for line in lines]
    return markdown_table(["", "input", *names], rows)


def class_table(lines: Sequence[Entry]) -> str:
    """Return F1 per class."""
    names = [name for name in lines[0].scores if name.startswith(PER_CLASS)]
    rows = []
    for line in lines:
        values = [line.scores[name] for name in names]
        rows.append([line.name, *(f"{v.value if isinstance(v, Interval) else v:.3f}" for v in values)])
    return markdown_table(["F1", *(name.removeprefix(PER_CLASS) for name in names)], rows)


def difference_table(tested: str, differences: dict[str, dict[str, Interval]]) -> str:
    """Return what the tested model gains on every other line."""
    names = list(next(iter(differences.values())))
    rows = [[other, *(_difference(found[name]) for name in names)] for other, found in differences.items()]
    return markdown_table([f"{tested} minus", *names], rows)


def ablation_table(reports: dict[str, dict[str, Any]], score: str) -> str:
    """Return the score of each model under each change of its input, and the loss."""
    rows = []
    for model, report in reports.items():
        for change, value in report["scores"].items():
            rows.append([model, change, f"{value:.3f}", _difference(report["losses"][change])])
    return markdown_table(["model", "input", score, "loss"], rows)


def number_table(numbers: dict[str, dict[str, float]]) -> str:
    """Return plain numbers per model."""
    names = list(next(iter(numbers.values())))
    rows = [[model, *(_number(found[name]) for name in names)] for model, found in numbers.items()]
    return markdown_table(["", *names], rows)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def report(content: dict[str, Any], lines: Sequence[Entry]) -> str:
    """Return the whole comparison as Markdown."""
    sections = [
        f"# Comparison on {content['dataset']}, split {content['split']}",
        f"{content['rows']} rows in {content['groups']} groups. Brackets hold 95 % bootstrap intervals over groups; "
        "p is that of a paired swap test over groups. Checkpoints, temperatures and baseline settings were chosen on "
        "the selection split.",
        "\n".join(content["verdicts"]),
        "## Scores\n\n" + score_table(lines),
        "## F1 per class\n\n" + class_table(lines),
        f"## What {content['tested']} gains\n\n" + difference_table(content["tested"], content["differences"]),
        "## Ablations\n\n" + ablation_table(content["ablations"], content["main_score"]),
        "## Calibration\n\n" + number_table(content["calibration"]),
        "## Cost\n\n" + number_table(content["cost"]),
        "## Definitions\n\n" + "\n".join(f"- **{k}**: {v['definition']}" for k, v in content["definitions"].items()),
    ]
    return "\n\n".join(sections) + "\n"
