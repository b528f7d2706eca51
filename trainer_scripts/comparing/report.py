"""A comparison as text: the same tables for the terminal and as Markdown, and verdicts in words.

A verdict claims a difference only where interval and test are both sure, so that few rows claim nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer_scripts.comparing.transfer import HERE_AND_THERE, tables
from trainer_scripts.evaluation.intervals import Interval
from trainer_scripts.evaluation.lines import BASELINE, MODEL
from trainer_scripts.evaluation.scores import Score

PER_CLASS = "f1_"
# Differences are shown for the first few scores; comparison.json has them all.
SHOWN_DIFFERENCES = 4
# More classes than this stand below each other.
WIDEST_TABLE = 8
LONGEST_TEXT = 100
# Columns of a transfer that hold differences, and what its tables need said.
SIGNED = ("difference", "gain of all inputs")
NOTES = {
    HERE_AND_THERE: "Here: the split that is compared above. The difference is between two samples, each drawn anew.",
    "Calibration there": "With the temperature fitted on the selection split of the first data set.",
}


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


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table, readable as it is on a terminal; "" without rows."""
    if not rows:
        return ""
    widths = [max(len(line[column]) for line in (header, *rows)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def table_of(rows: Mapping[str, Mapping[str, Any]], corner: str, cell: Callable[[Any], str] = _cell) -> str:
    """Return a table of `rows`: name -> column -> value; a value that is not there leaves its cell empty."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
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
    classes = list(dict.fromkeys(name for row in rows.values() for name in row))
    if len(classes) > WIDEST_TABLE:
        rows = {name: {line: row.get(name) for line, row in rows.items()} for name in classes}
    return table_of(rows, "F1", _point) if classes else ""


def difference_table(content: Mapping[str, Any]) -> str:
    """Return the gains of the tested model on every other line."""
    score, adjusted, differences = content["main_score"], content["adjusted_p"], content["differences"]
    # The scores that decide come first, because only the first few fit the page.
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
    return markdown_table([f"{content['tested']} minus", *names, f"Holm p, {score}"], rows)


def ablation_table(content: Mapping[str, Any]) -> str:
    """Return the score of each model under each change of its input, and the loss."""
    rows = []
    for model, report in content["ablations"].items():
        score = report["score"]
        rows.append([model, f"as it is, {report['rows']} rows", score, _cell(report["as it is"]), ""])
        for change, value in report["scores"].items():
            rows.append([model, change, score, _cell(value), _difference(report["losses"][change])])
    return markdown_table(["model", "input", "score", "value", "loss"], rows)


def example_table(examples: Sequence[Mapping[str, str]]) -> str:
    """Return rows side by side; text that would break a Markdown table is made harmless, and long text is cut."""
    rows = []
    for example in examples:
        texts = [" ".join(text.split()) for text in example.values()]
        brief = [text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 3] + "..." for text in texts]
        rows.append([text.replace("|", "\\|") for text in brief])
    return markdown_table(list(examples[0]), rows) if examples else ""


def definition_list(definitions: Mapping[str, Any]) -> str:
    """Return the definitions; of the scores of single classes the first stands for all."""
    single = [name for name in definitions if name.startswith(PER_CLASS)]
    # The definitions of single classes differ in the name of the class only.
    shown = [name for name in definitions if name not in single[1:]]
    return "\n".join(f"- **{name}**: {definitions[name]['definition']}" for name in shown)


def report(content: Mapping[str, Any]) -> str:
    """Return the whole comparison as Markdown; a section without content is absent."""
    # Which input a model follows when text and picture are of dishes with other labels.
    follows = {model: part["follows"] for model, part in content["ablations"].items() if part.get("follows")}
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
        ("Ablations", "Inputs shuffled over dishes, blanked, left out or with words removed.", ablation_table(content)),
        ("Swapped pictures", swap, table_of(follows, f"{content['main_score']} by the label of its")),
        ("Calibration", "Temperature fitted on the selection split.", table_of(content["calibration"], "")),
        (
            "Spread over seeds",
            seeds,
            table_of({f"{m}, {s}": v for m, scores in content["seeds"].items() for s, v in scores.items()}, ""),
        ),
        (
            "Cost",
            "From table row to scored answer, pictures decoded and text cut into tokens, on this machine.",
            table_of(content["cost"], ""),
        ),
        *transfer_sections(content.get("transfer")),
        ("Where the first two models differ most", "All rows are in `by_row.csv`.", example_table(content["examples"])),
        ("Definitions", "", definition_list(content["definitions"])),
    ]
    missing, notes = content["without_model"], ""
    if missing:
        notes = f"Only the predictions of {', '.join(missing)} were given, so nothing is known of their ablations, "
        notes += "calibration and cost"
        kinds = [entry["kind"] for entry in content["entries"].values()]
        if len(missing) < kinds.count(MODEL):
            notes += "."
        elif BASELINE in kinds:
            notes += f"; baselines are those that `score.py` found beside {content['tested']}."
        else:
            notes += ", and there are no baselines that need the data."
    head = [
        f"# Comparison on {content['dataset']}, split {content['split']}",
        f"{content['rows']} rows in {content['groups']} groups. Brackets hold 95 % bootstrap intervals over groups; "
        "p is that of a paired swap test over groups. Checkpoints, temperatures and baseline settings were chosen on "
        f"{content['selection_split']}, never on {content['split']}.",
        notes,
        "\n".join(content["verdicts"]),
    ]
    # Sections whose table is empty are left out, such as the ablations where only predictions were given.
    body = ["\n\n".join(part for part in (f"## {t}", text, table) if part) for t, text, table in sections if table]
    return "\n\n".join(part for part in (*head, *body) if part) + "\n"


def transfer_sections(transfer: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Return heading, text and table of each part of the models' answers on a second data set."""
    if transfer is None:
        return []
    seen = transfer["titles_in_training"]
    text = (
        f"The same models on {transfer['rows']} rows in {transfer['groups']} groups of {transfer['dataset']}, "
        f"{transfer['split']}. Nothing was chosen or fitted there."
        + ("" if seen is None else f" {seen} of the rows have a title that is in the training rows.")
    )
    sections = [(f"On {Path(transfer['dataset']).name}", text, score_tables(transfer["entries"]))]
    gains = {
        name: {score: _difference(gain) for score, gain in scores.items()}
        for name, scores in transfer["differences"].items()
    }
    sections.append((f"What {transfer['tested']} gains there", "", table_of(gains, transfer["tested"] + " minus", str)))
    for heading, rows in tables(transfer).items():
        cells = {
            name: {what: _difference(value) if what in SIGNED else _cell(value) for what, value in row.items()}
            for name, row in rows.items()
        }
        sections.append((heading, NOTES.get(heading, ""), table_of(cells, transfer["score"], str)))
    return sections


def usage(modality: str, loss: Interval | None, score: Score) -> str:
    """Return whether a modality is used: shuffling it over dishes must lower the score by interval and test."""
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
