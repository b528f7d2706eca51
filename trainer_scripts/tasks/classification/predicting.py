"""Labels for the rows of a table, from pictures and texts that are read one batch at a time."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset_builder.errors import BadInputError
from dataset_builder.importers.comp5329 import CATEGORY_IDS
from dataset_builder.messages import echo, shown
from dataset_builder.progress import progress
from trainer_scripts.evaluation.decisions import EXPECTED_F1, Decision, ExpectedF1Decision
from trainer_scripts.tasks.common.item_pictures import ItemPictures, Seen
from trainer_scripts.tasks.common.items import Item, PredictionOptions, write_answers
from trainer_scripts.tasks.common.task import SavedModel

NAMED = 5


def predict(model: SavedModel, items: Sequence[Item], out: Path, options: PredictionOptions) -> str:
    """Write `ImageID,Labels` for every row to `out`, and name the rows with a missing input on stderr.

    With `options.probabilities` a column per label follows.
    """
    strange: dict[str, np.ndarray] = {}
    probabilities, broken = predict_items(model, items, options.batch_size, options.missing_pictures == "text", strange)
    ids = [item.item_id for item in items]
    cells = label_cells(model, probabilities, options)
    if options.abstain:
        unsure = probabilities.max(axis=1) < model.model.config.abstain_below
        kept = ~(unsure | (strange["nothing"] if strange else False))
        cells = [cell if here else "" for cell, here in zip(cells, kept, strict=True)]
        report("rows without an answer", [item_id for item_id, here in zip(ids, kept, strict=True) if not here])
    write_answers(out, ids, cells, model.names, probabilities if options.probabilities else None)
    for part in ("text", "image"):
        if part in strange:
            what = f"rows whose {part} is unlike those of training (`unfamiliar`)"
            report(what, [item_id for item_id, here in zip(ids, strange[part], strict=True) if here])
    report("pictures missing or broken, predicted from text alone", broken)
    report(
        "rows without text, predicted from the picture and an empty one",
        [item.item_id for item in items if item.text is not None and not item.text.strip()],
    )
    return f"{len(items)} rows written to {out}"


@torch.inference_mode()
def predict_items(
    model: SavedModel,
    items: Sequence[Item],
    batch_size: int,
    without_picture: bool,
    strange: dict[str, np.ndarray] | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Return probabilities `(rows, labels)` and the ids whose picture is missing or broken.

    Into `strange` goes, of a model that knows it, which rows have an unfamiliar `text`, an unfamiliar `image`, and
    `nothing` that is familiar, `(rows,)` bool each.

    Raises:
        BadInputError: such a picture, unless `without_picture` and the model reads texts too; or a row with neither
            picture nor text.
    """
    found, broken, known = [], [], []
    pictures = None if model.modality == "text" else ItemPictures(model, items)
    opened = None if pictures is None else pictures.batches(batch_size)
    for start in progress(range(0, len(items), batch_size), model.name, total=len(items), each=batch_size):
        batch = items[start : start + batch_size]
        seen: list[Seen | None] = [None] * len(batch)
        if opened is not None:
            for row, (item, future) in enumerate(zip(batch, next(opened), strict=True)):
                try:
                    seen[row] = future.result()
                except (OSError, ValueError) as error:
                    if not (without_picture and model.modality == "fusion"):
                        hint = ", or give --missing_pictures text" if model.modality == "fusion" else ""
                        raise BadInputError(f"row {item.item_id}: {error}; mend it or remove the row{hint}") from error
                    broken.append(item.item_id)
        for row, item in enumerate(batch):
            # An empty text is allowed beside a picture, as titles are missing in many tables.
            if seen[row] is None and not (item.text or "").strip():
                raise BadInputError(f"row {item.item_id} has no text to predict from; give it one or remove the row")
        inputs: dict[str, Any] = {}
        if model.modality != "image":
            inputs |= text_inputs(model, [item.text for item in batch])
        if pictures is not None:
            inputs |= pictures.inputs(seen)
        output = model.model(**inputs)
        found.append(model.task.probabilities(output.logits.float()).cpu().numpy())
        known.append(_strange(output, inputs, len(batch)))
    if strange is not None and any(known):
        strange |= {name: np.concatenate([each[name] for each in known]) for name in known[0]}
    return np.concatenate(found), broken


def _strange(output: Any, inputs: dict[str, Any], rows: int) -> dict[str, np.ndarray]:
    """Return which rows of a batch have unfamiliar parts; {} of a model that does not know."""
    found, given = {}, np.zeros(rows, dtype=int)
    for part in ("text", "image"):
        familiar = output.get(f"{part}_familiar")
        present = inputs.get(f"{part}_present")
        here = np.ones(rows, dtype=bool) if present is None else present.cpu().numpy().astype(bool)
        # A batch that lacks a part altogether says nothing of it.
        found[part] = np.zeros(rows, dtype=bool) if familiar is None else here & ~familiar.cpu().numpy()
        given += 0 if familiar is None else here
    known = any(output.get(f"{part}_familiar") is not None for part in found)
    return found | {"nothing": found["text"].astype(int) + found["image"] == given} if known else {}


def text_inputs(model: SavedModel, texts: Sequence[str | None]) -> dict[str, torch.Tensor]:
    """Return the tokens of texts as the processor makes them, and `text_present` where some are missing or blank."""
    given = [text if text is not None and text.strip() else None for text in texts]
    if not any(given):
        return {}
    found = model.processor.encode_texts(given, padding=True)
    if None in given:
        found["text_present"] = torch.tensor([text is not None for text in given])
    return {name: value.to(model.model.device) for name, value in found.items()}


def label_cells(model: SavedModel, probabilities: np.ndarray, options: PredictionOptions) -> list[str]:
    """Return the `Labels` cell of each row: COCO category numbers where the labels are such, else names."""
    names = model.names
    if not model.task.has_label_sets:
        return [names[index] for index in probabilities.argmax(axis=1)]
    if options.decision == EXPECTED_F1:
        chosen = ExpectedF1Decision()(probabilities)
    else:
        threshold = 0.5 if options.threshold is None else options.threshold
        chosen = Decision(read_thresholds(model, options.thresholds) or threshold)(probabilities)
    if set(names) <= set(CATEGORY_IDS):
        # The numbers of COCO, sorted, as the assignment's files have them.
        numbers = np.array([CATEGORY_IDS[name] for name in names])
        return [" ".join(str(number) for number in sorted(numbers[row])) for row in chosen]
    return ["|".join(name for name, is_chosen in zip(names, row, strict=True) if is_chosen) for row in chosen]


def read_thresholds(model: SavedModel, path: Path | None) -> tuple[float, ...] | None:
    """Return the thresholds of a file in label order; None without a file."""
    if path is None:
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return tuple(float(saved[name]) for name in model.names)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"{path} holds no threshold for every label of {model.name}: {error}") from error


def report(what: str, ids: Sequence[str]) -> None:
    """Count and name the rows that something is wrong with."""
    if ids:
        more = ", ..." if len(ids) > NAMED else ""
        echo(f"{len(ids)} {what}: {', '.join(map(shown, ids[:NAMED]))}{more}", sys.stderr)
