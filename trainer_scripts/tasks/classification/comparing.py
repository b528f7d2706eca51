"""Answers, baselines and ablations of the two classification tasks."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dataset_builder.progress import progress
from trainer_scripts.data.pictures import normalise
from trainer_scripts.data.samples import Samples, on_device
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation import baselines
from trainer_scripts.evaluation.ablations import IMAGE, TEXT, Ablated, partners
from trainer_scripts.evaluation.lines import BASELINE, Line
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import CLASSES
from trainer_scripts.tasks.classification.training import evaluation_samples
from trainer_scripts.tasks.common.task import Outputs, SavedModel, ScoredModels, ScoringOptions

# Colours need few rows, and decoding many pictures takes long.
HISTOGRAM_ROWS = 6000
SHUFFLED = "shuffled"
PROBABILITIES = "probabilities"


@torch.inference_mode()
def probabilities_of(model: SavedModel, samples: Dataset, batch_size: int, name: str = "", **fixed: bool) -> np.ndarray:
    """Return the probabilities of samples, `(rows, classes)` float32.

    Args:
        model: a saved classifier.
        samples: samples of its task.
        batch_size: rows per batch.
        name: shown beside the progress bar; empty for no bar.
        **fixed: `text_present=False` or `image_present=False` leaves that input out.
    """
    collate = model.task.collator(model.processor, len(model.names))
    loader: DataLoader = DataLoader(samples, batch_size=batch_size, collate_fn=collate)
    rows: Any = samples
    found = []
    for batch in progress(loader, name, total=len(rows), each=batch_size):
        # With labels the model would compute a loss, which scoring does not need.
        labels = batch.pop("labels")
        batch.update({key: torch.full((len(labels),), value) for key, value in fixed.items()})
        logits = model.model(**{key: on_device(value, model.model.device) for key, value in batch.items()}).logits
        found.append(model.task.probabilities(logits.float()).cpu())
    return torch.cat(found).numpy()


def answers(model: SavedModel, table: Table, batch_size: int, name: str = "") -> Predictions:
    """Return the predictions of a saved classifier on a table."""
    found = model.outputs(table) or {PROBABILITIES: probabilities_of(model, model.samples(table), batch_size, name)}
    return Predictions.of_classes(table.ids, table.groups, table.labels, found[PROBABILITIES])


def outputs(model: SavedModel, table: Table, options: ScoringOptions) -> Outputs:
    """Return the probabilities, `(rows, classes)`."""
    return {PROBABILITIES: probabilities_of(model, model.samples(table), options.batch_size)}


def baseline_lines(compared: ScoredModels) -> list[Line]:
    """Return the baselines that the models' inputs allow."""
    train, selection, test = compared.train, compared.selection, compared.test
    names, score = compared.label_names, compared.main_score
    many = test.labels.ndim == 2
    prior = baselines.shares(train.labels, len(names))

    def line(name: str, modality: str, probabilities: np.ndarray) -> Line:
        return Line(name, BASELINE, modality, Predictions.of_classes(test.ids, test.groups, test.labels, probabilities))

    found = [line("majority", "none", np.tile(prior, (len(test), 1)))]
    # Samples-F1 rewards this answer most among those that look at nothing.
    if many:
        found.append(line("all labels", "none", np.ones((len(test), len(names)))))
    if test.texts is not None:
        if baselines.rule_applies(names):
            probabilities, spoken = baselines.rule_answers(test.texts, prior, names, many)
            found.append(line(f"rule alone (speaks on {spoken:.0%})", TEXT, probabilities))
        words = baselines.bag_of_words(train, selection, test, score, len(names))
        found.append(line("TF-IDF + logistic regression", TEXT, words))
        if baselines.rule_applies(names):
            # How much of the title is more than the words that made the label?
            masked = [replace(one, texts=baselines.masked_titles(one.texts or [])) for one in (train, selection, test)]
            without = baselines.bag_of_words(masked[0], masked[1], masked[2], score, len(names))
            found.append(line("TF-IDF without the rule's words", TEXT, without))
    if test.image_column is not None:
        # The same random rows in every run, sorted because neighbours are read from disk faster.
        drawn = np.sort(np.random.default_rng(0).permutation(len(train))[:HISTOGRAM_ROWS])
        seen = train if len(train) <= HISTOGRAM_ROWS else train.select(drawn)
        colours = baselines.colours(seen, selection, test, score, len(names))
        rows = f" ({len(seen)} training rows)" if seen is not train else ""
        found.append(line(f"colour histogram{rows}", IMAGE, colours))
    product = _product(compared, prior, many)
    if product is not None:
        found.append(line("product of the singles", "fusion", product))
    return found


def _product(compared: ScoredModels, prior: np.ndarray, many: bool) -> np.ndarray | None:
    """Return the product of the single models; whether the prior is divided out is chosen on the selection split."""
    text, image = (compared.saved_of(modality) for modality in (TEXT, IMAGE))
    if text is None or image is None:
        return None
    # Test rows must not choose between the two forms of their own baseline.
    score, truth = compared.main_score, compared.selection.labels
    first, second = (compared.selection_predictions[model.name].probabilities for model in (text, image))
    chosen = max(
        (False, True),
        key=lambda divide: score(truth, baselines.product_of_singles(first, second, prior, divide, many)),
    )
    first, second = (compared.line(model.name).predictions.probabilities for model in (text, image))
    return baselines.product_of_singles(first, second, prior, chosen, many)


def changes(model: SavedModel, table: Table, batch_size: int, seed: int = 0) -> Iterator[tuple[str, Predictions]]:
    """Yield the predictions with an input shuffled, blanked, left out, or without the words of the labelling rule."""
    whole = model.samples(table)
    samples = Ablated(whole)
    order = partners(table.groups, seed)

    def under(name: str, ablated: Dataset, **fixed: bool) -> tuple[str, Predictions]:
        probabilities = probabilities_of(model, ablated, batch_size, f"{model.name}, {name}", **fixed)
        return name, Predictions.of_classes(table.ids, table.groups, table.labels, probabilities)

    if table.texts is not None:
        yield under(f"text {SHUFFLED}", replace(samples, text_rows=order))
        yield under("text blank", replace(samples, constant=blank_text(model, whole)))
        if baselines.rule_applies(model.names):
            # These rows have other texts than the split that they were chosen from, and the same pictures.
            masked = replace(table, texts=baselines.masked_titles(table.texts), chosen_from=None)
            without = evaluation_samples(model.processor, masked)
            if whole.image_features is not None:
                without.image_features = whole.image_features
            yield under("text without the rule's words", without)
    if table.image_column is not None:
        yield under(f"image {SHUFFLED}", replace(samples, image_rows=order))
        yield under("image blank", replace(samples, constant=blank_picture(model, whole)))
    # An exported graph always takes both.
    if model.modality == "fusion" and isinstance(model.model, torch.nn.Module):
        yield under("text left out", samples, text_present=False)
        yield under("image left out", samples, image_present=False)


@torch.inference_mode()
def blank_text(model: SavedModel, samples: Samples) -> dict[str, Any]:
    """Return an empty text in the form in which the samples hold texts."""
    tokens = model.processor.tokenizer("")["input_ids"]
    if samples.text_features is None:
        return {"input_ids": tokens}
    ids = torch.tensor([tokens], device=model.model.device)
    return {"text_features": model.model.encode_text(ids, torch.ones_like(ids))[0].cpu()}


@torch.inference_mode()
def blank_picture(model: SavedModel, samples: Samples) -> dict[str, Any]:
    """Return a picture of the mean colour in the form in which the samples hold pictures."""
    # The mean colour becomes 0 after normalisation: a picture without any content.
    normal = model.processor.image_processor
    mean = torch.tensor(normal.image_mean).view(3, 1, 1) * 255
    grey = mean.round().to(torch.uint8).expand_as(samples.picture(0, 0, once=True)).contiguous()
    if samples.image_features is None:
        return {"picture": grey}
    pixels = normalise([grey], normal.image_mean, normal.image_std).to(model.model.device)
    found = model.model.encode_image(pixels)
    return {"image_features": found[0].cpu() if isinstance(found, torch.Tensor) else tuple(e[0].cpu() for e in found)}


def conflicting(table: Table, shuffled: Predictions, seed: int = 0) -> tuple[Predictions, Predictions]:
    """Return the answers to rows whose picture was swapped for one of another label, beside both truths.

    Args:
        table: the rows.
        shuffled: answers with the pictures of `partners(table.groups, seed)`.
        seed: of the partners.

    Returns:
        The same answers with the labels of the rows' own texts, and with those of the swapped pictures.
    """
    order = partners(table.groups, seed)
    pictured = table.labels[order]
    # Only where the labels differ does the answer show which of the two inputs the model follows.
    differ = np.flatnonzero((table.labels != pictured).reshape(len(table), -1).any(axis=1))
    ids, groups = [table.ids[row] for row in differ], [table.groups[row] for row in differ]
    answered = shuffled.probabilities[differ]
    return (
        Predictions.of_classes(ids, groups, table.labels[differ], answered),
        Predictions.of_classes(ids, groups, pictured[differ], answered),
    )


def confidences(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return confidence and whether it was right, as the expected calibration error takes them."""
    labels, probabilities = predictions.parts[CLASSES]
    if labels.ndim == 2:
        # Each label of a row is a decision of its own.
        return probabilities.reshape(-1), labels.reshape(-1) > 0
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
