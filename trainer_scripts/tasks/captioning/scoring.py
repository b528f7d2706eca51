"""Scores, figures and files of a saved captioner on a split, and captions for rows without references."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dataset_builder.files import write_csv
from dataset_builder.progress import progress
from modeling_flavour.captioning_pipeline_flavour import as_sentence
from trainer_scripts.evaluation.lines import MODEL, Line
from trainer_scripts.evaluation.scores import CAPTIONS
from trainer_scripts.tasks.captioning.answers import caption_table, captions_of, predictions_of
from trainer_scripts.tasks.captioning.comparing import BLANK, baseline_lines, changes, faults, target_is_hidden
from trainer_scripts.tasks.captioning.figures import contact_sheet, word_maps
from trainer_scripts.tasks.captioning.samples import CaptionSamples
from trainer_scripts.tasks.captioning.scores import METEOR_SCORE, meteor, meteor_missing
from trainer_scripts.tasks.captioning.truth import detail_scores, round_trip, visible_names
from trainer_scripts.tasks.common.item_pictures import ItemPictures
from trainer_scripts.tasks.common.items import Item, PredictionOptions
from trainer_scripts.tasks.common.task import SavedModel, Scored, ScoredModels, ScoringOptions

CAPTIONS_CSV = "captions.csv"
CAPTIONS_JSON = "captions.json"
CONTACT_SHEET = "contact_sheet.png"
WORD_MAPS = "word_maps.png"


def score(model: SavedModel, compared: ScoredModels, out: Path, options: ScoringOptions) -> Scored:
    """Return captions beside baselines, ablations and truth, and write captions and figures into a folder."""
    table, size = compared.test, options.batch_size
    samples, captions, expected = captions_of(model, table, size, model.name)
    out.mkdir(parents=True, exist_ok=True)
    predictions = predictions_of(table, captions, expected)
    # The baselines take rows and processor from the lines of models.
    compared.models.append(Line(model.name, MODEL, model.modality, predictions))
    write_captions(out / CAPTIONS_CSV, out / CAPTIONS_JSON, table.ids, captions, list(table.labels))
    scored = Scored(predictions, files=[CAPTIONS_CSV, CAPTIONS_JSON, CONTACT_SHEET])
    scored.ablations = [Line(name, MODEL, model.modality, each) for name, each in changes(model, table, size)]
    if compared.has_train:
        scored.baselines = baseline_lines(compared)
    others = {line.name: line.predictions.parts[CAPTIONS][1] for line in (*scored.baselines, *scored.ablations)}
    if meteor_missing() is None:
        scored.more = meteor({"": captions, **others}, list(table.labels))
        scored.more_scores = (METEOR_SCORE,)
    scored.faults = faults(captions, others[BLANK], target_is_hidden(model.model, samples))
    scored.details = {
        "truth": truth(model, samples, captions, size) if visible_names(table) is not None else None,
        "left_out": meteor_missing(),
        "generation": model.model.generation_config.to_diff_dict(),
    }
    contact_sheet(samples, captions, out / CONTACT_SHEET)
    if word_maps(model.model, samples, out / WORD_MAPS):
        scored.files.append(WORD_MAPS)
    return scored


def truth(model: SavedModel, samples: CaptionSamples, captions: Sequence[str], batch_size: int) -> dict[str, Any]:
    """Return the shares of right counts, places and relations, and how much of a dish survives a round trip."""
    torch.manual_seed(0)
    sampled, _ = caption_table(model.model, samples, batch_size, name="sampled", do_sample=True, num_beams=1)
    return {
        "details": detail_scores(captions, samples.table),
        # Likeliest captions are mostly lists; drawn ones also count and place.
        "details_of_sampled_captions": detail_scores(sampled, samples.table),
        "round_trip": round_trip(captions, samples.table),
    }


def describe(details: Mapping[str, Any]) -> list[str]:
    """Return the truth of the captions as lines for the terminal."""
    lines = [details["left_out"]] if details["left_out"] else []
    for name, values in (details["truth"] or {}).items():
        lines.append(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in values.items()))
    return lines


def write_captions(
    table: Path,
    results: Path,
    ids: Sequence[str],
    captions: Sequence[str],
    references: Sequence[Sequence[str]] | None = None,
) -> None:
    """Write the captions as CSV (with the reference captions, if any) and in COCO's results format."""
    rows = list(zip(ids, captions, strict=True))
    if references is None:
        write_csv(table, ("ImageID", "Caption"), rows)
    else:
        joined = [(*row, " | ".join(of_one)) for row, of_one in zip(rows, references, strict=True)]
        write_csv(table, ("ImageID", "Caption", "References"), joined)
    coco = [{"image_id": coco_id(name), "caption": caption} for name, caption in rows]
    results.write_text(json.dumps(coco, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def coco_id(name: str) -> int | str:
    """Return an id as COCO's results format wants it: a number where it is one.

    >>> coco_id("000000391895.jpg"), coco_id("greek-salad-00-00")
    (391895, 'greek-salad-00-00')
    """
    # File names of COCO end in the number of the picture, with a prefix in older sets.
    stem = name.rsplit("_", 1)[-1].rsplit(".", 1)[0]
    return int(stem) if stem.isdigit() else name


@torch.inference_mode()
def predict(model: SavedModel, items: Sequence[Item], out: Path, options: PredictionOptions) -> str:
    """Write `ImageID,caption` for every row to `out`, and the same as JSON beside it; return a message.

    Args:
        model: a saved captioner.
        items: the rows.
        out: CSV file.
        options: of which captioners read `batch_size`.

    Raises:
        BadInputError: a picture is missing or broken; its row is named and nothing is written.
    """
    captions: list[str] = []
    pictures, size = ItemPictures(model, items), options.batch_size
    for seen in progress(pictures.whole_batches(size), model.name, total=len(items), each=size):
        inputs = pictures.inputs(seen, model.model.dtype)
        texts = model.processor.tokenizer.batch_decode(model.model.generate(**inputs), skip_special_tokens=True)
        captions += [as_sentence(text) for text in texts]
    # Only now, so that a broken picture leaves no part of a table behind.
    out.parent.mkdir(parents=True, exist_ok=True)
    write_captions(out, out.with_suffix(".json"), [item.item_id for item in items], captions)
    return f"{len(captions)} captions written to {out} and {out.with_suffix('.json')}"
