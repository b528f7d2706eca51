"""Fills the cards of data sets and models from the files of a finished build or run.

No figure is typed by hand: a section appears only where its figures exist, and a card with a placeholder left in it is
refused.
"""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import nodes
from jinja2.sandbox import SandboxedEnvironment

from model_cards import runs
from model_cards.comparisons import comparison_of, with_compared
from model_cards.errors import CardError
from model_cards.runs import is_catalogue

Facts = ParamSpec("Facts")
TEMPLATES = Path(__file__).parent
# Placeholders that templates of cards leave for a person to fill in.
PLACEHOLDER = re.compile(
    r"(?i:\[More Information Needed\]|\[optional\])|<!--|(?<![\w./-])(?:TODO|TBD|(?i:todo|tbd)(?=:))(?![\w/-])"
)
EMPTY = re.compile(r"^#.*$|\[More Information Needed\](\([^)]*\))?", re.MULTILINE | re.IGNORECASE)
FIXED = ("license", "size_categories", "configs", "dataset_info")
LICENCE = "apache-2.0"
EXAMPLE_TITLE, EXAMPLE_TEXT = "Greek salad with olives", "Two dogs run along a beach"
# What a publisher's card may use of Jinja: it fills in facts. Loops run over facts alone and lie in no third loop, and
# nothing makes long texts, so a card from anywhere ends, and ends in about its own length.
ALLOWED = (
    nodes.Output, nodes.TemplateData, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Const, nodes.Filter, nodes.If,
    nodes.For, nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr, nodes.Slice,
    nodes.Keyword, nodes.Extends, nodes.Block, nodes.Call, nodes.Tuple, nodes.Div,
)  # fmt: skip
METHODS = ("items", "keys", "values", "super")
FILTERS = (
    "cell", "default", "first", "join", "last", "length", "list", "literal", "lower", "percent", "round", "sort",
    "thousands", "title", "trim", "upper",
)  # fmt: skip
DEEPEST_LOOP = 2
FRONT_MATTER = re.compile(r"\A\s*---\r?\n(?P<metadata>.*?)\r?\n---\r?\n?(?P<body>.*)\Z", re.DOTALL)


def read_template(name: str) -> str:
    """Return a template of this package."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def environment(escape: bool = False) -> jinja2.Environment:
    """Return the Jinja environment of the templates; a value that a template names and does not get is an error.

    Args:
        escape: whether values are texts in HTML, and not in Markdown.
    """
    templates = SandboxedEnvironment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    # Text in a Markdown table: one line, its bars escaped.
    templates.filters["cell"] = lambda value: " ".join(str(value).split()).replace("|", "\\|")
    # Text in a block of code, whatever it holds: a string of Python (those of JSON are such), a word of a shell.
    templates.filters["literal"] = lambda value: json.dumps(str(value), ensure_ascii=False)
    templates.filters["shell"] = lambda value: shlex.quote(str(value))
    templates.filters["thousands"] = lambda number: f"{number:,}"
    return templates


@lru_cache(maxsize=8)
def compiled(template: str) -> jinja2.Template:
    """Return the template of a text; the cards of the checkpoints of a run share it."""
    return environment().from_string(template)


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """Return metadata and body of a card.

    Raises:
        CardError: the metadata is not a YAML mapping.
    """
    match = FRONT_MATTER.match(text)
    if match is None:
        return {}, text
    try:
        metadata = yaml.safe_load(match["metadata"]) or {}
    except yaml.YAMLError as error:
        raise CardError(f"the metadata of the card is not YAML ({error}); mend its --- block") from error
    if not isinstance(metadata, dict):
        raise CardError("the metadata of the card is no mapping; mend its --- block")
    return metadata, match["body"]


def is_blank(text: str) -> bool:
    """Tell whether a card holds only metadata, headings and placeholders."""
    try:
        return not EMPTY.sub("", split_card(text)[1]).strip()
    except CardError:
        return False


def join_card(metadata: Mapping[str, Any], body: str) -> str:
    """Return the card of metadata and body."""
    block = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{block}---\n\n{body.strip()}\n"


def check_written(template: str, name: str) -> None:
    """Refuse a template with placeholders; facts are filled in later and may hold any word.

    Raises:
        CardError: a placeholder is left.
    """
    left = sorted({match[0] for match in PLACEHOLDER.finditer(template)})
    if left:
        raise CardError(f"{name} has placeholders left ({', '.join(left[:5])}); write what belongs there")


def check_own(template: str, name: str) -> None:
    """Refuse a publisher's card that does more than fill in facts.

    Raises:
        CardError: it computes, defines, includes, or loops over anything but facts.
    """
    try:
        tree = environment().parse(template)
    except (jinja2.TemplateError, RecursionError) as error:
        raise CardError(f"{name} is no template ({error}); mend it, or write {{{{ '{{{{' }}}} for braces") from error
    waiting: list[tuple[nodes.Node, int]] = [(child, 0) for child in tree.iter_child_nodes()]
    while waiting:
        node, depth = waiting.pop()
        depth += isinstance(node, nodes.For)
        called = isinstance(node, nodes.Call) and not (
            (isinstance(node.node, nodes.Getattr) and node.node.attr in METHODS)
            or (isinstance(node.node, nodes.Name) and node.node.name in METHODS)
        )
        refused = (
            not isinstance(node, ALLOWED)
            or called
            or depth > DEEPEST_LOOP
            or (isinstance(node, nodes.Filter) and node.name not in FILTERS)
            or (isinstance(node, nodes.For) and (node.recursive or not names_a_fact(node.iter)))
        )
        if refused:
            raise CardError(
                f"{name}, line {node.lineno}, does more than fill in facts ({type(node).__name__}); a card may name "
                f"facts, test them, loop over them up to {DEEPEST_LOOP} deep and use the filters {', '.join(FILTERS)}"
            )
        waiting.extend((child, depth) for child in node.iter_child_nodes())


def names_a_fact(node: nodes.Node | None) -> bool:
    """Tell whether an expression is a fact, or a part, a method or a filter of one."""
    while isinstance(node, (nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.Call)):
        node = node.node
    return isinstance(node, nodes.Name)


def check_length(card: str, name: str) -> None:
    """Refuse a filled card with hardly any text.

    Raises:
        CardError: it has fewer than 40 words.
    """
    words = len(split_card(card)[1].split())
    if words < 40:
        raise CardError(f"{name} has only {words} words; describe what is published")


def fill(template: str, values: Mapping[str, Any], name: str) -> str:
    """Fill the text of a template.

    Args:
        template: Jinja text; `{% extends %}` finds the templates of this package.
        values: the values that the template may name.
        name: of the card, for messages.

    Raises:
        CardError: the template is faulty or names a value that is not there.
    """
    try:
        text = compiled(template).render(**values)
    # A filter raises whatever Python raises for a value that it cannot take.
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise CardError(f"{name} cannot be filled ({error}); mend or remove that placeholder") from error
    # A section that is absent leaves its blank lines behind.
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def data_card(metadata: Mapping[str, Any], values: Mapping[str, Any], own: str | None = None) -> str:
    """Return the card of a data set.

    Args:
        metadata: the block that the Hub and `load_dataset` read.
        values: facts of the build, see `data_card.md`.
        own: a card of the publisher's, in place of the template of this package; it may name the same facts, and its
            metadata go before ours, except for `FIXED`.

    Raises:
        CardError: a placeholder is left, a fact that the card names is absent, or its licence differs from `metadata`.
    """
    added, template = split_card(own) if own is not None else ({}, read_template("data_card.md"))
    name = "the card README.md" if own is not None else "the data card"
    # The Hub allows a licence as a text or as a list of one.
    stated, given = added.get("license"), metadata["license"]
    if stated not in (None, given, [given]):
        raise CardError(f"{name} states the licence {stated}, --license {given}; make them agree")
    check_written(template, name)
    if own is not None:
        check_own(template, name)
    # The publisher's metadata go before ours, except for what must fit the data.
    fixed = {key: metadata[key] for key in FIXED if key in metadata}
    card = join_card({**metadata, **added, **fixed}, fill(template, values, name))
    check_length(card, name)
    return card


def of_runs(fill_card: Callable[Concatenate[Path, Facts], str]) -> Callable[Concatenate[Path, Facts], str]:
    """Let a card name the files of its run where they hold what no run has written.

    The card raises `CardError` then: a value is of another kind than the card shows.
    """

    @wraps(fill_card)
    def filled(folder: Path, *args: Facts.args, **kwargs: Facts.kwargs) -> str:
        try:
            return fill_card(folder, *args, **kwargs)
        except CardError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            files = f"{runs.CONFIG}, {runs.METRICS} or {runs.COMPARISON}"
            raise CardError(
                f"the card of {folder} cannot be filled: a value in {files} is not what a run writes "
                f"({' '.join(str(error).split())[:200]}); write back what it wrote, or train or compare again"
            ) from error

    return filled


def base_facts(base: tuple[str, str | None], settings: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Return what a card says of the models that a run began with.

    Args:
        base: name and revision of the base of an adapter or pipeline; "" for none.
        settings: of the run.
        config: of the model.
    """
    name, revision = base
    return {
        "base": name,
        "base_name": runs.base_name(name) if name else "",
        "bases": [name] if name else runs.started_from(settings, config),
        "base_revision": revision,
    }


@of_runs
def model_card(
    folder: Path,
    repo: str | None = None,
    revision: str | None = None,
    dataset: str | None = None,
    dataset_revision: str | None = None,
    licence: str = LICENCE,
    comparison: Path | None = None,
    base: str | None = None,
    base_revision: str | None = None,
) -> str:
    """Return the card of a trained model, filled from the files of its run.

    The files are `config.json`, `metrics.json` of the run and of splits scored since (in folders below),
    `configuration.yaml` and `comparison.json`; sections without their file are left out.

    Args:
        folder: output folder of the run.
        repo: Hub id under which the model is published; None before that.
        revision: tag that the example pins.
        dataset: Hub id of the data; None takes the name in the run, if that is a Hub id.
        dataset_revision: tag of the data.
        licence: identifier of the licence.
        comparison: `comparison.json` of a comparison that this model took part in; None looks in the folder.
        base: Hub id of the model that an adapter goes on; None takes what the adapter names.
        base_revision: of that model.

    Raises:
        CardError: the folder holds no model, or a file of its run was changed.
    """
    config = runs.read_json(folder / runs.CONFIG)
    if not config:
        raise CardError(f"{folder} has no {runs.CONFIG}, so no model was saved there; train one first")
    metrics = runs.read_json(folder / runs.METRICS)
    kind = runs.kind_of(config, metrics)
    data_name = dataset or runs.dataset_name(metrics)
    dataset = dataset or runs.hub_dataset(metrics)
    dataset_revision = dataset_revision or metrics.get("dataset_revision")
    compared = comparison_of(comparison or folder / runs.COMPARISON, folder.name, metrics)
    results = with_compared(runs.results_of(folder), compared)
    adapter = runs.read_json(folder / runs.ADAPTER_CONFIG)
    name, manifest = repo.split("/")[-1] if repo else folder.name, runs.manifest_of(metrics)
    dishes = runs.is_about_dishes(kind, metrics, manifest)
    settings = runs.read_configuration(folder) or {}
    bases = base_facts((base, base_revision) if base is not None else runs.base_of(adapter, config), settings, config)
    values: dict[str, Any] = {
        "name": name,
        "source": repo or folder.name,
        "revision": revision,
        **kind,
        "dishes": dishes,
        "example": EXAMPLE_TITLE if dishes else EXAMPLE_TEXT,
        "dataset": dataset,
        "dataset_revision": dataset_revision,
        "simulated": bool(manifest.get("simulator")),
        "parts": runs.parts_of({**config, "base": bases["base"] or settings.get("model_name_or_path")}, metrics),
        "training": runs.training_of(metrics),
        "results": results,
        "tables": [*compared.get("tables", []), *runs.seeds_of(folder)],
        "verdicts": compared.get("verdicts", []),
        "recipe": runs.configuration_of(folder),
        "license": licence,
        **bases,
        "lora": bool(config.get("lora")),
        "size": config.get("image_size"),
        "new_labels": bool((metrics.get("adapters") or {}).get("new_labels")),
        "new_problem_type": (metrics.get("adapters") or {}).get("new_problem_type"),
    }
    evaluated = runs.evaluation_results(results, kind["tag"], data_name, dataset_revision)
    template = read_template("adapter_card.md" if adapter else runs.TEMPLATES[kind["task"]])
    library = "peft" if adapter else "diffusers" if kind["task"] in runs.DRAWING else "transformers"
    card = join_card(
        model_metadata(values, evaluated, library, is_catalogue(manifest)), fill(template, values, "the model card")
    )
    check_length(card, "the model card")
    return card


def model_metadata(
    values: Mapping[str, Any], evaluated: list[EvalResult], library: str, is_english: bool
) -> dict[str, Any]:
    """Return the block of a model's card that the Hub reads.

    Args:
        values: the values that its template may name.
        evaluated: its scores in the form of the Hub's model index.
        library: the library that loads it.
        is_english: whether its texts are known to be English.
    """
    # The Hub draws a tree of models by these names.
    bases = [base for base in values["bases"] if runs.HUB_ID.fullmatch(base) and not Path(base).exists()]
    return ModelCardData(
        license=values["license"],
        language=["en"] if is_english else None,
        library_name=library,
        base_model=(bases if len(bases) > 1 else bases[0]) if bases else None,
        pipeline_tag=values["tag"],
        tags=runs.tags_of(values) or None,
        datasets=[values["dataset"]] if values["dataset"] else None,
        # `ModelCardData` takes a model name only together with results.
        model_name=values["name"] if evaluated else None,
        eval_results=evaluated or None,
    ).to_dict()


def write_model_card(folder: Path, **facts: Any) -> Path:
    """Write `README.md` of a finished run; `facts` as `model_card` takes them."""
    path = Path(folder) / "README.md"
    path.write_text(model_card(Path(folder), **facts), encoding="utf-8")
    return path
