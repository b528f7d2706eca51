"""The plan of a build: recipes, labels, splits and shards, all fixed before the first picture is drawn."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dataset_builder.building.corrections import corrections_digest, read_corrections
from dataset_builder.building.plan_file import PLAN, PlanFolder, PlannedRecipes
from dataset_builder.building.planning import make_plan
from dataset_builder.building.rows import LabelledDish, encode_row, row_ids
from dataset_builder.building.settings import GENERATED, OWN, BuildSettings
from dataset_builder.building.shards import Shard
from dataset_builder.building.source import source_of
from dataset_builder.catalogue.ingredients import visible_ingredients
from dataset_builder.columns import SPLITS
from dataset_builder.engines.work import Engine
from dataset_builder.errors import BadInputError
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.pictures import prompts
from dataset_builder.pictures.photographs import photograph
from dataset_builder.pictures.revisions import exact_settings
from dataset_builder.pictures.settings import Picture, PictureTask, picture_seed
from dataset_builder.recipes.recipes import Skipped
from dataset_builder.schema import table_features
from dataset_builder.storage.places import is_url, store_whole

if TYPE_CHECKING:  # it imports torch, which takes more memory than the plan of a million recipes
    from dataset_builder.pictures.illustrator import Illustrator

SCHEMA_VERSION = "1.1"
# Key of the Parquet schema under which a shard names the rows whose pictures were all rejected.
GIVEN_UP = b"flavour_sd.given_up"
_ROW_ID = re.compile(r"(?P<dish>.+)-(?P<variant>\d{2,})-(?:\d{2,}|photograph)")


class Plan:
    """All rows of a build, before a picture is drawn: recipes with their labels and splits, divided into shards.

    The recipes lie in files and are read as they are asked for. A plan that is in `kept` and was made from the same
    settings and the same table is taken; otherwise the recipes are planned anew, into a temporary folder.

    Args:
        settings: of the build.
        kept: folder in which a plan may be; None for none.
        engine: runs the labelling, see `planning.make_plan`.

    Attributes:
        settings: from which it was made.
        recipes: labelled recipes per split.
        skipped: reason -> how many recipes are left out for it, and some names.
        notes: what the reader of the table had to guess.
        calibrated: whether the soft labels are.
        corrections: what people corrected, as the manifest states it; None without corrections.

    Raises:
        BadInputError: no recipe is left, or two rows would have one id.
    """

    def __init__(self, settings: BuildSettings, kept: Path | None = None, engine: Engine | None = None):
        self.settings = settings
        source = source_of(settings)
        self._folder = PlanFolder(kept or Path())
        facts = None if kept is None else self._folder.facts()
        if facts is None or facts["source"] != source:
            # Beside its place it need not be copied there.
            beside = None if kept is None or is_url(kept) or not kept.parent.is_dir() else kept.parent
            temporary = tempfile.TemporaryDirectory(prefix="plan.", dir=beside)
            self._folder = PlanFolder(Path(temporary.name, "plan"), temporary)
            self._folder.path.mkdir()
            make_plan(settings, self._folder, source, engine)
            facts = self._folder.facts()
        self._facts: dict[str, Any] = facts or {}
        self.skipped = {reason: Skipped(**left_out) for reason, left_out in self._facts["skipped"].items()}
        self.notes: tuple[str, ...] = tuple(self._facts["notes"])
        self.calibrated: bool = self._facts["calibrated"]
        self.corrections: dict[str, Any] | None = self._facts["corrections"]
        self._excluded = frozenset(self._facts["excluded"])

    def keep(self, kept: Path) -> None:
        """Move a plan that was made anew to the folder where workers and later commands find it.

        Another part of the build may have put the same plan there meanwhile, which then stays: it may be in use.
        """
        temporary = self._folder.temporary
        if temporary is None:
            return
        own = {name: value for name, value in self._facts.items() if name != "source"}
        if not own.items() <= (PlanFolder(kept).facts() or {}).items():
            if is_url(kept):
                for path in sorted(self._folder.path.iterdir(), key=lambda path: path.name == PLAN):  # that one last
                    store_whole(kept / path.name, partial(shutil.copyfile, path))
            else:
                with suppress(FileNotFoundError):
                    os.replace(kept, Path(temporary.name, "former"))
                with suppress(OSError):  # it was put there between these two lines
                    os.replace(self._folder.path, kept)
        self._folder = PlanFolder(kept)
        self.__dict__.pop("recipes", None)
        temporary.cleanup()

    @cached_property
    def lexicon(self) -> Lexicon:
        """The lexicon that gave the labels."""
        return Lexicon.load(self.settings.lexicon)

    @cached_property
    def recipes(self) -> dict[str, PlannedRecipes]:
        """The labelled recipes of each split, read on access."""
        counts, most = self._facts["recipes"], self._facts["recipes_per_shard"]
        return {split: PlannedRecipes(self._folder, split, counts[split], most) for split in SPLITS}

    def row_ids(self, item: LabelledDish) -> list[tuple[str, bool]]:
        """Return the ids of the rows of a recipe, and of each whether its picture is a photograph."""
        return [one for one in row_ids(self.settings, item) if one[0] not in self._excluded]

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns and their types."""
        return table_features(visible_ingredients()).arrow_schema

    def shards(self, split: str | None = None) -> list[Shard]:
        """Return the shards of one split, or of all for None."""
        return [shard for name, recipes in self.recipes.items() if split in (None, name) for shard in recipes.shards]

    def rows_in(self, shard: Shard) -> int:
        """Return how many rows a shard has when no picture is given up."""
        if self._excluded:
            return sum(len(self.row_ids(item)) for item in self._folder.read(shard))
        drawn = 0 if self.settings.pictures == OWN else self.settings.images_per_dish * (shard.last - shard.first)
        return drawn + (0 if self.settings.pictures == GENERATED else self._folder.images(shard))

    def groups(self, shard: Shard) -> Iterator[list[LabelledDish]]:
        """Yield the recipes of a shard in the groups whose pictures are drawn together.

        Beside its own seed a picture depends on its group alone: whole recipes, as many as fill one batch.
        """
        # Groups never cross a shard, so that a shard can be drawn alone.
        size = max(1, self.settings.generation.batch_size // self.settings.images_per_dish)
        recipes = self._folder.read(shard)
        for start in range(0, len(recipes), size):
            yield recipes[start : start + size]

    def find(self, row_id: str) -> tuple[Shard, list[LabelledDish]]:
        """Return the shard and the group of one row.

        Raises:
            BadInputError: the build has no such row.
        """
        # An id ends in the number of the variant and that of the picture, or the word for a photograph.
        known = _ROW_ID.fullmatch(row_id)
        for split, recipes in self.recipes.items() if known else ():
            place = self._folder.place_of(split, known["dish"], int(known["variant"])) if known else None
            shard = next((one for one in recipes.shards if place is not None and one.first <= place < one.last), None)
            for group in self.groups(shard) if shard else ():
                if shard and any(row_id == one for item in group for one, _ in self.row_ids(item)):
                    return shard, group
        example = next(self.row_ids(items[0])[0][0] for items in self.recipes.values() if len(items))
        raise BadInputError(f"this build has no row {row_id!r}; an id looks like {example}")

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Everything on which the rows depend, as JSON values: settings, revisions, hashes of recipes and labels."""
        settings = asdict(self.settings)
        # How the table is read shows in the recipes.
        for name in ("encoding", "keep_equal_titles", "allow_outside", "corrections"):
            del settings[name]
        if settings["pictures"] == GENERATED:  # as before there was a choice
            del settings["pictures"]
        del settings["generation"]
        corrections = read_corrections(self.settings.corrections)
        return {
            "schema_version": SCHEMA_VERSION,
            **settings,
            **exact_settings(self.settings.generation),
            "recipes": Path(self.settings.recipes).name if self.settings.recipes else None,
            "number": None if self.settings.recipes else self.settings.number,
            "lexicon": Path(self.settings.lexicon).name if self.settings.lexicon else None,
            "lexicon_sha256": self.lexicon.digest,
            "recipes_sha256": self._facts["recipes_sha256"],
            **({"corrections_sha256": corrections_digest(corrections)} if corrections else {}),
        }

    @cached_property
    def digest(self) -> str:
        """Hash of the fingerprint, 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True).encode()).hexdigest()[:16]

    def illustrator(self, device: Any = "cpu") -> "Illustrator | None":
        """Load the pipeline of this build; None where all pictures are photographs."""
        if self.settings.pictures == OWN:
            return None
        from dataset_builder.pictures.illustrator import Illustrator

        return Illustrator(self.settings.generation, self.fingerprint["revision"], self.fingerprint["lora"], device)

    def draw(
        self, group: Sequence[LabelledDish], illustrator: "Illustrator | None"
    ) -> Iterator[tuple[str, dict[str, Any] | None, Picture]]:
        """Draw the pictures of a group; yield row id, row (None where the picture was given up) and picture."""
        wanted = [(item, row_id, is_photograph) for item in group for row_id, is_photograph in self.row_ids(item)]
        tasks = []
        for item, row_id, is_photograph in wanted:
            if is_photograph:
                continue
            prompt = prompts.render(self.settings.generation.template, item.dish.title, item.dish.ingredients)
            seed = picture_seed(self.settings.seed, row_id)
            tasks.append(PictureTask(row_id, item.key, item.dish.title, prompt, seed))
        drawn = iter(illustrator.draw(tasks) if illustrator is not None else ())
        for item, row_id, is_photograph in wanted:
            if is_photograph:
                picture = photograph(str(item.dish.image_path), item.dish.title, self.settings.generation.size)
            else:
                picture = next(drawn)
            yield row_id, None if picture.image is None else encode_row(row_id, item, picture), picture

    def draw_shard(self, shard: Shard, illustrator: "Illustrator | None", progress: Any = None) -> pa.Table:
        """Draw a whole shard.

        Args:
            shard: of this plan.
            illustrator: of this plan.
            progress: called with the number of pictures after each group.

        Returns:
            The table of its rows; the schema's metadata name the rows that were given up, with the reasons.
        """
        rows, given_up = [], {}
        for group in self.groups(shard):
            count = 0
            for row_id, row, picture in self.draw(group, illustrator):
                count += 1
                if row is None:
                    given_up[row_id] = picture.generation["rejected"]
                else:
                    rows.append(row)
            if progress is not None:
                progress(count)
        metadata = {**(self.schema.metadata or {}), GIVEN_UP: json.dumps(given_up).encode()}
        return pa.Table.from_pylist(rows, schema=self.schema.with_metadata(metadata))
