"""Training rows streamed from a folder or a Hub: divided among processes, checked on arrival, resumable.

Rows come in blocks. Each block becomes a small checked table, and its rows are shuffled; the shards are shuffled among
each other. A position in the stream is therefore a block and the number of rows taken from it, and a resumed run reads
at most one block again.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image, IterableDataset

from dataset_builder.errors import BadInputError
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.split_guard import SplitGuard
from trainer_scripts.data.table import Columns, Table, make_table
from trainer_scripts.settings.arguments import Configuration

HEAD_ROWS = 2000


@dataclass
class Stream:
    """The training split of a streamed data set.

    Attributes:
        rows: the rows, with the column names of `flavour-sd`.
        columns: columns in use.
        names: the label set.
        where: data set and split, for messages.
        split: name of the split.
        read_labels: reads the label column as the task needs it.
        guard: keys of the held-out splits.
        drop: whether rows that also occur in a held-out split are left out; otherwise they are an error.
    """

    rows: IterableDataset
    columns: Columns
    names: list[str]
    where: str
    split: str
    read_labels: Any
    guard: SplitGuard
    drop: bool

    def table(self, block: list[dict[str, Any]]) -> Table | None:
        """Return the checked table of some rows, or None when all of them are left out.

        Raises:
            BadInputError: a row lacks what the task needs, or also occurs in a held-out split.
        """
        rows = Dataset.from_list(block, features=self.rows.features)
        table = make_table(rows, self.columns, self.names, self.split, self.where, self.read_labels)
        keys = list(table.keys())
        if not self.drop:
            for key in keys:
                self.guard.check(key, self.split)
            return table
        kept = [row for row, key in enumerate(keys) if not self.guard.leaks(key)]
        return table.select(kept) if kept else None

    def head(self) -> Table:
        """Return the first rows, from which vocabulary and class shares are computed.

        Raises:
            BadInputError: no row is left.
        """
        table = self.table(list(self.rows.take(HEAD_ROWS)))
        if table is None:
            raise BadInputError(f"{self.where}: every row of the first {HEAD_ROWS} is also in a held-out split")
        return table


def streamed(rows: IterableDataset, where: str) -> IterableDataset:
    """Return streaming rows with pictures left encoded.

    Raises:
        BadInputError: the source does not declare the types of its columns.
    """
    if rows.features is None:
        raise BadInputError(f"{where} does not name the types of its columns; stream Parquet, or leave out --streaming")
    for name, feature in rows.features.items():
        if isinstance(feature, Image):
            rows = rows.cast_column(name, Image(decode=False))
    return rows


class StreamSamples(torch.utils.data.IterableDataset):
    """Endless training samples of one process.

    Shards are divided among the processes where their number is a multiple of theirs; otherwise every process reads
    all shards and keeps its part of each block.

    Args:
        configuration: configuration of the run.
        data: training data; its `stream` is read.
        processor: processor of the model.
        rank: number of this process.
        processes: number of processes.
    """

    # Nothing of a stream is kept or stored: its rows pass once.
    varies = False
    pictures = masks = not_stored = not_stored_varied = None

    def __init__(
        self, configuration: Configuration, data: Any, processor: FlavourProcessor, rank: int = 0, processes: int = 1
    ):
        self.epoch = 0
        self._configuration, self._data, self._processor = configuration, data, processor
        self._seed, self._block = configuration.training.seed, configuration.data.stream_block
        self._rank, self._processes = rank, processes
        self._position: dict[str, Any] = {"round": 0, "shard": 0, "block": 0, "rows": None, "taken": 0}

    def state_dict(self) -> dict[str, Any]:
        """Return the position: round, shard, block, state of the shard at the block's start, samples taken from it."""
        return copy.deepcopy(self._position)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position."""
        self._position = copy.deepcopy(state)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            found = any(self._position[name] for name in ("shard", "block", "taken"))
            for sample in self._round():
                found = True
                yield sample
            if not found:
                raise BadInputError(f"{self._data.stream.where}: no row is left to train on")
            self._position.update(round=self._position["round"] + 1, shard=0, block=0, rows=None, taken=0)

    def _round(self) -> Iterator[dict[str, Any]]:
        """Yield the rest of one pass over all shards of this process.

        The position is updated before each sample is yielded, and moves to the next block with the reader's state, so
        that a run resumed from it skips exactly the samples that were taken.
        """
        # All random orders follow from seed, round, shard and block alone: every process and every resumed run draws
        # the same ones.
        stream, place = self._data.stream.rows, self._position
        order = np.random.default_rng([self._seed, place["round"]]).permutation(stream.num_shards)
        shared_out = stream.num_shards % self._processes == 0
        mine = order[self._rank :: self._processes] if shared_out else order
        while self._position["shard"] < len(mine):
            shard = int(mine[self._position["shard"]])
            rows = stream.shard(stream.num_shards, shard)
            if self._position["rows"] is not None:
                rows.load_state_dict(self._position["rows"])
            for block in blocks(rows, self._block):
                # Shared shards: each process keeps every n-th row of the block, starting at its rank.
                key = (self._seed, self._position["round"], shard, self._position["block"])
                samples = self._samples(block if shared_out else block[self._rank :: self._processes], key)
                for index in np.random.default_rng(key).permutation(len(samples))[self._position["taken"] :]:
                    self._position.update(taken=self._position["taken"] + 1)
                    yield samples[int(index)]
                self._position.update(block=self._position["block"] + 1, rows=rows.state_dict(), taken=0)
            self._position.update(shard=self._position["shard"] + 1, block=0, rows=None, taken=0)

    def _samples(self, block: list[dict[str, Any]], key: tuple[int, ...]) -> Any:
        """Return the task's samples of a block; their random variation follows from the block's key."""
        table = self._data.stream.table(block) if block else None
        if table is None:
            return []
        samples = self._data.task.training_samples(
            self._configuration, replace(self._data, train=table), self._processor
        )
        samples.epoch = int(np.random.SeedSequence(key).generate_state(1)[0])
        return samples


def blocks(rows: IterableDataset, size: int) -> Iterator[list[dict[str, Any]]]:
    """Return an iterator over lists of `size` rows, the last one shorter."""
    remaining = iter(rows)
    # Reads no row beyond a block, so that the state of `rows` after a block is the start of the next one.
    return iter(lambda: list(islice(remaining, size)), [])
