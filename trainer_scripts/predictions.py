"""Predictions of one model on one split, as files that can be compared again without the model."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.errors import BadInputError

PREDICTIONS = "predictions.parquet"
METRICS = "metrics.json"
THRESHOLDS = "thresholds.json"


@dataclass
class Predictions:
    """Rows with their truth and what a model says.

    Attributes:
        ids: row ids.
        groups: per row, what is drawn together by the bootstrap.
        labels: ids `(rows,)`, or 0/1 `(rows, labels)`.
        probabilities: `(rows, classes)` float32.
    """

    ids: list[str]
    groups: list[str]
    labels: np.ndarray
    probabilities: np.ndarray

    def rows_sha256(self) -> str:
        """Return the hash of ids, groups and truth: two results are comparable only when it is the same."""
        digest = hashlib.sha256("\n".join([*self.ids, "", *self.groups]).encode())
        digest.update(np.ascontiguousarray(self.labels, dtype=np.int64).tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write `predictions.parquet`; labels are ids, a list of them for multi-label rows."""
        many = self.labels.ndim == 2
        labels = [np.flatnonzero(row).tolist() for row in self.labels] if many else self.labels.tolist()
        table = pa.table(
            {
                "id": pa.array(self.ids, pa.string()),
                "group": pa.array(self.groups, pa.string()),
                "labels" if many else "label": pa.array(labels, pa.list_(pa.int64()) if many else pa.int64()),
                "probabilities": pa.array(self.probabilities.astype(np.float32).tolist(), pa.list_(pa.float32())),
            }
        )
        pq.write_table(table, folder / PREDICTIONS)

    @classmethod
    def load(cls, folder: Path) -> "Predictions":
        """Read `predictions.parquet`.

        Raises:
            BadInputError: the file is missing or not one of ours.
        """
        path = folder / PREDICTIONS
        if not path.is_file():
            raise BadInputError(f"{folder} has no {PREDICTIONS}; make it with score.py")
        try:
            table = pq.read_table(path).to_pydict()
            probabilities = np.asarray(table["probabilities"], dtype=np.float32)
            if "labels" in table:
                labels = np.zeros(probabilities.shape, dtype=np.int64)
                for row, members in enumerate(table["labels"]):
                    labels[row, members] = 1
            else:
                labels = np.asarray(table["label"], dtype=np.int64)
            return cls(table["id"], table["group"], labels, probabilities)
        except (pa.ArrowInvalid, KeyError, ValueError, IndexError) as error:
            raise BadInputError(f"{path} is no prediction file of score.py ({error}); make it anew") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON beside its final name first, so that an interrupted run leaves no half file."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return `metrics.json` of a folder."""
    path = folder / METRICS
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise BadInputError(f"{path} cannot be read ({error}); make it with score.py") from error


def check_comparable(results: dict[str, tuple[Predictions, dict[str, Any]]]) -> None:
    """Raise BadInputError unless all results are on the same rows and by the same definitions.

    Args:
        results: name -> (predictions, contents of metrics.json).
    """
    (first_name, (first, first_metrics)), *others = results.items()
    for name, (predictions, metrics) in others:
        if predictions.rows_sha256() != first.rows_sha256():
            raise BadInputError(
                f"{name} and {first_name} were scored on different rows or labels "
                f"({len(predictions.ids)} and {len(first.ids)} rows); score both on the same split of the same data"
            )
        if metrics["label_names"] != first_metrics["label_names"]:
            raise BadInputError(f"{name} and {first_name} have different label sets; they cannot be compared")
        for score, entry in first_metrics["definitions"].items():
            other = metrics["definitions"].get(score)
            if other is None or other["sha256"] != entry["sha256"]:
                theirs = other["definition"] if other else "absent"
                raise BadInputError(
                    f"{name} and {first_name} define {score} differently ({theirs!r} against {entry['definition']!r}); "
                    "score both anew by one definition"
                )
