"""The file `metrics.json` of a scored model: its schema, its reader, and the conversion of files of older versions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataset_builder.boundaries import outside
from dataset_builder.errors import BadInputError
from dataset_builder.kinds import check_entries
from dataset_builder.messages import shown
from trainer_scripts.evaluation.intervals import Interval
from trainer_scripts.evaluation.predictions import METRICS, read_metrics
from trainer_scripts.evaluation.scores import present_definitions

# Version 2: `metrics`, and per line of `baselines` and `ablations`: score -> {"value", and where known "low", "high"};
# `leads`: line -> score -> the gain of the model on that line; `details`: tables of one task alone; `files`; `faults`.
# Version 1, without a number, had a form of its own for each task, see `upgraded`.
SCHEMA_VERSION = 2
# Entries that a comparison needs, with their types.
REQUIRED = {"task": str, "split": str, "rows": int, "rows_sha256": str, "metrics": dict, "definitions": dict}
_ENTRIES = dict[str, dict[str, float | None]]
KINDS: dict[str, Any] = {
    "metrics": _ENTRIES,
    "baselines": dict[str, _ENTRIES],
    "ablations": dict[str, _ENTRIES],
    "leads": dict[str, _ENTRIES],
    "definitions": dict[str, dict[str, str]],
    "label_names": list[str],
    "groups": int,
    "modality": str,
    "model": str,
    "dataset": str | None,
    "selection_split": str | None,
    "train_split": str | None,
    "thresholds": list[float] | None,
    "decision": str,
    "details": dict[str, Any],
    "files": list[str],
    "faults": list[str],
}
_DETAILS = ("testing", "per_class", "per_group", "confusions", "flavour_map", "truth", "generation", "left_out")
_ABLATIONS = {"shuffled pictures": "image shuffled", "blank pictures": "image blank"}

Entry = dict[str, float]


def entry(value: Interval | float) -> Entry:
    """Return a score as the file holds it: its value, and where there is one its interval and p-value."""
    if not isinstance(value, Interval):
        return {"value": float(value)}
    return {name: number for name, number in vars(value).items() if number is not None}


def read_scores(folder: Path) -> dict[str, Any]:
    """Return the `metrics.json` that `score.py` wrote beside predictions, in the present version of the schema.

    Raises:
        BadInputError: it cannot be read, is not one of score.py, or was written by a newer version.
    """
    path = folder / METRICS
    read = read_metrics(folder)
    with outside(f"{path} is no score file", "score the model anew"):
        content = upgraded(read, path)
    for name, kind in REQUIRED.items():
        if not isinstance(content.get(name), kind):
            raise BadInputError(f"{path} has no valid entry {name!r}; score the model anew")
    check_entries(content, KINDS, str(path))
    for name, stated in content["definitions"].items():
        if not stated.keys() >= {"definition", "sha256"}:
            raise BadInputError(f"{path}: definitions does not define {shown(name)}; score the model anew")
    for name, entries in content["metrics"].items():
        if "value" not in entries:
            raise BadInputError(f"{path}: metrics has no value for {shown(name)}; score the model anew")
    return {**content, "definitions": present_definitions(content["definitions"])}


def upgraded(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the content of a score file of any version in the form of the present one.

    In version 1 classifiers had plain values beside a mapping of `intervals`; segmenters had entries with limits, plain
    values of `baselines` and their tables at the top; captioners had plain values, baselines and ablations in one
    mapping, and the intervals of two scores under `truth`.
    """
    version = content.get("schema_version", 1)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise BadInputError(
            f"{path} has schema version {version}, and this package reads up to {SCHEMA_VERSION}; update the package"
        )
    if version == SCHEMA_VERSION or not isinstance(content.get("metrics"), dict):
        return dict(content)
    old = dict(content)
    mixed = old.pop("baselines_and_ablations", {})
    baselines = {**old.pop("baselines", {}), **{name: line for name, line in mixed.items() if name not in _ABLATIONS}}
    ablations = {_ABLATIONS[name]: line for name, line in mixed.items() if name in _ABLATIONS}
    # Captioners had a list of faults, or the word "passed".
    health = old.pop("health", "passed")
    limits = dict(old.pop("intervals", {}))
    leads: dict[str, dict[str, Entry]] = {}
    truth = old.get("truth") or {}
    if truth:
        old["truth"] = {name: values for name, values in truth.items() if "_f1" not in name}
    for score in ("ingredient_f1", "group_f1"):
        if score in truth:
            limits[score] = [truth[score]["low"], truth[score]["high"]]
        for line, lead in truth.get(f"{score}_lead", {}).items():
            gain = {name: number for name, number in lead.items() if number is not None}
            leads.setdefault(_ABLATIONS.get(line, line), {})[score] = gain
    details = {name: old.pop(name) for name in _DETAILS if name in old}
    return {
        **old,
        "schema_version": SCHEMA_VERSION,
        "label_names": old.get("label_names", []),
        "metrics": _entries(old["metrics"], limits),
        "baselines": {name: _entries(line, {}) for name, line in baselines.items()},
        "ablations": {name: _entries(line, {}) for name, line in ablations.items()},
        "leads": leads,
        "details": details,
        "files": [],
        "faults": [] if health == "passed" else health,
    }


def _entries(values: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, Entry]:
    entries = {}
    for name, value in values.items():
        entries[name] = dict(value) if isinstance(value, Mapping) else {"value": value}
        if name in limits:
            entries[name] |= {"low": limits[name][0], "high": limits[name][1]}
    return entries
