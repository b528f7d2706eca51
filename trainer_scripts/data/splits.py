"""The splits of a data set: opened, held out of one another, and one for selection carved where there is none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from dataset_builder.boundaries import patiently
from dataset_builder.errors import BadInputError
from dataset_builder.hub_data import load_tables
from dataset_builder.messages import shown
from dataset_builder.storage.places import is_url
from trainer_scripts.data.plain_table import (
    is_plain_table,
    open_folder_of_tables,
    open_plain_table,
    tables_beside_pictures,
)
from trainer_scripts.data.split_guard import SplitGuard
from trainer_scripts.data.table import Table
from trainer_scripts.settings.arguments import DEFAULT_DATASET, DataArguments


def open_dataset(name: str, revision: str | None = None, streaming: bool = False) -> DatasetDict:
    """Return the splits of a folder, a plain table or a Hub data set, with `streaming` as iterable splits.

    Raises:
        BadInputError: there is no such data set, or it cannot be read.
    """
    if is_url(name):
        if revision is not None:
            raise BadInputError(
                f"{shown(name)} is a folder in a store, which has no revision {revision!r}; leave it out"
            )
        return load_tables(name, streaming=streaming)
    if not Path(name).exists() and name.count("/") != 1:
        raise BadInputError(
            f"there is no data set at {name!r}; give a folder, a table (CSV, TSV, JSON lines, Parquet), a URL such as "
            "s3://bucket/set, or a Hub id such as org/flavour-sd"
        )

    def load() -> DatasetDict:
        files = tables_beside_pictures(Path(name))
        if not files and not is_plain_table(name):
            return load_tables(name, revision=revision, streaming=streaming)
        table = open_folder_of_tables(files) if files else open_plain_table(Path(name))
        return DatasetDict({split: rows.to_iterable_dataset() if streaming else rows for split, rows in table.items()})

    hint = f"build it with `flavour-sd build --out {DEFAULT_DATASET}`" if name == DEFAULT_DATASET else ""
    return patiently(f"cannot read data set {name!r}", hint or "give the folder or the Hub id of a data set", load)


def split_rows(splits: DatasetDict, name: str, where: str) -> Any:
    """Return one split; raise BadInputError, naming those that exist, where there is no such split."""
    if name not in splits:
        raise BadInputError(f"{where} has no split {name!r}; it has {', '.join(splits)}")
    return splits[name]


def carve_selection(table: Table, arguments: DataArguments) -> tuple[Table, Table]:
    """Return (training, selection) rows of a data set without a selection split; groups stay whole."""
    # Sorted, so that the draw does not depend on the order of a set.
    groups, share = sorted(set(table.groups)), arguments.selection_share
    if len(groups) < 2:
        raise BadInputError(f"cannot take a selection split out of {len(groups)} group; give more, or such a split")
    number = min(max(1, round(share * len(groups))), len(groups) - 1)
    drawn = np.random.default_rng(arguments.selection_seed).permutation(len(groups))[:number]
    chosen = {groups[index] for index in drawn}
    inside = np.array([group in chosen for group in table.groups])
    selection = table.select(np.flatnonzero(inside), as_split=True)
    return table.select(np.flatnonzero(~inside), as_split=True), replace(selection, split=f"{table.split} (held out)")


def hold_out(guard: SplitGuard, table: Table, arguments: DataArguments) -> Table:
    """Add a split to the guard and return it, with `shared_rows: drop` without the rows of splits added before.

    Raises:
        BadInputError: a row is shared without `shared_rows: drop`, or every row is.
    """
    keys = list(table.keys())
    if arguments.shared_rows == "drop":
        kept = [row for row, key in enumerate(keys) if not guard.leaks(key)]
        if not kept:
            raise BadInputError(f"every row of {table.split} is also in another split; split the data by group")
        table, keys = table.select(kept, as_split=True), [keys[row] for row in kept]
    guard.hold_out(table.split, keys)
    return table
