"""A saved model on a split of a data set: predictions, scores, and the hash of everything that defines them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import AutoConfig

from dataset_builder.errors import BadInputError
from model_cards.cards import write_model_card
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.arguments import DataArguments
from trainer_scripts.data import Table, columns_of, make_table, map_columns, open_dataset, split_rows
from trainer_scripts.predictions import METRICS, Predictions, write_json
from trainer_scripts.runs import RECIPE
from trainer_scripts.scores import Score, definitions, evaluate_scores
from trainer_scripts.tasks import Task, task_of

BATCH_SIZE = 64


@dataclass
class SavedModel:
    """A checkpoint with what scoring needs of it.

    Attributes:
        name: how results call it: the last part of its path.
        source: folder or Hub id.
        model: in evaluation mode, on the device at hand.
        processor: its processor.
        task: its task.
        arguments: data arguments it was trained with, or the defaults.
    """

    name: str
    source: str
    model: Any
    processor: FlavourProcessor
    task: Task
    arguments: DataArguments

    @property
    def names(self) -> list[str]:
        """The label set, in id order."""
        id2label = self.model.config.id2label
        return [id2label[index] for index in sorted(id2label)]

    @property
    def modality(self) -> str:
        """`fusion`, `text` or `image`."""
        config = self.model.config
        return "fusion" if config.has_text and config.has_image else "text" if config.has_text else "image"


def load_model(source: str, revision: str = "main") -> SavedModel:
    """Load a checkpoint of this package from a folder or a Hub.

    Raises:
        BadInputError: nothing is there, or it is no model of this package.
    """
    if not Path(source).exists() and source.count("/") != 1:
        raise BadInputError(f"there is no model at {source!r}; give a folder, or a Hub id such as org/flavour-fusion")
    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        task = task_of(config)
        model = task.model_class.from_pretrained(source, revision=revision).eval()
        processor = FlavourProcessor.from_pretrained(source, revision=revision)
    except (OSError, TypeError, ValueError) as error:
        raise BadInputError(f"cannot load a model from {source!r}: {error}") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = Path(source).resolve().name if Path(source).exists() else source
    return SavedModel(name, source, model.to(device), processor, task, data_arguments(source))


def data_arguments(source: str) -> DataArguments:
    """Return the data arguments that a model was trained with, as its recipe says, or the defaults."""
    path = Path(source) / RECIPE
    if not path.is_file():
        return DataArguments()
    saved = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = DataArguments.__dataclass_fields__
    return DataArguments(**{name: value for name, value in saved.items() if name in known})


def load_table(model: SavedModel, dataset: str, split: str, revision: str | None = None) -> Table:
    """Return a split with the columns that the model needs; its labels must be those the model knows.

    Raises:
        BadInputError: a missing split or column, or a label that the model does not know.
    """
    arguments = model.arguments
    where = f"{dataset}, split {split}"
    rows = map_columns(split_rows(open_dataset(dataset, revision), split, dataset), arguments.columns, where)
    label_column = arguments.label_column or model.task.label_column
    columns = columns_of(arguments, label_column, model.modality)
    columns = type(columns)(columns.label, columns.text, columns.image, columns.group)
    return make_table(rows, columns, model.names, split, where, model.task.read_labels)


@torch.inference_mode()
def predict(model: SavedModel, samples: Dataset, batch_size: int = BATCH_SIZE, **fixed: bool) -> np.ndarray:
    """Return the probabilities of samples, `(rows, classes)` float32.

    Args:
        model: the model.
        samples: samples of its task.
        batch_size: rows per batch.
        **fixed: `text_present=False` or `image_present=False` leaves that input out.
    """
    collate = model.task.collator(model.processor, len(model.names))
    loader: DataLoader = DataLoader(samples, batch_size=batch_size, collate_fn=collate)
    found = []
    for batch in tqdm(loader, desc=model.name, leave=False, disable=None):
        labels = batch.pop("labels")
        batch.update({name: torch.full((len(labels),), value) for name, value in fixed.items()})
        logits = model.model(**{name: value.to(model.model.device) for name, value in batch.items()}).logits
        found.append(model.task.probabilities(logits.float()).cpu())
    return torch.cat(found).numpy()


def score_model(model: SavedModel, table: Table, batch_size: int = BATCH_SIZE) -> Predictions:
    """Return the predictions of a model on a table."""
    samples = model.task.evaluation_samples(model.processor, table)
    return Predictions(table.ids, table.groups, table.labels, predict(model, samples, batch_size))


def save_scores(
    model: SavedModel,
    predictions: Predictions,
    dataset: str,
    split: str,
    folder: Path,
    scores: Sequence[Score] | None = None,
) -> dict[str, Any]:
    """Write `predictions.parquet` and `metrics.json` of a scored model, and return the latter.

    `scores` stands in for the task's own, for another decision rule.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scores = scores or model.task.scores(model.names)
    content = {
        "model": model.source,
        "task": model.task.name,
        "modality": model.modality,
        "dataset": dataset,
        "split": split,
        "rows": len(predictions.ids),
        "rows_sha256": predictions.rows_sha256(),
        "label_names": model.names,
        "metrics": evaluate_scores(scores, predictions.labels, predictions.probabilities),
        "definitions": definitions(scores),
    }
    predictions.save(folder)
    write_json(folder / METRICS, content)
    return content


def refresh_card(model: SavedModel, comparison: Path | None = None) -> None:
    """Fill the card of a model in a folder of ours anew, so that it shows the latest results."""
    folder = Path(model.source)
    if (folder / RECIPE).is_file():
        write_model_card(folder, comparison=comparison)


def table_of_scores(content: dict[str, Any], names: Sequence[str] | None = None) -> str:
    """Return scores as lines of `name value` for the terminal."""
    chosen = names or list(content["metrics"])
    width = max(len(name) for name in chosen)
    return "\n".join(f"{name:<{width}}  {content['metrics'][name]:.4f}" for name in chosen)
