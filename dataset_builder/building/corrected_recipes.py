"""The recipes of a plan that people corrected: few among many, picked from the stream and put back changed."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from dataset_builder.building.corrections import Corrections, drawn_hash, photograph_hash, read_corrections
from dataset_builder.building.plan_file import SCHEMA, content_of, item_of
from dataset_builder.building.rows import LabelledDish, row_ids, stored_picture
from dataset_builder.building.settings import BuildSettings
from dataset_builder.building.splits import hash_of
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.labelling.choice import AnyLabeller
from dataset_builder.labelling.soft_labels import SoftLabels
from dataset_builder.pictures.photographs import PHOTOGRAPH, photograph
from dataset_builder.pictures.revisions import exact_settings
from dataset_builder.recipes.recipes import Dish

# Place of a recipe -> its row of the plan, None where every row of it is left out.
ChangedRows = Mapping[int, dict[str, Any] | None]


class CorrectedRecipes:
    """The recipes to which corrections belong.

    Args:
        settings: of the build, which names the tables of corrections.
        labeller: the rule, for corrected titles.

    Raises:
        BadInputError: a table of corrections cannot be read.
    """

    def __init__(self, settings: BuildSettings, labeller: AnyLabeller):
        self._settings, self._labeller = settings, labeller
        said = read_corrections(settings.corrections)
        self._corrections = Corrections(said)
        self._keys = np.array(sorted({hash_of(one.recipe) for one in said}), np.uint64)
        # Place of a recipe -> it as table and rule give it, and its row of the plan.
        self._met: dict[int, tuple[LabelledDish, dict[str, Any]]] = {}
        self._seen = 0

    def look(self, batch: pa.RecordBatch, keys: np.ndarray) -> None:
        """Pick the corrected ones out of the next labelled recipes, whose keys have these hashes."""
        for place in np.flatnonzero(np.isin(keys, self._keys)).tolist() if len(self._keys) else ():
            (row,) = batch.slice(place, 1).to_pylist()
            self._met[self._seen + place] = item_of(row["content"], row["taste"], row["image"]), row
        self._seen += batch.num_rows

    @property
    def retitled(self) -> list[Dish]:
        """The recipes with another title, under that title."""
        given = (item for item, _ in self._met.values())
        return [replace(item.dish, title=title) for item in given if (title := self._corrections.title_of(item.key))]

    def apply(self, model: SoftLabels) -> ChangedRows:
        """Return the rows of the plan that corrections change.

        Raises:
            BadInputError: a correction is of no row, or of one that changed since.
        """
        changed: dict[int, dict[str, Any] | None] = {}
        every: list[tuple[int, LabelledDish]] = []
        for place, (given, row) in self._met.items():
            item = self._retitled(given)
            (scores,) = model.scores([item.label]).tolist()
            text = (given.dish.title, given.dish.ingredients, given.dish.instructions)
            scored = item.label._replace(taste=tuple(scores))
            label = self._corrections.apply(item.key, text, given.label, scored)
            photograph = json.loads(f"[{row['content']}]")[0]["image_path"]
            content = content_of(item.dish, photograph, label)
            changed[place] = {
                **row, "flavour": FLAVOURS.index(str(label.flavour)), "taste": label.taste, "content": content
            }  # fmt: skip
            every.append((place, item))
        ids = {place: [row_id for row_id, _ in row_ids(self._settings, item)] for place, item in every}
        self._corrections.check(row_id for of in ids.values() for row_id in of)
        self._check_pictures({item.key: item for _, item in every})
        for place, of in ids.items():
            if self._corrections.excluded.issuperset(of):
                changed[place] = None
        if changed and len(changed) == self._seen and not any(changed.values()):
            raise BadInputError("the corrections leave out every row; remove some of the exclusions")
        return changed

    def _check_pictures(self, recipes: Mapping[str, LabelledDish]) -> None:
        """Refuse exclusions of rows whose picture is no longer the one that a person saw."""
        drawn, stale = None, []
        for one in self._corrections.exclusions():
            path = recipes[one.recipe].dish.image_path
            if one.row_id.endswith(PHOTOGRAPH) and path is not None:
                now = _photograph_hash(path, self._settings.generation.size)
            else:
                settings = {**exact_settings(self._settings.generation), "seed": self._settings.seed}
                now = drawn = drawn or drawn_hash(settings)
            if now != one.picture:
                stale.append(one)
        self._corrections.refuse_pictures(stale)

    def _retitled(self, item: LabelledDish) -> LabelledDish:
        """Return a recipe under its corrected title; one that the rule cannot label by it keeps its label."""
        title = self._corrections.title_of(item.key)
        if title is None:
            return item
        label = self._labeller.label(title, item.dish.ingredients)
        return LabelledDish(replace(item.dish, title=title), item.label if label.flavour is None else label)

    @property
    def facts(self) -> dict[str, Any] | None:
        """What people said, for the manifest; None without corrections."""
        return self._corrections.facts if self._corrections else None

    @property
    def excluded(self) -> list[str]:
        """Ids of the rows that are left out."""
        return sorted(self._corrections.excluded)


def _photograph_hash(path: str, size: int | None) -> str:
    """Return the hash of a photograph as its row would store it; of one that cannot be read that of nothing."""
    image = photograph(path, "", size).image
    return photograph_hash(b"" if image is None else stored_picture(image))


def with_changes(batch: pa.RecordBatch, first: int, changed: ChangedRows) -> pa.RecordBatch:
    """Return a batch of the plan, whose first row has this place, with its changed rows."""
    places = [place for place in changed if first <= place < first + batch.num_rows and changed[place] is not None]
    if not places:
        return batch
    rows = batch.to_pylist()
    for place in places:
        rows[place - first] = changed[place]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
