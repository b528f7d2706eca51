"""Command line `flavour-sd`: label, lint, build, review, view, audit, import, publish."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset_builder.errors import BadInputError, CommandParser, exit_on_bad_input
from dataset_builder.messages import echo
from dataset_builder.progress import quiet_libraries

PROGRAM = "flavour-sd"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; every verb sets `run`, a function from the parsed arguments to the exit status."""
    parser = CommandParser(prog=PROGRAM, description="Recipes to a labelled, illustrated, versioned data set.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_build(verbs)
    _add_label(verbs)
    _add_lint(verbs)
    _add_review(verbs)
    _add_view(verbs)
    _add_import(verbs)
    _add_audit(verbs)
    _add_publish(verbs)
    for verb in verbs.choices.values():
        verb.add_argument("--verbose", action="store_true", help="show messages and progress bars of libraries too")
    return parser


def _add_label(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("label", help="label recipes by the taste words in their ingredients and titles")
    verb.add_argument(
        "recipes",
        nargs="?",
        default="catalogue",
        metavar="RECIPES",
        help="CSV, TSV, JSON, Parquet or Excel file, folder, Hub id or ID:CONFIG (default: the embedded catalogue)",
    )
    _add_labelling(verb)
    verb.add_argument("--processes", type=int, metavar="N", help="default: one per core, one for a small table")
    _add_engine(verb)
    verb.add_argument(
        "--reliability", metavar="FILE.png", help="plot the reliability of the soft labels of the catalogue"
    )
    verb.add_argument(
        "--reference",
        nargs="?",
        const="",
        metavar="FILE.csv",
        help="score the labels against those that people gave (title,flavour; default: the embedded ones)",
    )
    verb.add_argument("--out", required=True, metavar="FILE", help="Parquet file, written when it is whole")
    verb.set_defaults(run=_run_label)


def _add_engine(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="processes of this machine (default), or Ray"
    )
    verb.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster; default: one on this machine")


def _add_labelling(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--columns", nargs="+", default=[], metavar="PART=NAME", help="as in title=Gericht")
    verb.add_argument("--encoding", metavar="NAME", help="of CSV and JSON (default: UTF-8, or a guess that is printed)")
    verb.add_argument(
        "--keep-equal-titles", action="store_true", help="rows whose title came before are variants of its dish"
    )
    verb.add_argument("--lexicon", metavar="FILE", help="CSV flavour,source,phrase (default: the embedded one)")
    rule = verb.add_argument_group("labelling rule")
    rule.add_argument(
        "--rule",
        choices=("weighed", "votes", "original"),
        help="weighed: amounts, head noun and names of dishes; votes: counted words; original: the first system's "
        "(default: weighed, or votes where one of its options is given)",
    )
    rule.add_argument(
        "--min-lead", type=float, metavar="X", help="weighed: no label where the lead is a smaller share (default: 0)"
    )
    rule.add_argument("--match", choices=("word", "substring"), help="votes (default: word)")
    rule.add_argument("--min-ingredient-votes", type=int, metavar="N", help="votes (default: 2)")
    rule.add_argument("--min-title-votes", type=int, metavar="N", help="votes (default: 1)")
    rule.add_argument("--on-conflict", choices=("ingredients", "title", "drop"), help="votes (default: ingredients)")


def _run_label(parsed: argparse.Namespace) -> int:
    from dataset_builder.labelling.report import run_label

    echo(run_label(parsed))
    return 0


def _add_lint(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("lint", help="find the phrases of a lexicon that would label wrongly")
    verb.add_argument("--lexicon", metavar="FILE", help="CSV flavour,source,phrase (default: the embedded one)")
    verb.add_argument(
        "--match",
        choices=("word", "substring"),
        help="the matching that the lexicon is meant for; substring, the default for a file, checks everything",
    )
    verb.set_defaults(run=_run_lint)


def _run_lint(parsed: argparse.Namespace) -> int:
    from dataset_builder.labelling.lint import run_lint

    return run_lint(parsed.lexicon, parsed.match)


def _add_build(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("build", help="label, split and illustrate recipes; safe to interrupt and repeat")
    verb.add_argument(
        "recipes", nargs="?", metavar="RECIPES", help="table, Hub id or ID:CONFIG; default: the embedded catalogue"
    )
    verb.add_argument("--out", required=True, metavar="DIR", help="folder of the result")
    verb.add_argument("--number", type=int, default=3600, help="recipes to widen the catalogue to (default 3600)")
    _add_labelling(verb)
    verb.add_argument(
        "--corrections",
        nargs="+",
        default=(),
        metavar="FILE",
        help="labels, titles, exclusions and notes that people filled into the table of `flavour-sd review`",
    )
    verb.add_argument("--images-per-dish", type=int, default=1, metavar="N", help="pictures of each recipe (default 1)")
    verb.add_argument("--seed", type=int, default=0, help="of variants, splits and pictures (default 0)")
    _add_drawing(verb)
    verb.add_argument("--processes", type=int, metavar="N", help="default: all cores for plating, 1 otherwise")
    _add_engine(verb)
    verb.add_argument(
        "--part", metavar="I/N", help="draw this part of the shards, for job arrays; any part may be repeated"
    )
    verb.add_argument("--finish", action="store_true", help="check that all parts are there, and write the manifest")
    replaced = "replace the build that is in DIR; it is removed when the new one has a shard"
    verb.add_argument("--fresh", action="store_true", help=replaced)
    verb.add_argument(
        "--verify", action="store_true", help="compare every byte of a finished build with its hashes, not sizes alone"
    )
    verb.add_argument("--only", metavar="ID", help="draw this row again, alone, and compare it with the build in DIR")
    verb.set_defaults(run=_run_build)


def _add_drawing(verb: argparse.ArgumentParser) -> None:
    """Add the options of `build` that say how its pictures come about."""
    pictures = verb.add_argument_group("pictures")
    pictures.add_argument(
        "--pictures",
        choices=("generated", "own", "both"),
        default="generated",
        help="drawn ones (default), the photographs that the table's image column names, or both",
    )
    _add_allow_outside(pictures)
    pictures.add_argument(
        "--pipeline",
        default="plating",
        metavar="NAME",
        help="plating, or Hub id, folder or single .safetensors file of a diffusers pipeline",
    )
    pictures.add_argument("--revision", help="branch, tag or commit of a Hub id")
    pictures.add_argument("--variant", metavar="NAME", help="of the pipeline's weights, such as fp16")
    pictures.add_argument(
        "--pipeline-config",
        metavar="NAME",
        help="folder or Hub id with the configuration of a single file; default: the usual one of its kind",
    )
    pictures.add_argument("--prompt", default="ingredients", help="template: ingredients (default), title or photo")
    pictures.add_argument("--negative-prompt", metavar="TEXT", help="what pictures should not show")
    pictures.add_argument("--steps", type=int, metavar="N", help="denoising steps; default: the pipeline's")
    pictures.add_argument("--guidance", type=float, metavar="X", help="guidance scale; default: the pipeline's")
    pictures.add_argument("--size", type=int, metavar="N", help="side in pixels; default: 128, or the pipeline's")
    pictures.add_argument("--dtype", default="float32", help="float32 (default), float16 or bfloat16")
    pictures.add_argument("--scheduler", metavar="CLASS", help="a diffusers scheduler in place of the pipeline's own")
    pictures.add_argument(
        "--lora",
        action="append",
        metavar="NAME[:SCALE]",
        help="LoRA weights: folder, file, Hub id or ID@REVISION, with their scale behind a colon; may be repeated",
    )
    pictures.add_argument("--masks", default="pipeline", help="pipeline (default: its own, if any) or attention")
    pictures.add_argument(
        "--clip", metavar="NAME", help="CLIP model (folder, Hub id or ID@REVISION) that finds off-prompt pictures"
    )
    pictures.add_argument("--attempts", type=int, default=4, metavar="N", help="draws before a row is given up")
    pictures.add_argument(
        "--batch-size",
        type=int,
        default=8,
        metavar="N",
        help="pictures per call (default 8), fewer where memory is short",
    )


def _run_build(parsed: argparse.Namespace) -> int:
    from dataset_builder.building.build import build, draw_one, summary
    from dataset_builder.building.settings import BuildSettings
    from dataset_builder.labelling.report import RULE_OPTIONS, parse_columns
    from dataset_builder.pictures.settings import GenerationSettings
    from dataset_builder.storage.places import place

    given = vars(parsed)
    # Names of options that are passed on under the same name.
    drawing = (
        "pipeline revision negative_prompt steps guidance size dtype scheduler lora masks clip attempts batch_size "
        "variant pipeline_config"
    )
    generation = GenerationSettings(template=parsed.prompt, **{name: given[name] for name in drawing.split()})
    content = "recipes number lexicon images_per_dish seed encoding keep_equal_titles pictures allow_outside"
    rule = {name: given[name] for name in RULE_OPTIONS}
    settings = BuildSettings(
        columns=parse_columns(parsed.columns),
        corrections=tuple(parsed.corrections),
        **{name: given[name] for name in content.split()},
        generation=generation,
        **rule,
    )
    out = place(parsed.out)
    if parsed.only is not None:
        path, comparison = draw_one(settings, out, parsed.only)
        echo(f"{parsed.only} drawn again: {path}; {comparison or 'no build to compare it with'}")
        return 1 if comparison not in (None, "equal") else 0
    how = {name: given[name] for name in ("engine", "address", "part", "finish")}
    manifest = build(settings, out, parsed.processes, parsed.fresh, parsed.verify, **how)
    if not manifest:
        echo(f"part {parsed.part} is in {out}; when all parts are there, repeat the command with --finish for --part")
    elif int(os.environ.get("RANK", "0")) == 0:  # only the main process of a launcher prints
        echo(summary(manifest, out))
    return 0


def _add_review(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("review", help="list the rows most worth a person's look, for `build --corrections`")
    verb.add_argument("folder", metavar="DIR", help="folder given to `flavour-sd build --out`")
    verb.add_argument("--out", metavar="DIR", help="folder for review.csv and the pictures; default: DIR/review")
    verb.add_argument("--rows", type=int, default=200, metavar="N", help="at most so many (default 200)")
    verb.set_defaults(run=_run_review)


def _run_review(parsed: argparse.Namespace) -> int:
    from dataset_builder.publishing.review import review

    echo(review(parsed.folder, parsed.out, parsed.rows))
    return 0


def _add_view(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("view", help="write one self-contained page about a build or an import")
    verb.add_argument("folder", metavar="DIR", help="folder of a finished build, or the result of an import")
    verb.add_argument("--out", default="report.html", metavar="FILE", help="HTML file (default report.html)")
    verb.set_defaults(run=_run_view)


def _run_view(parsed: argparse.Namespace) -> int:
    from dataset_builder.publishing.view import view

    echo(view(parsed.folder, parsed.out))
    return 0


def _add_import(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("import", help="read another system's data into the columns of the one table")
    verb.add_argument("name", choices=("comp5329", "flickr8k", "coco", "foodseg103", "upmc-food101"))
    verb.add_argument("source", metavar="SRC", help="folder in the layout of that set; for foodseg103 also a Hub id")
    verb.add_argument("--out", required=True, metavar="DIR", help="new folder for the Parquet files")
    verb.add_argument(
        "--reference", action="store_true", help="refer to the pictures by path instead of embedding them"
    )
    verb.add_argument("--strict", action="store_true", help="a missing or broken picture is an error")
    _add_allow_outside(verb)
    verb.set_defaults(run=_run_import)


def _add_allow_outside(verb: argparse._ActionsContainer) -> None:
    verb.add_argument(
        "--allow-outside",
        action="store_true",
        help="open pictures outside their folder too, which names such as ../x.jpg and links lead to",
    )


def _run_import(parsed: argparse.Namespace) -> int:
    from dataset_builder.importers import import_table

    summary = import_table(
        parsed.name,
        parsed.source,
        parsed.out,
        embed=not parsed.reference,
        strict=parsed.strict,
        allow_outside=parsed.allow_outside,
    )
    echo(str(summary))
    return 0


def _add_audit(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser(
        "audit", help="score the labelling rule alone, find what crosses splits and faulty pictures"
    )
    verb.add_argument("dataset", metavar="DATASET", help="folder or Hub id")
    verb.add_argument("--out", metavar="DIR", help="folder for AUDIT.md and audit.json; default: DATASET, or here")
    verb.add_argument("--processes", type=int, metavar="N", help="that read files and compare pictures; default: 1")
    _add_engine(verb)
    verb.set_defaults(run=_run_audit)


def _run_audit(parsed: argparse.Namespace) -> int:
    from dataset_builder.engines.choice import LOCAL, engine_named
    from dataset_builder.files import sole_writer
    from dataset_builder.publishing.audit import AUDIT_MARKDOWN, audit
    from dataset_builder.storage.places import is_url, place

    engine = engine_named(parsed.engine, parsed.address, parsed.processes)
    own = is_url(parsed.dataset) or Path(parsed.dataset).is_dir()
    folder = place(parsed.out or (parsed.dataset if own else "."))
    with sole_writer(folder / AUDIT_MARKDOWN):
        # By default threads of this process decode the pictures.
        audited = audit(parsed.dataset, None if parsed.engine == LOCAL and parsed.processes is None else engine)
        audited.write(folder)
    echo("\n".join(f"- {line}" for line in audited.lines))
    echo(f"the whole audit is in {folder / AUDIT_MARKDOWN}")
    return 0


def _add_publish(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser(
        "publish", help="publish a finished build as one version, with its card and one tag; or a Space with the app"
    )
    verb.add_argument("folder", nargs="?", metavar="DIR", help="folder given to `flavour-sd build --out`")
    verb.add_argument("--repo", help="namespace/name on the Hub")
    verb.add_argument("--version", help="three numbers, such as 1.0.0; the tag is v1.0.0")
    verb.add_argument("--license", help="identifier such as cc-by-4.0; nothing is assumed")
    space = verb.add_argument_group("a Space, in place of a data set")
    space.add_argument("--space", metavar="ORG/NAME", help="publish the app as this Space")
    space.add_argument("--model", nargs="+", default=[], metavar="ID[@REV]", help="published models that it shows")
    space.add_argument("--dataset", metavar="ID[@REV]", help="published data set that it shows")
    verb.add_argument("--dry-run", metavar="DIR", help="write the exact folder there instead of publishing it")
    verb.add_argument("--private", action="store_true", help="create the repository for its owners only")
    verb.set_defaults(run=_run_publish)


def _run_publish(parsed: argparse.Namespace) -> int:
    of_data = {"DIR": parsed.folder, **{f"--{name}": getattr(parsed, name) for name in ("repo", "version", "license")}}
    of_space = {"--model": parsed.model, "--dataset": parsed.dataset}
    if parsed.space is not None:
        _refuse_others(of_data, "a Space is published by a command of its own; leave {} out")
        from dataset_builder.publishing.space import publish_space

        echo(publish_space(parsed.space, parsed.model, parsed.dataset, parsed.dry_run, parsed.private))
        return 0
    _refuse_others(of_space, "{} is for a Space; give --space too, or leave it out")
    missing = [name for name, value in of_data.items() if value is None]
    if missing:
        raise BadInputError(f"publish needs {', '.join(missing)}; for a Space give --space")
    from dataset_builder.publishing.publish import publish

    echo(publish(parsed.folder, parsed.repo, parsed.version, parsed.license, parsed.dry_run, parsed.private))
    return 0


def _refuse_others(options: dict[str, Any], refusal: str) -> None:
    given = [name for name, value in options.items() if value]
    if given:
        raise BadInputError(refusal.format(", ".join(given)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one verb; bad input ends with one line on stderr and status 2."""
    parsed = build_parser().parse_args(arguments)
    if not parsed.verbose:
        quiet_libraries()
    with exit_on_bad_input(f"{PROGRAM} {parsed.verb}"):
        sys.exit(parsed.run(parsed))


if __name__ == "__main__":
    main()
