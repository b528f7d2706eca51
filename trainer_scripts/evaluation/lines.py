"""The lines of a comparison.

One engine compares every task: a line holds truth and answers of one model or baseline on the test rows, a score turns
them into statistics per row, and values, intervals and paired tests are formulas on sums of these over groups.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

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
        """Whether its predictions hold the part that the score reads."""
        return self.grouped.has(score)

    def score(self, score: Score) -> Interval | float:
        """Return a score with its interval, or its plain value where it has none."""
        return self.grouped.interval(score) or self.grouped.value(score)

    def minus(self, other: "Line", score: Score) -> Interval | None:
        """Return its gain on another line of the same rows; None where the score cannot be resampled."""
        key = (other.name, score.name)
        if key not in self._differences:
            self._differences[key] = self.grouped.difference(other.grouped, score)
        return self._differences[key]
