"""Predictions of a captioner on a table: generated captions, and the cross-entropy of the given ones."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from modeling_flavour.captioning_encoder_flavour import VisualEncoding
from modeling_flavour.captioning_pipeline_flavour import as_sentence
from modeling_flavour.losses_flavour import IGNORED_LABEL
from modeling_flavour.modeling_flavour_captioning import FlavourCaptioner
from trainer_scripts.data.pictures import normalise
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import CAPTIONS, NAMES, TOKENS
from trainer_scripts.tasks.captioning.samples import CaptionSamples, pad_labels
from trainer_scripts.tasks.captioning.scores import CAPTION_SCORES, values
from trainer_scripts.tasks.captioning.truth import naming_scores, visible_names

BATCH_SIZE = 64


def pixel_batches(
    samples: CaptionSamples,
    batch_size: int,
    device: torch.device,
    blank: bool = False,
    order: np.ndarray | None = None,
    name: str = "",
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield row numbers and normalised pictures, or their stored features where the samples have them.

    Args:
        samples: evaluation samples.
        batch_size: rows per batch.
        device: where the pictures go.
        blank: whether every picture is replaced by the mean colour.
        order: row whose picture each row gets, or None for its own.
        name: shown beside the progress bar; empty for no bar.
    """
    normal = samples.processor.image_processor
    starts = range(0, len(samples.table), batch_size)
    for start in tqdm(starts, desc=name, leave=False, disable=not name):
        rows = list(range(start, min(start + batch_size, len(samples.table))))
        chosen = rows if order is None else [int(order[row]) for row in rows]
        if samples.image_features is not None:
            yield rows, torch.stack([samples.image_features[row] for row in chosen]).to(device)
            continue
        pixels = normalise([samples.pictures[row] for row in chosen], normal.image_mean, normal.image_std)
        # After normalisation zero is the mean colour: a picture without any content.
        yield rows, (torch.zeros_like(pixels) if blank else pixels).to(device)


@torch.inference_mode()
def expect(model: FlavourCaptioner, encoded: VisualEncoding, captions: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
    """Return how likely the given captions are, teacher-forced, summed over the captions of a picture.

    The columns of `(pictures, 3)` are the negative log-likelihood of all tokens, the tokens that were the likeliest,
    and the tokens, end tokens in and padding out.

    Args:
        model: in evaluation mode.
        encoded: output of the visual encoder for the pictures.
        captions: per picture the tokens of each of its captions.
    """
    # A picture has several captions: each is a row of the decoder, with the encoding of its picture.
    owners = torch.tensor([row for row, of_one in enumerate(captions) for _ in of_one])
    labels = pad_labels([tokens for of_one in captions for tokens in of_one]).to(model.device)
    words = model.prepare_decoder_input_ids_from_labels(labels)
    logits = model(
        encoder_outputs=encoded.of(owners.to(model.device)), decoder_input_ids=words, use_cache=False
    ).logits.float()
    real = labels != IGNORED_LABEL
    likelihoods = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    sums = (-(likelihoods * real).sum(1), ((logits.argmax(-1) == labels) & real).sum(1), real.sum(1))
    columns = [np.bincount(owners, weights=each.cpu().double(), minlength=len(captions)) for each in sums]
    return np.stack(columns, axis=1)


@torch.inference_mode()
def caption_table(
    model: FlavourCaptioner,
    samples: CaptionSamples,
    batch_size: int = BATCH_SIZE,
    blank: bool = False,
    order: np.ndarray | None = None,
    name: str = "",
    **generation: bool | int,
) -> tuple[list[str], np.ndarray]:
    """Return the generated caption of each row, and the sums of `expect` for its own captions, `(rows, 3)`.

    Args:
        model: the captioner; left in the mode it is in.
        samples: evaluation samples.
        batch_size: rows per batch.
        blank: whether every picture is replaced by the mean colour.
        order: row whose picture each row gets, or None for its own.
        name: shown beside the progress bar; empty for no bar.
        **generation: for `generate`, in place of the model's own settings.
    """
    training = model.training
    model.eval()
    captions: list[str] = []
    parts: list[np.ndarray] = []
    for rows, pixels in pixel_batches(samples, batch_size, model.device, blank, order, name):
        given = "pixel_values" if samples.image_features is None else "features"
        # Encoded once, both for generating and for the given captions.
        encoded = model.get_encoder()(**{given: pixels.to(model.dtype)})
        options: dict[str, Any] = generation
        sequences = model.generate(encoder_outputs=encoded.of(), **options)
        texts = samples.processor.tokenizer.batch_decode(sequences, skip_special_tokens=True)
        captions += [as_sentence(text) for text in texts]
        parts.append(expect(model, encoded, [samples.tokens[row] for row in rows]))
    model.train(training)
    return captions, np.concatenate(parts)


def predictions_of(table: Table, captions: Sequence[str], expected: np.ndarray | None = None) -> Predictions:
    """Return captions as predictions, with the visible ingredients of each picture where the table has them."""
    answers = [str(caption) for caption in captions]
    parts: dict[str, tuple[Any, Any]] = {CAPTIONS: ([list(row) for row in table.labels], answers)}
    visible = visible_names(table)
    if visible is not None:
        parts[NAMES] = ([sorted(row) for row in visible], answers)
    if expected is not None:
        parts[TOKENS] = (expected, expected)
    return Predictions(table.ids, table.groups, parts)


def scores_of(predictions: Predictions) -> dict[str, float]:
    """Return every score of captions, those of names where the visible ingredients are known."""
    return values((*CAPTION_SCORES, *naming_scores()), predictions.parts)
