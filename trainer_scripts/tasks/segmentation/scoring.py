"""Scores per class, trivial baselines and figures of a saved segmenter on a split."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig

from dataset_builder.columns import FLAVOUR, FLAVOURS
from dataset_builder.files import write_csv
from trainer_scripts.data.pictures import normalise, readable_picture
from trainer_scripts.data.table import Table, decode_bytes
from trainer_scripts.evaluation.decisions import Decision
from trainer_scripts.evaluation.lines import MODEL, Line
from trainer_scripts.tasks.common.task import Outputs, SavedModel, Scored, ScoredModels, ScoringOptions
from trainer_scripts.tasks.segmentation.answers import Answers, answer, predicted_masks, samples_for
from trainer_scripts.tasks.segmentation.classes import food_groups
from trainer_scripts.tasks.segmentation.comparing import baseline_lines, reader_of
from trainer_scripts.tasks.segmentation.figures import class_bars, confusion_table, confusions, flavour_maps, panels
from trainer_scripts.tasks.segmentation.samples import MaskSamples
from trainer_scripts.tasks.segmentation.scores import class_table, pixel_counts
from trainer_scripts.tasks.segmentation.tastes import plate, tastes_of
from trainer_scripts.tasks.segmentation.views import Views, predict_views

ANSWERS = "segmentation.npz"
PLATES = "flavours.csv"
SHOWN_ROWS = 8


def score(model: SavedModel, compared: ScoredModels, out: Path, options: ScoringOptions) -> Scored:
    """Return masks and ingredients beside trivial baselines, and draw the figures into a folder.

    Raises:
        BadInputError: the masks of the data set have other ids than those that the model was trained on.
    """
    table = compared.test
    testing = views_of(options)
    samples = samples_for(model, table, testing)
    given = model.outputs(table)
    if given is not None:
        answers = Answers.of_outputs(given)
    else:
        answers = answer(model.model, samples, options.batch_size, model.name, testing, reader=reader_of(model))
    # Only now, so that refused options and data leave no folder behind.
    out.mkdir(parents=True, exist_ok=True)
    predictions = answers.predictions(table)
    compared.models.append(Line(model.name, MODEL, model.modality, predictions))
    scored = Scored(predictions, baselines=baseline_lines(compared), details={"testing": testing.describe()})
    arrays: dict[str, np.ndarray] = {
        "ids": np.array(table.ids),
        "groups": np.array(table.groups),
        "shown": answers.shown,
        "probabilities": answers.probabilities,
    }
    scored.files = [ANSWERS]
    if answers.counts is not None and answers.confusion is not None and answers.areas is not None:
        scored.details["per_class"] = class_table(model.names, pixel_counts(answers.confusion))
        if answers.group_counts is not None:
            groups, _ = food_groups(model.names) or ([], [])
            scored.details["per_group"] = class_table(groups, answers.group_counts.sum(axis=0))
            arrays["group_counts"] = answers.group_counts
            class_bars(scored.details["per_group"], out / "group_bars.png")
            scored.files.append("group_bars.png")
        scored.details["confusions"] = confusions(answers.confusion, model.names)
        arrays |= {"counts": answers.counts, "confusion": answers.confusion, "areas": answers.areas}
        plates = plate_flavours(model.model.config, answers, options)
        scored.details["flavour_map"] = flavour_summary(plates, table, options)
        write_plates(out / PLATES, table.ids, plates)
        scored.files += [PLATES, *draw(model, samples, answers, plates, testing, out)]
    np.savez_compressed(out / ANSWERS, **arrays)  # type: ignore[arg-type]
    return scored


def outputs(model: SavedModel, table: Table, options: ScoringOptions) -> Outputs:
    """Return what the masks and ingredients of the rows come to, see `Answers.outputs`."""
    testing = views_of(options)
    samples = samples_for(model, table, testing)
    return answer(model.model, samples, options.batch_size, "", testing, reader=reader_of(model)).outputs()


def views_of(options: ScoringOptions) -> Views:
    """Return the views of each picture that the options ask for."""
    return Views(options.scales or (1.0,), options.flip, options.window, options.stride)


def plate_flavours(config: PreTrainedConfig, found: Answers, options: ScoringOptions) -> list[dict[str, Any]]:
    """Return the `plate` of every picture: its taste by areas, and whether a classifier agrees."""
    assert found.areas is not None
    tastes = tastes_of(config)
    named = Decision()(found.probabilities) if config.ingredient_head else None
    return [
        plate(
            shares,
            None if named is None else named[row],
            tastes,
            options.classifier_flavours[row] if options.classifier else None,
        )
        for row, shares in enumerate(found.areas)
    ]


def flavour_summary(plates: Sequence[dict[str, Any]], table: Table, options: ScoringOptions) -> dict[str, Any]:
    """Return how often the flavour map agrees with the classifier, and with the data's own label where there is one."""
    summary: dict[str, Any] = {"flavours": "areas of the predicted mask weighted by the tastes of their ingredients"}
    if "agrees" in plates[0]:
        summary["classifier"] = options.classifier or "ingredient head"
        summary["agreement"] = float(np.mean([plate["agrees"] for plate in plates]))
    if FLAVOUR in table.rows.column_names:
        names = table.rows.features[FLAVOUR].names
        truth = [names[value] for value in table.rows[FLAVOUR]]
        summary["accuracy"] = float(np.mean([p["flavour"] == t for p, t in zip(plates, truth, strict=True)]))
    return summary


def write_plates(path: Path, ids: Sequence[str], plates: Sequence[dict[str, Any]]) -> None:
    """Write per picture its taste vector, its flavour, and the classifier's with a flag where they disagree."""
    rows = []
    for name, found in zip(ids, plates, strict=True):
        flag = "" if found.get("agrees", True) else "yes"
        taste = [f"{value:.3f}" for value in found["taste"]]
        rows.append([name, *taste, found["flavour"], found.get("classifier", ""), flag])
    write_csv(path, ["id", *FLAVOURS, "flavour", "classifier", "disagrees"], rows)


def draw(
    model: SavedModel, samples: MaskSamples, found: Answers, plates: Sequence[dict[str, Any]], testing: Views, out: Path
) -> list[str]:
    """Draw panels and flavour maps of pictures spread over the table, and the tables per class; return their names."""
    # Spread evenly, as neighbours may be of one dish.
    rows = np.unique(np.linspace(0, len(samples) - 1, SHOWN_ROWS).astype(int)).tolist()
    masks = [shown_mask(model, samples, row, testing) for row in rows]
    table = samples.table
    cells = [(table.rows[row][table.image_column], table.ids[row]) for row in rows]
    pictures = [readable_picture(decode_bytes(cell, row_id), row_id) for cell, row_id in cells]
    panels(pictures, [samples.masks[row].numpy() for row in rows], masks, model.names, out / "panels.png")
    chosen = [plates[row] for row in rows]
    flavour_maps(pictures, masks, tastes_of(model.model.config), chosen, out / "flavour_map.png")
    assert found.confusion is not None
    class_bars(class_table(model.names, pixel_counts(found.confusion)), out / "class_bars.png")
    confusion_table(found.confusion, model.names, out / "confusion.png")
    return ["panels.png", "flavour_map.png", "class_bars.png", "confusion.png"]


@torch.inference_mode()
def shown_mask(model: SavedModel, samples: MaskSamples, row: int, testing: Views) -> np.ndarray:
    """Return the predicted mask of one row, at the size of its true mask."""
    normal, truth = samples.processor.image_processor, samples.masks[row]
    pixels = normalise([samples.pictures[row]], normal.image_mean, normal.image_std)
    scores, _ = predict_views(model.model, pixels.to(model.model.device, model.model.dtype), testing)
    assert scores is not None
    return next(predicted_masks(scores, [(truth.shape[0], truth.shape[1])])).cpu().numpy()


def describe(details: Mapping[str, Any]) -> list[str]:
    """Return the flavour map and the classes as lines for the terminal."""
    lines = []
    if "flavour_map" in details:
        summary = details["flavour_map"]
        known = [f"{name} {summary[name]:.3f}" for name in ("agreement", "accuracy") if name in summary]
        lines.append(f"flavour map: {', '.join(known) or 'drawn'}")
    # Hundreds of ingredients are for the file; the terminal shows their groups.
    for name, entry in details.get("per_group", details.get("per_class", {})).items():
        shown = "   -  " if entry["iou"] is None else f"{entry['iou']:6.3f}"
        lines.append(f"  {name:<22} IoU {shown}  {entry['share_of_pixels']:7.2%} of the pixels")
    return lines
