"""Answers, baselines, ablations and verdicts of segmentation and ingredients.

Models with masks, with an ingredient head, or with both are compared on the scores that they share.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from model_cards.runs import read_configuration
from modeling_flavour.base_flavour import FlavourPreTrainedModel
from trainer_scripts.data.pictures import normalise
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.ablations import IMAGE, drawn_rows, partners
from trainer_scripts.evaluation.intervals import Interval
from trainer_scripts.evaluation.lines import BASELINE, Line
from trainer_scripts.evaluation.predictions import METRICS, Predictions, read_metrics
from trainer_scripts.evaluation.scores import GROUP_MASKS, INGREDIENTS, MASKS, Score
from trainer_scripts.features.reader import BackboneReader
from trainer_scripts.tasks.common.starting_points import input_size
from trainer_scripts.tasks.common.task import SavedModel, ScoredModels
from trainer_scripts.tasks.segmentation.answers import PLAIN, Answers, Swapped, Tally, answer, samples_for
from trainer_scripts.tasks.segmentation.classes import shown_classes
from trainer_scripts.tasks.segmentation.scores import (
    GROUP_PREFIX,
    INGREDIENT_PREFIX,
    MASK_SELECTION,
    all_background,
    most_frequent,
)
from trainer_scripts.tasks.segmentation.views import predict_views


def answers(model: SavedModel, table: Table, batch_size: int, name: str = "") -> Predictions:
    """Return the answers of a saved segmenter; those to swapped pictures are taken in the same pass where announced."""
    swapped = None
    if model.keeps and model.ablation_rows is not None:
        swapped = swapped_rows(model, table, drawn_rows(table.groups, model.ablation_rows))
    found = answer(model.model, samples_for(model, table), batch_size, name, reader=reader_of(model), swapped=swapped)
    if swapped is not None:
        model.kept["swapped", id(table)] = (table, swapped)
    return found.predictions(table)


def reader_of(model: SavedModel) -> BackboneReader | None:
    """Return what computes a model's backbone fast; None for a graph, and where the model is timed as it is."""
    return model.reader if model.keeps and isinstance(model.model, FlavourPreTrainedModel) else None


def swapped_rows(model: SavedModel, table: Table, rows: np.ndarray, seed: int = 0) -> Swapped | None:
    """Return the rows of a table whose pictures change places; None where all are of one group."""
    chosen = table.select(rows)
    if len(set(chosen.groups)) < 2:
        return None
    tally = Tally(model.model.config, samples_for(model, chosen))
    return Swapped(rows, partners(chosen.groups, seed), tally)


def baseline_lines(compared: ScoredModels) -> list[Line]:
    """Return all background, and the ingredients that training pictures show most often."""
    truth, test = compared.widest_saved.predictions, compared.test
    lines = []
    if MASKS in truth.parts:
        masks = {part: all_background(truth.parts[part][0]) for part in (MASKS, GROUP_MASKS) if part in truth.parts}
        pairs = {part: (counts, counts) for part, counts in masks.items()}
        lines.append(Line("all background", BASELINE, "none", Predictions(test.ids, test.groups, pairs)))
    if not compared.has_train:
        return lines
    config = compared.saved[compared.widest_saved.name].model.config
    labels, mapped = compared.train.labels, config.class_map
    # A model without a class map reads mask ids as they are.
    shown = shown_classes(labels, range(labels.shape[1]) if mapped is None else mapped, config.num_labels)
    constant = np.broadcast_to(most_frequent(shown), truth.parts[INGREDIENTS][0].shape)
    parts = {INGREDIENTS: (truth.parts[INGREDIENTS][0], constant.astype(np.float32))}
    lines.append(Line("most frequent ingredients", BASELINE, "none", Predictions(test.ids, test.groups, parts)))
    return lines


def changes(model: SavedModel, table: Table, batch_size: int, seed: int = 0) -> Iterator[tuple[str, Predictions]]:
    """Yield the answers to the pictures of other dishes, and to blank ones."""
    whole, rows = table.chosen_from or (table, np.arange(len(table)))
    _, swapped = model.kept.get(("swapped", id(whole)), (None, None))
    if swapped is None or not np.array_equal(swapped.rows, rows):
        # Not announced, so the pictures pass the model once more.
        swapped = swapped_rows(model, table, np.arange(len(table)), seed)
        if swapped is not None:
            name = f"{model.name}, {IMAGE} shuffled"
            samples = samples_for(model, table)
            answer(model.model, samples, batch_size, name, reader=reader_of(model), swapped=swapped)
    if swapped is not None:
        yield f"{IMAGE} shuffled", swapped.tally.answers().predictions(table)
    yield f"{IMAGE} blank", blank_answers(model, table).predictions(table)


@torch.inference_mode()
def blank_answers(model: SavedModel, table: Table) -> Answers:
    """Return the answers to a picture of the mean colour in the place of every picture; it is seen once."""
    samples = samples_for(model, table)
    normal, side = model.processor.image_processor, input_size(model.processor)
    mean = torch.tensor(normal.image_mean).view(3, 1, 1) * 255
    grey = mean.round().to(torch.uint8).expand(3, side, side).contiguous()
    pixels = normalise([grey], normal.image_mean, normal.image_std).to(model.model.device, model.model.dtype)
    scores, named = predict_views(model.model, pixels, PLAIN)
    tally = Tally(model.model.config, samples)
    tally.add(range(len(samples)), scores, named)
    return tally.answers()


MASK_TASK, INGREDIENT_TASK = "masks", "ingredients"
# What sharing is judged by, per task: the first score decides.
JUDGED = {
    MASK_TASK: (MASK_SELECTION, f"{GROUP_PREFIX}{MASK_SELECTION}"),
    INGREDIENT_TASK: (f"{INGREDIENT_PREFIX}samples_f1", f"{INGREDIENT_PREFIX}micro_f1"),
}


def sharing_verdicts(compared: ScoredModels) -> list[str]:
    """Return per task whether one encoder for both helped, hurt, or made no clear difference.

    Paired differences compare each multi-task model with each model of one task, on the scores of that task.
    """
    learned: dict[str, list[str]] = {}
    for name, model in compared.saved.items():
        has = {MASK_TASK: model.model.config.head != "none", INGREDIENT_TASK: model.model.config.ingredient_head}
        learned[name] = [task for task, present in has.items() if present]
    found = []
    for shared in (line for line in compared.models if len(learned.get(line.name, ())) == 2):
        for single in (line for line in compared.models if len(learned.get(line.name, ())) == 1):
            task = learned[single.name][0]
            for score in (score for score in compared.scores if score.name in JUDGED[task]):
                gain = shared.minus(single, score)
                if gain is not None:
                    found.append(
                        f"{task}: {sharing(gain)}: {shared.name} against {single.name}, {_difference(gain, score)}"
                    )
        found += _budgets(compared, shared.name, learned)
        found += conflict_verdict(compared, shared.name)
    return found


def sharing(gain: Interval) -> str:
    """Return in words whether a paired difference of a multi-task model over a single-task model is a gain.

    >>> sharing(Interval(0.02, 0.01, 0.03, 0.001)), sharing(Interval(0.02, -0.01, 0.05, 0.2))
    ('sharing HELPED', 'whether sharing helped CANNOT BE TOLD')
    """
    if gain.tested and gain.low > 0:
        return "sharing HELPED"
    if gain.tested and gain.high < 0:
        return "sharing HURT"
    return "whether sharing helped CANNOT BE TOLD"


def _difference(gain: Interval, score: Score) -> str:
    p = "" if gain.p is None else f", p = {gain.p:.4f}"
    return f"{gain.value:+.3f} {score.name} [{gain.low:+.3f}, {gain.high:+.3f}]{p}"


def _budgets(compared: ScoredModels, shared: str, names: Iterable[str]) -> list[str]:
    """Return the number of training pictures per model, those of its start included, where they differ."""
    seen = {name: pictures_seen(Path(compared.saved[name].source)) for name in names}
    known = {name: number for name, number in seen.items() if number is not None}
    # Partial last batches make small differences, which are not worth a warning.
    if shared not in known or len(known) < 2 or max(known.values()) <= 1.02 * min(known.values()):
        return []
    counts = ", ".join(f"{name} {number:,}" for name, number in known.items())
    return [f"the models did not learn from equally many pictures, starts included ({counts})"]


def pictures_seen(folder: Path) -> int | None:
    """Return the number of training pictures of a run and of the runs that it started from; None where unknown."""
    configuration = read_configuration(folder)
    if configuration is None or not (folder / METRICS).is_file():
        return None
    metrics = read_metrics(folder)
    own = round(metrics["rows"]["train"] * metrics["epochs"])
    # A model learned from the pictures of its start too, and of the start of that.
    starts = (configuration.get(name) for name in ("model_name_or_path", "init_segmenter", "init_image_encoder"))
    before = [pictures_seen(Path(start)) for start in starts if start]
    return None if None in before else own + sum(number or 0 for number in before)


def conflict_verdict(compared: ScoredModels, shared: str) -> list[str]:
    """Return how often the gradients of the two tasks opposed each other in the encoder, where the run logged it."""
    folder = Path(compared.saved[shared].source)
    history = read_metrics(folder)["history"] if (folder / METRICS).is_file() else []
    cosines = np.array([line["gradient_cosine"] for line in history if "gradient_cosine" in line])
    if not len(cosines):
        return []
    return [
        f"gradients of {shared} in the shared encoder: mean cosine {cosines.mean():+.3f}, opposed in "
        f"{(cosines < 0).mean():.0%} of {len(cosines)} logged steps"
    ]
