"""The record of the texts a vocabulary was made from, saved beside a model, to detect held-out texts among them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dataset_builder.errors import BadInputError
from trainer_scripts.data.split_guard import NAMED, text_digest
from trainer_scripts.tasks.common.starting_points import file_of_model

VOCABULARY_SOURCE = "vocabulary_source.json"


def record_vocabulary(texts: Sequence[str], split: str) -> dict[str, Any]:
    """Return the record of a tokenizer's training texts: their split and a short hash of each."""
    return {"split": split, "texts": sorted({text_digest(text) for text in texts})}


def load_vocabulary_record(source: str | Path, revision: str | None = None) -> dict[str, Any] | None:
    """Return the record saved beside a tokenizer, in a folder or on a Hub; None where there is none."""
    path = file_of_model(source, VOCABULARY_SOURCE, revision)
    return None if path is None else json.loads(path.read_text(encoding="utf-8"))


def check_vocabulary(record: dict[str, Any] | None, held_out: Mapping[str, Sequence[str]]) -> None:
    """Raise BadInputError when a vocabulary was made with texts of a held-out split (`split name -> texts`)."""
    if record is None:
        return
    recorded = set(record["texts"])
    for split, texts in held_out.items():
        shared = [text for text in texts if text_digest(text) in recorded]
        if shared:
            named = ", ".join(repr(text) for text in shared[:NAMED])
            raise BadInputError(
                f"the vocabulary was made with {len(shared)} texts of the {split} split (such as {named}); "
                "train the tokenizer on the training split only"
            )
