"""A finished build of a few rows, written as `flavour-sd build` writes it."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dataset_builder.columns import FLAVOURS, SPLITS
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.schema import table_features

VISIBLE = ("tomato", "olive", "lemon")


def picture(seed, size=48, detail=6):
    """Return a picture whose coarse pattern depends on the seed."""
    coarse = np.random.default_rng(seed).integers(0, 255, (detail, detail, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def encoded(image, **how):
    stream = io.BytesIO()
    image.save(stream, **{"format": "PNG", **how})
    return {"bytes": stream.getvalue(), "path": None}


def make_row(number, flavour=None, **changes):
    """Return one row in storage form; `changes` replace columns."""
    flavour = FLAVOURS[number % 5] if flavour is None else flavour
    empty = {name: [] for name in FLAVOURS}
    votes = {**empty, flavour: ["word"]}
    return {
        "id": f"dish-{number:03d}-00-00",
        "dish_id": f"dish-{number:03d}",
        "image": encoded(picture(number)),
        "title": f"Dish number {number}",
        "ingredients": ["salt", "tomato"],
        "instructions": "",
        "captions": ["A tomato lies on a plate."],
        "flavour": FLAVOURS.index(flavour),
        "flavours": [FLAVOURS.index(flavour)],
        "taste": [0.2] * 5,
        "label_source": "agree",
        "label_votes": {"ingredients": votes, "title": empty},
        "mask": encoded(Image.new("L", (48, 48))),
        "ingredient_labels": [1],
        "generation": {
            "prompt": f"Dish number {number}",
            "seed": number,
            "pipeline": "plating",
            "revision": "1",
            "steps": 1,
            "guidance": 0.0,
            "height": 48,
            "width": 48,
            "attempts": 1,
            "rejected": [],
        },
        **changes,
    }


def make_rows(number=20):
    """Return rows per split: half train, the others validation and test."""
    rows = {split: [] for split in SPLITS}
    for index in range(number):
        rows[("train", "train", "test", "validation")[index // 5 % 4]].append(make_row(index))
    return rows


def write_build(folder, rows, manifest=()):
    """Write shards and manifest; `manifest` replaces keys, a value None removes one."""
    folder = Path(folder)
    (folder / "data").mkdir(parents=True)
    features = table_features(VISIBLE)
    for split, of_split in rows.items():
        table = pa.Table.from_pylist(of_split, schema=features.arrow_schema)
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    counts = {
        split: {name: sum(row["flavour"] == index for row in of_split) for index, name in enumerate(FLAVOURS)}
        for split, of_split in rows.items()
    }
    stated = {
        "finished": True,
        "schema_version": "1",
        "generator": {"pipeline": "plating"},
        "simulator": True,
        "seeds": {"build": 0},
        "lexicon_sha256": Lexicon.load().digest,
        "settings": {"recipes": None},
        "counts": counts,
        **dict(manifest),
    }
    content = {key: value for key, value in stated.items() if value is not None}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder
