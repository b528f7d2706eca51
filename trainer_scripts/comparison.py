"""Several models on the same test rows: scores with intervals, tests, baselines, ablations, calibration, cost.

What differs between tasks comes from `Task.comparing`; nothing here knows what a row or an answer is.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset_builder.errors import BadInputError
from trainer_scripts.comparing import MODEL, Line
from trainer_scripts.data import Table
from trainer_scripts.intervals import GroupedScores, Interval, fit_temperature, holm, scale_temperature
from trainer_scripts.predictions import PREDICTIONS, Predictions, check_comparable, read_metrics
from trainer_scripts.runs import megabytes
from trainer_scripts.scores import CLASSES, Score
from trainer_scripts.scoring import SavedModel, load_model, load_table, save_scores, scores_of_file, weights_on_disk
from trainer_scripts.tasks import Task, task_named

TIMED_ROWS = 64
REPEATS = 3
TEXT, IMAGE, FUSION = "text", "image", "fusion"
PER_CLASS = "f1_"


@dataclass
class Comparison:
    """Models scored on the same rows, and all that is computed from it.

    Attributes:
        saved: name -> model; none for one of which only the prediction file was given.
        models: one line per model.
        metrics: name -> content of its `metrics.json`.
        tables: name -> test rows with the columns that the model reads.
        dataset: folder or Hub id; None when only prediction files were given.
        split: the test split.
        baselines: lines of the baselines.
        selection_predictions: name -> predictions on the split that chose the checkpoint.
    """

    saved: dict[str, SavedModel]
    models: list[Line]
    metrics: dict[str, dict[str, Any]]
    tables: dict[str, Table]
    dataset: str | None
    split: str
    baselines: list[Line] = field(default_factory=list)
    selection_predictions: dict[str, Predictions] = field(default_factory=dict)

    @property
    def widest(self) -> Line:
        """The model that answers most: its task and its inputs are those of the comparison."""
        return max(self.models, key=lambda line: (len(line.predictions.parts), line.modality == FUSION))

    @cached_property
    def task(self) -> Task:
        """The task that is compared."""
        return task_named(self.metrics[self.widest.name]["task"])

    @property
    def label_names(self) -> list[str]:
        """The label set; empty for a task without one."""
        return self.metrics[self.widest.name].get("label_names", [])

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """All scores that a model of the comparison answers, by the definitions of its `metrics.json`."""
        known = scores_of_file(self.metrics[self.widest.name], self.widest.name)
        return tuple(score for score in known if any(line.has(score) for line in self.models))

    def score_named(self, name: str) -> Score:
        """Return a score by name."""
        return next(score for score in self.scores if score.name == name)

    @property
    def decisive(self) -> tuple[Score, ...]:
        """The scores that differences and verdicts are about; the first is `main_score`."""
        names = self.task.comparing.decisive or (self.task.selection_metric,)
        return tuple(score for name in names for score in self.scores if score.name == name)

    @property
    def main_score(self) -> Score:
        """The score that decides."""
        return self.decisive[0]

    @property
    def tested(self) -> Line:
        """The model that is held against all other lines: the first fusion, or the first model."""
        return next((line for line in self.models if line.modality == FUSION), self.models[0])

    @property
    def lines(self) -> list[Line]:
        """Models and baselines."""
        return [*self.models, *self.baselines]

    def line(self, name: str) -> Line:
        """Return a model's line."""
        return next(line for line in self.models if line.name == name)

    def saved_of(self, modality: str) -> SavedModel | None:
        """Return the first saved model with these inputs."""
        return next((model for model in self.saved.values() if model.modality == modality), None)

    @property
    def test(self) -> Table:
        """The test rows."""
        return self.tables[self.widest.name]

    @cached_property
    def train(self) -> Table:
        """The training rows."""
        model = self.saved[self.widest.name]
        return load_table(model, str(self.dataset), model.arguments.train_split)

    @cached_property
    def selection(self) -> Table:
        """The rows that chose the checkpoint."""
        model = self.saved[self.widest.name]
        return load_table(model, str(self.dataset), model.arguments.selection_split)


def gather(sources: Sequence[str], dataset: str | None, split: str, out: Path, batch_size: int) -> Comparison:
    """Score every model on the test split, or read its prediction file, and check that the results can be compared.

    Raises:
        BadInputError: results on different rows or by different definitions, or a split that chose a checkpoint.
    """
    comparison = Comparison({}, [], {}, {}, dataset, split)
    for source in sources:
        if is_prediction_folder(source):
            _add_file(comparison, Path(source))
        else:
            _add_model(comparison, load_model(source), split, out, batch_size)
    check_comparable({line.name: (line.predictions, comparison.metrics[line.name]) for line in comparison.models})
    if comparison.saved and comparison.widest.name in comparison.saved and comparison.task.comparing.baselines:
        for name, model in comparison.saved.items():
            if CLASSES in comparison.line(name).predictions.parts:
                comparison.selection_predictions[name] = _on_selection(model, str(dataset), batch_size)
        comparison.baselines = comparison.task.comparing.baselines(comparison)
    return comparison


def is_prediction_folder(source: str) -> bool:
    """Whether a folder holds what `score.py` wrote, and no model."""
    return (Path(source) / PREDICTIONS).is_file() and not (Path(source) / "config.json").is_file()


def _add_file(comparison: Comparison, folder: Path) -> None:
    predictions, metrics = Predictions.load(folder), read_metrics(folder)
    if metrics.get("split") == metrics.get("selection_split"):
        raise BadInputError(f"{folder} holds scores of the split that chose the checkpoint; score another split")
    name = _free_name(comparison, Path(str(metrics.get("model") or folder)).name)
    _check_scores(name, predictions, metrics)
    comparison.split = str(metrics["split"])
    comparison.metrics[name] = metrics
    comparison.models.append(Line(name, MODEL, metrics.get("modality") or IMAGE, predictions))


def _add_model(comparison: Comparison, model: SavedModel, split: str, out: Path, batch_size: int) -> None:
    if split == model.arguments.selection_split:
        raise BadInputError(f"{split!r} chose the checkpoints; compare on a split that nothing was chosen on")
    name = _free_name(comparison, model.name)
    table = load_table(model, str(comparison.dataset), split)
    predictions = model.task.comparing.answer(model, table, batch_size, name)
    metrics = save_scores(model, predictions, str(comparison.dataset), split, out / name)
    comparison.saved[name], comparison.tables[name], comparison.metrics[name] = model, table, metrics
    comparison.models.append(Line(name, MODEL, model.modality, Predictions.load(out / name)))


def _free_name(comparison: Comparison, name: str) -> str:
    if name in comparison.metrics:
        raise BadInputError(f"two models have the same name {name!r}; give them folders of different names")
    return name


def _on_selection(model: SavedModel, dataset: str, batch_size: int) -> Predictions:
    table = load_table(model, dataset, model.arguments.selection_split)
    return model.task.comparing.answer(model, table, batch_size, f"{model.name}, {table.split}")


def _check_scores(name: str, predictions: Predictions, metrics: dict[str, Any]) -> None:
    """Raise BadInputError when a metrics file does not say what its predictions say."""
    grouped = GroupedScores(predictions.groups, predictions.parts)
    for score in scores_of_file(metrics, name):
        stated = metrics["metrics"].get(score.name)
        stated = stated.get("value") if isinstance(stated, dict) else stated
        if stated is not None and grouped.has(score) and abs(grouped.value(score) - stated) > 1e-4:
            raise BadInputError(
                f"{name}: metrics.json says {score.name} {stated:.4f}, its predictions give "
                f"{grouped.value(score):.4f}; score the model anew"
            )


def all_scores(comparison: Comparison) -> dict[str, dict[str, Interval | float]]:
    """Return every score of every line, with intervals where there are any."""
    return {
        line.name: {score.name: line.score(score) for score in comparison.scores if line.has(score)}
        for line in comparison.lines
    }


def paired_tests(comparison: Comparison) -> dict[str, dict[str, Interval]]:
    """Return per other line what the tested model gains on it, for the scores that are no single class's."""
    shown = [score for score in comparison.scores if not score.name.startswith(PER_CLASS)]
    found: dict[str, dict[str, Interval]] = {}
    for line in comparison.lines:
        if line is comparison.tested:
            continue
        gains = {score.name: _gain(comparison.tested, line, score) for score in shown}
        found[line.name] = {name: gain for name, gain in gains.items() if gain is not None}
    return found


def _gain(tested: Line, other: Line, score: Score) -> Interval | None:
    return tested.minus(other, score) if tested.has(score) and other.has(score) else None


def adjusted(differences: dict[str, dict[str, Interval]], score: str) -> dict[str, float]:
    """Return the p-values of one score, adjusted for how many lines the tested model was held against."""
    tested = {name: gains[score].p for name, gains in differences.items() if score in gains}
    return holm({name: p for name, p in tested.items() if p is not None})


def ablate(comparison: Comparison, batch_size: int) -> dict[str, Any]:
    """Return per saved model the main score under each change of its input, the loss, and what it follows."""
    return {
        name: _ablate_one(comparison, comparison.line(name), model, batch_size)
        for name, model in comparison.saved.items()
        if model.task.comparing.changes is not None and comparison.line(name).has(comparison.main_score)
    }


def _ablate_one(comparison: Comparison, line: Line, model: SavedModel, batch_size: int) -> dict[str, Any]:
    hooks, score, table = model.task.comparing, comparison.main_score, comparison.tables[line.name]
    report: dict[str, Any] = {"scores": {}, "losses": {}, "verdicts": {}}
    assert hooks.changes is not None
    for change, predictions in hooks.changes(model, table, batch_size):
        changed = Line(change, MODEL, line.modality, predictions)
        report["scores"][change] = changed.score(score)
        report["losses"][change] = line.minus(changed, score)
        if change.endswith("shuffled"):
            modality = change.split()[0]
            report["verdicts"][modality] = usage(modality, report["losses"][change], score)
        if change == f"{IMAGE} shuffled" and line.modality == FUSION and hooks.conflicting is not None:
            pairs = zip((TEXT, IMAGE), hooks.conflicting(table, predictions), strict=True)
            report["follows"] = {
                what: Line(what, MODEL, line.modality, held).score(score) for what, held in pairs if held.ids
            }
    return report


def usage(modality: str, loss: Interval | None, score: Score) -> str:
    """Return whether a modality is used: shuffling it over dishes must cost the model something for sure."""
    cost = loss if loss is None or score.greater_is_better else Interval(-loss.value, -loss.high, -loss.low, loss.p)
    if cost is None or not (cost.above_zero and cost.tested):
        shown = f" (loss {cost.value:+.3f} [{cost.low:+.3f}, {cost.high:+.3f}]{_p(cost)})" if cost is not None else ""
        return (
            f"!!! THE {modality.upper()} IS NOT USED: shuffling it over dishes costs no {score.name} that the interval "
            f"shows{shown}"
        )
    return (
        f"{modality} is used: shuffling it over dishes costs {cost.value:.3f} {score.name} "
        f"[{cost.low:.3f}, {cost.high:.3f}]{_p(cost)}"
    )


def _p(interval: Interval) -> str:
    return "" if interval.p is None else f", p = {interval.p:.4f}"


def calibration(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return per saved classifier the temperature of the selection split, and test calibration before and after it."""
    return {name: _calibrate(comparison, name) for name in comparison.selection_predictions}


def _calibrate(comparison: Comparison, name: str) -> dict[str, Any]:
    selection, predictions = comparison.selection_predictions[name], comparison.line(name).predictions
    many = predictions.labels.ndim == 2
    nll = comparison.score_named("nll")
    temperature = fit_temperature(nll, selection.labels, selection.probabilities, many)
    scaled = calibrated(predictions, temperature)
    found: dict[str, Any] = {"temperature": temperature}
    for score in (comparison.score_named("ece"), nll):
        found[f"{score.name} before"] = comparison.line(name).score(score)
        found[f"{score.name} after"] = Line(name, MODEL, "", scaled).score(score)
    return found


def calibrated(predictions: Predictions, temperature: float) -> Predictions:
    """Return the predictions of a classifier with its logits divided by a temperature."""
    labels, probabilities = predictions.parts[CLASSES]
    scaled = scale_temperature(probabilities, temperature, labels.ndim == 2)
    return Predictions.of_classes(predictions.ids, predictions.groups, labels, scaled)


def spread(comparison: Comparison, batch_size: int) -> dict[str, dict[str, Any]]:
    """Return per model that was trained with several seeds the main scores of each on the test rows, and their spread.

    The line of the model in all other tables is its first seed, whichever is best.
    """
    found = {}
    for name, model in comparison.saved.items():
        folders = [path for path in seed_folders(model.source) if (path / "model.safetensors").is_file()]
        if not folders:
            continue
        values = {s.name: [comparison.line(name).grouped.value(s)] for s in comparison.decisive}
        for folder in folders:
            other = load_model(str(folder))
            predictions = other.task.comparing.answer(other, comparison.tables[name], batch_size, folder.name)
            for score in comparison.decisive:
                values[score.name].append(Line(folder.name, MODEL, "", predictions).grouped.value(score))
        found[name] = {
            score: {
                "seeds": len(of_score),
                "mean": float(np.mean(of_score)),
                "std": float(np.std(of_score, ddof=1)),
                "min": min(of_score),
                "max": max(of_score),
            }
            for score, of_score in values.items()
        }
    return found


def seed_folders(source: str) -> list[Path]:
    """Return the folders of a run's further seeds."""
    return sorted(Path(source).glob("seed-*"), key=lambda path: int(path.name.split("-")[1]))


def cost(comparison: Comparison) -> dict[str, dict[str, float]]:
    """Return per saved model parameters, MB on disk, and milliseconds per row from the table to the answer.

    Times are medians of a few passes over at most `TIMED_ROWS` rows after a warm-up, one by one and in batches of 32.
    """
    return {name: _cost(comparison.tables[name], model) for name, model in comparison.saved.items()}


@torch.inference_mode()
def _cost(table: Table, model: SavedModel) -> dict[str, float]:
    table = table.select(np.arange(min(TIMED_ROWS, len(table))))
    found: dict[str, float] = {
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        "MB on disk": weights_on_disk(model.source) or megabytes(model.model),
    }
    for size in sorted({1, min(32, len(table))}):
        times = []
        for _ in range(REPEATS + 1):
            started = time.perf_counter()
            model.task.comparing.answer(model, table, size)
            times.append(time.perf_counter() - started)
        found[f"ms per row, batch {size}"] = 1000 * float(np.median(times[1:])) / len(table)
    return found


def verdicts(comparison: Comparison, differences: dict[str, Any], ablations: dict[str, Any]) -> list[str]:
    """Return in words what the intervals say, and no more."""
    tested, found = comparison.tested.name, []
    for other, gains in differences.items():
        for score in comparison.decisive:
            gain = gains.get(score.name)
            if gain is not None:
                found.append(f"- {tested} {compared(gain, score)} {other}: {_shown(gain, score)}")
    ahead = [line for line in comparison.baselines if _ahead(line, comparison.tested, comparison.main_score)]
    for line in ahead:
        found.append(f"- !!! A BASELINE SCORES HIGHER THAN {tested}: {line.name}, by {comparison.main_score.name}")
    for model, report in ablations.items():
        found += [f"- {model}: {text}" for text in report["verdicts"].values()]
    if comparison.task.comparing.verdicts is not None:
        found += [f"- {text}" for text in comparison.task.comparing.verdicts(comparison)]
    return found


def _ahead(line: Line, tested: Line, score: Score) -> bool:
    if not (line.has(score) and tested.has(score)):
        return False
    difference = line.grouped.value(score) - tested.grouped.value(score)
    return difference > 0 if score.greater_is_better else difference < 0


def compared(gain: Interval, score: Score) -> str:
    """Return what interval and test say of a difference: both must be sure, so that few rows claim nothing."""
    better = gain.low > 0 if score.greater_is_better else gain.high < 0
    worse = gain.high < 0 if score.greater_is_better else gain.low > 0
    if not gain.tested:
        better = worse = False
    return "is better than" if better else "is WORSE than" if worse else "is NOT SHOWN to differ from"


def _shown(gain: Interval, score: Score) -> str:
    return f"{gain.value:+.3f} {score.name} [{gain.low:+.3f}, {gain.high:+.3f}]{_p(gain)}"


def as_plain(value: Any) -> Any:
    """Return intervals and arrays as JSON holds them."""
    if isinstance(value, Interval):
        return {key: item for key, item in asdict(value).items() if item is not None}
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
