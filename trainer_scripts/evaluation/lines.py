"""What a task brings to a comparison, and the lines that a comparison is made of.

One engine compares every task: a line holds truth and answers of one model or baseline on the test rows, a score turns
them into statistics per row, and values, intervals and paired tests are formulas on sums of these over groups.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from trainer_scripts.evaluation.intervals import GroupedScores, Interval
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import Score

MODEL, BASELINE = "model", "baseline"


@dataclass
class Line:
    """One line of a comparison.

    Attributes:
        name: model or baseline.
        kind: `model` or `baseline`.
        modality: inputs it uses.
        predictions: its answers on the test rows.
        own: name -> a score as this line's own decision computes it, such as by thresholds tuned for it; {}: as all do.
    """

    name: str
    kind: str
    modality: str
    predictions: Predictions
    own: Mapping[str, Score] = field(default_factory=dict, repr=False)
    _differences: dict[tuple[str, str], Interval | None] = field(default_factory=dict, repr=False, init=False)

    @cached_property
    def grouped(self) -> GroupedScores:
        """Its contributions to every score, by group."""
        return GroupedScores(self.predictions.groups, self.predictions.parts, self.own)

    def has(self, score: Score) -> bool:
        """Whether it answers what the score asks."""
        return self.grouped.has(score)

    def score(self, score: Score) -> Interval | float:
        """Return a score with its interval, or its plain value where it has none."""
        return self.grouped.interval(score) or self.grouped.value(score)

    def minus(self, other: "Line", score: Score) -> Interval | None:
        """Return what it gains on another line on the same rows; None where the score cannot be resampled."""
        key = (other.name, score.name)
        if key not in self._differences:
            self._differences[key] = self.grouped.difference(other.grouped, score)
        return self._differences[key]


@dataclass(frozen=True)
class Comparing:
    """What a task brings to `compare.py`.

    Attributes:
        answer: (saved model, table, batch size, name beside the progress bar) -> predictions.
        decisive: names of the scores that verdicts are about, the one that ablations look at first; empty: the score
            that chooses the checkpoint.
        baselines: (comparison with its data) -> lines that need no model of ours.
        changes: (saved model, table, batch size) -> pairs of a name and the predictions under a changed input; names
            that start with an input (`text`, `image`) and end with `shuffled` decide whether that input is used.
        conflicting: (table, predictions with shuffled pictures) -> the rows whose picture is of another label, held
            against the labels of their own texts and against those of the pictures.
        verdicts: (comparison) -> sentences of this task alone, such as whether sharing helped; they are printed with
            the others. `comparison.models` are the lines of the models, `comparison.score_named(name)` the scores,
            `line.minus(other, score)` the paired difference with its interval.
        more_scores: (label names) -> scores beside `Task.scores` that only finished models are given.
    """

    answer: Callable[..., Predictions]
    decisive: Sequence[str] = ()
    baselines: Callable[[Any], list[Line]] | None = None
    changes: Callable[..., Iterator[tuple[str, Predictions]]] | None = None
    conflicting: Callable[..., tuple[Predictions, Predictions]] | None = None
    verdicts: Callable[[Any], list[str]] | None = None
    more_scores: Callable[[Sequence[str]], tuple[Score, ...]] | None = None
