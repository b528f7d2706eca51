"""Predictions of a captioner on a table: generated captions, and the cross-entropy of the given ones."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from dataset_builder.progress import progress
from modeling_flavour.captioning_encoder_flavour import VisualEncoding
from modeling_flavour.captioning_pipeline_flavour import as_sentence
from modeling_flavour.losses_flavour import IGNORED_LABEL
from modeling_flavour.modeling_flavour_captioning import FlavourCaptioner
from trainer_scripts.data.pictures import normalise
from trainer_scripts.data.samples import on_device, stacked
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import CAPTIONS, NAMES, TOKENS
from trainer_scripts.tasks.captioning.samples import CaptionSamples, pad_labels
from trainer_scripts.tasks.captioning.scores import CAPTION_SCORES, values
from trainer_scripts.tasks.captioning.truth import naming_scores, visible_names
from trainer_scripts.tasks.common.task import SavedModel

BATCH_SIZE = 64


def pixels_of(samples: CaptionSamples, rows: Sequence[int], model: FlavourCaptioner) -> torch.Tensor:
    """Return the normalised pictures of a few rows as the model takes them, `(rows, 3, height, width)`."""
    normal = samples.processor.image_processor
    # Decoded one by one: the first access through an index decodes all pictures.
    pixels = normalise([samples.pictures.decode(row) for row in rows], normal.image_mean, normal.image_std)
    return pixels.to(model.device, model.dtype)


def encodings(
    model: FlavourCaptioner,
    samples: CaptionSamples,
    batch_size: int,
    order: np.ndarray | None = None,
    name: str = "",
) -> Iterator[tuple[list[int], VisualEncoding]]:
    """Yield row numbers and their encoded pictures, from stored features where the samples have them.

    Args:
        model: in evaluation mode.
        samples: evaluation samples.
        batch_size: rows per batch.
        order: row whose picture each row gets, or None for its own.
        name: shown beside the progress bar; empty for no bar.
    """
    normal = samples.processor.image_processor
    rows_in_all = len(samples.table)
    for start in progress(range(0, rows_in_all, batch_size), name, total=rows_in_all, each=batch_size):
        rows = list(range(start, min(start + batch_size, len(samples.table))))
        chosen = rows if order is None else [int(order[row]) for row in rows]
        if samples.image_features is not None:
            features = stacked([samples.image_features[row] for row in chosen])
            yield rows, model.get_encoder()(features=on_device(features, model.device, model.dtype))
        else:
            pixels = normalise([samples.pictures[row] for row in chosen], normal.image_mean, normal.image_std)
            yield rows, model.get_encoder()(pixels.to(model.device, model.dtype))


def blank_encoding(model: FlavourCaptioner, samples: CaptionSamples) -> VisualEncoding:
    """Return the encoding of one picture of the mean colour, which after normalisation is zero."""
    return model.get_encoder()(torch.zeros_like(pixels_of(samples, [0], model)))


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
    name: str = "",
    **generation: bool | int,
) -> tuple[list[str], np.ndarray]:
    """Return the generated caption of each row, and the sums of `expect` for its own captions, `(rows, 3)`.

    Args:
        model: the captioner; left in the mode it is in.
        samples: evaluation samples.
        batch_size: rows per batch.
        name: shown beside the progress bar; empty for no bar.
        **generation: for `generate`, in place of the model's own settings.
    """
    training = model.training
    model.eval()
    captions: list[str] = []
    parts: list[np.ndarray] = []
    # Encoded once, both for generating and for the given captions.
    for rows, encoded in encodings(model, samples, batch_size, name=name):
        captions += generated(model, samples, encoded, **generation)
        parts.append(expect(model, encoded, [samples.tokens[row] for row in rows]))
    model.train(training)
    return captions, np.concatenate(parts)


def generated(
    model: FlavourCaptioner, samples: CaptionSamples, encoded: VisualEncoding, **generation: bool | int
) -> list[str]:
    """Return the captions of encoded pictures."""
    options: dict[str, Any] = generation
    sequences = model.generate(encoder_outputs=encoded.of(), **options)
    texts = samples.processor.tokenizer.batch_decode(sequences, skip_special_tokens=True)
    return [as_sentence(text) for text in texts]


@torch.inference_mode()
def captions_of(
    model: SavedModel, table: Table, batch_size: int, name: str = ""
) -> tuple[CaptionSamples, list[str], np.ndarray]:
    """Return the samples, captions and sums of `expect` of a saved captioner; each row is captioned once."""
    samples = model.samples(table)
    given = model.outputs(table)
    if given is not None:
        return samples, given["captions"], given["expected"]
    if not model.keeps:
        return samples, *caption_table(model.model, samples, batch_size, name)
    if ("captions", id(table)) not in model.kept:
        whole = None if table.chosen_from is None else model.kept.get(("captions", id(table.chosen_from[0])))
        if whole is None:
            found = caption_table(model.model, samples, batch_size, name)
        else:
            rows = table.chosen_from[1] if table.chosen_from is not None else np.arange(len(table))
            found = [whole[1][0][row] for row in rows], whole[1][1][rows]
        model.kept["captions", id(table)] = (table, found)
    return samples, *model.kept["captions", id(table)][1]


@torch.inference_mode()
def captions_of_others(
    model: SavedModel, table: Table, order: np.ndarray, batch_size: int, name: str
) -> tuple[list[str], np.ndarray]:
    """Return the captions of the pictures of other rows, and how likely they make the captions of the rows.

    Each picture has been captioned before, so the decoder only reads the given captions.
    """
    samples, captions, _ = captions_of(model, table, batch_size, name)
    expected = [
        expect(model.model, encoded, [samples.tokens[row] for row in rows])
        for rows, encoded in encodings(model.model, samples, batch_size, order, name)
    ]
    return [captions[int(row)] for row in order], np.concatenate(expected)


@torch.inference_mode()
def captions_of_blank(model: SavedModel, table: Table, batch_size: int) -> tuple[list[str], np.ndarray]:
    """Return the caption of a picture without content for each row, and how likely it makes the row's captions."""
    samples = model.samples(table)
    encoded = blank_encoding(model.model, samples)
    caption, expected = generated(model.model, samples, encoded)[0], []
    for start in range(0, len(table), batch_size):
        tokens = samples.tokens[start : start + batch_size]
        repeated = encoded.of(torch.zeros(len(tokens), dtype=torch.long, device=model.model.device))
        expected.append(expect(model.model, repeated, tokens))
    return [caption] * len(table), np.concatenate(expected)


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
