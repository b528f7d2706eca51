"""Baselines, ablations and health checks of captioning."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from modeling_flavour.modeling_flavour_captioning import FlavourCaptioner
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.ablations import IMAGE, partners
from trainer_scripts.evaluation.baselines import colour_histogram
from trainer_scripts.evaluation.lines import BASELINE, Line
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import CAPTIONS
from trainer_scripts.tasks.captioning.answers import (
    captions_of,
    captions_of_blank,
    captions_of_others,
    encodings,
    pixels_of,
    predictions_of,
)
from trainer_scripts.tasks.captioning.samples import CaptionSamples, pad_labels
from trainer_scripts.tasks.common.task import Outputs, SavedModel, ScoredModels, ScoringOptions

CHECKED_ROWS = 4
BATCH_SIZE = 64
SHUFFLED, BLANK = f"{IMAGE} shuffled", f"{IMAGE} blank"
MANY = 10  # pictures of which it is no chance that all get one caption


def answers(model: SavedModel, table: Table, batch_size: int, name: str = "") -> Predictions:
    """Return the captions of a saved captioner, and the likelihood of the given ones."""
    _, captions, expected = captions_of(model, table, batch_size, name)
    return predictions_of(table, captions, expected)


def outputs(model: SavedModel, table: Table, options: ScoringOptions) -> Outputs:
    """Return the captions, and the sums of `expect`, `(rows, 3)`."""
    _, captions, expected = captions_of(model, table, options.batch_size)
    return {"captions": captions, "expected": expected}


def baseline_lines(compared: ScoredModels) -> list[Line]:
    """Return the captions of the baselines: the most frequent one, and those of the nearest training pictures.

    Nearest by colours, and by the features of the first captioner.
    """
    model, test, train = compared.saved[compared.widest_saved.name], compared.test, compared.train
    both = [model.samples(table) for table in (test, train)]
    colours = [colour_histogram(samples.pictures) for samples in both]
    features = [picture_features(model.model, samples, BATCH_SIZE) for samples in both]
    frequent = Counter(caption for row in train.labels for caption in row).most_common(1)[0][0]
    captions = {
        "most frequent caption": [frequent] * len(test),
        "nearest picture by colours": nearest_captions(colours[0], colours[1], train.labels),
        "nearest picture by features": nearest_captions(features[0], features[1], train.labels),
    }
    return [
        Line(name, BASELINE, "none" if len(set(each)) == 1 else IMAGE, predictions_of(test, each))
        for name, each in captions.items()
    ]


def changes(model: SavedModel, table: Table, batch_size: int, seed: int = 0) -> Iterator[tuple[str, Predictions]]:
    """Yield the captions of the pictures of other dishes, and of blank ones."""
    if len(set(table.groups)) > 1:
        # Another picture of the same dish would leave the caption true.
        order, name = partners(table.groups, seed), f"{model.name}, {SHUFFLED}"
        yield SHUFFLED, predictions_of(table, *captions_of_others(model, table, order, batch_size, name))
    yield BLANK, predictions_of(table, *captions_of_blank(model, table, batch_size))


def monotony(compared: ScoredModels) -> list[str]:
    """Return a sentence for each captioner that gives every picture the same caption."""
    answers = {line.name: line.predictions.parts[CAPTIONS][1] for line in compared.models}
    return [
        f"{name}: !!! SAYS THE SAME OF EVERY PICTURE: {captions[0][:60]!r}"
        for name, captions in answers.items()
        if len(captions) > 1 and len(set(captions)) == 1
    ]


@torch.inference_mode()
def picture_features(model: FlavourCaptioner, samples: CaptionSamples, batch_size: int) -> np.ndarray:
    """Return the mean output of the captioner's visual encoder over all positions, one unit vector per picture."""
    found = []
    for _, encoded in encodings(model, samples, batch_size, name="features"):
        states = encoded.last_hidden_state.mean(dim=1)
        found.append(torch.nn.functional.normalize(states.float(), dim=-1).cpu())
    return torch.cat(found).numpy()


def nearest_captions(features: np.ndarray, train_features: np.ndarray, train_captions: np.ndarray) -> list[str]:
    """Return for each picture the first caption of the training picture with the most similar features."""
    # Both kinds of features are unit vectors (a histogram holds roots of shares), so that the largest product belongs
    # to the smallest angle.
    nearest = (features @ train_features.T).argmax(axis=1)
    return [train_captions[row][0] for row in nearest]


@torch.inference_mode()
def target_is_hidden(model: FlavourCaptioner, samples: CaptionSamples) -> bool:
    """Whether the scores of a word depend on earlier words alone, so that the target cannot be copied."""
    rows = range(min(CHECKED_ROWS, len(samples.table)))
    labels = pad_labels([samples.tokens[row][0] for row in rows]).to(model.device)
    pixels = pixels_of(samples, rows, model)
    # Change the second half of the words: scores of the first half must not move.
    last = labels.shape[1] // 2
    changed = labels.clone()
    changed[:, last:] = model.config.bos_token_id
    given = [model(pixels, labels=each).logits[:, : last + 1] for each in (labels, changed)]
    return bool(torch.allclose(given[0], given[1], rtol=1e-3, atol=1e-4))


def faults(captions: Sequence[str], blank: Sequence[str], hidden: bool) -> list[str]:
    """Return the faults of a captioner in words; none when it passes.

    Args:
        captions: its captions.
        blank: its captions with every picture replaced by the mean colour.
        hidden: result of `target_is_hidden`.
    """
    listed = []
    # A sound captioner may give one picture and a blank one the same caption by chance, or a few alike pictures theirs.
    several, same = len(captions) > 1, list(captions) == list(blank)
    if several and len(set(captions)) == 1 and (same or len(captions) >= MANY):
        listed.append(f"all {len(captions)} captions are equal ({captions[0]!r})")
    if several and same:
        listed.append("blank pictures get the same captions: the pictures are not used")
    if not hidden:
        listed.append("the scores of a word change with the word itself: the target can be copied from the input")
    return listed
