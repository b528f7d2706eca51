"""Predictions of one model on one split, as files that can be compared again without the model."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_builder.boundaries import outside
from dataset_builder.errors import BadInputError
from dataset_builder.files import read_json, write_whole
from trainer_scripts.evaluation.scores import CAPTIONS, CLASSES, GROUP_MASKS, INGREDIENTS, MASKS, NAMES, TOKENS, Values

PREDICTIONS = "predictions.parquet"
METRICS = "metrics.json"
THRESHOLDS = "thresholds.json"
# Part -> its columns (truth, answer) in the file. Pixels hit, predicted and true stand in one column, and the
# likelihood of the given captions has no truth beside it.
COLUMNS = {
    CLASSES: ("labels", "probabilities"),
    INGREDIENTS: ("ingredients", "ingredient_probabilities"),
    MASKS: ("pixels", "pixels"),
    GROUP_MASKS: ("group_pixels", "group_pixels"),
    CAPTIONS: ("references", "caption"),
    NAMES: ("visible_ingredients", "caption"),
    TOKENS: ("token_sums", "token_sums"),
}
ONE_LABEL = "label"


@dataclass
class Predictions:
    """Rows with their truth and the answers of a model.

    Attributes:
        ids: row ids.
        groups: per row its group; the bootstrap draws whole groups.
        parts: part -> (truth, answer), one entry per row each:
            `classes` and `ingredients`: ids `(rows,)` or 0/1 `(rows, labels)`; probabilities `(rows, classes)`;
            `masks`: pixels hit, predicted and true per class `(rows, 3 * classes)`, twice the same array;
            `group_masks`: the same by food group, where classes are ingredients;
            `captions`: lists of reference captions; captions; `names`: lists of visible ingredients; captions;
            `tokens`: nats, likeliest tokens and tokens `(rows, 3)` of the given captions, twice the same array.
    """

    ids: list[str]
    groups: list[str]
    parts: dict[str, tuple[Any, Any]]

    @classmethod
    def of_classes(cls, ids: list[str], groups: list[str], labels: Values, probabilities: Values) -> "Predictions":
        """Return the predictions of a classifier."""
        return cls(ids, groups, {CLASSES: (np.asarray(labels), np.asarray(probabilities, dtype=np.float32))})

    def select(self, rows: Sequence[int] | np.ndarray) -> "Predictions":
        """Return the predictions of these rows."""

        def chosen(values: Values) -> Any:
            return values[np.asarray(rows, dtype=int)] if isinstance(values, np.ndarray) else [values[i] for i in rows]

        parts = {part: (chosen(truth), chosen(answer)) for part, (truth, answer) in self.parts.items()}
        return Predictions(chosen(self.ids), chosen(self.groups), parts)

    @property
    def labels(self) -> np.ndarray:
        """Truth of a classifier: ids `(rows,)`, or 0/1 `(rows, labels)`."""
        return self.parts[CLASSES][0]

    @property
    def probabilities(self) -> np.ndarray:
        """Answers of a classifier, `(rows, classes)` float32."""
        return self.parts[CLASSES][1]

    def rows_sha256(self, parts: Iterable[str] | None = None) -> str:
        """Return the hash of ids, groups and truth: two results are comparable only when it is the same."""
        digest = hashlib.sha256("\n".join([*self.ids, "", *self.groups]).encode())
        for part in sorted(self.parts if parts is None else parts):
            truth = self.parts[part][0]
            # Of pixel counts only the true ones belong to the rows; the others are answers.
            if part in (MASKS, GROUP_MASKS):
                truth = np.split(np.asarray(truth), 3, axis=1)[2]
            if part in (CAPTIONS, NAMES):
                digest.update(json.dumps([sorted(row) for row in truth]).encode())
            elif part != TOKENS:
                digest.update(np.ascontiguousarray(truth, dtype=np.int64).tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write `predictions.parquet`; labels are ids, a list of them for multi-label rows."""
        columns: dict[str, pa.Array] = {
            "id": pa.array(self.ids, pa.string()),
            "group": pa.array(self.groups, pa.string()),
        }
        for part, (truth, answer) in self.parts.items():
            for name, values in zip(COLUMNS[part], (truth, answer), strict=True):
                # One id per row and a list of ids are columns of different types, so they have different names.
                if name == COLUMNS[CLASSES][0] and np.ndim(values) == 1:
                    name = ONE_LABEL
                columns[name] = _cells(values, is_set=part in (CLASSES, INGREDIENTS) and name != COLUMNS[part][1])

        def write(path: Path) -> None:
            with path.open("wb") as stream:  # Arrow would take a folder such as a:b for an address
                pq.write_table(pa.table(columns), stream)

        write_whole(folder / PREDICTIONS, write)

    def check(self) -> None:
        """Raise ValueError unless ids and groups are texts, and every part has a sound value in each row."""
        for name, texts in (("id", self.ids), ("group", self.groups)):
            if not all(isinstance(one, str) for one in texts) or len(texts) != len(self.ids):
                raise ValueError(f"{name} must hold a text in each row")
        if not self.ids:
            raise ValueError("it has no rows")
        for part, values in self.parts.items():
            for value in values:
                if len(value) != len(self.ids) or any(one is None for one in value):
                    raise ValueError(f"{part} must hold a value in each row")
                if isinstance(value, np.ndarray) and (value.dtype.kind not in "iuf" or not np.isfinite(value).all()):
                    raise ValueError(f"{part} must hold finite numbers")
        if CLASSES in self.parts:
            labels, answers = self.parts[CLASSES]
            outside_of = labels.ndim == 1 and ((labels < 0).any() or (labels >= answers.shape[1]).any())
            if answers.ndim != 2 or outside_of or (answers < 0).any() or (answers > 1).any():
                raise ValueError("probabilities must lie in [0, 1], one per label, and labels be numbers of them")

    @classmethod
    def load(cls, folder: Path) -> "Predictions":
        """Read `predictions.parquet`.

        Raises:
            BadInputError: the file is missing or not one of ours.
        """
        path = folder / PREDICTIONS
        if not path.is_file():
            raise BadInputError(f"{folder} has no {PREDICTIONS}; make it with score.py")
        with outside(f"{path} is no prediction file of score.py", "make it anew"), path.open("rb") as stream:
            table = pq.read_table(stream).to_pydict()
            # An answer may be read for two parts, such as a caption for its words and its names.
            parts = {part: _read_part(part, table) for part, names in COLUMNS.items() if names[1] in table}
            known = {part: pair for part, pair in parts.items() if pair is not None}
            if not known:
                raise KeyError("no column of answers")
            found = cls(table["id"], table["group"], known)
            found.check()
            return found


def _cells(values: Values, is_set: bool) -> pa.Array:
    """Return values as a column; `is_set`: 0/1 rows become lists of the ids that are 1."""
    if not isinstance(values, np.ndarray):
        return pa.array([value if isinstance(value, str) else list(value) for value in values])
    if is_set and values.ndim == 2:
        return pa.array([np.flatnonzero(row).tolist() for row in values], pa.list_(pa.int64()))
    kind = pa.int64() if values.dtype.kind in "iu" else pa.from_numpy_dtype(values.dtype)
    return pa.array(values.tolist(), kind if values.ndim == 1 else pa.list_(kind))


def _read_part(part: str, table: dict[str, Any]) -> tuple[Any, Any] | None:
    """Return truth and answer of a part; None where the file lacks its truth."""
    truth_name, answer_name = COLUMNS[part]
    answer = table[answer_name]
    if part in (CAPTIONS, NAMES):
        return (table[truth_name], answer) if truth_name in table else None
    if part in (MASKS, GROUP_MASKS, TOKENS):
        counts = np.asarray(answer)
        return counts, counts
    probabilities = np.asarray(answer, dtype=np.float32)
    if truth_name not in table:
        return np.asarray(table[ONE_LABEL], dtype=np.int64), probabilities
    labels = np.zeros(probabilities.shape, dtype=np.int64)
    for row, members in enumerate(table[truth_name]):
        labels[row, members] = 1
    return labels, probabilities


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return `metrics.json` of a folder."""
    content = read_json(folder / METRICS, "make it with score.py")
    if content is None:
        raise BadInputError(f"{folder / METRICS} cannot be read (there is no such file); make it with score.py")
    return content


def check_comparable(results: dict[str, tuple[Predictions, dict[str, Any]]]) -> None:
    """Raise BadInputError unless all results are on the same rows and by the same definitions.

    Models that answer different questions (masks, ingredients) are compared on the scores that they share.

    Args:
        results: name -> (predictions, contents of metrics.json).
    """
    (first_name, (first, first_metrics)), *others = results.items()
    for name, (predictions, metrics) in others:
        shared = [part for part in first.parts if part in predictions.parts]
        if not shared:
            raise BadInputError(f"{name} and {first_name} have no scores in common; compare models of one task")
        labels, first_labels = metrics.get("label_names", []), first_metrics.get("label_names", [])
        if labels != first_labels:
            same = sorted(labels) == sorted(first_labels)
            what = "count their labels in different orders" if same else "have different label sets"
            raise BadInputError(f"{name} and {first_name} {what}; they cannot be compared")
        if predictions.rows_sha256(shared) != first.rows_sha256(shared):
            raise BadInputError(
                f"{name} and {first_name} were scored on different rows or labels "
                f"({len(predictions.ids)} and {len(first.ids)} rows); score both on the same split of the same data"
            )
        for score, entry in first_metrics["definitions"].items():
            other = metrics["definitions"].get(score)
            if other is None and metrics.get("task") != first_metrics.get("task"):
                continue
            if other is None or other["sha256"] != entry["sha256"]:
                theirs = other["definition"] if other else "absent"
                raise BadInputError(
                    f"{name} and {first_name} define {score} differently ({theirs!r} against {entry['definition']!r}); "
                    "score both anew by one definition"
                )
