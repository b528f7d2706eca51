"""The answers of a model to a split, given by several processes or machines, each to its share of the rows."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset_builder.engines.choice import LOCAL, engine_named
from dataset_builder.engines.ranks import RanksEngine, is_launched
from dataset_builder.engines.work import Engine, Report
from dataset_builder.errors import BadInputError
from dataset_builder.progress import Progress
from dataset_builder.storage.places import is_url
from trainer_scripts.data.table import Table
from trainer_scripts.scoring.saved_model import load_model, load_table
from trainer_scripts.tasks.common.task import Outputs, SavedModel, ScoringOptions

# Enough to outweigh what each unit costs beside its batches, few enough to share a small split out.
BATCHES_PER_UNIT = 4


@dataclass(frozen=True)
class Answering:
    """The work of answering, see `engines.work.Work`: every worker loads the model and the rows for itself.

    Attributes:
        model, revision, columns, allow_outside: of the model, see `load_model`.
        dataset, split, dataset_revision: the rows, see `load_table`.
        options: of scoring.
    """

    model: str
    revision: str
    columns: Mapping[str, str] | None
    allow_outside: bool
    dataset: str
    split: str
    dataset_revision: str | None
    options: ScoringOptions
    uses_gpu = True
    forks = False

    def start(self, number: int, workers: int) -> Callable[[range, Report], Outputs]:
        """Load the model onto the device of this worker."""
        if torch.cuda.is_available():
            torch.cuda.set_device(number % torch.cuda.device_count())
        elif workers > 1:
            torch.set_num_threads(max(1, torch.get_num_threads() // workers))
        model = load_model(self.model, self.revision, self.columns, self.allow_outside)
        table = load_table(model, self.dataset, self.split, self.dataset_revision)

        def answer(rows: range, report: Report) -> Outputs:
            found = model.task.outputs(model, table.select(rows), self.options)
            # Only what computes features serves further rows.
            model.kept = {name: kept for name, kept in model.kept.items() if name == "reader"}
            report(len(rows))
            return found

        return answer


def engine_for(name: str, address: str | None, processes: int | None) -> Engine | None:
    """Return what answers beside this process; None where it answers alone.

    Raises:
        BadInputError: options that do not go together.
    """
    if is_launched():
        if name != LOCAL or processes not in (None, 1):
            raise BadInputError("the launcher decides how many processes there are; leave --engine and --processes out")
        return RanksEngine()
    engine = engine_named(name, address, processes)
    return None if name == LOCAL and processes in (None, 1) else engine


def spread(engine: Engine, model: SavedModel, table: Table, asked: Answering) -> None:
    """Let the workers of an engine answer the rows of a table, and keep their answers with the model.

    Args:
        engine: that runs them.
        model: that `asked` names, loaded.
        table: the rows that `asked` names, loaded.
        asked: what the workers load.
    """
    # Whole batches, so that each row is in the same company as in one process.
    step = BATCHES_PER_UNIT * asked.options.batch_size
    units = [range(first, min(first + step, len(table))) for first in range(0, len(table), step)]
    with Progress(model.name, len(table)) as bar:
        parts = list(engine.run(asked, units, bar.update))
    model.keep_outputs(table, {name: _joined([part[name] for part in parts]) for name in parts[0]})


def _joined(parts: list[Any]) -> Any:
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else list(chain(*parts))


def everywhere(name: str) -> str:
    """Return the absolute path of a folder, as workers may run in another one; a URL or Hub id as it is."""
    return os.path.abspath(name) if not is_url(name) and Path(name).exists() else name
