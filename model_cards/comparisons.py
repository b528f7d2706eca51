"""Reads what a comparison says of one model, for its card."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_cards.runs import cell, note_of, other_data, read_json, scores_of


def comparison_of(path: Path, name: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a `comparison.json` about one model: its scores on the split, and tables beside other models.

    Args:
        path: written by `compare.py`; {} is returned when there is none.
        name: of the model in the comparison.
        run: `metrics.json` of the model's run.
    """
    content = read_json(path)
    entries = content.get("entries", {})
    if name not in entries:
        return {}
    # Scores per class have a table of their own and would make this one too wide.
    names = [score for score in entries[name]["scores"] if not score.startswith("f1_")]
    rows = [
        [line, entry.get("modality") or "", *(cell(entry["scores"].get(score)) for score in names)]
        for line, entry in entries.items()
    ]
    other = other_data(content, run)
    split = content["split"] + (f" of {other}" if other else "")
    where = f"{content.get('rows')} rows of {content.get('groups')} groups, split {split}"
    found = {"header": ["", "input", *names], "rows": rows, "title": "Beside other models"}
    note = f"{where}; brackets hold 95 % bootstrap intervals over groups. This model is the line `{name}`."
    tables = [{**found, "note": note}]
    tables += _details(content, name)
    tables += transfer_of(content.get("transfer") or {}, name)
    scores = scores_of(entries[name]["scores"], content.get("definitions") or {})
    selection_split = content.get("selection_split")
    result = {
        "split": content["split"],
        "dataset": other,
        "scores": scores,
        "note": note_of(content["split"], selection_split, content.get("rows"), other),
    }
    # Sentences about this model: its gain, the inputs it uses, and a baseline that is ahead of it.
    # The name may hold characters with a meaning in patterns, such as a dot.
    named = re.escape(name)
    own = re.compile(rf"(?:- )?((?:{named}(?:: | is )|!!! A BASELINE SCORES HIGHER THAN {named}: ).*)")
    verdicts = [match[1] for match in map(own.fullmatch, content.get("verdicts", [])) if match]
    return {"result": result, "tables": tables, "verdicts": verdicts}


def _details(content: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the tables of a comparison that are about one model alone."""
    tables = []
    ablation = content.get("ablations", {}).get(name, {})
    score = str(ablation.get("score") or content.get("main_score", "score"))
    if ablation.get("scores"):
        changes = [[change, cell(value)] for change, value in ablation["scores"].items()]
        rows = ablation.get("rows") or content.get("rows")
        note = f"{rows} rows of the split with one input taken away or exchanged between dishes."
        tables.append(
            {"title": "Whether each input is used", "note": note, "header": ["input", score], "rows": changes}
        )
    if ablation.get("follows"):
        rows = [[f"the label of its {what}", cell(value)] for what, value in ablation["follows"].items()]
        note = "The row's own text beside the picture of a dish with another label."
        tables.append({"title": "What it follows when its inputs disagree", "note": note,
                       "header": ["held against", score], "rows": rows})  # fmt: skip
    # Calibration and cost have the same form: facts of this model, one per line.
    for key, title, note in (
        ("calibration", "Calibration", "The temperature was fitted on the split that chose the checkpoint."),
        ("cost", "Cost", "From table row to scored answer, on the machine of the comparison."),
    ):
        found = content.get(key, {}).get(name)
        if found:
            rows = [[what, cell(value)] for what, value in found.items()]
            tables.append({"title": title, "note": note, "header": ["", "value"], "rows": rows})
    for what, spread in content.get("seeds", {}).get(name, {}).items():
        rows = [[key, cell(value)] for key, value in spread.items()]
        note = f"The configuration trained again with other seeds, {what} on {content['split']}."
        tables.append({"title": f"Spread of {what} over seeds", "note": note, "header": ["", what], "rows": rows})
    return tables


def transfer_of(transfer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the tables of one model on the second data set of a comparison, such as photographs after drawings."""
    model = transfer.get("models", {}).get(name)
    if not model:
        return []
    data = Path(str(transfer["dataset"])).name
    title = f"On other data: {data}"
    rows = [[line, cell(model[line])] for line in ("here", "there")]
    difference = model.get("difference")
    if difference:
        limits = f"[{difference['low']:+.3f}, {difference['high']:+.3f}]"
        rows.append(["difference", f"{difference['value']:+.3f} {limits}"])
    rows += [[f"there, {change}", cell(values["value"])] for change, values in model.get("without", {}).items()]
    rows += [
        [f"{line}, there", cell(entry["scores"].get(model["score"]))]
        for line, entry in transfer.get("entries", {}).items()
        if line != name
    ]
    note = (
        f"The same model on {transfer['rows']} rows in {transfer['groups']} groups of {data}, {transfer['split']}; "
        "nothing was chosen or fitted there. Here is the split above; brackets hold 95 % bootstrap intervals."
    )
    seen = transfer.get("titles_in_training")
    if seen is not None:
        note += f" {seen} of the rows have a title that is in the training rows."
    tables = [{"title": title, "note": note, "header": ["", model["score"]], "rows": rows}]
    if model.get("calibration"):
        rows = [[what, cell(value)] for what, value in model["calibration"].items()]
        note = "With the temperature that was fitted on the split that chose the checkpoint."
        tables.append({"title": f"Calibration on {data}", "note": note, "header": ["", "value"], "rows": rows})
    if model.get("confusions"):
        rows = [
            [f"{each['truth']} taken for {each['answer']}", str(each["rows"]), cell(each["share"])]
            for each in model["confusions"]
        ]
        header = ["", "rows", "share of that truth"]
        tables.append({"title": f"Most common confusions on {data}", "note": "", "header": header, "rows": rows})
    return tables


def with_compared(results: list[dict[str, Any]], compared: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the results of a run with those of a comparison, which has intervals, in place of those of its rows."""
    result = compared.get("result")
    if not result:
        return results
    rows = result["split"], result["dataset"]
    return [*(each for each in results if (each["split"], each["dataset"]) != rows), result]
