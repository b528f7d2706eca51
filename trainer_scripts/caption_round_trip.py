"""Captions back to pictures: how much of the label survives when the drawing pipeline draws from a caption."""

from collections.abc import Sequence
from typing import Any

import torch

from dataset_builder.columns import FLAVOUR, FLAVOURS
from dataset_builder.labelling.rule import Labeller
from dataset_builder.plating.pipeline import PlatingPipeline
from trainer_scripts.caption_truth import compare, visible_names
from trainer_scripts.data import Table

ROWS = 64
SIZE = 64


def round_trip(captions: Sequence[str], table: Table, rows: int = ROWS) -> dict[str, float]:
    """Return how much of a picture is in the picture that its caption gives, for the first rows of a table.

    Each caption is the prompt of the plating pipeline. The ingredients in the mask of the new picture are compared with
    those of the old one, and the flavour that the labelling rule gives them with the row's label; the same is done
    with the first reference caption, which shows what the way there and back loses by itself.

    Args:
        captions: one per row.
        table: rows whose visible ingredients are known.
        rows: how many are drawn.
    """
    number = min(rows, len(captions))
    visible = (visible_names(table) or [])[:number]
    flavours = [FLAVOURS[label] for label in table.rows[:number][FLAVOUR]] if FLAVOUR in table.rows.column_names else []
    found: dict[str, float] = {"rows": float(number)}
    for name, prompts in (("captions", captions), ("references", [of_one[0] for of_one in table.labels])):
        drawn = [draw(prompt, seed) for seed, prompt in enumerate(prompts[:number])]
        found[f"{name}_ingredient_f1"] = compare(drawn, visible).scores("drawn")["drawn_f1"]
        if flavours:
            labeller = Labeller()
            tasted = [labeller.label("", sorted(names)).flavour for names in drawn]
            found[f"{name}_flavour_kept"] = sum(a == b for a, b in zip(tasted, flavours, strict=True)) / number
    return found


def draw(prompt: str, seed: int) -> frozenset[str]:
    """Return the names of what is visible in the picture that the plating pipeline draws from a prompt."""
    output: Any = PlatingPipeline()(prompt, height=SIZE, width=SIZE, generator=torch.Generator().manual_seed(seed))
    return frozenset(item.name for item in output.plates[0].items)
