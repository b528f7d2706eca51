"""The command `flavour-sd label`: labels a table and reports how reliable the labels are."""

import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dataset_builder.catalogue.ingredients import catalogue_dishes, reference_flavours
from dataset_builder.columns import FLAVOURS
from dataset_builder.engines.choice import LOCAL, engine_named
from dataset_builder.engines.work import Engine
from dataset_builder.errors import BadInputError
from dataset_builder.files import sole_writer
from dataset_builder.labelling.calibration import Reliability, picture_kinds, plot_reliability, reliability
from dataset_builder.labelling.choice import AnyLabeller, make_labeller, rule_settings
from dataset_builder.labelling.languages import LEAST_KNOWN_OF_TABLE, phrases_without_blanks
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.labelling.reference import (
    Judged,
    Reference,
    agreement,
    agreement_text,
    by_half,
    disagreement_text,
    distance,
    judge,
    read_reference,
)
from dataset_builder.labelling.rule import LABEL_SOURCES, Label, LabelScores, score_labels
from dataset_builder.labelling.soft_labels import FEWEST_CALIBRATING, SoftLabels, fit_soft_labels
from dataset_builder.labelling.tables import LabelSummary, fit_label_model, label_table, read_with_bar
from dataset_builder.progress import Progress, progress
from dataset_builder.recipes.recipes import RawRecipe, RecipeTable, Skipped, read_recipes

CATALOGUE = "catalogue"
FOREIGN = "in another language than the lexicon"
RULE_OPTIONS = ("rule", "min_lead", "match", "min_ingredient_votes", "min_title_votes", "on_conflict")
_SHOWN = 20
NOT_CALIBRATED = (
    f"soft labels are not calibrated: the lexicon has phrases for fewer than {FEWEST_CALIBRATING} dishes of the "
    "catalogue, whose reference flavours would calibrate them"
)


def label_recipes(
    source: str,
    labeller: AnyLabeller,
    out: str | Path,
    columns: Mapping[str, str] | None = None,
    engine: Engine | None = None,
    encoding: str | None = None,
    keep_equal_titles: bool = False,
) -> tuple[LabelSummary, SoftLabels]:
    """Label a recipe table, or the embedded catalogue, into a Parquet file, with a progress bar.

    The label model is fitted on the recipes themselves; the reference flavours of the catalogue set its temperature.

    Raises:
        BadInputError: a table that cannot be used (see `recipes.read_recipes`).
    """
    if source == CATALOGUE:
        named = [
            RawRecipe(dish.dish_id, dish.title, dish.ingredients, dish.instructions, dish.image_path, dish.variant)
            for dish in catalogue_dishes()
        ]
        model = fit_label_model(named, labeller).calibrated(*catalogue_labels(labeller))
        return label_table(progress(named, "labelling", "recipes"), labeller, out, model, engine), model
    table = read_recipes(source, columns, encoding, keep_equal_titles)
    model = fit_label_model(table.stream(), labeller).calibrated(*catalogue_labels(labeller))
    scaled = table.table.unit == "B"
    with Progress("labelling", table.table.size, "B" if scaled else "recipes", scaled=scaled) as bar:
        summary = label_table(read_with_bar(table, bar), labeller, out, model, engine)
    summary.skipped = table.skipped
    summary.notes = table.table.notes
    return summary, model


def catalogue_labels(labeller: AnyLabeller) -> tuple[list[Label], list[str]]:
    """Return the labels of the catalogue's named dishes and their reference flavours."""
    reference = reference_flavours()
    dishes = catalogue_dishes()
    labels = [labeller.label(dish.title, dish.ingredients) for dish in dishes]
    return labels, [reference[dish.dish_id][0] for dish in dishes]


def cross_checked_reliability(
    labels: Sequence[Label], reference: Sequence[str], rule: str = "weighed"
) -> dict[str, Reliability]:
    """Return the reliability of soft labels as estimated and calibrated.

    Each half of the dishes is scored with the temperature fitted on the other half. Dishes without any vote are
    included; their scores are the prior.
    """
    model = fit_soft_labels(labels, rule)
    halves = [range(half, len(labels), 2) for half in (0, 1)]
    scores = np.zeros((len(labels), len(FLAVOURS)))
    # Even and odd dishes in turn calibrate and are scored, so that no dish is scored with its own temperature.
    for fitted, scored in (halves, halves[::-1]):
        calibrated = model.calibrated([labels[place] for place in fitted], [reference[place] for place in fitted])
        scores[scored] = calibrated.scores([labels[place] for place in scored])
    return {"as estimated": reliability(model.scores(labels), reference), "calibrated": reliability(scores, reference)}


def summary_text(summary: LabelSummary) -> str:
    """Return the summary table of a labelled recipe table."""
    labelled = sum(summary.flavours.values())
    conflicts = sum(summary.sources[source] for source in LABEL_SOURCES if source.startswith("conflict"))
    lines = [
        f"recipes                 {summary.recipes:>9,}",
        f"labelled                {labelled:>9,}   coverage {_defined(summary.coverage, '.1%')}",
        *(f"  {flavour:<21} {count:>9,}   {count / max(labelled, 1):.1%}" for flavour in FLAVOURS
          for count in [summary.flavours[flavour]]),
        "decided by",
        *(f"  {source:<21} {summary.sources[source]:>9,}" for source in LABEL_SOURCES),
        f"both methods vote       {summary.both:>9,}   agreement {_defined(summary.agreement, '.1%')}, "
        f"Cohen's kappa {_defined(summary.kappa, '.3f')}",
        f"conflicts               {conflicts:>9,}",
        _skipped_line("without label", summary.unlabelled),
        *([_skipped_line(FOREIGN, summary.foreign)] if summary.foreign.count else []),
        *(_skipped_line(f"row {reason}", skipped) for reason, skipped in summary.skipped.items()),
    ]  # fmt: skip
    return "\n".join(lines)


def language_notes(lexicon: Lexicon, summary: LabelSummary) -> list[str]:
    """Return what there is to say about the languages of a lexicon and a table."""
    notes = []
    if count := phrases_without_blanks(lexicon):
        notes.append(
            f"{count} phrases of the lexicon are in scripts that write no blanks between words; they are found inside "
            "longer runs of letters"
        )
    known, words = summary.known_words
    if words and known < LEAST_KNOWN_OF_TABLE * words:
        notes.append(
            f"the table is not in the language of the lexicon: of the words of its ingredients {known / words:.0%} are "
            "known; give a lexicon of its language with --lexicon"
        )
    return notes


def _defined(value: float, form: str) -> str:
    return "not defined" if math.isnan(value) else format(value, form)


def _skipped_line(reason: str, skipped: Skipped) -> str:
    names = ", ".join(skipped.names)
    more = ", ..." if skipped.count > len(skipped.names) else ""
    return f"{reason:<23} {skipped.count:>9,}" + (f"   {names}{more}" if names else "")


def scores_text(scores: LabelScores) -> str:
    """Return coverage, accuracy, macro-F1 and the confusion table of labels against reference flavours."""
    columns = (*FLAVOURS, "no label")
    lines = [
        f"against the reference flavours of {scores.rows:,} dishes (the authors' own judgement)",
        f"coverage {scores.coverage:.1%}, accuracy of the labelled {_defined(scores.accuracy, '.1%')}, "
        f"macro-F1 {scores.macro_f1:.3f} (no label counts as a miss)",
        "  ".join(["reference".ljust(9), *(name.rjust(8) for name in columns), "F1".rjust(6)]),
        *(
            "  ".join([flavour.ljust(9), *(f"{count:8,}" for count in row), f"{scores.f1[flavour]:6.3f}"])
            for flavour, row in zip(FLAVOURS, scores.confusion.tolist(), strict=True)
        ),
    ]
    return "\n".join(lines)


def catalogue_report(labeller: AnyLabeller, plot: str | Path | None = None) -> str:
    """Return the scores of rule and soft labels on the catalogue; with `plot`, draw the reliability diagram too."""
    labels, reference = catalogue_labels(labeller)
    figures = cross_checked_reliability(labels, reference, labeller.rule)
    if plot is not None:
        plot_reliability(figures, plot)
    errors = ", ".join(f"{name} {entry.error:.3f}" for name, entry in figures.items())
    text = scores_text(score_labels([label.flavour for label in labels], reference))
    return f"{text}\nsoft labels, expected calibration error: {errors}"


def reference_report(
    table: RecipeTable | None,
    references: Sequence[Reference],
    labeller: AnyLabeller,
    model: SoftLabels,
) -> str:
    """Return how well rule and soft labels agree with labels that people gave, on a table and on the catalogue.

    The table, None for the catalogue alone, is read once more; the catalogue's own references are always scored.

    Raises:
        BadInputError: the table has no dish of the reference.
    """
    labels, truth = catalogue_labels(labeller)
    found = agreement([label.flavour for label in labels], truth)
    own = agreement_text("catalogue, authors' reference flavours", found)
    if table is None:
        return f"{own}\nthe reference labels of real dishes need the table of these dishes; give it as RECIPES"
    judged = judge(table.stream(), references, labeller, model)
    if not judged:
        titles = ", ".join(repr(one.title) for one in references[:3])
        raise BadInputError(
            f"{table.table.name} has none of the {len(references)} dishes of the reference (such as {titles}); give "
            "their table, or --reference FILE with labels of its dishes"
        )
    lines = [f"reference labels: {len(judged):,} of {len(references):,} dishes are in the table"]
    for half, of_half in by_half(judged).items():
        truth_of_half = [one.reference.flavour for one in of_half]
        if any(truth_of_half):
            found = agreement([one.label.flavour for one in of_half], truth_of_half)
            lines.append(agreement_text(f"{half} half" if half else "all", found))
    return "\n".join([*lines, own, *_disagreements(judged)])


def _disagreements(judged: Sequence[Judged]) -> list[str]:
    """Return the rows on which label, soft label and reference are furthest apart, as lines under a heading."""
    apart = [(distance(one.label.flavour, one.soft, one.reference.flavour), one) for one in judged]
    apart = sorted((one for one in apart if one[0] > 0), key=lambda one: -one[0])
    if not apart:
        return ["label, soft label and reference name the same flavour in every row"]
    return [
        f"label, soft label and reference differ in {len(apart):,} rows, most in:",
        *(
            f"  {disagreement_text(one.title, one.label.flavour, one.soft, one.reference.flavour)}"
            + (f" ({one.reference.reason})" if one.reference.reason else "")
            for _, one in apart[:_SHOWN]
        ),
    ]


def parse_columns(pairs: Sequence[str]) -> dict[str, str]:
    """Return a mapping from part of a recipe to column from the `PART=NAME` pairs of `--columns`."""
    columns = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(columns) != len(pairs):
        raise BadInputError(f"--columns {' '.join(pairs)}: write each as PART=NAME, such as title=Gericht")
    return columns


def _check_files(arguments: Namespace) -> None:
    """Refuse, before any work, files that could not be written or would overwrite what is read.

    Raises:
        BadInputError: `--out` or `--reliability` is an input or the other one, lies in the folder that is read, or the
            diagram has the ending of no picture format.
    """
    read = {"the recipe table": Path(arguments.recipes).resolve()}
    if arguments.lexicon:
        read["the lexicon"] = Path(arguments.lexicon).resolve()
    for option, path in (("--out", arguments.out), ("--reliability", arguments.reliability)):
        if path is None:
            continue
        place = Path(path).resolve()
        for name, taken in read.items():
            if place == taken:
                raise BadInputError(f"{option} {path} is {name} itself; give another name")
        if Path(arguments.recipes).is_dir() and place.is_relative_to(read["the recipe table"]):
            raise BadInputError(f"{option} {path} lies in the folder that is read; give a place outside it")
        # The diagram, which is checked next, must not overwrite the labels either.
        read["the file of the labels"] = place
    if arguments.reliability:
        kinds = picture_kinds()
        if Path(arguments.reliability).suffix.lower().removeprefix(".") not in kinds:
            raise BadInputError(
                f"--reliability {arguments.reliability} has the ending of no picture; give one of {', '.join(kinds)}"
            )
        if not Path(arguments.reliability).resolve().parent.is_dir():
            raise BadInputError(f"--reliability {arguments.reliability}: there is no such folder; make it first")


def run_label(arguments: Namespace) -> str:
    """Carry out `flavour-sd label` and return what it prints.

    Raises:
        BadInputError: settings, lexicon or table that cannot be used.
    """
    columns = parse_columns(arguments.columns)
    chosen = engine_named(arguments.engine, arguments.address, arguments.processes)
    # A small table is labelled at once; where workers are asked for they are used.
    engine = None if arguments.engine == LOCAL and arguments.processes is None else chosen
    settings = rule_settings(**{name: getattr(arguments, name) for name in RULE_OPTIONS})
    _check_files(arguments)
    labeller = make_labeller(Lexicon.load(arguments.lexicon), **settings)
    references = None if arguments.reference is None else read_reference(arguments.reference or None)
    with sole_writer(Path(arguments.out)):
        summary, model = label_recipes(
            arguments.recipes,
            labeller,
            arguments.out,
            columns,
            engine,
            arguments.encoding,
            arguments.keep_equal_titles,
        )
    parts = [*summary.notes, *language_notes(labeller.lexicon, summary), summary_text(summary)]
    if model.temperature == 1:
        parts.append(NOT_CALIBRATED)
    if arguments.recipes == CATALOGUE or arguments.reliability:
        parts.append(catalogue_report(labeller, arguments.reliability))
    if references is not None:
        table = None
        if arguments.recipes != CATALOGUE:
            table = read_recipes(arguments.recipes, columns, arguments.encoding, arguments.keep_equal_titles)
        parts.append(reference_report(table, references, labeller, model))
    return "\n\n".join([*parts, f"written to {arguments.out}"])
