"""The split guard: no run starts when rows of the selection or test split also occur in the training split."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dataset_builder.errors import BadInputError
from dataset_builder.named_files import RefusedFileError, read_regular

NAMED = 3


class Keys(NamedTuple):
    """Keys of one row, each as (kind, value), that must not occur in two splits: its group, its text, its picture."""

    row_id: str
    items: list[tuple[str, str]]


def normalise_text(text: str) -> str:
    """Return the text in lower case with single spaces; texts equal in this form count as identical."""
    return " ".join(text.casefold().split())


def text_digest(text: str) -> str:
    """Return a short hash of a text, as stored in the record of a vocabulary."""
    return hashlib.sha256(normalise_text(text).encode()).hexdigest()[:12]


def row_keys(row_id: str, group: str | None, text: str | None, picture: dict[str, Any] | None) -> Keys:
    """Return the keys of one row; `picture` is an undecoded Image cell."""
    digest = None
    if picture is not None and picture.get("bytes") is not None:
        digest = hashlib.sha256(picture["bytes"]).hexdigest()
    elif picture is not None and picture.get("path"):
        # A picture may be stored as bytes in one split and as a path in the other: contents are compared.
        try:
            digest = hashlib.sha256(read_regular(Path(picture["path"]))).hexdigest()
        except RefusedFileError:
            digest = str(picture["path"])
    pairs = (("group", group), ("text", None if text is None else normalise_text(text)), ("picture", digest))
    return Keys(row_id, [(kind, value) for kind, value in pairs if value is not None])


@dataclass
class SplitGuard:
    """Keys of the held-out splits, against which training rows are checked.

    Attributes:
        held_out: split name -> {(kind, value): row id}.
    """

    held_out: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)

    def hold_out(self, split: str, keys: Iterable[Keys]) -> None:
        """Add a held-out split; raise BadInputError where it shares rows with one added before."""
        seen: dict[tuple[str, str], str] = {}
        for row in keys:
            # Rows of one split may share keys; only splits held out before are compared.
            self.check(row, split)
            seen |= dict.fromkeys(row.items, row.row_id)
        self.held_out[split] = seen

    def check(self, row: Keys, split: str) -> None:
        """Raise BadInputError, naming both rows, where a row of `split` also occurs in a held-out split."""
        for kind, value in row.items:
            for other, held in self.held_out.items():
                if (kind, value) in held:
                    shown = value if kind != "picture" else f"sha256 {value[:12]}"
                    raise BadInputError(
                        f"the same {kind} ({shown}) is in {split} (row {row.row_id}) and in {other} "
                        f"(row {held[kind, value]}); split by group, or leave such training rows out with "
                        "--shared_rows drop"
                    )

    def leaks(self, row: Keys) -> bool:
        """Whether a training row also occurs in a held-out split."""
        return any(item in held for item in row.items for held in self.held_out.values())


def check_split_names(train: str, selection: str, test: str) -> None:
    """Raise BadInputError unless training, selection and test are three different splits."""
    if selection == test:
        raise BadInputError(
            f"selection_split and test_split are both {test!r}: the test split must not choose the checkpoint; "
            "give a validation split"
        )
    if train in (selection, test):
        raise BadInputError(f"train_split {train!r} is also the {'selection' if train == selection else 'test'} split")
