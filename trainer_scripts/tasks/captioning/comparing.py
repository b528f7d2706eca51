"""What captioning brings to a comparison: captions as predictions, baselines, and what the picture is worth."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from dataset_builder.errors import BadInputError
from modeling_flavour.modeling_flavour_captioning import FlavourCaptioner
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.ablations import IMAGE, partners
from trainer_scripts.evaluation.baselines import colour_histogram
from trainer_scripts.evaluation.lines import BASELINE, Comparing, Line
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import CAPTIONS, NAMES, TOKENS, Formula, Score
from trainer_scripts.tasks.captioning.answers import Expectations, caption_table, pixel_batches
from trainer_scripts.tasks.captioning.samples import CaptionSamples, pad_labels
from trainer_scripts.tasks.captioning.training import evaluation_samples
from trainer_scripts.tasks.captioning.truth import naming, visible_names

CHECKED_ROWS = 4


def predictions_of(table: Table, captions: Sequence[str], expected: Expectations | None = None) -> Predictions:
    """Return captions as predictions, with what is visible on each picture where the table knows it."""
    answers = [str(caption) for caption in captions]
    parts: dict[str, tuple[Any, Any]] = {CAPTIONS: ([list(row) for row in table.labels], answers)}
    visible = visible_names(table)
    if visible is not None:
        parts[NAMES] = ([sorted(row) for row in visible], answers)
    if expected is not None:
        sums = np.stack([expected.nats, expected.hits, expected.tokens], axis=1)
        parts[TOKENS] = (sums, sums)
    return Predictions(table.ids, table.groups, parts)


def answer(model: Any, table: Table, batch_size: int, name: str = "") -> Predictions:
    """Return the captions of a saved captioner, and how well it foresees the given ones."""
    samples = evaluation_samples(model.processor, table)
    return predictions_of(table, *caption_table(model.model, samples, batch_size, name=name))


def baseline_lines(comparison: Any) -> list[Line]:
    """Return the captions of the baselines; similar pictures are found by the features of the first captioner."""
    model = comparison.saved[comparison.widest_saved.name]
    samples, train = (evaluation_samples(model.processor, table) for table in (comparison.test, comparison.train))
    found = baseline_captions(model.model, samples, train, batch_size=64)
    return [
        Line(name, BASELINE, "none" if len(set(captions)) == 1 else IMAGE, predictions_of(comparison.test, captions))
        for name, captions in found.items()
    ]


def changed(model: Any, table: Table, batch_size: int, seed: int = 0) -> Iterator[tuple[str, Predictions]]:
    """Yield what a captioner says of the pictures of other dishes, and of blank ones."""
    samples = evaluation_samples(model.processor, table)
    if len(set(table.groups)) > 1:
        order = partners(table.groups, seed)
        name = f"{model.name}, image shuffled"
        said = caption_table(model.model, samples, batch_size, order=order, name=name)
        yield "image shuffled", predictions_of(table, *said)
    said = caption_table(model.model, samples, batch_size, blank=True, name=f"{model.name}, image blank")
    yield "image blank", predictions_of(table, *said)


def monotony(comparison: Any) -> list[str]:
    """Return a sentence for each captioner that says the same of every picture."""
    found = []
    for line in comparison.models:
        captions = line.predictions.parts[CAPTIONS][1]
        if len(captions) > 1 and len(set(captions)) == 1:
            found.append(f"{line.name}: !!! SAYS THE SAME OF EVERY PICTURE: {captions[0][:60]!r}")
    return found


def _ingredient_rows(visible: Sequence[Sequence[str]], captions: Sequence[str]) -> np.ndarray:
    return _named_rows(visible, captions, 0)


def _group_rows(visible: Sequence[Sequence[str]], captions: Sequence[str]) -> np.ndarray:
    return _named_rows(visible, captions, 1)


def _named_rows(visible: Sequence[Sequence[str]], captions: Sequence[str], level: int) -> np.ndarray:
    """Return per row the names that are right, said and visible, whether all said ones are right, and one."""
    named = naming(captions, [frozenset(row) for row in visible])[level]
    right = (named.hits == named.named).astype(float)
    return np.stack([named.hits, named.named, named.visible, right, np.ones(len(right))], axis=1)


def _share(*columns: int) -> Formula:
    """Return hits over the mean of these columns."""

    def formula(sums: np.ndarray) -> np.ndarray:
        below = sum(sums[..., column] for column in columns) / len(columns)
        return np.divide(sums[..., 0], below, out=np.zeros(np.shape(below)), where=below > 0)

    return formula


def naming_scores(names: Sequence[str] = ()) -> tuple[Score, ...]:
    """Return the scores of what captions name, for pictures whose ingredients are known."""
    found = []
    levels = (("ingredient", "catalogue ingredients", _ingredient_rows), ("group", "food groups", _group_rows))
    for level, what, rows in levels:
        said = f"{what} that captions name and that are visible by the mask, counted over all pictures"
        for score, columns, text in (
            ("precision", (1,), "hits / named"),
            ("recall", (2,), "hits / visible"),
            ("f1", (1, 2), "2 hits / (named + visible)"),
        ):
            found.append(Score(f"{level}_{score}", f"{text}, of {said}", rows, _share(*columns), part=NAMES))
    found.append(
        Score(
            "only_visible",
            "share of captions that name no catalogue ingredient which is not visible by the mask",
            _ingredient_rows,
            lambda sums: sums[..., 3] / sums[..., 4],
            part=NAMES,
        )
    )
    return tuple(found)


COMPARING = Comparing(
    answer=answer,
    decisive=("cider", "ingredient_f1"),
    baselines=baseline_lines,
    changes=changed,
    verdicts=monotony,
    more_scores=naming_scores,
)


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
