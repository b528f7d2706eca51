"""Models on the same rows of one data set, for the baselines and verdicts of `score.py` and `compare.py`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.lines import Line
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.scores import Score
from trainer_scripts.scoring.results import scores_of_file
from trainer_scripts.scoring.saved_model import has_split, load_selection, load_table, load_train
from trainer_scripts.tasks.common.task import SavedModel, Task
from trainer_scripts.tasks.registry import task_named

FUSION = "fusion"


@dataclass
class LoadedModels:
    """Models scored on the same rows of a data set, and the splits of this data set as baselines read them.

    Attributes:
        saved: name -> model; none for one of which only the prediction file was given.
        models: one line per model.
        metrics: name -> content of its `metrics.json`.
        tables: name -> test rows with the columns that the model reads.
        dataset: folder or Hub id; None when only prediction files were given.
        split: the test split.
        revision: revision of a Hub data set.
        baselines: lines of the baselines.
        selection_predictions: name -> predictions on the split that chose the checkpoint.
    """

    saved: dict[str, SavedModel]
    models: list[Line]
    metrics: dict[str, dict[str, Any]]
    tables: dict[str, Table]
    dataset: str | None
    split: str
    revision: str | None = None
    baselines: list[Line] = field(default_factory=list)
    selection_predictions: dict[str, Predictions] = field(default_factory=dict)

    @property
    def widest(self) -> Line:
        """The model with the most parts of predictions: its task and its inputs are those of the comparison."""
        return _widest(self.models)

    @cached_property
    def task(self) -> Task:
        """The task that is compared."""
        return task_named(self.metrics[self.widest.name]["task"])

    @property
    def label_names(self) -> list[str]:
        """The label set; empty for a task without one."""
        return self.metrics[self.widest.name].get("label_names", [])

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """All scores that a model of the comparison has, by the definitions of its `metrics.json`."""
        known = scores_of_file(self.metrics[self.widest.name], self.widest.name)
        return tuple(score for score in known if any(line.has(score) for line in self.models))

    def score_named(self, name: str) -> Score:
        """Return a score by name."""
        return next(score for score in self.scores if score.name == name)

    @property
    def decisive(self) -> tuple[Score, ...]:
        """The scores that differences and verdicts are about; the first is `main_score`."""
        names = self.task.decisive or (self.task.selection_metric,)
        return tuple(score for name in names for score in self.scores if score.name == name)

    @property
    def main_score(self) -> Score:
        """The score that decides."""
        return self.decisive[0]

    @property
    def tested(self) -> Line:
        """The model that is compared with all other lines: the first fusion, or the first model."""
        return next((line for line in self.models if line.modality == FUSION), self.models[0])

    @property
    def lines(self) -> list[Line]:
        """Models and baselines."""
        return [*self.models, *self.baselines]

    def line(self, name: str) -> Line:
        """Return a model's line."""
        return next(line for line in self.models if line.name == name)

    def saved_of(self, modality: str) -> SavedModel | None:
        """Return the first saved model with these inputs."""
        return next((model for model in self.saved.values() if model.modality == modality), None)

    @property
    def widest_saved(self) -> Line:
        """The line of the saved model with the most parts of predictions; baselines read the columns of its data."""
        return _widest([line for line in self.models if line.name in self.saved])

    @property
    def modality(self) -> str:
        """The inputs that the saved models read together; baselines may use all of them."""
        kinds = {model.modality for model in self.saved.values()}
        return kinds.pop() if len(kinds) == 1 else FUSION

    @property
    def _reader(self) -> SavedModel:
        """The model whose columns are read; the only one where nothing is scored yet."""
        return self.saved[self.widest_saved.name] if self.models else next(iter(self.saved.values()))

    @cached_property
    def test(self) -> Table:
        """The test rows."""
        model = self._reader
        # Baselines may need texts as well as pictures; a model of one input has read one of them only.
        if model.modality == self.modality and model.name in self.tables:
            return self.tables[model.name]
        return load_table(model, str(self.dataset), self.split, self.revision, self.modality)

    @property
    def has_train(self) -> bool:
        """Whether the data has a training split."""
        return has_split(str(self.dataset), self.revision, self._reader.arguments.train_split)

    @cached_property
    def train(self) -> Table:
        """The training rows, without those that training left out."""
        return load_train(self._reader, str(self.dataset), self.revision, self.modality)

    @cached_property
    def selection(self) -> Table:
        """The rows that chose the checkpoint."""
        return load_selection(self._reader, str(self.dataset), self.revision, self.modality)


# Of models with equally many parts, such as text, picture and fusion of one task, a fusion is preferred.
def _widest(lines: Sequence[Line]) -> Line:
    return max(lines, key=lambda line: (len(line.predictions.parts), line.modality == FUSION))
