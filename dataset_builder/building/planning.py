"""Plans the rows of a build as a stream: recipes, labels, splits and shards, in memory that hardly grows with them.

Three passes. The first reads the table, labels its recipes in chunks over processes and writes them to a file as they
come; what it keeps of each are hashes. The second finds the splits from these alone. The third deals the recipes of the
file out to the shards.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataset_builder.building.corrected_recipes import ChangedRows, CorrectedRecipes, with_changes
from dataset_builder.building.plan_file import SCHEMA, PlanFolder, SplitWriter, content_of, label_of
from dataset_builder.building.settings import BOTH, GENERATED, OWN, BuildSettings
from dataset_builder.building.shards import divide
from dataset_builder.building.splits import find_groups, hash_of, order_keys, split_numbers
from dataset_builder.catalogue.ingredients import catalogue_dishes
from dataset_builder.catalogue.variants import widen
from dataset_builder.columns import FLAVOURS, SPLITS
from dataset_builder.engines.work import Engine
from dataset_builder.errors import BadInputError
from dataset_builder.labelling.choice import AnyLabeller
from dataset_builder.labelling.languages import vocabulary_of
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.labelling.report import FOREIGN, catalogue_labels
from dataset_builder.labelling.soft_labels import ShareModel, SoftLabels, fit_soft_labels
from dataset_builder.labelling.tables import FIT_RECIPES, map_chunks
from dataset_builder.named_files import read_regular
from dataset_builder.progress import Progress
from dataset_builder.recipes.part_names import COLUMN_NAMES
from dataset_builder.recipes.recipes import Dish, RawRecipe, RecipeTable, Skipped, read_recipes
from dataset_builder.recipes.text import plain_title

NO_FLAVOUR = "without flavour"
# A variant is kept when its first flavour leads the second one by this share of the votes. Without it the label of many
# variants hangs on one word, and what is learned from them is noise. Named dishes are kept as they are.
CLEAR_LEAD = 0.2
_NO_ROWS = -1  # in place of the split of a recipe whose every row was left out
# Label ids in the order of their names, which decides between flavours that a dish has equally often.
_BY_NAME = np.argsort(np.argsort(np.array(FLAVOURS)))


@dataclass
class _Left:
    """Recipes that get no row, by reason in the order in which the reasons first occur."""

    skipped: dict[str, Skipped] = field(default_factory=dict)

    def add(self, reason: str, title: str) -> None:
        self.skipped.setdefault(reason, Skipped()).add(title)

    def merge(self, other: "_Left") -> None:
        for reason, left_out in other.skipped.items():
            self.skipped.setdefault(reason, Skipped()).merge(left_out)


@dataclass(frozen=True)
class _Hashes:
    """What is kept in memory of each labelled recipe, `(recipes,)` each: hashes of key, dish and title; the label."""

    keys: np.ndarray
    dishes: np.ndarray
    titles: np.ndarray
    flavours: np.ndarray


_NONE = _Hashes(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int8))


def make_plan(
    settings: BuildSettings, folder: PlanFolder, source: dict[str, Any], engine: Engine | None = None
) -> None:
    """Write the plan of a build to an empty folder.

    Args:
        settings: of the build.
        folder: of the plan.
        source: what the plan follows from, recorded with it.
        engine: runs the labelling; None for this process where there are few recipes, and one per core otherwise.

    Raises:
        BadInputError: no recipe is left, or two rows would have one id.
    """
    labeller = settings.labeller(Lexicon.load(settings.lexicon))
    corrected = CorrectedRecipes(settings, labeller)
    read = _Recipes(settings, labeller)
    left = _Left()
    with tempfile.TemporaryDirectory(dir=folder.path) as place:
        spilled = Path(place, "recipes.arrow")
        hashes = _label(settings, read, labeller, spilled, left, corrected, engine)
        skipped = {**read.skipped, **left.skipped}
        if not len(hashes.keys):
            reasons = ", ".join(f"{left_out.count} {reason}" for reason, left_out in skipped.items())
            raise BadInputError(f"no recipe of {settings.recipes or 'the catalogue'} can be used: {reasons}")
        _refuse_equal_keys(hashes.keys, spilled)
        model = _label_model(labeller, spilled)
        changed = corrected.apply(model)
        splits = _splits(settings, hashes, spilled, corrected)
        splits[[place for place, row in changed.items() if row is None]] = _NO_ROWS
        counts = np.bincount(splits + 1, minlength=len(SPLITS) + 1)[1:]
        recipes = dict(zip(SPLITS, counts.tolist(), strict=True))
        _deal(settings, folder, spilled, splits, recipes, model, changed)
    folder.finish(
        {
            "source": source,
            "recipes_sha256": _content_hash(folder),
            "recipes": recipes,
            "recipes_per_shard": settings.recipes_per_shard,
            "calibrated": model.temperature != 1,
            "skipped": {reason: asdict(left_out) for reason, left_out in skipped.items()},
            "notes": list(read.notes),
            "corrections": corrected.facts,
            "excluded": corrected.excluded,
        }
    )


class _Recipes:
    """The recipes of a build as they are read, from the catalogue or a table; those without photograph are left out.

    Attributes:
        skipped: reason -> recipes left out; complete at the end.
        notes: what the user should know; complete at the end.
    """

    def __init__(self, settings: BuildSettings, labeller: AnyLabeller):
        self._settings, self._labeller = settings, labeller
        self._table: RecipeTable | None = None
        if settings.recipes is not None:
            self._table = read_recipes(
                settings.recipes,
                settings.columns,
                settings.encoding,
                settings.keep_equal_titles,
                settings.allow_outside,
            )
            if settings.pictures != GENERATED and "image" not in self._table.columns:
                raise BadInputError(
                    f"{self._table.table.name} names no photographs: accepted columns are "
                    f"{', '.join(COLUMN_NAMES['image'])}; or give --columns image=NAME"
                )
        self._without = _Left()
        self._unused: Counter[str] = Counter()

    def __iter__(self) -> Iterator[RawRecipe | Dish]:
        if self._table is None:
            settings = self._settings
            yield from widen(catalogue_dishes(), settings.number, settings.seed, partial(_tastes_clear, self._labeller))
            return
        file = self._table.table
        scaled = file.unit == "B"
        with Progress("planning", file.size, "B" if scaled else "recipes", scaled=scaled) as bar:
            for recipe in self._table.stream():
                bar.update(file.position - bar.done)
                if self._settings.pictures == OWN and recipe.image_path is None:
                    fault = recipe.image_fault
                    self._without.add(f"photograph {fault}" if fault else "without photograph", recipe.title)
                    continue
                if self._settings.pictures == BOTH and recipe.image_path is None:
                    self._unused[recipe.image_fault or "none named"] += 1
                yield recipe
            bar.update(file.position - bar.done)

    @property
    def skipped(self) -> dict[str, Skipped]:
        rows = {} if self._table is None else self._table.skipped
        return {reason: left_out for reason, left_out in rows.items() if left_out.count} | self._without.skipped

    @property
    def notes(self) -> tuple[str, ...]:
        own = () if self._table is None else self._table.table.notes
        return (*own, *(f"recipes whose photograph is not used, {why}: {n}" for why, n in self._unused.items()))


def _tastes_clear(labeller: AnyLabeller, variant: Dish) -> bool:
    """Return whether the first flavour of a variant leads the second one by `CLEAR_LEAD`."""
    first, second = sorted(labeller.label(variant.title, variant.ingredients).taste, reverse=True)[:2]
    return first - second >= CLEAR_LEAD


def _label(
    settings: BuildSettings,
    recipes: Iterable[RawRecipe | Dish],
    labeller: AnyLabeller,
    spilled: Path,
    left: _Left,
    corrected: CorrectedRecipes,
    engine: Engine | None,
) -> _Hashes:
    """Write the labelled recipes to a file in the order of the table, and return their hashes."""
    # The catalogue is in the language of its own lexicon.
    checked = settings.recipes is not None and settings.match != "substring"
    work = partial(_label_chunk, checks_language=checked, reads_photographs=settings.pictures != GENERATED)
    parts: list[_Hashes] = []
    with pa.OSFile(str(spilled), "wb") as file, pa.ipc.new_file(file, SCHEMA, options=_SPILL) as writer:
        for batch, hashes, without in map_chunks(work, recipes, labeller, engine):
            writer.write_batch(batch)
            corrected.look(batch, hashes.keys)
            parts.append(hashes)
            left.merge(without)
    names = [entry.name for entry in fields(_Hashes)]
    return _Hashes(**{name: np.concatenate([getattr(part, name) for part in (_NONE, *parts)]) for name in names})


_SPILL = pa.ipc.IpcWriteOptions(compression="lz4")


def _label_chunk(
    chunk: list[RawRecipe | Dish], labeller: AnyLabeller, checks_language: bool, reads_photographs: bool
) -> tuple[pa.RecordBatch, _Hashes, _Left]:
    """Return the labelled recipes of a chunk as rows of the plan, soft labels still as the rule gave them."""
    vocabulary = vocabulary_of(labeller.lexicon) if checks_language else None
    left = _Left()
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    titles = []
    for recipe in chunk:
        dish = recipe if isinstance(recipe, Dish) else recipe.dish()
        if vocabulary is not None and not vocabulary.fits(*vocabulary.count(dish.ingredients)):
            left.add(FOREIGN, dish.title)
            continue
        label = labeller.label(dish.title, dish.ingredients)
        if label.flavour is None:
            left.add(NO_FLAVOUR, dish.title)
            continue
        # The folder of the table does not change the rows; the content of its photographs does.
        sha256 = None
        if reads_photographs and dish.image_path is not None:
            sha256 = hashlib.sha256(read_regular(Path(dish.image_path))).hexdigest()
        columns["dish_id"].append(dish.dish_id)
        columns["variant"].append(dish.variant)
        columns["flavour"].append(FLAVOURS.index(label.flavour))
        columns["taste"].append(label.taste)
        columns["image"].append(dish.image_path)
        columns["content"].append(content_of(dish, sha256, label))
        titles.append(plain_title(dish.title))
    keys = map("{}-{:02d}".format, columns["dish_id"], columns["variant"])
    hashes = _Hashes(
        keys=_hashes(keys),
        dishes=_hashes(columns["dish_id"]),
        titles=_hashes(titles),
        flavours=np.array(columns["flavour"], np.int8),
    )
    arrays = [pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names]
    batch = pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
    return batch, hashes, left


def _hashes(texts: Iterable[str]) -> np.ndarray:
    return np.array([hash_of(text) for text in texts], np.uint64)


def _batches(spilled: Path, columns: Iterable[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the chunks of labelled recipes, or some of their columns, one after the other."""
    places = None if columns is None else [SCHEMA.get_field_index(name) for name in columns]
    with pa.OSFile(str(spilled)) as file:
        reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=places))
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def _column(spilled: Path, name: str) -> Iterator[Any]:
    for batch in _batches(spilled, [name]):
        yield from batch.column(0).to_pylist()


def _refuse_equal_keys(keys: np.ndarray, spilled: Path) -> None:
    """Raise BadInputError where two recipes have one key: ids of rows follow from the keys."""
    values, counts = np.unique(keys, return_counts=True)
    if len(values) == len(keys):
        return
    twice = set(values[counts > 1].tolist())
    place = next(place for place, key in enumerate(keys.tolist()) if key in twice)
    columns = (_column(spilled, name) for name in ("dish_id", "variant"))
    dish_id, variant = next(row for number, row in enumerate(zip(*columns, strict=True)) if number == place)
    raise BadInputError(f"two recipes have the id {dish_id}-{variant:02d}; give each dish its own id")


def _splits(settings: BuildSettings, hashes: _Hashes, spilled: Path, corrected: CorrectedRecipes) -> np.ndarray:
    """Return the split of each recipe as its place in `columns.SPLITS`.

    Splits follow the labels of the rule, so that a correction moves no other dish. A corrected title joins the groups
    of both titles.
    """
    retitled = corrected.retitled
    dishes = np.concatenate([hashes.dishes, _hashes(dish.dish_id for dish in retitled)])
    titles = np.concatenate([hashes.titles, _hashes(plain_title(dish.title) for dish in retitled)])
    groups = find_groups(dishes, titles)
    keys = order_keys(groups, chain(_column(spilled, "dish_id"), (dish.dish_id for dish in retitled)), settings.seed)
    return split_numbers(groups.of_row[: len(hashes.keys)], keys, _BY_NAME[hashes.flavours])


def _label_model(labeller: AnyLabeller, spilled: Path) -> SoftLabels:
    """Return the label model, fitted on the first labelled recipes, calibrated on the catalogue."""
    labels = []
    if labeller.rule == "votes":
        for batch in _batches(spilled, ["taste", "content"]):
            rows = zip(batch["content"].to_pylist(), batch["taste"].to_pylist(), strict=True)
            labels += [label_of(*row) for row in rows]
            if len(labels) >= FIT_RECIPES:
                break
    # The temperature comes from the catalogue, whose reference flavours are known.
    return fit_soft_labels(labels[:FIT_RECIPES], labeller.rule).calibrated(*catalogue_labels(labeller))


def _deal(
    settings: BuildSettings,
    folder: PlanFolder,
    spilled: Path,
    splits: np.ndarray,
    recipes: dict[str, int],
    model: SoftLabels,
    changed: ChangedRows,
) -> None:
    """Write the recipes of each split, with their soft labels, to the files of its shards."""
    writers = [SplitWriter(folder, divide(split, recipes[split], settings.recipes_per_shard)) for split in SPLITS]
    done = 0
    try:
        with Progress("dividing into shards", len(splits), "recipes") as bar:
            for batch in _batches(spilled):
                batch = with_changes(_with_scores(batch, model), done, changed)
                of_batch = splits[done : done + batch.num_rows]
                for number, writer in enumerate(writers):
                    chosen = batch.filter(pa.array(of_batch == number))
                    if chosen.num_rows:
                        writer.add(chosen)
                done += batch.num_rows
                bar.update(batch.num_rows)
    finally:
        for writer in writers:
            writer.close()


def _with_scores(batch: pa.RecordBatch, model: SoftLabels) -> pa.RecordBatch:
    if not batch.num_rows:
        return batch
    shares = pc.list_flatten(batch["taste"]).to_numpy().reshape(-1, len(FLAVOURS))
    if isinstance(model, ShareModel):
        scores = model.scores_of(shares)
    else:
        contents = batch["content"].to_pylist()
        scores = model.scores([label_of(content, share) for content, share in zip(contents, shares, strict=True)])
    taste = pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel()), len(FLAVOURS))
    return batch.set_column(SCHEMA.get_field_index("taste"), SCHEMA.field("taste"), taste)


def _content_hash(folder: PlanFolder) -> str:
    """Return the hash of all recipes with their labels and splits, in the order of the rows."""
    digest = hashlib.sha256()
    for split in SPLITS:
        begin = f"[{json.dumps(split)}, "
        for content in folder.contents(split):
            digest.update(f"{begin}{content}]".encode())
    return digest.hexdigest()
