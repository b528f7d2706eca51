"""The audit of a data set: accuracy of the labelling rule alone, content that crosses splits, faults of pictures."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import load_dataset

from dataset_builder.building.finished_build import LEXICON, FinishedBuild, rule_settings
from dataset_builder.columns import DISH_ID, FLAVOUR, FLAVOURS, GENERATION, IMAGE, INGREDIENTS, TITLE
from dataset_builder.engines.work import Engine
from dataset_builder.errors import BadInputError
from dataset_builder.files import read_json, write_json, write_whole
from dataset_builder.labelling.choice import AnyLabeller, make_labeller
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.labelling.rule import score_labels
from dataset_builder.pictures.near_duplicates import alike_across, repeated_within
from dataset_builder.publishing.audit_reading import COLUMNS, Rows, file_of, manifest_of, open_dataset, read_rows
from dataset_builder.publishing.audit_reference import (
    EXAMPLES,
    against_reference,
    disagreements,
    figures_of,
    labelled_rows,
)
from dataset_builder.publishing.versions import listed
from dataset_builder.recipes.text import plain_title
from dataset_builder.storage.places import make_folder, on_disk, pattern_of, without_secrets
from model_cards.cards import fill, read_template
from model_cards.runs import is_catalogue

AUDIT_MARKDOWN = "AUDIT.md"
AUDIT_JSON = "audit.json"
AUDIT_VERSION = 4  # of the content of audit.json
AUDIT_HASH = "sha256"  # of the rest, so that figures that were changed by hand are not published
READABLE = 0.95  # from this accuracy of the rule on, the labels follow from the text
RULES = {
    True: "The labelling rule alone",
    False: "The default rule alone, which is not the rule that made these labels (its lexicon is not available)",
    None: "The default rule alone, which may not be the rule that made these labels",
}
VIEWS = {
    "title": lambda title, ingredients: (title, []),
    "title + ingredients": lambda title, ingredients: (title, ingredients),
    "ingredients": lambda title, ingredients: ("", ingredients),
}


@dataclass(frozen=True)
class Rule:
    """A labelling rule, and whether it gave the labels of the data set; None where that is unknown."""

    lexicon: Lexicon
    made_the_labels: bool | None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labeller(self) -> AnyLabeller:
        """The rule itself."""
        return make_labeller(self.lexicon, **self.settings)

    @property
    def facts(self) -> dict[str, Any]:
        """The entry of the rule in the audit."""
        return {
            "sha256": self.lexicon.digest,
            "made_the_labels": self.made_the_labels,
            "settings": dict(self.settings),
        }


@dataclass(frozen=True)
class Audit:
    """The result of an audit: `facts` is the content of `audit.json`."""

    facts: Mapping[str, Any]

    @property
    def markdown(self) -> str:
        """The whole audit as Markdown."""
        return fill(
            read_template("audit.md"), {"facts": self.facts, "lines": self.lines, "flavours": FLAVOURS}, AUDIT_MARKDOWN
        )

    @property
    def lines(self) -> list[str]:
        """The audit in a few sentences, as the terminal and the card show it."""
        return [*_rule_lines(self.facts), *_crossing_lines(self.facts), *_other_lines(self.facts)]

    def write(self, folder: Path) -> None:
        """Write `AUDIT.md` and `audit.json`."""
        make_folder(folder)
        write_whole(folder / AUDIT_MARKDOWN, lambda path: path.write_text(self.markdown, encoding="utf-8"))
        write_json(folder / AUDIT_JSON, {**self.facts, AUDIT_HASH: hash_of(self.facts)})


def hash_of(facts: Mapping[str, Any]) -> str:
    """Return the hash of an audit, whatever the data set is called."""
    # Through JSON once, which turns numbers as keys into text, and so their order.
    content = json.loads(json.dumps({name: value for name, value in facts.items() if name != "dataset"}))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def audit(dataset: str, engine: Engine | None = None) -> Audit:
    """Audit a data set.

    Args:
        dataset: folder, file or Hub id of a data set with columns of `dataset_builder.columns`; parts of the audit
            whose columns are absent are left out and named.
        engine: reads the files and compares the pictures; None for this process.

    Raises:
        BadInputError: it is no single table, there are no rows, or none of the columns is there.
    """
    splits = open_dataset(dataset)
    manifest = manifest_of(dataset)
    rule = find_rule(manifest, file_of(dataset, LEXICON))
    name = without_secrets(dataset)
    return audit_rows(read_rows(splits, name, engine), name, rule, manifest, engine)


def find_rule(manifest: Mapping[str, Any], kept: Path | None) -> Rule:
    """Return the rule that gave the labels, or the default one where it is not known or not available.

    Args:
        manifest: of the build; empty where there is none.
        kept: the lexicon beside the data, if there is one.
    """
    own = Lexicon.load()
    stated = manifest.get("lexicon_sha256")
    if stated is None:
        return Rule(own, None)
    settings = rule_settings(manifest)
    if stated in (own.digest, own.digest_of_words):
        return Rule(own, True, settings)
    try:
        with nullcontext() if kept is None else on_disk(kept) as file:
            lexicon = own if file is None else Lexicon.load(file)
    except BadInputError:
        lexicon = own
    return Rule(lexicon, True, settings) if lexicon.digest == stated else Rule(own, False)


def audit_of_build(build: FinishedBuild, name: str) -> Audit:
    """Return the audit of a build under the name of its data set; one made of exactly these shards is used again."""
    rule = find_rule(build.manifest, build.lexicon_file)
    # An audit is reused only for the same shards, the same rule and the same form of the audit.
    same = {"audit_version": AUDIT_VERSION, "data_sha256": build.fingerprint, "labelling": rule.facts}
    known = kept_audit(build.folder)
    if known is not None and same.items() <= known.items():
        return Audit({**known, "dataset": name})
    # Escaped: brackets and stars in the name of a folder would be taken as patterns.
    files = {split: [pattern_of(path) for path in paths] for split, paths in build.shards.items()}
    rows = read_rows(load_dataset("parquet", data_files=files, streaming=True), name)
    audited = Audit({**audit_rows(rows, name, rule, build.manifest).facts, **same})
    audited.write(build.folder)
    return audited


def kept_audit(folder: Path) -> dict[str, Any] | None:
    """Return the facts of the audit that lies in a folder; None where it is missing, broken or changed by hand."""
    with suppress(BadInputError):
        known = read_json(folder / AUDIT_JSON, "audit again") or {}
        stated = known.pop(AUDIT_HASH, None)
        if stated is not None and stated == hash_of(known):
            return known
    return None


def audit_rows(rows: Rows, name: str, rule: Rule, manifest: Mapping[str, Any], engine: Engine | None = None) -> Audit:
    """Audit rows that were read; the manifest of their build names the rows whose pictures were all rejected."""
    return Audit(
        {
            "audit_version": AUDIT_VERSION,
            "dataset": name,
            "rows": {split: rows.splits.count(split) for split in dict.fromkeys(rows.splits)},
            "absent_columns": [column for column in COLUMNS if column not in rows],
            "balance": _balance(rows),
            "labelling": rule.facts,
            "rule": _rule(rows, rule.labeller),
            "crossing": {
                "dishes": _crossing(rows, DISH_ID, str),
                "titles": _crossing(rows, TITLE, plain_title),
                "pictures": _crossing_pictures(rows, engine),
            },
            "repeated_pictures": _repeated_pictures(rows, engine),
            "reference": against_reference(rows) if is_catalogue(manifest) else None,
            "disagreements": disagreements(rows, is_catalogue(manifest)),
            "pictures": _pictures(rows, manifest.get("given_up", {})),
        }
    )


def _balance(rows: Rows) -> dict[str, dict[str, int]]:
    counts = {split: dict.fromkeys(FLAVOURS, 0) for split in dict.fromkeys(rows.splits)}
    for n in labelled_rows(rows):
        counts[rows.splits[n]][rows.columns[FLAVOUR][n]] += 1
    return counts if FLAVOUR in rows else {}


def _rule(rows: Rows, labeller: AnyLabeller) -> dict[str, dict[str, dict[str, float]]]:
    """Return the scores of the labelling rule against the labels per view and split, "all" for all splits together."""
    labelled = labelled_rows(rows)
    if not labelled or TITLE not in rows or INGREDIENTS not in rows:
        return {}
    figures: dict[str, dict[str, dict[str, float]]] = {}
    truth = [rows.columns[FLAVOUR][n] for n in labelled]
    for view, choose in VIEWS.items():
        texts = (choose(rows.columns[TITLE][n] or "", rows.columns[INGREDIENTS][n] or []) for n in labelled)
        answers = [labeller.label(title, ingredients).flavour for title, ingredients in texts]
        figures[view] = {"all": figures_of(score_labels(answers, truth))}
        for split in dict.fromkeys(rows.splits):
            # Every row is labelled once; the scores of a split come from its share of the answers.
            chosen = [place for place, n in enumerate(labelled) if rows.splits[n] == split]
            if chosen:
                scores = score_labels([answers[place] for place in chosen], [truth[place] for place in chosen])
                figures[view][split] = figures_of(scores)
    return figures


def _crossing(rows: Rows, column: str, key: Any) -> dict[str, Any] | None:
    """Return the values of a column that occur in more than one split, and how many rows have them."""
    if column not in rows:
        return None
    splits: dict[str, set[str]] = defaultdict(set)
    keys = [key(value) if value else "" for value in rows.columns[column]]
    for value, split in zip(keys, rows.splits, strict=True):
        if value:  # rows without a title have no title in common
            splits[value].add(split)
    # A value is counted once, however many rows have it.
    crossing = [value for value, of in splits.items() if len(of) > 1]
    # All rows of a value that crosses count, whichever split they are in.
    concerned = Counter(keys)
    return {
        "values": len(crossing),
        "rows": sum(concerned[value] for value in crossing),
        "examples": [f"{value} ({', '.join(sorted(splits[value]))})" for value in crossing[:EXAMPLES]],
    }


def _crossing_pictures(rows: Rows, engine: Engine | None) -> dict[str, Any] | None:
    if not any(rows.looks):
        return None
    pairs = alike_across(rows.looks, rows.splits, engine)
    named = (f"{rows.name(i)} ({rows.splits[i]}), {rows.name(j)} ({rows.splits[j]})" for i, j in pairs[:EXAMPLES])
    return {"pairs": len(pairs), "examples": list(named)}


def _repeated_pictures(rows: Rows, engine: Engine | None) -> dict[str, Any] | None:
    """Return which pictures of one split look the same though their dishes differ."""
    if not any(rows.looks):
        return None
    places = [str(n) for n in range(len(rows.splits))]
    names = next((rows.columns[column] for column in (DISH_ID, TITLE) if column in rows), places)
    owners = [name or place for name, place in zip(names, places, strict=True)]
    sets = repeated_within(rows.looks, rows.splits, owners, engine)
    return {
        "sets": len(sets),
        "rows": sum(map(len, sets)),
        "most_dishes": max((len({owners[n] for n in members}) for members in sets), default=0),
        "examples": [
            f"{listed([rows.name(n) for n in members])} ({rows.splits[members[0]]})" for members in sets[:EXAMPLES]
        ],
    }


def _pictures(rows: Rows, given_up: Mapping[str, list[str]]) -> dict[str, Any] | None:
    """Return counts and examples of rows without a good picture, and of rows drawn again after a rejected one.

    `given_up` holds the rows that were left out because every attempt at their picture was rejected, with reasons.
    """
    retried, faults = [], []
    for n, made in enumerate(rows.columns[GENERATION] if GENERATION in rows else []):
        if rejected := (made or {}).get("rejected"):
            retried.append(rows.name(n))
            faults += rejected
    for refused in given_up.values():
        faults += refused
    # The kind of fault alone: without the other picture, the seed and the score that follow it.
    reasons = Counter(fault.split(" of ")[0].split(" (")[0] for fault in faults)
    if GENERATION not in rows and IMAGE not in rows:
        return None
    # A row without a picture has no looks; one whose picture cannot be read has none either but is counted apart.
    blank = [rows.name(n) for n, look in enumerate(rows.looks) if look is None]
    unreadable = rows.unreadable
    missing = [name for name in blank if name not in set(unreadable)]
    return {
        "without": len(missing),
        "unreadable": len(unreadable),
        "retried": len(retried),
        "given_up": len(given_up),
        "reasons": dict(reasons.most_common()),
        "examples": [*unreadable, *missing, *given_up, *retried][:EXAMPLES],
    }


def _rule_lines(facts: Mapping[str, Any]) -> list[str]:
    if not facts["rule"]:
        return ["The rule alone was not scored: labels, titles or ingredients are absent."]
    split = "test" if all("test" in of for of in facts["rule"].values()) else "all"
    scores = {view: of[split]["accuracy"] for view, of in facts["rule"].items()}
    where = "the test split" if split == "test" else "all rows"
    figures = ", ".join(f"{100 * score:.1f} % from {view}" for view, score in scores.items())
    rule = RULES[facts["labelling"]["made_the_labels"]]
    lines = [f"{rule}, without any learning, is right on {where} in: {figures}."]
    readable = [view for view, score in scores.items() if score >= READABLE]
    if readable:
        views = " and off ".join(readable)
        lines.append(f"The labels can be read off {views}: a model that is given it learns the rule.")
    return lines


def _crossing_lines(facts: Mapping[str, Any]) -> list[str]:
    crossing = facts["crossing"]
    counts = {what: of["pairs" if what == "pictures" else "values"] for what, of in crossing.items() if of is not None}
    many = {"dishes": "dishes", "titles": "titles", "pictures": "pairs of near-duplicate pictures"}
    none = {"dishes": "no dish", "titles": "no title", "pictures": "no near-duplicate picture"}
    crossed = [f"{number} {many[what]}" for what, number in counts.items() if number]
    clean = [none[what] for what, number in counts.items() if not number]
    lines = [f"In more than one split: {', '.join(crossed)}; scores are too high by them."] if crossed else []
    return [*lines, f"Looked for in more than one split: {', '.join(clean)}."] if clean else lines


def _other_lines(facts: Mapping[str, Any]) -> list[str]:
    lines = []
    total: Counter[str] = Counter()
    for of in facts["balance"].values():
        total.update(of)
    if total.total():
        share = {flavour: f"{flavour} ({100 * rows / total.total():.1f} %)" for flavour, rows in total.items()}
        most, least = max(total, key=total.__getitem__), min(total, key=total.__getitem__)
        lines.append(f"The most frequent label is {share[most]}, the rarest {share[least]}.")
    if reference := facts["reference"]:
        lines.append(
            f"The labels agree with the authors' own judgement of the dish in {100 * reference['accuracy']:.1f} % of "
            f"{reference['rows']} rows, variants left out (macro-F1 {reference['macro_f1']:.3f}), and name one of the "
            f"tastes that the authors find present in {100 * reference['label_among_present']:.1f} %."
        )
    if (apart := facts["disagreements"]) and apart["differing"]:
        lines.append(
            f"Label, soft label and a person's label (known of {apart['with_reference']} recipes) differ in "
            f"{apart['differing']} of {apart['recipes']} recipes; the furthest apart are listed in the audit."
        )
    if pictures := facts["pictures"]:
        why = "".join(f", {number} {reason}" for reason, number in pictures["reasons"].items())
        lines.append(
            f"Rows without a picture: {pictures['without']}; unreadable: {pictures['unreadable']}; drawn again after a "
            f"rejected picture: {pictures['retried']}; left out because every picture was rejected: "
            f"{pictures.get('given_up', 0)}{' (reasons' + why.replace(',', ':', 1) + ')' if why else ''}."
        )
    if (repeated := facts["repeated_pictures"]) and repeated["sets"]:
        lines.append(
            f"Inside one split {repeated['rows']} pictures look like that of another dish ({repeated['sets']} sets, "
            f"the largest of {repeated['most_dishes']} dishes): such a picture does not tell its dishes apart."
        )
    if facts["absent_columns"]:
        lines.append(f"Not audited for want of the columns: {', '.join(facts['absent_columns'])}.")
    return lines
