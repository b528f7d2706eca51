"""Label whole tables: any number of recipes in bounded memory, on several processes, with a summary."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Value

from dataset_builder import columns
from dataset_builder.engines.local import LocalEngine
from dataset_builder.engines.work import Engine, Report
from dataset_builder.errors import BadInputError
from dataset_builder.files import write_whole
from dataset_builder.labelling.choice import AnyLabeller, make_labeller
from dataset_builder.labelling.languages import vocabulary_of
from dataset_builder.labelling.rule import Label
from dataset_builder.labelling.soft_labels import SoftLabels, fit_soft_labels
from dataset_builder.progress import Progress
from dataset_builder.recipes.ingredient_lists import parse_ingredients
from dataset_builder.recipes.recipes import RawRecipe, RecipeTable, Skipped
from dataset_builder.schema import label_features, recipe_features

Recipe = TypeVar("Recipe")
Result = TypeVar("Result")

# The label model is fitted on this many recipes from the start of a table, not on millions.
FIT_RECIPES = 20_000

_CHUNK = 2048
_SMALL = 4 * _CHUNK  # below this, starting processes costs more than they save


@dataclass
class LabelSummary:
    """Counts over a labelled table.

    Attributes:
        recipes: rows that had a title and ingredients.
        sources: recipes per rule that decided (`rule.LABEL_SOURCES`).
        flavours: labelled recipes per flavour.
        pairs: recipes per (flavour by ingredients, flavour by title), None for a method that named none.
        unlabelled: the recipes that got no label and are not in the output.
        skipped: rows of the table that are no recipes, by reason.
        notes: what the reader of the table had to guess.
        foreign: the recipes in another language than the lexicon, which are not labelled by its chance words.
        known_words: words of the ingredients that lexicon or catalogue know, and all words.
    """

    recipes: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    flavours: Counter[str] = field(default_factory=Counter)
    pairs: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    unlabelled: Skipped = field(default_factory=Skipped)
    skipped: dict[str, Skipped] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    foreign: Skipped = field(default_factory=Skipped)
    known_words: tuple[int, int] = (0, 0)

    def add(self, title: str, label: Label) -> None:
        """Count one recipe."""
        self.recipes += 1
        self.sources[label.source] += 1
        self.pairs[label.by_ingredients, label.by_title] += 1
        if label.flavour is None:
            self.unlabelled.add(title)
        else:
            self.flavours[label.flavour] += 1

    def merge(self, other: "LabelSummary") -> None:
        """Count all recipes of another summary."""
        self.recipes += other.recipes
        self.sources += other.sources
        self.flavours += other.flavours
        self.pairs += other.pairs
        self.unlabelled.merge(other.unlabelled)
        self.foreign.merge(other.foreign)
        self.known_words = (
            self.known_words[0] + other.known_words[0],
            self.known_words[1] + other.known_words[1],
        )

    @property
    def coverage(self) -> float:
        """Share of the recipes that got a label."""
        return sum(self.flavours.values()) / self.recipes if self.recipes else float("nan")

    @property
    def both(self) -> int:
        """Recipes for which both methods name a flavour."""
        return sum(count for pair, count in self.pairs.items() if None not in pair)

    @property
    def agreement(self) -> float:
        """Share of the recipes in `both` for which the methods name the same flavour; nan when there are none."""
        same = sum(count for (one, other), count in self.pairs.items() if one is not None and one == other)
        return same / self.both if self.both else float("nan")

    @property
    def kappa(self) -> float:
        """Agreement beyond chance over the recipes for which both methods name one; nan where it is not defined.

        Source: Cohen, "A coefficient of agreement for nominal scales" (1960), equation 1.
        """
        by_ingredients: Counter[str] = Counter()
        by_title: Counter[str] = Counter()
        for (one, other), count in self.pairs.items():
            if one is not None and other is not None:
                by_ingredients[one] += count
                by_title[other] += count
        if not self.both:
            return float("nan")
        # Probability that two methods with these shares agree by chance.
        chance = sum(by_ingredients[flavour] * by_title[flavour] for flavour in columns.FLAVOURS) / self.both**2
        return (self.agreement - chance) / (1 - chance) if chance < 1 else float("nan")


def label_table(
    recipes: Iterable[RawRecipe],
    labeller: AnyLabeller,
    out: str | Path,
    label_model: SoftLabels | None = None,
    engine: Engine | None = None,
) -> LabelSummary:
    """Label recipes and write those with a label to a Parquet file, which appears only when it is whole.

    Args:
        recipes: read once, in order; memory does not grow with their number.
        labeller: the rule.
        out: Parquet file with the recipe columns and the label columns of the one table.
        label_model: gives `taste`; None for the smoothed shares of the votes.
        engine: runs the labelling, see `map_chunks`.

    Raises:
        BadInputError: `out` is a folder or a device.
        OSError: `out` cannot be written.
    """
    out = Path(out)
    if out.exists() and not out.is_file():
        raise BadInputError(f"{out} is no file that could be replaced; give --out the name of a Parquet file")
    features = Features({columns.DISH_ID: Value("string"), **recipe_features(), **label_features()})
    work = partial(_label_chunk, schema=features.arrow_schema, label_model=label_model)
    summary = LabelSummary()

    def write(path: Path) -> None:
        # As a stream: Arrow would take a name such as a:b for an address.
        with path.open("wb") as stream, pq.ParquetWriter(stream, features.arrow_schema) as writer:
            for batch, counted in map_chunks(work, recipes, labeller, engine):
                writer.write_batch(batch)
                summary.merge(counted)

    write_whole(out, write)
    return summary


def fit_label_model(recipes: Iterable[RawRecipe], labeller: AnyLabeller) -> SoftLabels:
    """Fit the label model of a rule on the first recipes of a table, at most `FIT_RECIPES`."""
    first = islice(recipes, FIT_RECIPES)
    labels = [labeller.label(one.title, parse_ingredients(one.ingredients)) for one in first]
    return fit_soft_labels(labels, labeller.rule)


def read_with_bar(table: RecipeTable, bar: Progress) -> Iterator[RawRecipe]:
    """Yield the recipes of a table while the bar follows the place in the file."""
    for recipe in table.stream():
        bar.update(table.table.position - bar.done)
        yield recipe
    bar.update(table.table.position - bar.done)


class _Chunks:
    """Work on chunks of recipes, see `engines.work.Work`: every worker makes the labeller anew."""

    uses_gpu = forks = False

    def __init__(self, work: Callable[[list[Any], AnyLabeller], Any], settings: dict[str, Any]):
        self._work, self._settings = work, settings

    def start(self, number: int, workers: int) -> Callable[[list[Any], Report], Any]:
        labeller = make_labeller(**self._settings)
        return lambda chunk, report: self._work(chunk, labeller)


def map_chunks(
    work: Callable[[list[Recipe], AnyLabeller], Result],
    recipes: Iterable[Recipe],
    labeller: AnyLabeller,
    engine: Engine | None = None,
) -> Iterator[Result]:
    """Yield what `work(chunk, labeller)` returns for chunks of recipes, in order; only a few are ever in memory.

    Args:
        work: can be pickled.
        recipes: read once.
        labeller: the rule.
        engine: runs it; None for this process where there are few recipes, and one per core otherwise.
    """
    stream = iter(recipes)
    if engine is None:
        # Only the start of the stream is read to see whether the table is small.
        head = list(islice(stream, _SMALL))
        stream = chain(head, stream)
        engine = None if len(head) < _SMALL else LocalEngine()
    chunks = iter(lambda: list(islice(stream, _CHUNK)), [])
    if engine is None:
        for chunk in chunks:
            yield work(chunk, labeller)
    else:
        yield from engine.run(_Chunks(work, labeller.settings), chunks)


def _fits(labeller: AnyLabeller, ingredients: tuple[str, ...], summary: LabelSummary) -> bool:
    """Return whether a recipe is in the language of the lexicon, and count its words."""
    if labeller.settings.get("match") == "substring":  # the rule of the first system labels whatever it meets
        return True
    vocabulary = vocabulary_of(labeller.lexicon)
    if not vocabulary.is_checked:
        return True
    known, words = vocabulary.count(ingredients)
    summary.known_words = (summary.known_words[0] + known, summary.known_words[1] + words)
    return vocabulary.fits(known, words)


def _label_chunk(
    chunk: list[RawRecipe], labeller: AnyLabeller, schema: pa.Schema, label_model: SoftLabels | None
) -> tuple[pa.RecordBatch, LabelSummary]:
    summary = LabelSummary()
    rows = []
    labels = []
    for recipe in chunk:
        ingredients = parse_ingredients(recipe.ingredients)
        if not _fits(labeller, ingredients, summary):
            summary.recipes += 1
            summary.foreign.add(recipe.title)
            continue
        label = labeller.label(recipe.title, ingredients)
        summary.add(recipe.title, label)
        if label.flavour is not None:
            rows.append((recipe, ingredients))
            labels.append(label)
    # Columns are built whole: a list of rows would take several times as long to convert.
    tastes = [label.taste for label in labels]
    if label_model is not None and labels:
        tastes = label_model.scores(labels).tolist()
    ids = {flavour: place for place, flavour in enumerate(columns.FLAVOURS)}
    cells = {
        columns.DISH_ID: [recipe.dish_id for recipe, _ in rows],
        columns.TITLE: [recipe.title for recipe, _ in rows],
        columns.INGREDIENTS: [ingredients for _, ingredients in rows],
        columns.INSTRUCTIONS: [recipe.instructions for recipe, _ in rows],
        columns.FLAVOUR: [ids[label.flavour] for label in labels if label.flavour],
        columns.FLAVOURS_PRESENT: [[ids[flavour] for flavour in label.flavours] for label in labels],
        columns.TASTE: tastes,
        columns.LABEL_SOURCE: [label.source for label in labels],
        columns.LABEL_VOTES: [label.votes for label in labels],
    }
    arrays = [pa.array(cells[name], type=schema.field(name).type) for name in schema.names]
    return pa.RecordBatch.from_arrays(arrays, schema=schema), summary
