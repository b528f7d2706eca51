"""Baselines that need no captioner, and the checks that a captioner must pass before its scores mean anything."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dataset_builder.errors import BadInputError
from modeling_flavour.modeling_flavour_captioning import FlavourCaptioner
from trainer_scripts.baselines import colour_histogram
from trainer_scripts.caption_evaluation import pixel_batches
from trainer_scripts.captioning import CaptionSamples, pad_labels

CHECKED_ROWS = 4


def most_frequent_caption(train_captions: Any) -> str:
    """Return the caption that occurs most often in training."""
    return Counter(caption for row in train_captions for caption in row).most_common(1)[0][0]


@torch.inference_mode()
def picture_features(model: FlavourCaptioner, samples: CaptionSamples, batch_size: int) -> np.ndarray:
    """Return the mean over places of what the captioner's visual encoder gives, one unit vector per picture."""
    found = []
    for _, pixels in pixel_batches(samples, batch_size, model.device, False, None, "features"):
        states = model.get_encoder()(pixels.to(model.dtype)).last_hidden_state.mean(dim=1)
        found.append(torch.nn.functional.normalize(states.float(), dim=-1).cpu())
    return torch.cat(found).numpy()


def nearest_captions(features: np.ndarray, train_features: np.ndarray, train_captions: Any) -> list[str]:
    """Return for each picture the first caption of the training picture with the most similar features."""
    nearest = (features @ train_features.T).argmax(axis=1)
    return [train_captions[row][0] for row in nearest]


def baseline_captions(
    model: FlavourCaptioner, samples: CaptionSamples, train: CaptionSamples, batch_size: int
) -> dict[str, list[str]]:
    """Return the captions of each baseline: the most frequent one, and those of the nearest training picture."""
    captions = train.table.labels
    colours = [colour_histogram(each.pictures) for each in (samples, train)]
    features = [picture_features(model, each, batch_size) for each in (samples, train)]
    return {
        "most frequent caption": [most_frequent_caption(captions)] * len(samples.table),
        "nearest picture by colours": nearest_captions(colours[0], colours[1], captions),
        "nearest picture by features": nearest_captions(features[0], features[1], captions),
    }


@torch.inference_mode()
def target_is_hidden(model: FlavourCaptioner, samples: CaptionSamples) -> bool:
    """Whether no score of a word changes with that word or a later one: a target that could be copied is no test."""
    rows = range(min(CHECKED_ROWS, len(samples.table)))
    labels = pad_labels([samples.tokens[row][0] for row in rows]).to(model.device)
    _, pixels = next(pixel_batches(samples, len(rows), model.device, False, None, ""))
    pixels = pixels[: len(rows)].to(model.dtype)
    last = labels.shape[1] // 2
    changed = labels.clone()
    changed[:, last:] = model.config.bos_token_id
    given = [model(pixels, labels=each).logits[:, : last + 1] for each in (labels, changed)]
    return bool(torch.allclose(given[0], given[1], rtol=1e-3, atol=1e-4))


def faults(captions: Sequence[str], blank: Sequence[str], hidden: bool) -> list[str]:
    """Return what is wrong with a captioner, in words; empty when it passes.

    Args:
        captions: its captions.
        blank: its captions with every picture replaced by the mean colour.
        hidden: result of `target_is_hidden`.
    """
    found = []
    if len(captions) > 1 and len(set(captions)) == 1:
        found.append(f"all {len(captions)} captions are equal ({captions[0]!r})")
    if list(captions) == list(blank):
        found.append("blank pictures get the same captions: the pictures are not used")
    if not hidden:
        found.append("the scores of a word change with the word itself: the target can be copied from the input")
    return found


def refuse_unhealthy(found: Sequence[str], source: str) -> None:
    """Raise BadInputError when a captioner failed a check."""
    if found:
        raise BadInputError(f"{source} fails the health check: {'; '.join(found)}; train it anew, or longer")
