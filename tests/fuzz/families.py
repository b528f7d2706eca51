"""Readers of what comes from outside, each with a sound input and the files that its damaged copies are written to.

A reader may succeed or refuse with `BadInputError` or `OSError`, whose message is one short printable line; everything
else is a fault. Inputs follow from a seed alone.
"""

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dataset_builder import cli
from dataset_builder.building.corrections import read_corrections
from dataset_builder.building.finished_build import MANIFEST_KEYS
from dataset_builder.building.shards import MANIFEST_KINDS
from dataset_builder.errors import BadInputError
from dataset_builder.files import read_json
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.messages import one_line
from dataset_builder.publishing.audit import AUDIT_HASH, AUDIT_VERSION, hash_of, kept_audit
from dataset_builder.publishing.release import FILES, owned_data
from dataset_builder.recipes.recipes import read_recipes
from model_cards.cards import model_card
from model_cards.errors import CardError
from modeling_flavour.processing_flavour import open_picture
from tests.fuzz import layouts
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.evaluation.score_file import read_scores
from trainer_scripts.settings.configurations import CONFIGURATIONS, parse_configuration
from trainer_scripts.tasks.common.model_folder import check_files, load_config

LONGEST_LINE = 1_500
# Values that a person or a program may put into the place of any other.
ODD = (None, True, -1, 10**30, 1e308, "", "\x1b[2J", "x" * 10_000, [], {}, [[]], {"a": {"b": None}}, "\udc80")


@dataclass(frozen=True)
class Family:
    """One kind of input.

    Attributes:
        name: of the file that is damaged.
        sound: bytes of a sound one.
        read: reads the folder that holds it, with what else belongs there.
    """

    name: str
    sound: bytes
    read: Callable[[Path], object]


def _png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(stream, "PNG")
    return stream.getvalue()


def _avif() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(stream, "AVIF")
    return stream.getvalue()


def _recipes() -> bytes:
    stream = io.StringIO()
    csv.writer(stream).writerows([("title", "ingredients"), ("Cake", "['sugar', 'egg']"), ("Broth", "salt, bone")])
    return stream.getvalue().encode()


def _parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"title": ["Cake", "Broth"], "ingredients": [["sugar"], ["salt", "bone"]]}), stream)
    return stream.getvalue()


def _predictions() -> bytes:
    stream = io.BytesIO()
    columns = {"id": ["a", "b"], "group": ["a", "b"], "label": [0, 1], "probabilities": [[0.5, 0.5], [0.1, 0.9]]}
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


SCORES = {
    "schema_version": 2, "task": "classification", "split": "test", "rows": 2, "groups": 2, "rows_sha256": "0" * 64,
    "label_names": ["a", "b"], "metrics": {"accuracy": {"value": 0.5, "low": 0.1, "high": 0.9}}, "baselines": {},
    "ablations": {}, "leads": {}, "definitions": {"accuracy": {"definition": "d", "sha256": "0"}},
}  # fmt: skip
MANIFEST = {
    "finished": True, "generator": {}, "simulator": True, "seeds": {"build": 0}, "counts": {"train": {"sweet": 1}},
    "rows": 1, "shards": {"train-00000-of-00001.parquet": 1}, "given_up": {"a": ["b"]}, "settings": {},
}  # fmt: skip
PUBLISHED = {**dict.fromkeys(MANIFEST_KEYS, "a"), **MANIFEST, FILES: ["data/train-00000.parquet"]}
CONFIG = {
    "model_type": "flavour_fusion", "word_vocab_size": 10, "id2label": {"0": "a", "1": "b"},
    "label2id": {"a": 0, "b": 1}, "head_dense_sizes": [4], "architectures": ["FlavourForClassification"],
}  # fmt: skip


RUN = {
    "task": "classification",
    "dataset": "org/set",
    "selection_split": "validation",
    "selection_metric": "accuracy",
    "selection": {"accuracy": 0.5},
    "definitions": {"accuracy": {"definition": "share of right answers", "sha256": "ab"}},
    "rows": {"train": 8, "selection": 4, "left_out": 0},
    "parameters": 12,
    "megabytes": 0.1,
    "seconds": 2.5,
    "history": [{"loss": 1.0, "step": 1}],
}
COMPARED = {
    "split": "test",
    "rows": 4,
    "groups": 2,
    "main_score": "accuracy",
    "definitions": {"accuracy": "share of right answers"},
    "entries": {"folder": {"modality": "text", "scores": {"accuracy": {"value": 0.5, "low": 0.2, "high": 0.8}}}},
    "ablations": {"folder": {"score": "accuracy", "scores": {"text shuffled": {"value": 0.2}}, "rows": 4}},
    "verdicts": ["folder: better"],
}
RECIPES = {
    "recipes": [
        {"title": "Cake", "ingredients": ["2 cups sugar", "1 egg"]},
        {
            "name": "Broth",
            "recipeIngredient": "salt\nbone",
            "recipeInstructions": [{"@type": "HowToStep", "text": "Boil"}],
        },
    ]
}


def _read_model(folder: Path) -> object:
    check_files(folder)
    return load_config(folder)


def _recipes_in(name: str) -> Callable[[Path], object]:
    return lambda folder: list(read_recipes(str(folder / name)).stream())


def _imported(system: str, files: layouts.Files, damaged: str) -> Family:
    return Family(damaged, files[damaged], layouts.importing(system, files, damaged))


def _of_checkpoint(damaged: str) -> Family:
    return Family(damaged, layouts.checkpoint()[damaged], layouts.going_on(damaged))


def _of_model(damaged: str) -> Family:
    return Family(damaged, layouts.model()[damaged], layouts.loading(damaged))


def _audit() -> bytes:
    facts = {"audit_version": AUDIT_VERSION, "dataset": "a", "rows": {"train": 2}, "balance": {}, "absent_columns": []}
    return _json({**facts, AUDIT_HASH: hash_of(facts)})


def _card_of(folder: Path) -> str:
    for name, content in (("config.json", CONFIG), ("metrics.json", RUN)):
        if not (folder / name).is_file():
            (folder / name).write_bytes(_json(content))
    return model_card(folder)


class _Files:
    """A Hub whose files are those of a folder."""

    def __init__(self, folder: Path):
        self._folder = folder

    def hf_hub_download(self, repo: str, name: str, **options: object) -> str:
        return str(self._folder / name)


def _published(folder: Path) -> object:
    api: Any = _Files(folder)
    return owned_data(api, "org/a", None, frozenset({"manifest.json", "data/train-00000.parquet"}))


FAMILIES = {
    "yaml": Family(
        "a.yaml",
        (CONFIGURATIONS / "flavour_fusion_tiny.yaml").read_bytes(),
        lambda folder: parse_configuration([str(folder / "a.yaml")]),
    ),
    "scores": Family("metrics.json", _json(SCORES), read_scores),
    "predictions": Family("predictions.parquet", _predictions(), Predictions.load),
    "manifest": Family(
        "manifest.json", _json(MANIFEST), lambda folder: read_json(folder / "manifest.json", "build", MANIFEST_KINDS)
    ),
    "published": Family("manifest.json", _json(PUBLISHED), _published),
    "audit": Family("audit.json", _audit(), kept_audit),
    "corrections": Family(
        "a.csv",
        b"id,row,new_flavour,new_title,exclude,note\na-00,12ab,sour,,,taste\nb-00,34cd,,Soup,yes,\n",
        lambda folder: read_corrections([folder / "a.csv"]),
    ),
    "cardmetrics": Family("metrics.json", _json(RUN), _card_of),
    "cardconfig": Family("config.json", _json(CONFIG), _card_of),
    "cardcomparison": Family("comparison.json", _json(COMPARED), _card_of),
    "config": Family("config.json", _json(CONFIG), _read_model),
    "png": Family("a.png", _png(), lambda folder: open_picture((folder / "a.png").read_bytes())),
    "avif": Family("a.avif", _avif(), lambda folder: open_picture((folder / "a.avif").read_bytes())),
    "csv": Family("a.csv", _recipes(), lambda folder: list(read_recipes(str(folder / "a.csv")).stream())),
    "parquet": Family("a.parquet", _parquet(), lambda folder: list(read_recipes(str(folder / "a.parquet")).stream())),
    "lexicon": Family(
        "a.csv",
        b"flavour,source,phrase,weight\nsweet,ingredient,sugar,1\nsalty,title,chips,2\n",
        lambda folder: Lexicon.load(folder / "a.csv"),
    ),
    "json": Family("a.json", _json(RECIPES), _recipes_in("a.json")),
    "jsonl": Family("a.jsonl", b"\n".join(map(_json, RECIPES["recipes"])), _recipes_in("a.jsonl")),
    "gzip": Family("a.csv.gz", gzip.compress(_recipes(), mtime=0), _recipes_in("a.csv.gz")),
    "comp5329": _imported("comp5329", layouts.comp5329(), "train.csv"),
    "comp5329test": _imported("comp5329", layouts.comp5329(), "test.csv"),
    "flickr8k": _imported("flickr8k", layouts.flickr8k(), "Flickr8k.token.txt"),
    "flickr8klist": _imported("flickr8k", layouts.flickr8k(), "Flickr_8k.trainImages.txt"),
    "cococaptions": _imported("coco", layouts.coco(), "annotations/captions_train2017.json"),
    "cocoinstances": _imported("coco", layouts.coco(), "annotations/instances_train2017.json"),
    "categories": Family("category_id.txt", layouts.categories()["category_id.txt"], layouts.reading_categories),
    "weights": _of_model("model.safetensors"),
    "tokenizer": _of_model("tokenizer.json"),
    "tokenizerconfig": _of_model("tokenizer_config.json"),
    "processor": _of_model("processor_config.json"),
    "modelconfig": _of_model("config.json"),
    "optimizer": _of_checkpoint("optimizer.pt"),
    "checkpoint": _of_checkpoint("model.safetensors"),
    "trainwords": Family(
        "words.txt",
        b"flavour_fusion_tiny\n--dataset\nx\n--learning_rate\n1e-3\n--seed\n3",
        layouts.parsing(parse_configuration),
    ),
    "buildwords": Family(
        "words.txt",
        b"build\n--out\nx\n--number\n30\n--size\n64\n--prompt\ntitle",
        layouts.parsing(cli.build_parser().parse_args),
    ),
}


def damaged(family: Family, seed: int) -> bytes:
    """Return a damaged copy of a sound input: bytes changed, cut, doubled or put in, or another value in JSON."""
    draw = random.Random(seed)
    content = bytearray(family.sound)
    if family.name.endswith(".json") and draw.random() < 0.6:
        return _other_value(json.loads(family.sound), draw)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        place = draw.randrange(len(content) + 1)
        how = draw.randrange(6)
        if how == 0 and place < len(content):
            content[place] ^= 1 << draw.randrange(8)
        elif how == 1:
            del content[place : place + draw.choice((1, 4, len(content)))]
        elif how == 2:
            content[place:place] = content[: draw.randrange(50)]
        elif how == 3:
            content[place:place] = draw.choice((b"\0", b"\xff\xfe", b"\x1b[2J", b"[" * 2000, b"9" * 400, b"\n", b'"'))
        elif how == 4:
            content[place : place + 4] = draw.randbytes(4)
        else:
            content[place:place] = f"{draw.choice(ODD)!r}".encode(errors="replace")[:200]
    return bytes(content)


def _other_value(content: dict, draw: random.Random) -> bytes:
    """Return JSON in which a value at any depth is an odd one."""
    place: dict | list = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = draw.choice(keys)
        inner = place[key]
        if isinstance(inner, dict | list) and inner and draw.random() < 0.6:
            place = inner
            continue
        place[key] = draw.choice(ODD)
        break
    return json.dumps(content).encode()


def fault(family: Family, content: bytes, folder: Path) -> str | None:
    """Return what is wrong with how a reader takes an input, or None."""
    path = folder / family.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        family.read(folder)
    except (BadInputError, CardError, OSError, ValueError) as error:
        # Readers of the flat model package raise ValueError, which callers turn into bad input.
        ours = isinstance(error, BadInputError | CardError)
        line = str(error) if ours else one_line(str(error))
        if not line.isprintable() or len(line) > LONGEST_LINE:
            return f"an unreadable message of {len(line)} characters"
        if (
            isinstance(error, ValueError)
            and not isinstance(error, BadInputError | CardError)
            and family.name[-4:] != ".png"
        ):
            return None if family.name.endswith(".avif") else f"{type(error).__name__}: {line}"
    except Exception as error:
        return f"{type(error).__name__}: {one_line(str(error))}"
    return None
