"""What a captioner says and expects on a table: generated captions, and the cross-entropy of the given ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from modeling_flavour.captioning_encoder_flavour import VisualEncoding
from modeling_flavour.captioning_pipeline_flavour import as_sentence
from modeling_flavour.losses_flavour import IGNORED_LABEL
from modeling_flavour.modeling_flavour_captioning import FlavourCaptioner
from trainer_scripts.data.pictures import normalise
from trainer_scripts.tasks.captioning.samples import CaptionSamples, pad_labels
from trainer_scripts.tasks.captioning.scores import CiderD, text_scores

BATCH_SIZE = 64


@dataclass
class Expectations:
    """How well a captioner foresees given captions, summed per row.

    Attributes:
        nats: `(rows,)` negative log-likelihood of all tokens.
        hits: `(rows,)` tokens that were the likeliest.
        tokens: `(rows,)` tokens, end tokens in, padding out.
    """

    nats: np.ndarray
    hits: np.ndarray
    tokens: np.ndarray

    def scores(self) -> dict[str, float]:
        """Return cross-entropy per token, perplexity and token accuracy over all rows."""
        entropy = float(self.nats.sum() / self.tokens.sum())
        return {
            "cross_entropy": entropy,
            "perplexity": float(np.exp(entropy)),
            "token_accuracy": float(self.hits.sum() / self.tokens.sum()),
        }


def pixel_batches(
    samples: CaptionSamples, batch_size: int, device: Any, blank: bool, order: Any, name: str
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
        yield rows, (torch.zeros_like(pixels) if blank else pixels).to(device)


@torch.inference_mode()
def expect(
    model: FlavourCaptioner, encoded: VisualEncoding, captions: Sequence[Sequence[Sequence[int]]]
) -> Expectations:
    """Return how well the given captions are foreseen, teacher-forced.

    Args:
        model: in evaluation mode.
        encoded: what the visual encoder gives for the pictures.
        captions: per picture the tokens of each of its captions.
    """
    owners = torch.tensor([row for row, of_one in enumerate(captions) for _ in of_one])
    labels = pad_labels([tokens for of_one in captions for tokens in of_one]).to(model.device)
    words = model.prepare_decoder_input_ids_from_labels(labels)
    logits = model(
        encoder_outputs=encoded.of(owners.to(model.device)), decoder_input_ids=words, use_cache=False
    ).logits.float()
    real = labels != IGNORED_LABEL
    said = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    sums = (-(said * real).sum(1), ((logits.argmax(-1) == labels) & real).sum(1), real.sum(1))
    return Expectations(*(np.bincount(owners, weights=each.cpu().double(), minlength=len(captions)) for each in sums))


@torch.inference_mode()
def caption_table(
    model: FlavourCaptioner,
    samples: CaptionSamples,
    batch_size: int = BATCH_SIZE,
    blank: bool = False,
    order: Any = None,
    name: str = "",
    **generation: Any,
) -> tuple[list[str], Expectations]:
    """Return the generated caption of each row, and how well its own captions are foreseen.

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
    parts: list[Expectations] = []
    for rows, pixels in pixel_batches(samples, batch_size, model.device, blank, order, name):
        given = "pixel_values" if samples.image_features is None else "features"
        encoded = model.get_encoder()(**{given: pixels.to(model.dtype)})
        sequences = model.generate(encoder_outputs=encoded.of(), **generation)
        texts = samples.processor.tokenizer.batch_decode(sequences, skip_special_tokens=True)
        captions += [as_sentence(text) for text in texts]
        parts.append(expect(model, encoded, [samples.tokens[row] for row in rows]))
    model.train(training)
    joined = (np.concatenate([getattr(part, name) for part in parts]) for name in ("nats", "hits", "tokens"))
    return captions, Expectations(*joined)


def all_scores(captions: Sequence[str], expected: Expectations, references: Any, cider: CiderD | None = None) -> dict:
    """Return every score of `caption_scores.CAPTION_SCORES`."""
    return {**text_scores(captions, references, cider), **expected.scores()}
