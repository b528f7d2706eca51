"""The plan of a build: recipes, labels, splits and shards, all fixed before the first picture is drawn."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataset_builder import columns
from dataset_builder.building.corrections import Corrections, corrections_digest, read_corrections
from dataset_builder.building.rows import LabelledDish, encode_row
from dataset_builder.building.shards import Shard, divide
from dataset_builder.catalogue.ingredients import catalogue_dishes, visible_ingredients
from dataset_builder.catalogue.variants import widen
from dataset_builder.errors import BadInputError
from dataset_builder.labelling.choice import AnyLabeller, make_labeller, rule_settings
from dataset_builder.labelling.languages import vocabulary_of
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.labelling.report import FOREIGN, RULE_OPTIONS, catalogue_labels
from dataset_builder.labelling.soft_labels import SoftLabels, fit_soft_labels
from dataset_builder.labelling.tables import FIT_RECIPES
from dataset_builder.named_files import read_regular
from dataset_builder.pictures import prompts
from dataset_builder.pictures.illustrator import GenerationSettings, Illustrator, Picture, PictureTask, picture_seed
from dataset_builder.pictures.photographs import PHOTOGRAPH, photograph
from dataset_builder.pictures.pipelines import clip_revision, lora_revision, pipeline_revision
from dataset_builder.recipes.part_names import COLUMN_NAMES
from dataset_builder.recipes.recipes import Dish, Skipped, read_recipes
from dataset_builder.recipes.text import plain_title
from dataset_builder.schema import table_features

SCHEMA_VERSION = "1.1"
NO_FLAVOUR = "without flavour"
# A variant is kept when its first flavour leads the second one by this share of the votes. Without it the label of many
# variants hangs on one word, and what is learned from them is noise. Named dishes are kept as they are.
CLEAR_LEAD = 0.2
# Key of the Parquet schema under which a shard names the rows whose pictures were all rejected.
GIVEN_UP = b"flavour_sd.given_up"


# Where pictures come from.
GENERATED, OWN, BOTH = PICTURES = ("generated", "own", "both")
SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}


@dataclass(frozen=True)
class BuildSettings:
    """The settings on which the rows of a build depend.

    Attributes:
        recipes: a recipe table (file, folder or Hub id); None is the embedded catalogue.
        number: recipes that the embedded catalogue is widened to.
        lexicon: a lexicon file; None is the one of the package.
        images_per_dish: pictures of each recipe.
        seed: of variants, splits and pictures.
        recipes_per_shard: recipes in one Parquet file, at most.
        generation: settings of the pictures.
        columns: part of a recipe -> column, where the table's columns are not recognised.
        encoding: of a CSV or JSON table; None takes UTF-8 or a guess.
        keep_equal_titles: rows whose title came before are variants of its dish, and not left out.
        pictures: "generated", "own" for the photographs that the table names, or "both".
        allow_outside: photographs may lie outside the folder of the table.
        corrections: tables of what people corrected, see `building.corrections`.
        rule, min_lead, match, min_ingredient_votes, min_title_votes, on_conflict: the labelling rule, see
            `labelling.choice.rule_settings`; None for what follows from the others.
    """

    recipes: str | None = None
    number: int = 3600
    lexicon: str | None = None
    images_per_dish: int = 1
    seed: int = 0
    recipes_per_shard: int = 256
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    columns: dict[str, str] = field(default_factory=dict)
    encoding: str | None = None
    keep_equal_titles: bool = False
    pictures: str = GENERATED
    allow_outside: bool = False
    corrections: tuple[str, ...] = ()
    rule: str | None = None
    min_lead: float | None = None
    match: str | None = None
    min_ingredient_votes: int | None = None
    min_title_votes: int | None = None
    on_conflict: str | None = None

    def __post_init__(self) -> None:
        # The manifest states the rule in full, whichever of its options were given.
        for name, value in rule_settings(**{name: getattr(self, name) for name in RULE_OPTIONS}).items():
            object.__setattr__(self, name, value)
        for name in ("number", "images_per_dish", "recipes_per_shard"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} is {getattr(self, name)}; give a whole number of at least 1")
        if self.seed < 0:
            raise BadInputError(f"seed is {self.seed}; give a whole number of at least 0")
        if self.pictures not in PICTURES:
            raise BadInputError(f"pictures is {self.pictures!r}; choose one of {', '.join(PICTURES)}")
        if self.pictures != GENERATED and self.recipes is None:
            raise BadInputError(f"the catalogue has no photographs; name a table for --pictures {self.pictures}")
        if self.columns and self.recipes is None:
            raise BadInputError("the embedded catalogue has columns of its own; leave --columns out, or name a table")

    def labeller(self, lexicon: Lexicon) -> AnyLabeller:
        """Return the rule that labels the recipes."""
        return make_labeller(lexicon, **{name: getattr(self, name) for name in RULE_OPTIONS})


class Plan:
    """All rows of a build, before a picture is drawn: recipes with their labels and splits, divided into shards.

    Attributes:
        settings: from which it was made.
        recipes: labelled recipes per split.
        skipped: reason -> how many recipes are left out for it, and some names.
        notes: what the reader of the table had to guess.
        label_model: gives soft labels; fitted on the votes of the recipes, calibrated on the catalogue.

    Raises:
        BadInputError: no recipe is left, or two rows would have one id.
    """

    def __init__(self, settings: BuildSettings):
        self.settings = settings
        self.lexicon = Lexicon.load(settings.lexicon)
        labeller = settings.labeller(self.lexicon)
        self.skipped: dict[str, Skipped] = {}
        self.notes: tuple[str, ...] = ()
        dishes: Sequence[Dish]
        if settings.recipes is None:
            dishes = widen(catalogue_dishes(), settings.number, settings.seed, partial(_tastes_clear, labeller))
        else:
            table = read_recipes(
                settings.recipes,
                settings.columns,
                settings.encoding,
                settings.keep_equal_titles,
                settings.allow_outside,
            )
            if settings.pictures != GENERATED and "image" not in table.columns:
                raise BadInputError(
                    f"{table.table.name} names no photographs: accepted columns are "
                    f"{', '.join(COLUMN_NAMES['image'])}; or give --columns image=NAME"
                )
            dishes = table.dishes
            self.notes = table.table.notes
            self.skipped = {reason: left_out for reason, left_out in table.skipped.items() if left_out.count}
            if settings.pictures == OWN:
                dishes = self._with_photographs(dishes)
            elif settings.pictures == BOTH:
                without = Counter(dish.image_fault or "none named" for dish in dishes if dish.image_path is None)
                self.notes += tuple(f"recipes whose photograph is not used, {why}: {n}" for why, n in without.items())
        labelled = []
        # The catalogue is in the language of its own lexicon.
        vocabulary = None if settings.recipes is None or settings.match == "substring" else vocabulary_of(self.lexicon)
        for dish in dishes:
            if vocabulary is not None and not vocabulary.fits(*vocabulary.count(dish.ingredients)):
                self.skipped.setdefault(FOREIGN, Skipped()).add(dish.title)
                continue
            label = labeller.label(dish.title, dish.ingredients)
            if label.flavour is None:
                self.skipped.setdefault(NO_FLAVOUR, Skipped()).add(dish.title)
            else:
                labelled.append(LabelledDish(dish, label))
        if not labelled:
            reasons = ", ".join(f"{left_out.count} {reason}" for reason, left_out in self.skipped.items())
            raise BadInputError(f"no recipe of {settings.recipes or 'the catalogue'} can be used: {reasons}")
        self.label_model: SoftLabels = fit_soft_labels([item.label for item in labelled[:FIT_RECIPES]], labeller.rule)
        # The temperature comes from the catalogue, whose reference flavours are known.
        self.label_model = self.label_model.calibrated(*catalogue_labels(labeller))
        by_rule = labelled
        self._corrections = read_corrections(settings.corrections)
        self.corrections = Corrections(self._corrections)
        labelled = [self._retitled(item, labeller) for item in by_rule]
        scores = self.label_model.scores([item.label for item in labelled]).tolist()
        labelled = [
            LabelledDish(item.dish, item.label._replace(taste=tuple(taste)))
            for item, taste in zip(labelled, scores, strict=True)
        ]
        # Ids of rows follow from the keys, so these must be unique.
        keys = [item.key for item in labelled]
        if len(set(keys)) < len(keys):
            twice = next(key for index, key in enumerate(keys) if key in keys[:index])
            raise BadInputError(f"two recipes have the id {twice}; give each dish its own id")
        # Splits follow the labels of the rule, so that a correction moves no other dish. A corrected title joins the
        # groups of both titles.
        both = [*by_rule, *(item for item in labelled if self.corrections.title_of(item.key))]
        groups = groups_of([item.dish.dish_id for item in both], [item.dish.title for item in both])
        splits = assign_splits(groups[: len(by_rule)], [str(item.label.flavour) for item in by_rule], settings.seed)
        self.recipes: dict[str, list[LabelledDish]] = {split: [] for split in columns.SPLITS}
        for item, given, split in zip(labelled, by_rule, splits, strict=True):
            self.recipes[split].append(self._corrected(item, given))
        self._leave_out_excluded()

    def _with_photographs(self, dishes: Sequence[Dish]) -> list[Dish]:
        """Return the dishes that have a photograph; the others are counted and named."""
        for dish in dishes:
            if dish.image_path is None:
                reason = f"photograph {dish.image_fault}" if dish.image_fault else "without photograph"
                self.skipped.setdefault(reason, Skipped()).add(dish.title)
        return [dish for dish in dishes if dish.image_path is not None]

    def _retitled(self, item: LabelledDish, labeller: AnyLabeller) -> LabelledDish:
        """Return a recipe under its corrected title; one that the rule cannot label by it keeps its label."""
        title = self.corrections.title_of(item.key)
        if title is None:
            return item
        label = labeller.label(title, item.dish.ingredients)
        return LabelledDish(replace(item.dish, title=title), item.label if label.flavour is None else label)

    def _corrected(self, item: LabelledDish, given: LabelledDish) -> LabelledDish:
        """Return a recipe with the label that a person chose.

        Args:
            item: under its corrected title.
            given: as the table and the rule give it.
        """
        text = (given.dish.title, given.dish.ingredients, given.dish.instructions)
        return LabelledDish(item.dish, self.corrections.apply(item.key, text, given.label, item.label))

    def _leave_out_excluded(self) -> None:
        """Check the corrections against the rows, and remove recipes of which no row is left."""
        if not self.corrections:
            return
        every = [item for items in self.recipes.values() for item in items]
        self.corrections.check(row_id for item in every for row_id, _ in self._all_row_ids(item))
        self.recipes = {split: [one for one in items if self.row_ids(one)] for split, items in self.recipes.items()}
        if not any(self.recipes.values()):
            raise BadInputError("the corrections leave out every row; remove some of the exclusions")

    def row_ids(self, item: LabelledDish) -> list[tuple[str, bool]]:
        """Return the ids of the rows of a recipe, and of each whether its picture is a photograph."""
        return [one for one in self._all_row_ids(item) if one[0] not in self.corrections.excluded]

    def _all_row_ids(self, item: LabelledDish) -> list[tuple[str, bool]]:
        own = self.settings.pictures != GENERATED and item.dish.image_path is not None
        drawn = 0 if self.settings.pictures == OWN else self.settings.images_per_dish
        photograph_ids = [(f"{item.key}-{PHOTOGRAPH}", True)] if own else []
        return [*photograph_ids, *((item.row_id(number), False) for number in range(drawn))]

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns and their types."""
        return table_features(visible_ingredients()).arrow_schema

    def shards(self, split: str | None = None) -> list[Shard]:
        """Return the shards of one split, or of all for None."""
        return [
            shard
            for name, recipes in self.recipes.items()
            if split in (None, name)
            for shard in divide(name, len(recipes), self.settings.recipes_per_shard)
        ]

    def rows_in(self, shard: Shard) -> int:
        """Return how many rows a shard has when no picture is given up."""
        return sum(len(self.row_ids(item)) for item in self.recipes[shard.split][shard.first : shard.last])

    def groups(self, shard: Shard) -> Iterator[list[LabelledDish]]:
        """Yield the recipes of a shard in the groups whose pictures are drawn together.

        Beside its own seed a picture depends on its group alone: whole recipes, as many as fill one batch.
        """
        # Groups never cross a shard, so that a shard can be drawn alone.
        size = max(1, self.settings.generation.batch_size // self.settings.images_per_dish)
        recipes = self.recipes[shard.split][shard.first : shard.last]
        for start in range(0, len(recipes), size):
            yield recipes[start : start + size]

    def find(self, row_id: str) -> tuple[Shard, list[LabelledDish]]:
        """Return the shard and the group of one row.

        Raises:
            BadInputError: the build has no such row.
        """
        for shard in self.shards():
            for group in self.groups(shard):
                if any(row_id == known for item in group for known, _ in self.row_ids(item)):
                    return shard, group
        example = next(self.row_ids(items[0])[0][0] for items in self.recipes.values() if items)
        raise BadInputError(f"this build has no row {row_id!r}; an id looks like {example}")

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Everything on which the rows depend, as JSON values: settings, revisions, hashes of recipes and labels."""
        content = hashlib.sha256()
        for split, items in self.recipes.items():
            for item in items:
                # Soft labels follow from the rest, and their last digits from the machine.
                label = {name: value for name, value in item.label._asdict().items() if name != columns.TASTE}
                dish = asdict(item.dish)
                del dish["image_fault"]
                # The folder of the table does not change the rows; the content of its photographs does.
                path, dish["image_path"] = dish["image_path"], None
                if path is not None and self.settings.pictures != GENERATED:
                    dish["image_path"] = hashlib.sha256(read_regular(Path(path))).hexdigest()
                content.update(json.dumps([split, dish, label]).encode())
        settings = asdict(self.settings)
        # How the table is read shows in the recipes.
        for name in ("encoding", "keep_equal_titles", "allow_outside", "corrections"):
            del settings[name]
        if settings["pictures"] == GENERATED:  # as before there was a choice
            del settings["pictures"]
        generation = settings.pop("generation")
        name, revision = generation["pipeline"], generation.pop("revision")
        return {
            "schema_version": SCHEMA_VERSION,
            **settings,
            **generation,
            "recipes": Path(self.settings.recipes).name if self.settings.recipes else None,
            "number": None if self.settings.recipes else self.settings.number,
            "lexicon": Path(self.settings.lexicon).name if self.settings.lexicon else None,
            "lexicon_sha256": self.lexicon.digest,
            "recipes_sha256": content.hexdigest(),
            "revision": pipeline_revision(name, revision),
            "lora": lora_revision(generation["lora"]) if generation["lora"] else None,
            "clip": clip_revision(generation["clip"]) if generation["clip"] else None,
            **({"corrections_sha256": corrections_digest(self._corrections)} if self._corrections else {}),
        }

    @cached_property
    def digest(self) -> str:
        """Hash of the fingerprint, 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.fingerprint, sort_keys=True).encode()).hexdigest()[:16]

    def illustrator(self, device: Any = "cpu") -> Illustrator | None:
        """Load the pipeline of this build; None where all pictures are photographs."""
        if self.settings.pictures == OWN:
            return None
        return Illustrator(self.settings.generation, self.fingerprint["revision"], self.fingerprint["lora"], device)

    def draw(
        self, group: Sequence[LabelledDish], illustrator: Illustrator | None
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

    def draw_shard(self, shard: Shard, illustrator: Illustrator | None, progress: Any = None) -> pa.Table:
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


def _tastes_clear(labeller: AnyLabeller, variant: Dish) -> bool:
    """Return whether the first flavour of a variant leads the second one by `CLEAR_LEAD`."""
    first, second = sorted(labeller.label(variant.title, variant.ingredients).taste, reverse=True)[:2]
    return first - second >= CLEAR_LEAD


def groups_of(dish_ids: Sequence[str], titles: Sequence[str]) -> list[str]:
    """Return for each row the name of its group, which never crosses splits: rows of one dish or of equal titles.

    The name is the first dish id of the group, which is the row's own where no other dish has an equal title.
    """
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while (above := leader.setdefault(key, key)) != key:
            key = above
        return key

    first_of_title: dict[str, str] = {}
    for dish_id, title in zip(dish_ids, titles, strict=True):
        one, other = sorted((find(dish_id), find(first_of_title.setdefault(plain_title(title), dish_id))))
        leader[other] = one
    return [find(dish_id) for dish_id in dish_ids]


def assign_splits(dish_ids: Sequence[str], flavours: Sequence[str], seed: int) -> list[str]:
    """Return the split of each row.

    Rows of one dish id, or group (see `groups_of`), share a split. Dishes are stratified by their main flavour (the one
    most of their rows have): within each flavour they are ordered by a hash of seed and id, and test, then validation
    take dishes until they hold their share of the flavour's rows; the rest is train. The order of the rows does not
    matter. A flavour of three or more dishes is in every split.

    Args:
        dish_ids: the dish of each row.
        flavours: the label of each row.
        seed: another seed draws another split.
    """
    votes: dict[str, Counter[str]] = {}
    for dish_id, flavour in zip(dish_ids, flavours, strict=True):
        votes.setdefault(dish_id, Counter())[flavour] += 1
    strata: dict[str, list[str]] = {}
    for dish_id, counts in votes.items():
        # The most frequent flavour, of equal ones the first by name.
        main = min(counts, key=lambda flavour: (-counts[flavour], flavour))
        strata.setdefault(main, []).append(dish_id)
    split_of: dict[str, str] = {}
    for dishes in strata.values():
        dishes.sort(key=lambda dish_id: hashlib.sha256(f"{seed}|{dish_id}".encode()).digest())
        split_of |= _divide(dishes, {dish_id: votes[dish_id].total() for dish_id in dishes})
    return [split_of[dish_id] for dish_id in dish_ids]


def _divide(dishes: Sequence[str], rows: dict[str, int]) -> dict[str, str]:
    """Fill test, then validation up to their shares; of few dishes, train is served first, then test."""
    total = sum(rows.values())
    split_of = dict.fromkeys(dishes, "train")
    position = 0
    # Dishes that must be left over: with three or more, one each for validation and train; with two, one for train.
    for split, kept_for_others in (("test", min(2, max(1, len(dishes) - 1))), ("validation", 1)):
        filled = 0
        while len(dishes) - position > kept_for_others and filled < SHARES[split] * total:
            split_of[dishes[position]] = split
            filled += rows[dishes[position]]
            position += 1
    return split_of
