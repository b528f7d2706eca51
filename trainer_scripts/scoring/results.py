"""The result of scoring a model: predictions, `metrics.json`, and the card that shows them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from model_cards.cards import write_model_card
from model_cards.runs import COMPARISON, read_configuration
from trainer_scripts.evaluation.decisions import EXPECTED_F1, THRESHOLD, Decision, ExpectedF1Decision
from trainer_scripts.evaluation.lines import MODEL, Line
from trainer_scripts.evaluation.predictions import METRICS, Predictions
from trainer_scripts.evaluation.score_file import SCHEMA_VERSION, Entry, entry
from trainer_scripts.evaluation.scores import CLASSES, INGREDIENTS, MASKS, Score, definitions, multilabel_scores
from trainer_scripts.scoring.onnx_model import GRAPH
from trainer_scripts.tasks.captioning.scores import SINGLE_PICTURE
from trainer_scripts.tasks.common.task import SavedModel, Scored
from trainer_scripts.tasks.registry import task_named

NAMED = 8


def save_scores(
    model: SavedModel,
    scored: Scored,
    dataset: str,
    split: str,
    folder: Path,
    revision: str | None = None,
    decision: str = THRESHOLD,
) -> dict[str, Any]:
    """Write `predictions.parquet` and `metrics.json` of a scored model, and return the latter.

    The form is that of `evaluation.score_file`, the same for every task.

    Args:
        model: the model.
        scored: its result; thresholds in it stand in for those of the task.
        dataset: folder or Hub id of the rows.
        split: their split.
        folder: where the files go.
        revision: revision of a Hub data set.
        decision: `expected_f1` in place of any threshold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = facts_of(model, scored, dataset, split, revision)
    if decision != THRESHOLD:
        content["decision"] = decision
    scores = scores_of(content)
    content |= values_of(model, scored, scores)
    content |= {"details": scored.details, "files": scored.files, "faults": scored.faults}
    absent = absent_labels(content["label_names"], scored.predictions)
    if absent:
        content["absent_labels"] = absent
    scored.predictions.save(folder)
    write_json(folder / METRICS, content)
    return content


def facts_of(
    model: SavedModel, scored: Scored, dataset: str, split: str, revision: str | None = None
) -> dict[str, Any]:
    """Return what `metrics.json` says of the model and of the rows; the arguments are those of `save_scores`."""
    predictions = scored.predictions
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model": model.reference,
        "task": model.task.name,
        "modality": model.modality,
        "dataset": dataset,
        "dataset_revision": revision,
        "split": split,
        "selection_split": model.selection_split,
        "train_split": model.arguments.train_split,
        "rows": len(predictions.ids),
        "groups": len(set(predictions.groups)),
        "rows_sha256": predictions.rows_sha256(),
        "label_names": model.names if model.task.has_labels else [],
    }
    if scored.thresholds is not None:
        content["thresholds"] = list(scored.thresholds)
    return content


def values_of(model: SavedModel, scored: Scored, known: Sequence[Score]) -> dict[str, Any]:
    """Return the scores of the model, of its baselines and of its ablations, as `metrics.json` holds them.

    Args:
        model: the model.
        scored: its result.
        known: the scores of its task; those that need parts of a prediction which this one lacks are left out.
    """
    # The empty name is that of the model in `Scored.more`.
    own = Line("", MODEL, model.modality, scored.predictions)
    scores = [score for score in known if own.has(score)]

    def values(line: Line) -> dict[str, Entry]:
        """Return the plain values of one line; the bootstrap is for the model and for its leads."""
        more = {name: entry(value) for name, value in scored.more.get(line.name, {}).items()}
        return {score.name: entry(line.grouped.value(score)) for score in scores if line.has(score)} | more

    decisive = [score for score in scores if score.name in (model.task.decisive or (model.task.selection_metric,))]
    # Paired differences to each other line, with intervals, for the scores that decide.
    leads: dict[str, dict[str, Entry]] = {}
    for line in (*scored.baselines, *scored.ablations):
        gains = {score.name: own.minus(line, score) for score in decisive if line.has(score)}
        leads[line.name] = {name: entry(gain) for name, gain in gains.items() if gain is not None}
    return {
        "metrics": values(own) | {score.name: entry(own.score(score)) for score in scores},
        "baselines": {line.name: values(line) for line in scored.baselines},
        "ablations": {line.name: values(line) for line in scored.ablations},
        "leads": leads,
        "definitions": definitions((*scores, *scored.more_scores)),
    }


def absent_labels(names: Sequence[str], predictions: Predictions) -> list[str]:
    """Return the labels that no row has; macro averages leave them out unless they are predicted."""
    found: list[str] = []
    for part, (truth, answer) in predictions.parts.items():
        if part == CLASSES:
            present = np.bincount(truth.astype(int), minlength=len(names)) if truth.ndim == 1 else truth.sum(axis=0)
        elif part == INGREDIENTS:
            # The background is no ingredient.
            present = np.concatenate([[1], truth.sum(axis=0)])
        elif part == MASKS:
            present = np.split(answer.sum(axis=0), 3)[2]
        else:
            continue
        found += [name for name, count in zip(names, present, strict=True) if not count and name not in found]
    return found


def decision_of(metrics: Mapping[str, Any]) -> Decision | ExpectedF1Decision:
    """Return the rule by which the probabilities of a `metrics.json` become sets of labels."""
    # Tuned thresholds were chosen on the selection split and stand for the decision of the task.
    if metrics.get("thresholds"):
        return Decision(tuple(metrics["thresholds"]))
    return ExpectedF1Decision() if metrics.get("decision") == EXPECTED_F1 else Decision()


def scores_of(metrics: Mapping[str, Any]) -> tuple[Score, ...]:
    """Return the scores that belong to a `metrics.json`: those of its task, its labels and its decision."""
    task, names = task_named(metrics["task"]), metrics.get("label_names") or []
    if task.has_label_sets:
        return multilabel_scores(names, decision_of(metrics))
    return (*task.scores(names), *task.more_scores(names))


def scores_of_file(metrics: Mapping[str, Any], name: str) -> tuple[Score, ...]:
    """Return the scores that a `metrics.json` states.

    Raises:
        BadInputError: it defines one of them in another way than this version does.
    """
    stated = metrics.get("definitions", {})
    known = tuple(score for score in scores_of(metrics) if score.name in stated)
    for score in known:
        if stated[score.name]["sha256"] != score.sha256:
            raise BadInputError(
                f"{name} defines {score.name} as {stated[score.name]['definition']!r}, this version as "
                f"{score.definition!r}; score the model anew"
            )
    return known


def weights_on_disk(source: str) -> float | None:
    """Return the MB (10^6 bytes) of a graph or of the weight files in a model's folder; None for one on a Hub."""
    folder = Path(source)
    if not folder.is_dir():
        return None
    # A large graph has its weights in files beside it.
    files = list(folder.glob(f"{GRAPH}*")) or list(folder.glob("*.safetensors"))
    return sum(path.stat().st_size for path in files) / 1e6 if files else None


def refresh_card(model: SavedModel, comparison: Path | None = None) -> None:
    """Fill the card of a model in a folder of ours anew, so that it shows the latest results.

    A comparison is kept beside the model, so that later cards still show it.
    """
    folder = Path(model.source)
    if read_configuration(folder) is not None and (folder / METRICS).is_file():
        if comparison is not None:
            shutil.copyfile(comparison, folder / COMPARISON)
        write_model_card(folder)


def table_of_scores(content: Mapping[str, Any]) -> str:
    """Return scores as lines of `name value [interval]`, and the values of the other lines beside them."""
    width = max(len(name) for name in content["metrics"])
    others = {**content["baselines"], **content["ablations"]}
    rows = []
    for name, score in content["metrics"].items():
        interval = f"  [{score['low']:.4f}, {score['high']:.4f}]" if "low" in score else ""
        beside = ", ".join(f"{who} {line[name]['value']:.3f}" for who, line in others.items() if name in line)
        rows.append(f"{name:<{width}}  {score['value']:.4f}{interval}" + (f"  ({beside})" if beside else ""))
    if content.get("absent_labels"):
        absent = content["absent_labels"]
        more = f" and {len(absent) - NAMED} more" if len(absent) > NAMED else ""
        named = ", ".join(absent[:NAMED])
        rows.append(f"absent from these rows, and unless predicted from macro averages: {named}{more}")
    if "cider" in content["metrics"] and content["rows"] == 1:
        rows.append(SINGLE_PICTURE)
    return "\n".join(rows)
