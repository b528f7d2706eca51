"""The rows of one split for training and scoring, checked before the first step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from datasets import ClassLabel, Dataset, Image, IterableDataset, List, Value

from dataset_builder.columns import ID
from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown
from dataset_builder.named_files import RefusedFileError, read_regular
from trainer_scripts.data.picture_files import check_files
from trainer_scripts.data.split_guard import Keys, row_keys
from trainer_scripts.settings.arguments import DataArguments

MULTILABEL = "multilabel"
CLASSIFICATION = "classification"
Rows: TypeAlias = Dataset | IterableDataset
RowsT = TypeVar("RowsT", Dataset, IterableDataset)


@dataclass(frozen=True)
class Columns:
    """Names of the columns in use; None where the model needs no such column.

    `compared_text` and `compared_image` are columns that only the split guard reads; with `may_lack` a row may lack its
    text or its picture, not both. Pictures that are files must lie in the `dataset`, unless `allow_outside`.
    """

    label: str
    text: str | None
    image: str | None
    group: str | None
    target: str | None = None
    weight: str | None = None
    confidence: str | None = None
    compared_text: str | None = None
    compared_image: str | None = None
    may_lack: bool = False
    dataset: str | None = None
    allow_outside: bool = False

    def needed(self) -> list[str]:
        """Return the names of all columns in use."""
        names = (self.label, self.text, self.image, self.group, self.target, self.weight, self.confidence)
        return list(dict.fromkeys(name for name in names if name))


@dataclass
class Table:
    """One split, with everything in memory except its pictures.

    Attributes:
        split: its name.
        ids: row ids.
        groups: group of each row; the rows of a group belong to one split.
        texts: text of each row, or None where the model reads none.
        labels: ids `(rows,)`, or 0/1 `(rows, labels)`.
        targets: soft targets `(rows, classes)` that sum to 1, or None.
        weights: sample weights `(rows,)`, or None.
        rows: the data set itself; its pictures are encoded bytes.
        image_column: name of the picture column, or None.
        compared_text: name of a text column that only the split guard reads, or None.
        compared_image: the same for pictures.
        grouped: whether there is a group column; without one each row is a group of its own within its split.
        chosen_from: the table that these rows were chosen from and their numbers in it; None for a whole split.
        pictured: whether each row has its picture, where rows may lack a part; a missing text is then empty.
    """

    split: str
    ids: list[str]
    groups: list[str]
    texts: list[str] | None
    labels: np.ndarray
    targets: np.ndarray | None
    weights: np.ndarray | None
    rows: Dataset
    image_column: str | None
    compared_text: str | None = None
    compared_image: str | None = None
    grouped: bool = True
    chosen_from: "tuple[Table, np.ndarray] | None" = None
    pictured: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def keys(self) -> Iterator[Keys]:
        """Yield the keys of each row that must not occur in two splits."""
        texts: Any = self._compared_texts()
        if self.texts is not None:
            texts = (text if text.strip() else None for text in self.texts)
        pictures = self.cells() if self.image_column is not None else self._column(self.compared_image)
        groups: Any = self.groups if self.grouped else [None] * len(self)
        for row_id, group, text, picture in zip(self.ids, groups, texts, pictures, strict=True):
            yield row_keys(row_id, group, text, picture)

    def _compared_texts(self) -> Iterator[str | None]:
        """Yield the text that only the split guard reads; None for an empty one, which is not compared."""
        for value in self._column(self.compared_text):
            text = " ".join(map(str, value)) if isinstance(value, list) else value
            yield text if text and text.strip() else None

    def cells(self) -> Iterator[dict[str, Any] | None]:
        """Yield the undecoded picture of each row, None in a model without pictures."""
        yield from self._column(self.image_column)

    def _column(self, name: str | None) -> Iterator[Any]:
        """Yield the undecoded values of a column, None for each row where there is no such column."""
        if name is None or name not in self.rows.column_names:
            yield from [None] * len(self)
            return
        # Reading single rows costs milliseconds each in `datasets`; a batch in Arrow costs as much once.
        for batch in self.rows.select_columns([name]).with_format("arrow").iter(256):
            yield from batch[name].to_pylist()

    def lacking(self) -> tuple[int, int]:
        """Return how many rows lack their text, and how many their picture."""
        if self.pictured is None:
            return 0, 0
        return sum(not text.strip() for text in self.texts or ()), int((~self.pictured).sum())

    def first(self, number: int) -> "Table":
        """Return the table of the first rows, all where there are fewer."""
        return self.select(np.arange(min(number, len(self))))

    def select(self, indices: Sequence[int] | np.ndarray, as_split: bool = False) -> "Table":
        """Return the table of these rows; with `as_split` it stands for a split of its own, not for a part of one."""
        chosen = np.asarray(indices, dtype=int)
        # Always in terms of the whole split, so that features of its rows are found whatever was chosen before.
        whole, rows = (self, chosen) if self.chosen_from is None else (self.chosen_from[0], self.chosen_from[1][chosen])
        return replace(
            self,
            ids=[self.ids[i] for i in chosen],
            groups=[self.groups[i] for i in chosen],
            texts=None if self.texts is None else [self.texts[i] for i in chosen],
            labels=self.labels[chosen],
            targets=None if self.targets is None else self.targets[chosen],
            weights=None if self.weights is None else self.weights[chosen],
            pictured=None if self.pictured is None else self.pictured[chosen],
            rows=self.rows.select(chosen),
            chosen_from=None if as_split else (whole, rows),
        )


def map_columns(rows: RowsT, mapping: dict[str, str], where: str) -> RowsT:
    """Return the rows with renamed columns; `mapping` gives for each of our names the name in the data set."""
    missing = [theirs for theirs in mapping.values() if theirs not in rows.column_names]
    if missing:
        raise BadInputError(
            f"{where} has no column {missing[0]!r} that `columns` maps; it has {', '.join(rows.column_names)}"
        )
    clash = [ours for ours, theirs in mapping.items() if ours in rows.column_names and ours != theirs]
    # A column of the data set that has one of our names gives way to the mapped one.
    renamed = {theirs: ours for ours, theirs in mapping.items() if ours != theirs}
    return rows.remove_columns(clash).rename_columns(renamed) if renamed else rows


def check_columns(rows: Rows, columns: Columns, where: str) -> None:
    """Raise BadInputError that names the first needed column which is absent."""
    for name in columns.needed():
        if name not in rows.column_names:
            raise BadInputError(
                f"{where} has no column {name!r}; it has {', '.join(rows.column_names)}. "
                f'Map it with --columns \'{{"{name}": "THEIR_NAME"}}\''
                + (", or give --group_column none for rows without groups" if name == columns.group else "")
            )


def detect_task(rows: Rows, label_column: str) -> str:
    """Return `classification` for one label per row and `multilabel` for a list of them."""
    return MULTILABEL if isinstance(rows.features[label_column], List) else CLASSIFICATION


def label_names(rows: Rows, label_column: str) -> list[str]:
    """Return the label set: that of the ClassLabel, else the values of these (training) rows, sorted."""
    feature = rows.features[label_column]
    inner = feature.feature if isinstance(feature, List) else feature
    if isinstance(inner, ClassLabel):
        return list(inner.names)
    values = rows.select_columns([label_column])
    found = {
        value for row in values for value in (row[label_column] if isinstance(feature, List) else [row[label_column]])
    }
    found.discard(None)
    if not found:
        raise BadInputError(f"column {label_column!r} holds no label at all")
    return [str(value) for value in sorted(found)]


def label_ids(rows: Dataset, label_column: str, names: Sequence[str], ids: Sequence[str], where: str) -> np.ndarray:
    """Return label ids `(rows,)`, or 0/1 `(rows, labels)` for a list column.

    Labels are compared by name: a ClassLabel may number them in another order than `names`.

    Raises:
        BadInputError: a row without a label, or with one outside the label set; row and label are named.
    """
    feature = rows.features[label_column]
    is_list = isinstance(feature, List)
    inner = feature.feature if is_list else feature
    theirs = inner.names if isinstance(inner, ClassLabel) else None
    known = {name: index for index, name in enumerate(names)}
    table = np.zeros((len(ids), len(names)), dtype=np.float32) if is_list else np.zeros(len(ids), dtype=np.int64)
    for position, value in enumerate(rows[label_column]):
        for item in value if is_list else [value]:
            if theirs is not None and item is not None and 0 <= item < len(theirs):
                item = theirs[item]  # an invalid id, such as -1 for an unknown label, is shown as it is
            key = str(item) if theirs is None else item
            if item is None or key not in known:
                raise BadInputError(
                    f"{where}, row {ids[position]}: {label_column} {item!r} is outside the label set "
                    f"({', '.join(names[:8])}{', ...' if len(names) > 8 else ''}); correct or remove the row"
                )
            if is_list:
                table[position, known[key]] = 1
            else:
                table[position] = known[key]
    return table


def _texts(rows: Dataset, column: str, ids: Sequence[str], where: str, may_lack: bool) -> list[str]:
    """Return the texts; a list of strings is joined. A row without text is an error that names it, or has none."""
    texts = []
    for row_id, value in zip(ids, rows[column], strict=True):
        text = " ".join(value) if isinstance(value, list) else value
        text = "" if text is None else str(text)
        if not text.strip() and not may_lack:
            raise BadInputError(
                f"{where}, row {row_id}: {column} is empty; remove the row, train on the picture alone, or let a "
                "fusion model learn from what there is (--missing_parts learn)"
            )
        texts.append(text)
    return texts


def _pictured(rows: Dataset, columns: Columns, texts: Sequence[str], ids: Sequence[str], where: str) -> np.ndarray:
    """Return which rows have a picture; a row with neither picture nor text is an error that names it."""
    found = []
    for batch in rows.select_columns([columns.image]).with_format("arrow").iter(256):
        cells = batch[columns.image].to_pylist()
        found += [cell is not None and bool(cell.get("bytes") or cell.get("path")) for cell in cells]
    for row_id, text, here in zip(ids, texts, found, strict=True):
        if not here and not text.strip():
            raise BadInputError(f"{where}, row {row_id} has neither a picture nor a text; remove the row")
    return np.array(found)


def _numbers(rows: Dataset, column: str, shape: tuple[int, ...], ids: Sequence[str], where: str) -> np.ndarray:
    """Return a column of numbers, or of lists of as many numbers; the first row that holds something else is named."""
    values = rows[column][:]
    found = _finite(values, (len(ids), *shape))
    if found is None:
        # Rows are checked one by one only after the column as a whole was refused.
        wrong = next(place for place, value in enumerate(values) if _finite(value, shape) is None)
        what = f"{shape[0]} numbers, one per label" if shape else "a number"
        raise BadInputError(f"{where}, row {ids[wrong]}: {column} must hold {what}, not {values[wrong]!r}")
    return found


def _finite(values: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return finite numbers of a shape, None for anything else."""
    try:
        found = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        return None
    return found if found.shape == shape and np.isfinite(found).all() else None


def _targets(rows: Dataset, column: str, classes: int, ids: Sequence[str], where: str) -> np.ndarray:
    targets = _numbers(rows, column, (classes,), ids, where)
    wrong = np.flatnonzero((targets < 0).any(axis=1) | (np.abs(targets.sum(axis=1) - 1) > 1e-3))
    if len(wrong):
        raise BadInputError(f"{where}, row {ids[wrong[0]]}: {column} must be non-negative and sum to 1")
    return targets


def _weights(
    rows: Dataset, columns: Columns, labels: np.ndarray, classes: int, ids: Sequence[str], where: str
) -> np.ndarray | None:
    """Return the weight of each row: its given weight times the confidence of its label, with mean 1 over the rows."""
    weights = None
    if columns.weight:
        weights = _numbers(rows, columns.weight, (), ids, where)
        if not ((weights >= 0).all() and weights.sum() > 0):
            raise BadInputError(f"{where}: {columns.weight} must hold numbers >= 0, some of them above 0")
    if columns.confidence:
        if labels.ndim != 1 or labels.dtype == object:
            raise BadInputError(f"confidence_column needs one label per row, which {columns.label!r} does not hold")
        # Confidences are one number per class; the weight is that of the row's own label.
        sure = _targets(rows, columns.confidence, classes, ids, where)[np.arange(len(labels)), labels]
        weights = sure if weights is None else weights * sure
        # A mean of 1 leaves the learning rate comparable with that of a run without weights.
        weights = weights / max(float(weights.mean()), 1e-9)
    return weights


def make_table(
    rows: Dataset,
    columns: Columns,
    names: Sequence[str],
    split: str,
    where: str,
    read_labels: Callable[..., np.ndarray] = label_ids,
) -> Table:
    """Return one split as a Table, checked row by row; `read_labels` reads the label column as the task needs it."""
    check_columns(rows, columns, where)
    if len(rows) == 0:
        raise BadInputError(f"{where} has no rows")
    if columns.image:
        if not isinstance(rows.features[columns.image], Image):
            raise BadInputError(
                f"{where}: column {columns.image!r} holds no images but {rows.features[columns.image]}; give encoded "
                "pictures, or in a local data set their paths, relative to its folder"
            )
        rows = rows.cast_column(columns.image, Image(decode=False))
        if columns.dataset is not None:
            check_files(rows, columns.image, columns.dataset, columns.allow_outside, where)
    # Without the pictures, iterating over the other columns does not read their bytes.
    plain = rows.remove_columns([columns.image]) if columns.image else rows
    ids = [str(value) for value in plain[ID]] if ID in rows.column_names else [str(i) for i in range(len(rows))]
    labels = read_labels(plain, columns.label, names, ids, where)
    texts = _texts(plain, columns.text, ids, where, columns.may_lack) if columns.text else None
    return Table(
        split=split,
        ids=ids,
        groups=[str(value) for value in plain[columns.group]] if columns.group else list(ids),
        texts=texts,
        labels=labels,
        targets=_targets(plain, columns.target, len(names), ids, where) if columns.target else None,
        weights=_weights(plain, columns, labels, len(names), ids, where),
        rows=rows,
        image_column=columns.image,
        compared_text=columns.compared_text,
        compared_image=columns.compared_image,
        grouped=columns.group is not None,
        pictured=_pictured(rows, columns, texts or [], ids, where) if columns.may_lack else None,
    )


def compared_columns(rows: Rows, columns: Columns, arguments: DataArguments) -> Columns:
    """Add the columns that the split guard compares although the model does not read them."""
    texts = rows.features.get(arguments.text_column)
    inner = texts.feature if isinstance(texts, List) else texts
    is_text = isinstance(inner, Value) and inner.dtype in ("string", "large_string")
    is_image = isinstance(rows.features.get(arguments.image_column), Image)
    return replace(
        columns,
        compared_text=arguments.text_column if columns.text is None and is_text else None,
        compared_image=arguments.image_column if columns.image is None and is_image else None,
    )


def columns_of(arguments: DataArguments, label_column: str, modality: str) -> Columns:
    """Return the columns that a run with this modality reads."""
    return Columns(
        label=label_column,
        text=arguments.text_column if modality != "image" else None,
        image=arguments.image_column if modality != "text" else None,
        group=arguments.group_column,
        target=arguments.target_column,
        weight=arguments.weight_column,
        confidence=arguments.confidence_column,
        may_lack=arguments.missing_parts == "learn" and modality == "fusion",
        dataset=arguments.dataset,
        allow_outside=arguments.allow_outside,
    )


def decode_bytes(value: Any, row_id: str) -> bytes:
    """Return the encoded picture of one cell, `{"bytes": ..., "path": ...}`.

    Raises:
        BadInputError: there is no picture, or its file cannot be read.
    """
    if value is None or (value.get("bytes") is None and not value.get("path")):
        raise BadInputError(
            f"row {row_id} has no picture; give it one, remove the row, or let a fusion model learn from what there is "
            "(--missing_parts learn)"
        )
    if value.get("bytes") is not None:
        return value["bytes"]
    try:
        return read_regular(Path(value["path"]))
    except RefusedFileError as error:
        raise BadInputError(f"row {row_id}: picture {shown(value['path'])} cannot be read: it is {error}") from error
