"""What captioning brings to a comparison: captions as predictions, baselines, and what the picture is worth."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trainer_scripts.ablations import IMAGE, partners
from trainer_scripts.caption_evaluation import Expectations, caption_table
from trainer_scripts.caption_health import baseline_captions
from trainer_scripts.caption_truth import naming, visible_names
from trainer_scripts.captioning import evaluation_samples
from trainer_scripts.comparing import BASELINE, Comparing, Line
from trainer_scripts.data import Table
from trainer_scripts.predictions import Predictions
from trainer_scripts.scores import CAPTIONS, NAMES, TOKENS, Formula, Score


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
