"""Teaches a trained classifier when it would rather not answer, and a fusion what its training rows were like."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from dataset_builder.progress import progress
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.samples import Samples, on_device
from trainer_scripts.data.table import Table
from trainer_scripts.features.reader import BackboneReader
from trainer_scripts.tasks.classification.training import collator, evaluation_samples

# Rows that are looked at: means and variances of features are known well from fewer than all.
MOST_ROWS = 1000
LEAST_ROWS = 16
BATCH_SIZE = 32
SINGLE_LABEL = "single_label_classification"
# A model that is asked to abstain keeps this share of the validation rows.
ANSWERED_SHARE = 0.8


@torch.inference_mode()
def learn_familiarity(
    model: PreTrainedModel,
    processor: FlavourProcessor,
    train: Table,
    selection: Table,
    share: float,
    reader: BackboneReader | None = None,
) -> bool:
    """Describe the training rows in the model and choose its limits on the selection rows; both lie in the checkpoint.

    Args:
        model: a fusion after its training, on its device.
        processor: its processor.
        train: training rows; at most `MOST_ROWS` drawn ones are read.
        selection: rows that chose the checkpoint, likewise.
        share: of the selection rows that shall be familiar, by each part.
        reader: gives the outputs of backbones, stored ones where there are any; None runs the backbones.

    Returns:
        Whether there were rows enough.
    """
    was_training = model.training
    model.eval()
    model.forget_familiarity()
    try:
        known, _ = _read(model, _samples(processor, drawn(train), reader), processor, "familiar training rows")
        chosen = _samples(processor, drawn(selection), reader)
        held_out, _ = _read(model, chosen, processor, "familiar selection rows")
        if any(len(rows) < LEAST_ROWS for found in (known, held_out) for rows in found.values()):
            return False
        model.learn_familiarity(known, held_out, share)
        if model.config.problem_type == SINGLE_LABEL:
            _, logits = _read(model, chosen, processor, "")
            model.config.abstain_below = abstention_limit(logits)
    finally:
        model.train(was_training)
    return True


@torch.inference_mode()
def learn_abstention(
    model: PreTrainedModel, processor: FlavourProcessor, selection: Table, reader: BackboneReader | None = None
) -> bool:
    """Choose `config.abstain_below` of a trained model of titles or of pictures; return whether there were rows enough.

    Args:
        model: of one label per row, on its device.
        processor: its processor.
        selection: rows that chose the checkpoint; at most `MOST_ROWS` drawn ones are read.
        reader: as of `learn_familiarity`.
    """
    table = drawn(selection)
    if len(table) < LEAST_ROWS:
        return False
    was_training = model.training
    model.eval()
    try:
        samples = _samples(processor, table, reader)
        logits = [
            model(**batch).logits.float() for batch in _batches(model, samples, processor, "how sure answers are")
        ]
    finally:
        model.train(was_training)
    model.config.abstain_below = abstention_limit(torch.cat(logits))
    return True


def abstention_limit(logits: torch.Tensor) -> float:
    """Return the probability that the best labels of the surest `ANSWERED_SHARE` of rows `(rows, labels)` reach."""
    best = logits.softmax(-1).amax(-1)
    # Rounded down, so that rows which are exactly as sure are answered by other runtimes too.
    return math.floor(1e4 * float(torch.quantile(best, 1 - ANSWERED_SHARE))) / 1e4


def drawn(table: Table) -> Table:
    """Return at most `MOST_ROWS` rows, the same in every process."""
    if len(table) <= MOST_ROWS:
        return table
    return table.select(np.sort(np.random.default_rng(0).permutation(len(table))[:MOST_ROWS]))


def _samples(processor: FlavourProcessor, table: Table, reader: BackboneReader | None) -> Samples:
    """Return the samples of a table, which carry the outputs of backbones where a reader is given."""
    samples = evaluation_samples(processor, table)
    if reader is not None:
        reader.attach(samples)
    return samples


def _read(
    model: PreTrainedModel, samples: Samples, processor: FlavourProcessor, name: str
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the features of each part, of the rows that have it, and the class scores."""
    found: dict[str, list[torch.Tensor]] = {"text": [], "image": []}
    logits: list[torch.Tensor] = []
    for batch in _batches(model, samples, processor, name):
        mask = batch.get("attention_mask")
        text = model.text_encoder(batch.get("input_ids"), mask, features=batch.get("text_features"))
        image = model.image_encoder(batch.get("pixel_values"), batch.get("image_features"))
        present = {part: batch.get(f"{part}_present") for part in found}
        # A text without any token counts as missing, as in the model; stored vectors of whole texts tell no tokens.
        if mask is not None:
            read = mask.bool().any(1)
            present["text"] = read if present["text"] is None else present["text"].bool() & read
        for part, features in model.familiar_features(text, image).items():
            here = present[part]
            found[part].append((features if here is None else features[here.bool()]).float())
        familiar = model.familiar_parts(text, image)
        logits.append(model.classify(text, image, present["text"], present["image"], familiar)[2].float())
    return {part: _joined(rows) for part, rows in found.items()}, torch.cat(logits)


def _batches(
    model: PreTrainedModel, samples: Samples, processor: FlavourProcessor, name: str
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the inputs of samples on the device of the model, without labels."""
    loader: DataLoader = DataLoader(
        samples, batch_size=BATCH_SIZE, collate_fn=collator(processor, model.config.num_labels)
    )
    for batch in progress(loader, name, total=len(samples), each=BATCH_SIZE):
        batch.pop("labels")
        yield {key: on_device(value, model.device) for key, value in batch.items()}


def _joined(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(rows)).clone()
