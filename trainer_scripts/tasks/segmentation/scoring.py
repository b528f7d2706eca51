"""A saved segmenter on a split: scores with intervals, tables per class, trivial baselines, and figures to look at."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset_builder.columns import FLAVOUR, FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from trainer_scripts.data.masks import source_names
from trainer_scripts.data.pictures import normalise, readable_picture
from trainer_scripts.data.table import Table, decode_bytes
from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.evaluation.intervals import bootstrap
from trainer_scripts.evaluation.predictions import METRICS
from trainer_scripts.evaluation.scores import definitions
from trainer_scripts.tasks.segmentation.answers import PLAIN, Answers, answer, evaluate, predicted_masks
from trainer_scripts.tasks.segmentation.classes import food_groups
from trainer_scripts.tasks.segmentation.figures import class_bars, confusion_table, confusions, flavour_maps, panels
from trainer_scripts.tasks.segmentation.samples import MaskSamples, own_size
from trainer_scripts.tasks.segmentation.scores import (
    all_background,
    class_table,
    group_scores,
    ingredient_scores,
    mask_scores,
    most_frequent,
    pixel_counts,
)
from trainer_scripts.tasks.segmentation.tastes import plate, tastes_of
from trainer_scripts.tasks.segmentation.views import Views, ask

ANSWERS = "segmentation.npz"
PLATES = "flavours.csv"
SHOWN_ROWS = 8


def score_segmenter(
    model: Any,
    table: Table,
    dataset: str,
    split: str,
    out: Path,
    batch_size: int,
    testing: Views = PLAIN,
    classifier: tuple[str, Sequence[str]] | None = None,
) -> str:
    """Write scores, counts per picture and figures of a segmenter into a folder, and return a table for the terminal.

    Args:
        model: `scoring.SavedModel` of a segmenter.
        table: rows of the split.
        dataset: folder or Hub id that the rows came from.
        split: name of the split.
        out: folder of the result.
        batch_size: pictures per batch.
        testing: views of each picture that are averaged.
        classifier: name of a classifier and the flavour it gives each row, to hold the flavour map against; None
            asks the model's own ingredient head, where it has one.

    Raises:
        BadInputError: the masks of the data set have other ids than those that the model was trained on.
    """
    samples = samples_for(model, table, testing)
    found = answer(model.model, samples, batch_size, model.name, testing)
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "model": model.reference,
        "task": model.task.name,
        "modality": "image",
        "dataset": dataset,
        "split": split,
        "selection_split": model.selection_split,
        "rows": len(table),
        "groups": len(set(table.groups)),
        "testing": testing.describe(),
        "label_names": model.names,
        "metrics": with_intervals(found, model.names, table.groups),
        "baselines": baselines(found, model.names),
        "definitions": definitions(model.task.scores(model.names)),
    }
    arrays: dict[str, Any] = {"ids": np.array(table.ids), "groups": np.array(table.groups), "shown": found.shown}
    arrays["probabilities"] = found.probabilities
    if found.counts is not None and found.confusion is not None and found.areas is not None:
        content["per_class"] = class_table(model.names, pixel_counts(found.confusion))
        if found.group_counts is not None:
            groups, _ = food_groups(model.names) or ([], [])
            content["per_group"] = class_table(groups, found.group_counts.sum(axis=0))
            arrays["group_counts"] = found.group_counts
            class_bars(content["per_group"], out / "group_bars.png")
        content["confusions"] = confusions(found.confusion, model.names)
        arrays |= {"counts": found.counts, "confusion": found.confusion, "areas": found.areas}
        plates = plate_flavours(model.model.config, found, classifier)
        content["flavour_map"] = flavour_summary(plates, table, classifier)
        write_plates(out / PLATES, table.ids, plates)
        draw(model, samples, found, plates, testing, out)
    np.savez_compressed(out / ANSWERS, **arrays)
    predictions = found.predictions(table)
    predictions.save(out)
    content["rows_sha256"] = predictions.rows_sha256()
    write_json(out / METRICS, content)
    return report(content)


def plate_flavours(config: Any, found: Answers, classifier: tuple[str, Sequence[str]] | None) -> list[dict[str, Any]]:
    """Return `plate` of every picture: its taste by areas, and whether a classifier agrees."""
    assert found.areas is not None
    tastes = tastes_of(config)
    named = Decision()(found.probabilities) if config.ingredient_head else None
    return [
        plate(shares, None if named is None else named[row], tastes, None if classifier is None else classifier[1][row])
        for row, shares in enumerate(found.areas)
    ]


def flavour_summary(plates: Sequence[dict[str, Any]], table: Table, classifier: Any) -> dict[str, Any]:
    """Return how often the flavour map agrees with the classifier, and with the data's own label where there is one."""
    summary: dict[str, Any] = {"flavours": "areas of the predicted mask weighted by the tastes of their ingredients"}
    if "agrees" in plates[0]:
        summary["classifier"] = classifier[0] if classifier is not None else "ingredient head"
        summary["agreement"] = float(np.mean([plate["agrees"] for plate in plates]))
    if FLAVOUR in table.rows.column_names:
        names = table.rows.features[FLAVOUR].names
        truth = [names[value] for value in table.rows[FLAVOUR]]
        summary["accuracy"] = float(np.mean([p["flavour"] == t for p, t in zip(plates, truth, strict=True)]))
    return summary


def write_plates(path: Path, ids: Sequence[str], plates: Sequence[dict[str, Any]]) -> None:
    """Write per picture its taste vector, its flavour, and the classifier's with a flag where they disagree."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", *FLAVOURS, "flavour", "classifier", "disagrees"])
        for name, plate in zip(ids, plates, strict=True):
            flag = "" if "agrees" not in plate else "" if plate["agrees"] else "yes"
            taste = [f"{value:.3f}" for value in plate["taste"]]
            writer.writerow([name, *taste, plate["flavour"], plate.get("classifier", ""), flag])


def draw(
    model: Any, samples: MaskSamples, found: Answers, plates: Sequence[dict[str, Any]], testing: Views, out: Path
) -> None:
    """Draw panels and flavour maps of pictures spread over the table, and the tables per class."""
    rows = np.unique(np.linspace(0, len(samples) - 1, SHOWN_ROWS).astype(int)).tolist()
    masks = [shown_mask(model, samples, row, testing) for row in rows]
    pictures = [shown_picture(samples.table, row) for row in rows]
    panels(pictures, [samples.masks[row].numpy() for row in rows], masks, model.names, out / "panels.png")
    chosen = [plates[row] for row in rows]
    flavour_maps(pictures, masks, tastes_of(model.model.config), chosen, out / "flavour_map.png")
    assert found.confusion is not None
    class_bars(class_table(model.names, pixel_counts(found.confusion)), out / "class_bars.png")
    confusion_table(found.confusion, model.names, out / "confusion.png")


@torch.inference_mode()
def shown_mask(model: Any, samples: MaskSamples, row: int, testing: Views) -> np.ndarray:
    """Return the predicted mask of one row, at the size of its true mask."""
    normal, truth = samples.processor.image_processor, samples.masks[row]
    pixels = normalise([samples.pictures[row]], normal.image_mean, normal.image_std)
    scores, _ = ask(model.model, pixels.to(model.model.device, model.model.dtype), testing)
    assert scores is not None
    return next(predicted_masks(scores, [(truth.shape[0], truth.shape[1])])).cpu().numpy()


def shown_picture(table: Table, row: int) -> Any:
    """Return the picture of a row as it is."""
    cell = table.rows[row][table.image_column]
    return readable_picture(decode_bytes(cell, table.ids[row]), table.ids[row])


def samples_for(model: Any, table: Table, testing: Views = PLAIN) -> MaskSamples:
    """Return the rows as the model reads them; windows slide over pictures of their own size.

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
    prepare = None if testing.window is None else own_size
    return MaskSamples(table, model.processor, config.class_map, config.num_labels, prepare=prepare)


def with_intervals(found: Answers, names: list[str], groups: list[str]) -> dict[str, Any]:
    """Return every score with its interval over groups, where it has one."""
    lines: dict[str, Any] = {}
    for score, labels, probabilities in found.scored(names):
        interval = bootstrap(score, labels, probabilities, groups)
        value = score(labels, probabilities)
        lines[score.name] = (
            {"value": value} if interval is None else {"value": value, "low": interval.low, "high": interval.high}
        )
    return lines


def baselines(found: Answers, names: list[str]) -> dict[str, dict[str, float]]:
    """Return the scores of answers that need no model: all background, and the most frequent ingredients."""
    lines = {}
    if found.counts is not None:
        counts = all_background(found.counts)
        lines["all background"] = evaluate(mask_scores(), counts, counts)
    if found.group_counts is not None:
        counts = all_background(found.group_counts)
        lines["all background"] |= evaluate(group_scores(names), counts, counts)
    constant = np.broadcast_to(most_frequent(found.shown), found.shown.shape)
    lines["most frequent ingredients"] = evaluate(ingredient_scores(names[1:]), found.shown, constant)
    return lines


def report(content: dict[str, Any]) -> str:
    """Return scores, baselines and classes as lines for the terminal."""
    lines = []
    for name, entry in content["metrics"].items():
        interval = f" [{entry['low']:.3f}, {entry['high']:.3f}]" if "low" in entry else ""
        beside = ", ".join(f"{who} {line[name]:.3f}" for who, line in content["baselines"].items() if name in line)
        lines.append(f"{name:<24} {entry['value']:.3f}{interval:<17}  {beside}")
    if "flavour_map" in content:
        summary = content["flavour_map"]
        known = [f"{name} {summary[name]:.3f}" for name in ("agreement", "accuracy") if name in summary]
        lines.append(f"flavour map: {', '.join(known) or 'drawn'}")
    # Hundreds of ingredients are for the file; the terminal shows their groups.
    for name, entry in content.get("per_group", content.get("per_class", {})).items():
        shown = "   -  " if entry["iou"] is None else f"{entry['iou']:6.3f}"
        lines.append(f"  {name:<22} IoU {shown}  {entry['share_of_pixels']:7.2%} of the pixels")
    return "\n".join(lines)
