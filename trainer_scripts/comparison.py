"""Several models on the same test rows: scores with intervals, tests, baselines, ablations, calibration, cost."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset_builder.errors import BadInputError
from trainer_scripts import baselines
from trainer_scripts.ablations import IMAGE, TEXT, Ablated, followed, partners
from trainer_scripts.data import MULTILABEL, Table
from trainer_scripts.intervals import Interval, bootstrap, fit_temperature, paired_difference, scale_temperature
from trainer_scripts.pictures import Pictures, training_picture
from trainer_scripts.predictions import Predictions, check_comparable
from trainer_scripts.runs import megabytes
from trainer_scripts.scores import Score
from trainer_scripts.scoring import SavedModel, load_table, predict, save_scores, score_model

HISTOGRAM_SIDE = 64
TIMED_ROWS = 64


@dataclass
class Entry:
    """One line of the comparison.

    Attributes:
        name: model or baseline.
        kind: `model` or `baseline`.
        modality: inputs it uses.
        probabilities: on the test rows.
        scores: score name -> interval, or a plain value where there is none.
    """

    name: str
    kind: str
    modality: str
    probabilities: np.ndarray
    scores: dict[str, Interval | float] = field(default_factory=dict)


@dataclass
class Comparison:
    """Models scored on the same rows, and all that is computed from it."""

    models: list[SavedModel]
    dataset: str
    split: str
    tables: dict[str, Table]
    selection: dict[str, np.ndarray]
    results: dict[str, tuple[Predictions, dict[str, Any]]]

    @property
    def scores(self) -> tuple[Score, ...]:
        """All scores of the task."""
        return self.models[0].task.scores(self.models[0].names)

    @property
    def main_score(self) -> Score:
        """The score that decides: that of the task."""
        return self.models[0].task.score_named(self.models[0].task.selection_metric, self.models[0].names)

    @property
    def multilabel(self) -> bool:
        """Whether rows have several labels."""
        return self.models[0].task.name == MULTILABEL

    @property
    def labels(self) -> np.ndarray:
        """Truth of the test rows."""
        return next(iter(self.results.values()))[0].labels

    @property
    def groups(self) -> list[str]:
        """Groups of the test rows."""
        return next(iter(self.results.values()))[0].groups

    def of_modality(self, modality: str) -> SavedModel | None:
        """Return the first model with these inputs."""
        return next((model for model in self.models if model.modality == modality), None)


def score_all(models: Sequence[SavedModel], dataset: str, split: str, out: Path) -> Comparison:
    """Score every model on the test and on the selection split, and check that the results can be compared."""
    if len({model.task.name for model in models}) != 1:
        raise BadInputError(f"{', '.join(m.name for m in models)} solve different tasks; compare models of one task")
    if len({model.name for model in models}) != len(models):
        raise BadInputError("two models have the same name; give them folders of different names")
    results, selection, tables = {}, {}, {}
    for model in models:
        test = load_table(model, dataset, split)
        predictions = score_model(model, test)
        content = save_scores(model, predictions, dataset, split, out / model.name)
        results[model.name] = (Predictions.load(out / model.name), content)
        selection[model.name] = score_model(
            model, load_table(model, dataset, model.arguments.selection_split)
        ).probabilities
        tables[model.name] = test
    check_comparable(results)
    return Comparison(list(models), dataset, split, tables, selection, results)


def entries(comparison: Comparison) -> list[Entry]:
    """Return models and baselines with all their scores."""
    found = [
        Entry(model.name, "model", model.modality, comparison.results[model.name][0].probabilities)
        for model in comparison.models
    ]
    found += baseline_entries(comparison)
    for entry in found:
        for score in comparison.scores:
            interval = bootstrap(score, comparison.labels, entry.probabilities, comparison.groups)
            entry.scores[score.name] = interval or score(comparison.labels, entry.probabilities)
    return found


def baseline_entries(comparison: Comparison) -> list[Entry]:
    """Return the baselines that the models' inputs allow."""
    widest = comparison.of_modality("fusion") or comparison.models[0]
    names = widest.names
    test = comparison.tables[widest.name]
    train = load_table(widest, comparison.dataset, widest.arguments.train_split)
    selection = load_table(widest, comparison.dataset, widest.arguments.selection_split)
    prior = baselines.shares(train.labels, len(names))
    found = [Entry("majority", "baseline", "none", baselines.majority(train, len(test), len(names)))]
    if comparison.multilabel:
        found.append(Entry("all labels", "baseline", "none", np.ones((len(test), len(names)))))
    if test.texts is not None:
        if baselines.rule_applies(names) and not comparison.multilabel:
            probabilities, spoken = baselines.rule_alone(test.texts, prior, names)
            found.append(Entry(f"rule alone (speaks on {spoken:.0%})", "baseline", TEXT, probabilities))
        words = baselines.bag_of_words(train, selection, test, comparison.main_score)
        found.append(Entry("bag of words", "baseline", TEXT, words))
    if test.image_column is not None:
        colours = baselines.colours(train, selection, test, comparison.main_score, histogram_pictures)
        found.append(Entry("colour histogram", "baseline", IMAGE, colours))
    product = product_entry(comparison, prior, selection)
    return [*found, *([product] if product else [])]


def histogram_pictures(table: Table) -> Pictures:
    """Return small pictures for the colour histogram."""
    return Pictures(table, training_picture(HISTOGRAM_SIDE))


def product_entry(comparison: Comparison, prior: np.ndarray, selection: Table) -> Entry | None:
    """Return the product of the single models; whether the prior is divided out is chosen on the selection split."""
    text, image = comparison.of_modality(TEXT), comparison.of_modality(IMAGE)
    if text is None or image is None:
        return None
    score, many = comparison.main_score, comparison.multilabel
    chosen = max(
        (False, True),
        key=lambda divide: score(
            selection.labels,
            baselines.product_of_singles(
                comparison.selection[text.name], comparison.selection[image.name], prior, divide, many
            ),
        ),
    )
    first, second = (comparison.results[model.name][0].probabilities for model in (text, image))
    product = baselines.product_of_singles(first, second, prior, chosen, many)
    return Entry("product of the singles", "baseline", "fusion", product)


def paired_tests(comparison: Comparison, lines: Sequence[Entry]) -> dict[str, dict[str, Interval]]:
    """Return per model other than the best-informed one, and per learned baseline, what the latter gains on it.

    The model that is tested is the fusion, or the first model where none is a fusion.
    """
    tested = comparison.of_modality("fusion") or comparison.models[0]
    own = comparison.results[tested.name][0].probabilities
    found: dict[str, dict[str, Interval]] = {}
    for line in lines:
        if line.name == tested.name:
            continue
        differences = {}
        for score in comparison.scores[:4]:
            interval = paired_difference(score, comparison.labels, own, line.probabilities, comparison.groups)
            if interval is not None:
                differences[score.name] = interval
        found[line.name] = differences
    return found


def ablate(comparison: Comparison, model: SavedModel, seed: int = 0) -> dict[str, Any]:
    """Return what each input is worth to a model: shuffled over dishes, blanked, left out; words of the rule masked."""
    table = comparison.tables[model.name]
    predictions = comparison.results[model.name][0]
    samples = Ablated(model.task.evaluation_samples(model.processor, table))
    order = partners(table.groups, seed)
    changed: dict[str, np.ndarray] = {}
    report: dict[str, Any] = {"verdicts": {}}
    if table.texts is not None:
        blank = model.processor.tokenizer("")["input_ids"]
        changed["text shuffled"] = predict(model, replace(samples, text_rows=order))
        changed["text blank"] = predict(model, replace(samples, blank_text=blank))
        masked = replace(table, texts=baselines.masked_titles(table.texts))
        changed["text without the rule's words"] = predict(
            model, model.task.evaluation_samples(model.processor, masked)
        )
    if table.image_column is not None:
        mean = torch.tensor(model.processor.image_processor.image_mean).view(3, 1, 1) * 255
        grey = mean.round().to(torch.uint8).expand_as(samples[0]["picture"]).contiguous()
        changed["image shuffled"] = predict(model, replace(samples, image_rows=order))
        changed["image blank"] = predict(model, replace(samples, blank_image=grey))
    if model.modality == "fusion":
        changed["text left out"] = predict(model, samples, text_present=False)
        changed["image left out"] = predict(model, samples, image_present=False)
        if not comparison.multilabel:
            swapped = changed["image shuffled"].argmax(axis=1)
            report["follows"] = followed(swapped, predictions.labels, predictions.labels[order])
    score = comparison.main_score
    report["scores"] = {name: score(predictions.labels, found) for name, found in changed.items()}
    report["losses"] = {}
    for name, found in changed.items():
        loss = paired_difference(score, predictions.labels, predictions.probabilities, found, predictions.groups)
        report["losses"][name] = loss
        if name.endswith("shuffled"):
            report["verdicts"][name.split()[0]] = verdict(name.split()[0], loss, score.name)
    return report


def verdict(modality: str, loss: Interval | None, score: str) -> str:
    """Return whether a modality is used: shuffling it over dishes must cost the model something for sure."""
    if loss is None or not loss.above_zero:
        return f"THE {modality.upper()} IS NOT USED: shuffling it over dishes costs no {score} that the interval shows"
    return (
        f"{modality} is used: shuffling it over dishes costs {loss.value:.3f} {score} [{loss.low:.3f}, {loss.high:.3f}]"
    )


def calibration(comparison: Comparison, model: SavedModel) -> dict[str, float]:
    """Return the temperature fitted on the selection split, and the test calibration before and after it."""
    scores = {score.name: score for score in comparison.scores}
    many = comparison.multilabel
    table = load_table(model, comparison.dataset, model.arguments.selection_split)
    temperature = fit_temperature(scores["nll"], table.labels, comparison.selection[model.name], many)
    before = comparison.results[model.name][0].probabilities
    after = scale_temperature(before, temperature, many)
    found = {"temperature": temperature}
    for name in ("ece", "nll"):
        found[f"{name}_before"] = scores[name](comparison.labels, before)
        found[f"{name}_after"] = scores[name](comparison.labels, after)
    return found


@torch.inference_mode()
def cost(comparison: Comparison, model: SavedModel) -> dict[str, float]:
    """Return parameters, MB, and milliseconds per row of the forward pass, one by one and in batches of 32."""
    table = comparison.tables[model.name]
    table = table.select(np.arange(min(TIMED_ROWS, len(table))))
    samples = model.task.evaluation_samples(model.processor, table)
    found: dict[str, float] = {
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        "megabytes": megabytes(model.model),
    }
    for size in (1, min(32, len(table))):
        predict(model, samples, size)
        started = time.perf_counter()
        predict(model, samples, size)
        found[f"ms_per_row_batch_{size}"] = 1000 * (time.perf_counter() - started) / len(table)
    return found


def as_plain(value: Any) -> Any:
    """Return intervals and arrays as JSON holds them."""
    if isinstance(value, Interval):
        return {key: item for key, item in asdict(value).items() if item is not None}
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
