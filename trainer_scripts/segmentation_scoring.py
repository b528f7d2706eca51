"""A saved segmenter on a split: scores with intervals, a table per class, trivial baselines, and panels to look at."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from dataset_builder.errors import BadInputError
from trainer_scripts.data import Table
from trainer_scripts.intervals import bootstrap
from trainer_scripts.pictures import normalise
from trainer_scripts.predictions import METRICS, write_json
from trainer_scripts.scores import definitions
from trainer_scripts.segmentation import MaskSamples, source_names
from trainer_scripts.segmentation_evaluation import Answers, answer, evaluate, predicted_masks
from trainer_scripts.segmentation_scores import class_table, ingredient_scores, mask_scores, pixel_counts

PANELS = "panels.png"
ANSWERS = "segmentation.npz"
PANEL_ROWS = 8
PANEL_SIDE = 192


def score_segmenter(model: Any, table: Table, dataset: str, split: str, out: Path, batch_size: int) -> str:
    """Write scores, counts per picture and panels of a segmenter into a folder, and return a table for the terminal.

    Args:
        model: `scoring.SavedModel` of a segmenter.
        table: rows of the split.
        dataset: folder or Hub id that the rows came from.
        split: name of the split.
        out: folder of the result.
        batch_size: pictures per batch.

    Raises:
        BadInputError: the masks of the data set have other ids than those that the model was trained on.
    """
    samples = samples_for(model, table)
    found = answer(model.model, samples, batch_size, model.name)
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "model": model.source,
        "task": model.task.name,
        "modality": "image",
        "dataset": dataset,
        "split": split,
        "selection_split": model.arguments.selection_split,
        "rows": len(table),
        "groups": len(set(table.groups)),
        "label_names": model.names,
        "metrics": with_intervals(found, model.names, table.groups),
        "baselines": baselines(found, model.names),
        "definitions": definitions(model.task.scores(model.names)),
    }
    arrays: dict[str, Any] = {"ids": np.array(table.ids), "groups": np.array(table.groups), "shown": found.shown}
    arrays["probabilities"] = found.probabilities
    if found.counts is not None and found.confusion is not None:
        content["per_class"] = class_table(model.names, pixel_counts(found.confusion))
        arrays |= {"counts": found.counts, "confusion": found.confusion}
        panels(model, samples, out / PANELS)
    np.savez_compressed(out / ANSWERS, **arrays)
    predictions = found.predictions(table)
    predictions.save(out)
    content["rows_sha256"] = predictions.rows_sha256()
    write_json(out / METRICS, content)
    return report(content)


def samples_for(model: Any, table: Table) -> MaskSamples:
    """Return the rows as the model reads them.

    Raises:
        BadInputError: the masks have other ids than those that the model was trained on.
    """
    config, names = model.model.config, source_names(table.rows)
    if config.source_labels is not None and names != config.source_labels:
        raise BadInputError(
            f"the masks of this data set have {len(names)} ids ({', '.join(names[:4])}, ...), those that "
            f"{model.source} learned from had {len(config.source_labels)} ({', '.join(config.source_labels[:4])}, "
            "...); score it on data with the same ids"
        )
    return MaskSamples(table, model.processor, config.class_map, config.num_labels)


def with_intervals(found: Answers, names: list[str], groups: list[str]) -> dict[str, Any]:
    """Return every score with its interval over groups, where it has one."""
    lines: dict[str, Any] = {}
    for scores, labels, probabilities in (
        (() if found.counts is None else mask_scores(), found.counts, found.counts),
        (ingredient_scores(names[1:]), found.shown, found.probabilities),
    ):
        for score in scores:
            assert labels is not None
            assert probabilities is not None
            interval = bootstrap(score, labels, probabilities, groups)
            value = score(labels, probabilities)
            lines[score.name] = (
                {"value": value} if interval is None else {"value": value, "low": interval.low, "high": interval.high}
            )
    return lines


def baselines(found: Answers, names: list[str]) -> dict[str, dict[str, float]]:
    """Return the scores of answers that need no model: all background, and always the most frequent ingredients."""
    lines = {}
    if found.counts is not None:
        hits, predicted, true = np.split(found.counts.copy(), 3, axis=1)
        hits[:], predicted[:] = 0, 0
        hits[:, 0], predicted[:, 0] = true[:, 0], true.sum(axis=1)
        counts = np.concatenate([hits, predicted, true], axis=1)
        lines["all background"] = evaluate(mask_scores(), counts, counts)
    number = max(round(found.shown.sum(axis=1).mean()), 1)
    frequent = np.zeros(found.shown.shape[1])
    frequent[np.argsort(-found.shown.sum(axis=0))[:number]] = 1
    constant = np.broadcast_to(frequent, found.shown.shape)
    lines["most frequent ingredients"] = evaluate(ingredient_scores(names[1:]), found.shown, constant)
    return lines


def colours(classes: int) -> np.ndarray:
    """Return a colour per class, `(classes, 3)` uint8: black for the background, hues far apart for neighbours."""
    hues = (np.arange(classes) * 0.618034) % 1
    palette = [Image.new("HSV", (1, 1), (int(hue * 255), 200, 235)).convert("RGB").getpixel((0, 0)) for hue in hues]
    return np.array([(0, 0, 0), *palette[1:]], dtype=np.uint8)


@torch.inference_mode()
def panels(model: Any, samples: MaskSamples, path: Path) -> None:
    """Draw picture, truth, prediction and overlay of the first pictures, with the names of their classes."""
    palette, normal = colours(len(model.names)), samples.processor.image_processor
    rows = range(min(PANEL_ROWS, len(samples)))
    legend = 150
    sheet = Image.new("RGB", (4 * PANEL_SIDE + legend, len(rows) * PANEL_SIDE), "white")
    draw = ImageDraw.Draw(sheet)
    for row in rows:
        picture, truth = samples.pictures[row], samples.masks[row]
        pixels = normalise([picture], normal.image_mean, normal.image_std).to(model.model.device)
        size = (truth.shape[0], truth.shape[1])
        mask = next(predicted_masks(model.model(pixels).logits, [size])).cpu().numpy()
        known = np.where(truth.numpy() < len(palette), truth.numpy(), 0)
        plate = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((PANEL_SIDE, PANEL_SIDE))
        drawn = [Image.fromarray(palette[ids]).resize(plate.size, Image.Resampling.NEAREST) for ids in (known, mask)]
        for column, panel in enumerate((plate, *drawn, Image.blend(plate, drawn[1], 0.5))):
            sheet.paste(panel, (column * PANEL_SIDE, row * PANEL_SIDE))
        present = [number for number in np.union1d(known, mask) if number][:11]
        for line, number in enumerate(present):
            top = row * PANEL_SIDE + 6 + 16 * line
            left = 4 * PANEL_SIDE + 6
            draw.rectangle((left, top, left + 10, top + 10), fill=tuple(palette[number].tolist()))
            draw.text((left + 16, top - 1), model.names[number], fill="black")
    sheet.save(path)


def report(content: dict[str, Any]) -> str:
    """Return scores, baselines and classes as lines for the terminal."""
    lines = []
    for name, entry in content["metrics"].items():
        interval = f" [{entry['low']:.3f}, {entry['high']:.3f}]" if "low" in entry else ""
        beside = ", ".join(f"{who} {line[name]:.3f}" for who, line in content["baselines"].items() if name in line)
        lines.append(f"{name:<24} {entry['value']:.3f}{interval:<17}  {beside}")
    for name, entry in content.get("per_class", {}).items():
        shown = "   -  " if entry["iou"] is None else f"{entry['iou']:6.3f}"
        lines.append(f"  {name:<22} IoU {shown}  {entry['share_of_pixels']:7.2%} of the pixels")
    return "\n".join(lines)
