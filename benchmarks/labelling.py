"""Recipes labelled per second, against the plain nested loop over phrases; and memory over a million recipes.

The nested loop looks for every phrase of the lexicon in every ingredient line, one phrase after the other, with the
same folding of words, the same rule for overlaps and denials, and equal labels: this is checked. Recipes are widened
from the catalogue with quantities, so that ingredient lines repeat as they do in real tables; "all lines distinct"
makes every line unlike all others, which no cache can help. The rule that weighs
evidence is measured against the one that counts. Rates are per second of processor time, one process.

    python benchmarks/labelling.py                       # the ratios
    python benchmarks/labelling.py --scale 1000000       # time and memory of flavour-sd label on a table of that size
"""

import contextlib
import csv
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from measuring import Row, arguments_of, report

from dataset_builder.catalogue.ingredients import catalogue_dishes
from dataset_builder.catalogue.matching import PhraseMatcher, phrase_key
from dataset_builder.labelling.choice import AnyLabeller
from dataset_builder.labelling.lexicon import INGREDIENT, TITLE, Lexicon
from dataset_builder.labelling.rule import MAIN_INGREDIENTS, Labeller
from dataset_builder.labelling.weighing import WeighedLabeller

REQUIRED = 20
REQUIRED_OF_WEIGHING = 2 / 3
QUANTITIES = ("", "1 ", "2 ", "3 ", "1/2 ", "200g ", "100 ml ", "1 cup ", "2 tbsp ", "1 tsp ", "a handful of ")
PREPARATIONS = ("", "", "", ", chopped", ", finely sliced", " (optional)", ", to taste", ", no added salt")


def make_recipes(number: int, distinct: bool, seed: int = 0) -> list[tuple[str, list[str]]]:
    generator = random.Random(seed)
    dishes = catalogue_dishes()
    recipes = []
    for place in range(number):
        dish = dishes[place % len(dishes)]
        lines = [
            generator.choice(QUANTITIES)
            + name
            + generator.choice(PREPARATIONS)
            + (f" no {generator.randrange(10**9)}x" if distinct else "")
            for name in dish.ingredients
        ]
        recipes.append((f"{dish.title} {place}", lines))
    return recipes


class NestedLoop:
    """The plain way: for each recipe, each line, each phrase."""

    def __init__(self, labeller: Labeller, lexicon: Lexicon, match: str):
        self.labeller, self.match = labeller, match
        self.phrases = {
            source: [(place, entry, phrase_key(entry.phrase)) for place, entry in enumerate(lexicon.of_source(source))]
            for source in (INGREDIENT, TITLE)
        }
        self.single = {
            source: [PhraseMatcher([entry.phrase]) for _, entry, _ in entries]
            for source, entries in self.phrases.items()
        }

    def find(self, source: str, text: str) -> frozenset[int]:
        if self.match == "substring":
            lowered = text.lower()
            return frozenset(place for place, entry, _ in self.phrases[source] if entry.phrase in lowered)
        keys = phrase_key(text)
        spans = []
        for place, _, key in self.phrases[source]:
            for start in range(len(keys) - len(key) + 1):
                if keys[start : start + len(key)] == key:
                    spans.append((start, -len(key), place))
        found, reached = set(), 0
        for start, length, place in sorted(spans):
            if start < reached:
                continue
            reached = start - length
            # A phrase counts unless every place where the text has it denies it.
            if self.phrases[source][place][1].weight and any(
                not m.negated for m in self.single[source][place].find(text)
            ):
                found.add(place)
        return frozenset(found)

    def label(self, title: str, lines: list[str]):
        found = [self.find(INGREDIENT, line) for line in lines]
        return self.labeller._decide_uncached(
            frozenset().union(*found), frozenset().union(*found[:MAIN_INGREDIENTS]), self.find(TITLE, title)
        )


def measure_ratio(match: str, number: int, distinct: bool, rounds: int) -> Row:
    """Measure one way of matching; every round begins with empty caches."""
    lexicon = Lexicon.load()
    recipes = make_recipes(number, distinct)
    few = recipes[: max(1, number // (100 if match == "word" else 20))]
    slow, fast = [], []
    for _ in range(rounds):
        nested = NestedLoop(Labeller(lexicon, match), lexicon, match)
        start = time.process_time()
        expected = [nested.label(*recipe) for recipe in few]
        slow.append(len(few) / (time.process_time() - start))
        labeller = Labeller(lexicon, match)
        start = time.process_time()
        labels = [labeller.label(*recipe) for recipe in recipes]
        fast.append(len(recipes) / (time.process_time() - start))
        if labels[: len(few)] != expected:
            raise SystemExit("the nested loop gives other labels; the ratio means nothing")
    lines = "all lines distinct" if distinct else "lines as in tables"
    return Row(
        f"labels by {match}, {lines}: {statistics.median(fast):,.0f} recipes/s",
        f"nested loop over phrases: {statistics.median(slow):,.0f} recipes/s",
        [quick / plain for quick, plain in zip(fast, slow, strict=True)],
        REQUIRED,
    )


def measure_scale(number: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        table, out = Path(folder) / "recipes.csv", Path(folder) / "labels.parquet"
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Title", "Cleaned_Ingredients", "Instructions"])
            for start in range(0, number, 10_000):
                for place, (title, lines) in enumerate(make_recipes(min(10_000, number - start), False, start)):
                    writer.writerow([f"{title} {start + place}", str(lines), "Cook it gently. " * 20])
        size = table.stat().st_size
        start_time = time.perf_counter()
        command = [sys.executable, "-m", "dataset_builder.cli", "label", str(table), "--processes", "2"]
        command += ["--out", str(out)]
        peak = 0
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                time.sleep(0.2)
                with contextlib.suppress(psutil.NoSuchProcess):  # it, or one of its workers, has just ended
                    tree = (parent := psutil.Process(process.pid), *parent.children(recursive=True))
                    peak = max(peak, sum(one.memory_info().rss for one in tree))
        seconds = time.perf_counter() - start_time
        if process.returncode:
            raise SystemExit(process.returncode)
        print(
            f"{number:,} recipes ({size / 1e6:,.0f} MB of CSV) with 2 processes: {seconds:.0f} s, "
            f"{number / seconds:,.0f} recipes/s, peak memory of all processes {peak / 1e9:.2f} GB"
        )


def measure_weighing(number: int, distinct: bool, rounds: int) -> Row:
    """Measure the rule that weighs evidence against the one that counts votes, in turn and with empty caches."""
    lexicon = Lexicon.load()
    recipes = make_recipes(number, distinct)

    def rate(labeller: AnyLabeller) -> float:
        start = time.process_time()
        for recipe in recipes:
            labeller.label(*recipe)
        return len(recipes) / (time.process_time() - start)

    counted, weighed = zip(
        *((rate(Labeller(lexicon)), rate(WeighedLabeller(lexicon))) for _ in range(rounds)), strict=True
    )
    return Row(
        f"labels by weighing, {'all lines distinct' if distinct else 'lines as in tables'}: "
        f"{statistics.median(weighed):,.0f} recipes/s",
        f"labels by counted words: {statistics.median(counted):,.0f} recipes/s",
        [one / other for one, other in zip(weighed, counted, strict=True)],
        REQUIRED_OF_WEIGHING,
    )


def main() -> None:
    recipes = {"type": int, "default": 20_000, "help": "how many recipes the labeller is timed on"}
    scale = {"type": int, "metavar": "N", "help": "label a CSV table of N recipes and watch memory"}
    given = arguments_of(__doc__, 3, recipes=recipes, scale=scale)
    if given.scale:
        measure_scale(given.scale)
        return
    ways = [(match, distinct) for match in ("word", "substring") for distinct in (False, True)]
    rows = [measure_ratio(match, given.recipes, distinct, given.rounds) for match, distinct in ways]
    report([*rows, *(measure_weighing(given.recipes, distinct, given.rounds) for distinct in (False, True))], given)


if __name__ == "__main__":
    main()
