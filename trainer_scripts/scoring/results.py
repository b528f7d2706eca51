"""What scoring a model leaves: predictions, `metrics.json`, and the card that shows them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from model_cards.cards import write_model_card
from model_cards.runs import COMPARISON, read_configuration
from trainer_scripts.data.table import MULTILABEL, Table
from trainer_scripts.evaluation.decisions import EXPECTED_F1, THRESHOLD, Decision, ExpectedF1Decision
from trainer_scripts.evaluation.intervals import GroupedScores
from trainer_scripts.evaluation.predictions import METRICS, Predictions
from trainer_scripts.evaluation.scores import Score, definitions, multilabel_scores
from trainer_scripts.scoring.onnx_model import GRAPH
from trainer_scripts.scoring.saved_model import BATCH_SIZE, SavedModel
from trainer_scripts.tasks.registry import task_named


def score_model(model: SavedModel, table: Table, batch_size: int = BATCH_SIZE) -> Predictions:
    """Return the predictions of a model on a table."""
    return model.task.comparing.answer(model, table, batch_size, model.name)


def save_scores(
    model: SavedModel,
    predictions: Predictions,
    dataset: str,
    split: str,
    folder: Path,
    thresholds: Sequence[float] | None = None,
    decision: str = THRESHOLD,
) -> dict[str, Any]:
    """Write `predictions.parquet` and `metrics.json` of a scored model, and return the latter.

    `thresholds`, one per label, stand in for the one of the task, and `decision="expected_f1"` for any threshold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "model": model.reference,
        "task": model.task.name,
        "modality": model.modality,
        "dataset": dataset,
        "split": split,
        "selection_split": model.selection_split,
        "train_split": model.arguments.train_split,
        "rows": len(predictions.ids),
        "groups": len(set(predictions.groups)),
        "rows_sha256": predictions.rows_sha256(),
        "label_names": model.names if model.task.has_labels else [],
    }
    if thresholds is not None:
        content["thresholds"] = list(thresholds)
    if decision != THRESHOLD:
        content["decision"] = decision
    grouped = GroupedScores(predictions.groups, predictions.parts)
    scores = [score for score in scores_of(content) if grouped.has(score)]
    content["metrics"] = {score.name: grouped.value(score) for score in scores}
    intervals = {score.name: grouped.interval(score) for score in scores}
    content["intervals"] = {name: [found.low, found.high] for name, found in intervals.items() if found is not None}
    content["definitions"] = definitions(scores)
    predictions.save(folder)
    write_json(folder / METRICS, content)
    return content


def decision_of(metrics: Mapping[str, Any]) -> Any:
    """Return how the probabilities of a `metrics.json` become sets of labels."""
    if metrics.get("thresholds"):
        return Decision(tuple(metrics["thresholds"]))
    return ExpectedF1Decision() if metrics.get("decision") == EXPECTED_F1 else Decision()


def scores_of(metrics: Mapping[str, Any]) -> tuple[Score, ...]:
    """Return the scores that belong to a `metrics.json`: those of its task, its labels and its decision."""
    task, names = task_named(metrics["task"]), metrics.get("label_names") or []
    if task.name == MULTILABEL:
        return multilabel_scores(names, decision_of(metrics))
    more = task.comparing.more_scores
    return (*task.scores(names), *(more(names) if more is not None else ()))


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


def table_of_scores(content: dict[str, Any]) -> str:
    """Return scores as lines of `name value [interval]` for the terminal."""
    width = max(len(name) for name in content["metrics"])
    lines = []
    for name, value in content["metrics"].items():
        interval = content["intervals"].get(name)
        shown = f"  [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
        lines.append(f"{name:<{width}}  {value:.4f}{shown}")
    return "\n".join(lines)
