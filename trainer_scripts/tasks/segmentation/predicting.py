"""Masks and ingredients for the pictures of a table."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from PIL import Image

from dataset_builder.errors import BadInputError
from dataset_builder.files import write_whole
from dataset_builder.messages import shown
from dataset_builder.progress import progress
from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.tasks.common.item_pictures import ItemPictures
from trainer_scripts.tasks.common.items import Item, PredictionOptions, write_answers
from trainer_scripts.tasks.common.task import SavedModel
from trainer_scripts.tasks.segmentation.answers import PLAIN, SMALLEST_AREA, answer_features, areas, predicted_masks
from trainer_scripts.tasks.segmentation.figures import colours
from trainer_scripts.tasks.segmentation.tastes import plate, tastes_of
from trainer_scripts.tasks.segmentation.views import predict_views

# Characters that would lead out of a folder, or that some file system refuses; the sign of a quoted one among them.
LONGEST_NAME = 240
UNFIT = frozenset('/\\%:*?"<>|')


@torch.inference_mode()
def predict(model: SavedModel, items: Sequence[Item], out: Path, options: PredictionOptions) -> str:
    """Write `ImageID,Labels` for every row, a mask of class ids per picture, and areas and tastes as JSON.

    The ingredients of a row are those of the ingredient head, or the classes of the mask in a model without one, the
    largest area first. Masks are palette PNG files of the picture's own size in the folder `OUT_masks`, see
    `mask_name`. With `options.probabilities` a column per ingredient follows the labels: its probability by the
    ingredient head, or in a model without one the highest probability that the mask gives it at any place.

    Args:
        model: a saved segmenter.
        items: the rows.
        out: CSV file.
        options: of which segmenters read `batch_size` and `probabilities`.

    Raises:
        BadInputError: a picture is missing or broken, or two rows of different pictures have one id, which names their
            masks; the row is named and no table is written.
    """
    folder = out.with_name(f"{out.stem}_masks")
    has_masks = model.model.config.head != "none"
    if has_masks:
        check_ids(items)
        folder.mkdir(parents=True, exist_ok=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    plates: list[dict[str, Any]] = []
    found: list[np.ndarray] = []
    pictures, done, size = ItemPictures(model, items), 0, options.batch_size
    for seen in progress(pictures.whole_batches(size), model.name, total=len(items), each=size):
        batch = items[done : done + len(seen)]
        done += len(seen)
        inputs = pictures.inputs(seen)
        if "image_features" in inputs:
            scores, named = answer_features(model.model, inputs["image_features"], model.processor)
        else:
            scores, named = predict_views(model.model, inputs["pixel_values"].to(model.model.dtype), PLAIN)
        if options.probabilities:
            found.append(ingredient_probabilities(scores, named).cpu().numpy())
        masks: list[Any] = [None] * len(batch)
        if scores is not None:
            masks = list(predicted_masks(scores, [one.size for one in seen]))
        for row, (item, mask) in enumerate(zip(batch, masks, strict=True)):
            probabilities = None if named is None else named[row].cpu().numpy()
            plates.append({"id": item.item_id, **describe(model, mask, probabilities)})
            if mask is not None:
                plates[-1]["mask"] = f"{folder.name}/{mask_name(item.item_id)}"
                save_mask(mask.cpu().numpy(), len(model.names), out.parent / plates[-1]["mask"])
    write_answers(
        out,
        [entry["id"] for entry in plates],
        ["|".join(entry["labels"]) for entry in plates],
        model.names[1:],
        np.concatenate(found) if options.probabilities else None,
    )
    text = json.dumps(plates, indent=1, ensure_ascii=False) + "\n"
    write_whole(out.with_suffix(".json"), lambda path: path.write_text(text, encoding="utf-8"))
    beside = f", masks to {folder}" if has_masks else ""
    return f"{len(plates)} rows written to {out} and {out.with_suffix('.json')}{beside}"


def ingredient_probabilities(scores: torch.Tensor | None, named: torch.Tensor | None) -> torch.Tensor:
    """Return the probability of each ingredient of each picture, `(batch, classes - 1)`.

    Args:
        scores: log-probabilities of the classes `(batch, classes, rows, columns)`; None in a model without masks.
        named: those of the ingredient head; None in a model without one.
    """
    if named is not None:
        return named.float()
    assert scores is not None
    return scores.float().exp().amax(dim=(2, 3))[:, 1:]


def mask_name(item_id: str) -> str:
    """Return the name of a row's mask: its whole id, so that no two rows share one, in the folder of the masks alone.

    >>> mask_name("a/x.png"), mask_name("x.jpg"), mask_name("../x")
    ('a%2Fx.png.png', 'x.jpg.png', '..%2Fx.png')
    """
    name = "".join(
        quote(each, safe="", errors="replace") if each in UNFIT or not each.isprintable() else each for each in item_id
    )
    if len(name.encode()) > LONGEST_NAME:  # as long as file systems allow, and still one per id
        name = f"{name[:40]}-{hashlib.sha256(item_id.encode(errors='replace')).hexdigest()[:32]}"
    return f"{name}.png"


def check_ids(items: Sequence[Item]) -> None:
    """Raise BadInputError for two rows of one id whose pictures may differ, as one's mask would replace the other's."""
    seen: dict[str, Item] = {}
    for item in items:
        first = seen.setdefault(item.item_id, item)
        if first is not item and (item.picture is None or item.picture != first.picture):
            raise BadInputError(
                f"two rows have the id {shown(item.item_id)}, which names their masks; give each row its own id"
            )


def describe(model: SavedModel, mask: torch.Tensor | None, probabilities: np.ndarray | None) -> dict[str, Any]:
    """Return labels, areas, taste vector and flavour of one picture, from its mask and its ingredient probabilities."""
    names = model.names
    content: dict[str, Any] = {}
    covered = None if mask is None else areas(mask, len(names))
    if probabilities is not None:
        shown, order = Decision()(probabilities[None])[0], probabilities
        content["probabilities"] = {names[n + 1]: round(float(p), 4) for n, p in enumerate(probabilities) if shown[n]}
    if covered is not None:
        order = covered[1:]
        if probabilities is None:
            shown = order >= SMALLEST_AREA
        content["areas"] = {names[n]: round(float(share), 4) for n, share in enumerate(covered) if n and share > 0}
        content |= plate(covered, None if probabilities is None else shown, tastes_of(model.model.config))
    # The largest area, or without masks the highest probability, comes first.
    content["labels"] = [names[n + 1] for n in np.argsort(-order, kind="stable") if shown[n]]
    return content


def save_mask(mask: np.ndarray, classes: int, path: Path) -> None:
    """Write class ids as a palette PNG: the numbers are the ids, a viewer shows the colours of the panels."""
    picture = Image.fromarray(mask.astype(np.uint8), mode="P")
    picture.putpalette(colours(classes).tobytes())
    picture.save(path)
