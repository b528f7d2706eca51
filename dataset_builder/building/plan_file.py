"""A plan on disk: written once, and read by every worker in the part that it draws.

    PLAN/train-00000.parquet      recipes of up to 64 shards, a row group for each shard
    PLAN/plan.json                written last: what it was made from, its hash, what was left out

Columns: `dish_id` and `variant` name the recipe, `flavour` is its label, `taste` its soft label, `image` the
photograph, and `content` holds recipe and label as JSON, in the very form of which `recipes_sha256` is the hash.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataset_builder.boundaries import outside
from dataset_builder.building.rows import LabelledDish
from dataset_builder.building.shards import Shard, divide
from dataset_builder.columns import FLAVOURS
from dataset_builder.files import read_json, write_json
from dataset_builder.labelling.rule import Label
from dataset_builder.recipes.recipes import Dish
from dataset_builder.storage.places import files_in, is_url, opened

PLAN = "plan.json"
SHARDS_PER_FILE = 64
MEND = "remove the folder and repeat the command, which plans anew"
SCHEMA = pa.schema(
    {
        "dish_id": pa.string(),
        "variant": pa.int32(),
        "flavour": pa.int8(),
        "taste": pa.list_(pa.float64(), len(FLAVOURS)),
        "image": pa.string(),
        "content": pa.string(),
    }
)
KINDS: dict[str, Any] = {
    "source": dict[str, Any],
    "recipes_sha256": str,
    "recipes": dict[str, int],
    "recipes_per_shard": int,
    "calibrated": bool,
    "skipped": dict[str, dict[str, Any]],
    "notes": list[str],
    "corrections": dict[str, Any] | None,
    "excluded": list[str],
}


def content_of(dish: Dish, image_sha256: str | None, label: Label) -> str:
    """Return a recipe and its label as JSON without the brackets of a list; the photograph counts by its content.

    Soft labels follow from the rest, and their last digits from the machine, so that they are no part of it.
    """
    recipe = {
        "dish_id": dish.dish_id,
        "title": dish.title,
        "ingredients": dish.ingredients,
        "instructions": dish.instructions,
        "variant": dish.variant,
        "image_path": image_sha256,
    }
    reasons = {
        "flavour": label.flavour,
        "flavours": label.flavours,
        "source": label.source,
        "votes": label.votes,
        "by_ingredients": label.by_ingredients,
        "by_title": label.by_title,
    }
    return json.dumps([recipe, reasons])[1:-1]


def label_of(content: str, taste: Sequence[float]) -> Label:
    """Return the label in the content of a row."""
    return item_of(content, taste, None).label


def item_of(content: str, taste: Sequence[float], image: str | None) -> LabelledDish:
    """Return the recipe and the label of a row."""
    recipe, reasons = json.loads(f"[{content}]")
    recipe["ingredients"], recipe["image_path"] = tuple(recipe["ingredients"]), image
    reasons["flavours"] = tuple(reasons["flavours"])
    return LabelledDish(Dish(**recipe), Label(taste=tuple(taste), **reasons))


class PlanFolder:
    """A plan in a folder.

    Args:
        path: holds it; nothing is read before it is asked for.
        temporary: the folder above it, which is removed when nobody reads the plan any more; None for one that stays.
    """

    def __init__(self, path: Path, temporary: TemporaryDirectory | None = None):
        self.temporary = temporary
        self.path = path if is_url(path) else Path(os.path.abspath(path))  # workers may be elsewhere
        # The shard that was read last: its rows are asked for in groups.
        self._last: tuple[Shard, list[LabelledDish]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "temporary": None, "_last": None}

    def facts(self) -> dict[str, Any] | None:
        """Return the content of `plan.json`, None where the plan is not finished.

        Raises:
            BadInputError: it is damaged.
        """
        return read_json(self.path / PLAN, MEND, KINDS)

    def finish(self, facts: dict[str, Any]) -> None:
        """Write `plan.json`, which makes the plan whole."""
        write_json(self.path / PLAN, facts)

    def file(self, split: str, number: int) -> Path:
        """Return a file of the recipes of a split."""
        return self.path / f"{split}-{number:05d}.parquet"

    def _files(self, split: str) -> list[Path]:
        names = (name for name in files_in(self.path) if name.startswith(f"{split}-") and name.endswith(".parquet"))
        return [self.path / name for name in sorted(names)]

    def read(self, shard: Shard) -> list[LabelledDish]:
        """Return the recipes of one shard; nothing else is read.

        Raises:
            BadInputError: the plan is damaged.
        """
        if self._last is None or self._last[0] != shard:
            table = self._row_group(shard, ["content", "taste", "image"])
            rows = (table[name].to_pylist() for name in ("content", "taste", "image"))
            self._last = shard, [item_of(*row) for row in zip(*rows, strict=True)]
        return self._last[1]

    def images(self, shard: Shard) -> int:
        """Return how many recipes of a shard have a photograph."""
        return shard.last - shard.first - self._row_group(shard, ["image"])["image"].null_count

    def _row_group(self, shard: Shard, columns: list[str]) -> pa.Table:
        path = self.file(shard.split, shard.index // SHARDS_PER_FILE)
        with outside(f"{path} of the plan cannot be read", MEND), opened(path) as stream:
            return pq.ParquetFile(stream).read_row_group(shard.index % SHARDS_PER_FILE, columns=columns)

    def place_of(self, split: str, dish_id: str, variant: int) -> int | None:
        """Return the place of a recipe in its split, None where it is not there; no text but the ids is read."""
        before = 0
        for path in self._files(split):
            with opened(path) as stream:
                table = pq.ParquetFile(stream).read(columns=["dish_id", "variant"])
            same = pc.and_(pc.equal(table["dish_id"], dish_id), pc.equal(table["variant"], variant))
            place = pc.index(same, True).as_py()
            if place >= 0:
                return before + place
            before += table.num_rows
        return None

    def contents(self, split: str) -> Iterator[str]:
        """Yield the content of every recipe of a split, in order."""
        for path in self._files(split):
            with opened(path) as stream:
                for batch in pq.ParquetFile(stream).iter_batches(columns=["content"]):
                    yield from batch.column(0).to_pylist()


class SplitWriter:
    """Writes the recipes of one split as they come, a row group for each shard.

    Args:
        folder: of the plan.
        shards: all shards of the split, in order.
    """

    def __init__(self, folder: PlanFolder, shards: Sequence[Shard]):
        self._folder, self._shards = folder, shards
        self._next = 0
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next recipes, in the columns of `SCHEMA`."""
        self._waiting.append(batch)
        self._rows += batch.num_rows
        while self._next < len(self._shards):
            shard = self._shards[self._next]
            wanted = shard.last - shard.first
            if self._rows < wanted:
                return
            table = pa.Table.from_batches(self._waiting, SCHEMA).combine_chunks()
            self._write(shard, table.slice(0, wanted))
            rest = table.slice(wanted)
            self._waiting, self._rows = rest.to_batches(), rest.num_rows
            self._next += 1

    def _write(self, shard: Shard, table: pa.Table) -> None:
        if shard.index % SHARDS_PER_FILE == 0:
            self.close()
            path = self._folder.file(shard.split, shard.index // SHARDS_PER_FILE)
            self._writer = pq.ParquetWriter(str(path), SCHEMA, compression="zstd")
        assert self._writer is not None
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def close(self) -> None:
        """End the file that is being written."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class PlannedRecipes(Sequence[LabelledDish]):
    """The recipes of one split as a sequence that is read on access, shard by shard.

    Args:
        folder: of the plan.
        split: name.
        count: of its recipes.
        recipes_per_shard: at most.
    """

    def __init__(self, folder: PlanFolder, split: str, count: int, recipes_per_shard: int):
        self._folder, self._count = folder, count
        self.shards = divide(split, count, recipes_per_shard)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> LabelledDish: ...

    @overload
    def __getitem__(self, place: slice) -> list[LabelledDish]: ...

    def __getitem__(self, place: int | slice) -> LabelledDish | list[LabelledDish]:
        if isinstance(place, slice):
            first, last, step = place.indices(self._count)
            found = [
                item
                for shard in self.shards
                if shard.first < last and shard.last > first
                for item in self._folder.read(shard)[max(0, first - shard.first) : last - shard.first]
            ]
            return found[::step] if step > 0 else [self[one] for one in range(first, last, step)]
        if not -self._count <= place < self._count:
            raise IndexError(f"recipe {place} of {self._count}")
        place %= self._count
        shard = next(shard for shard in self.shards if shard.last > place)
        return self._folder.read(shard)[place - shard.first]

    def __iter__(self) -> Iterator[LabelledDish]:
        for shard in self.shards:
            yield from self._folder.read(shard)
