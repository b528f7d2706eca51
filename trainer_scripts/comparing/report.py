"""A comparison as text: the same tables for the terminal and as Markdown, and verdicts in words.

A verdict claims a difference only where interval and test are both sure, so that few rows claim nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer_scripts.evaluation.intervals import Interval
from trainer_scripts.evaluation.scores import Score

PER_CLASS = "f1_"
# Differences are shown for the first few scores; comparison.json has them all.
SHOWN_DIFFERENCES = 4
# More classes than this stand below each other.
WIDEST_TABLE = 8
LONGEST_TEXT = 100

Cell = Callable[[Any], str]


def _cell(value: Interval | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, Interval):
        return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _point(value: Interval | float | None) -> str:
    return "" if value is None else f"{value.value if isinstance(value, Interval) else value:.3f}"


def _difference(value: Interval | None) -> str:
    if value is None:
        return ""
    p = "" if value.p is None else f" p={value.p:.4f}"
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]{p}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table, readable as it is on a terminal."""
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def table_of(rows: Mapping[str, Mapping[str, Any]], corner: str, cell: Cell = _cell, first: int | None = None) -> str:
    """Return a table of `rows`: name -> column -> value; a value that is not there leaves its cell empty."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))[:first]
    return markdown_table(
        [corner, *names], [[line, *(cell(row.get(name)) for name in names)] for line, row in rows.items()]
    )


def score_tables(entries: Mapping[str, Any]) -> str:
    """Return the scores of all lines, in blocks of a few columns that fit a page; scores of one class apart."""
    shown = list(dict.fromkeys(name for entry in entries.values() for name in entry["scores"]))
    whole = [name for name in shown if not name.startswith(PER_CLASS)]
    blocks = []
    for start in range(0, len(whole), SHOWN_DIFFERENCES):
        names = whole[start : start + SHOWN_DIFFERENCES]
        rows = [
            [name, entry["modality"], *(_cell(entry["scores"].get(score)) for score in names)]
            for name, entry in entries.items()
            if any(score in entry["scores"] for score in names)
        ]
        blocks.append(markdown_table(["", "input", *names], rows))
    return "\n\n".join(blocks)


def class_table(entries: Mapping[str, Any]) -> str:
    """Return F1 per class."""
    rows = {
        line: {
            name.removeprefix(PER_CLASS): value for name, value in entry["scores"].items() if name.startswith(PER_CLASS)
        }
        for line, entry in entries.items()
    }
    if not any(rows.values()):
        return ""
    classes = list(dict.fromkeys(name for row in rows.values() for name in row))
    if len(classes) <= WIDEST_TABLE:
        return table_of(rows, "F1", _point)
    return table_of({name: {line: row.get(name) for line, row in rows.items()} for name in classes}, "F1", _point)


def difference_table(content: Mapping[str, Any]) -> str:
    """Return the gains of the tested model on every other line."""
    score, adjusted, differences = content["main_score"], content["adjusted_p"], content["differences"]
    known = dict.fromkeys((*content["decisive"], *(name for gains in differences.values() for name in gains)))
    names = list(known)[:SHOWN_DIFFERENCES]
    rows = [
        [
            other,
            *(_difference(gains.get(name)) for name in names),
            f"{adjusted[other]:.4f}" if other in adjusted else "",
        ]
        for other, gains in differences.items()
    ]
    return markdown_table([f"{content['tested']} minus", *names, f"Holm p, {score}"], rows) if rows else ""


def ablation_table(content: Mapping[str, Any]) -> str:
    """Return the score of each model under each change of its input, and the loss."""
    rows = []
    for model, report in content["ablations"].items():
        score = report["score"]
        rows.append([model, f"as it is, {report['rows']} rows", score, _cell(report["as it is"]), ""])
        for change, value in report["scores"].items():
            rows.append([model, change, score, _cell(value), _difference(report["losses"][change])])
    return markdown_table(["model", "input", "score", "value", "loss"], rows) if rows else ""


def swap_table(content: Mapping[str, Any]) -> str:
    """Return which input a model follows when text and picture are of dishes with other labels."""
    rows = {model: report["follows"] for model, report in content["ablations"].items() if report.get("follows")}
    return table_of(rows, f"{content['main_score']} by the label of its") if rows else ""


def example_table(examples: Sequence[Mapping[str, str]]) -> str:
    """Return rows side by side; text that would break a Markdown table is made harmless, and long text is cut."""
    if not examples:
        return ""
    rows = [[_brief(value) for value in example.values()] for example in examples]
    return markdown_table(list(examples[0]), rows)


def _brief(text: str) -> str:
    one_line = " ".join(text.split())
    cut = one_line if len(one_line) <= LONGEST_TEXT else one_line[: LONGEST_TEXT - 3] + "..."
    return cut.replace("|", "\\|")


def number_table(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    """Return plain numbers per model."""
    return table_of(numbers, "") if numbers else ""


def definition_list(definitions: Mapping[str, Any]) -> str:
    """Return the definitions; of the scores of single classes the first stands for all."""
    single = [name for name in definitions if name.startswith(PER_CLASS)]
    # The definitions of single classes differ in the name of the class only.
    shown = [name for name in definitions if name not in single[1:]]
    return "\n".join(f"- **{name}**: {definitions[name]['definition']}" for name in shown)


def notes(content: Mapping[str, Any]) -> str:
    """Return the parts that were left out, and the reasons."""
    missing = content["without_model"]
    if not missing:
        return ""
    return (
        f"Only the predictions of {', '.join(missing)} were given, so nothing is known of their ablations, calibration "
        "and cost"
        + (", and there are no baselines that need the data." if len(missing) == len(content["entries"]) else ".")
    )


def report(content: Mapping[str, Any]) -> str:
    """Return the whole comparison as Markdown; a section without content is absent."""
    swap = "The picture of another dish, with another label, beside the row's own text; only rows with such a conflict."
    seeds = "Each seed trained anew and scored on the same test rows; the line of the model is its first seed."
    sections = [
        ("Scores", "", score_tables(content["entries"])),
        ("F1 per class", "", class_table(content["entries"])),
        (
            f"What {content['tested']} gains",
            "Holm p is adjusted for the number of lines that it is held against.",
            difference_table(content),
        ),
        ("Ablations", "Inputs shuffled over dishes, blanked, left out or robbed of words.", ablation_table(content)),
        ("Swapped pictures", swap, swap_table(content)),
        ("Calibration", "Temperature fitted on the selection split.", number_table(content["calibration"])),
        (
            "Spread over seeds",
            seeds,
            number_table({f"{m}, {s}": v for m, found in content["seeds"].items() for s, v in found.items()}),
        ),
        (
            "Cost",
            "From table row to scored answer, pictures decoded and text cut into tokens, on this machine.",
            number_table(content["cost"]),
        ),
        ("Where the first two models differ most", "All rows are in `by_row.csv`.", example_table(content["examples"])),
        ("Definitions", "", definition_list(content["definitions"])),
    ]
    head = [
        f"# Comparison on {content['dataset']}, split {content['split']}",
        f"{content['rows']} rows in {content['groups']} groups. Brackets hold 95 % bootstrap intervals over groups; "
        "p is that of a paired swap test over groups. Checkpoints, temperatures and baseline settings were chosen on "
        f"{content['selection_split']}, never on {content['split']}.",
        notes(content),
        "\n".join(content["verdicts"]),
    ]
    body = ["\n\n".join(part for part in (f"## {t}", text, table) if part) for t, text, table in sections if table]
    return "\n\n".join(part for part in (*head, *body) if part) + "\n"


def usage(modality: str, loss: Interval | None, score: Score) -> str:
    """Return whether a modality is used: shuffling it over dishes must cost the model something for sure."""
    # For a score where less is better, a rise is the loss.
    cost = loss if loss is None or score.greater_is_better else Interval(-loss.value, -loss.high, -loss.low, loss.p)
    if cost is None or not (cost.above_zero and cost.tested):
        measured = (
            f" (loss {cost.value:+.3f} [{cost.low:+.3f}, {cost.high:+.3f}]{_p_value(cost)})" if cost is not None else ""
        )
        return (
            f"!!! THE {modality.upper()} IS NOT USED, as far as these rows tell: shuffling it over dishes costs no "
            f"{score.name} for sure{measured}"
        )
    return (
        f"{modality} is used: shuffling it over dishes costs {cost.value:.3f} {score.name} "
        f"[{cost.low:.3f}, {cost.high:.3f}]{_p_value(cost)}"
    )


def compared(gain: Interval, score: Score) -> str:
    """Return the meaning of the interval and the test of a difference."""
    better = gain.low > 0 if score.greater_is_better else gain.high < 0
    worse = gain.high < 0 if score.greater_is_better else gain.low > 0
    # The interval and the swap test must agree, otherwise nothing is claimed.
    if not gain.tested:
        better = worse = False
    return "is better than" if better else "is WORSE than" if worse else "is NOT SHOWN to differ from"


def shown(gain: Interval, score: Score) -> str:
    """Return a difference with its interval and p."""
    return f"{gain.value:+.3f} {score.name} [{gain.low:+.3f}, {gain.high:+.3f}]{_p_value(gain)}"


def _p_value(interval: Interval) -> str:
    return "" if interval.p is None else f", p = {interval.p:.4f}"
