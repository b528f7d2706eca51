"""A saved captioner on a split: captions as files, scores beside baselines and ablations, truth, figures, health."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from modeling_flavour.captioning_pipeline_flavour import as_sentence
from modeling_flavour.processing_flavour import open_picture
from trainer_scripts.data.table import Table, columns_of, make_table, map_columns, open_dataset
from trainer_scripts.evaluation.ablations import partners
from trainer_scripts.evaluation.predictions import METRICS
from trainer_scripts.evaluation.scores import definitions
from trainer_scripts.tasks.captioning.answers import all_scores, caption_table
from trainer_scripts.tasks.captioning.comparing import (
    baseline_captions,
    faults,
    predictions_of,
    refuse_unhealthy,
    target_is_hidden,
)
from trainer_scripts.tasks.captioning.comparing import naming_scores as defined_naming_scores
from trainer_scripts.tasks.captioning.figures import contact_sheet, word_maps
from trainer_scripts.tasks.captioning.scores import (
    CAPTION_SCORES,
    METEOR_SCORE,
    CiderD,
    meteor,
    meteor_missing,
    text_scores,
)
from trainer_scripts.tasks.captioning.training import evaluation_samples, no_label_names, read_captions
from trainer_scripts.tasks.captioning.truth import (
    detail_scores,
    f1_interval,
    naming,
    naming_scores,
    round_trip,
    visible_names,
)

CAPTIONS_CSV = "captions.csv"
CAPTIONS_JSON = "captions.json"
CONTACT_SHEET = "contact_sheet.png"
WORD_MAPS = "word_maps.png"
SHOWN = ("cider", "bleu_1", "bleu_4", "rouge_l", "meteor", "ingredient_f1", "group_f1", "only_visible", "identical")


def score_captions(model: Any, table: Table, dataset: str, split: str, out: Path, batch_size: int) -> str:
    """Write captions, scores and figures of a captioner into a folder, and return a table for the terminal.

    Args:
        model: `scoring.SavedModel` of a captioner.
        table: rows of the split.
        dataset: folder or Hub id that the rows came from; its training split gives the baselines.
        split: name of the split.
        out: folder of the result.
        batch_size: pictures per batch.

    Raises:
        BadInputError: the captioner fails a health check; what was measured is written nevertheless.
    """
    out.mkdir(parents=True, exist_ok=True)
    samples = evaluation_samples(model.processor, table)
    captions, expected = caption_table(model.model, samples, batch_size, name=model.name)
    write_captions(out / CAPTIONS_CSV, out / CAPTIONS_JSON, table.ids, captions, table.labels)
    predictions = predictions_of(table, captions, expected)
    predictions.save(out)
    references = list(table.labels)
    cider = CiderD(references)
    answers = {"captions": captions, **ablated_captions(model, samples, batch_size)}
    answers |= baselines(model, samples, dataset, batch_size)
    visible = visible_names(table)
    lines = {name: text_scores(each, references, cider) for name, each in answers.items()}
    lines["captions"] = all_scores(captions, expected, references, cider)
    for name, score in meteor(answers, references).items():
        lines[name] |= score
    for name, each in answers.items():
        lines[name] |= naming_scores(each, visible) if visible is not None else {}
    found = faults(captions, answers["blank pictures"], target_is_hidden(model.model, samples))
    defined = (*CAPTION_SCORES, METEOR_SCORE, *(defined_naming_scores() if visible is not None else ()))
    content = {
        "model": model.reference,
        "task": model.task.name,
        "modality": "image",
        "dataset": dataset,
        "split": split,
        "selection_split": model.selection_split,
        "rows": len(table),
        "groups": len(set(table.groups)),
        "rows_sha256": predictions.rows_sha256(),
        "metrics": lines.pop("captions"),
        "baselines_and_ablations": lines,
        "truth": truth(model, samples, answers, batch_size) if visible is not None else None,
        "definitions": definitions(defined),
        "left_out": meteor_missing(),
        "generation": model.model.generation_config.to_diff_dict(),
        "health": found or "passed",
    }
    write_json(out / METRICS, content)
    contact_sheet(samples, captions, out / CONTACT_SHEET)
    word_maps(model.model, samples, out / WORD_MAPS)
    refuse_unhealthy(found, model.source)
    return report(content)


def write_captions(
    table: Path, results: Path, ids: Sequence[str], captions: Sequence[str], references: Any = None
) -> None:
    """Write the captions as CSV (with the reference captions, if any) and in COCO's results format."""
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ImageID", "Caption", *(["References"] if references is not None else [])])
        for row, (name, caption) in enumerate(zip(ids, captions, strict=True)):
            writer.writerow([name, caption, *([" | ".join(references[row])] if references is not None else [])])
    found = [{"image_id": coco_id(name), "caption": caption} for name, caption in zip(ids, captions, strict=True)]
    results.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def coco_id(name: str) -> int | str:
    """Return an id as COCO's results format wants it: a number where it is one.

    >>> coco_id("000000391895.jpg"), coco_id("greek-salad-00-00")
    (391895, 'greek-salad-00-00')
    """
    stem = name.rsplit("_", 1)[-1].rsplit(".", 1)[0]
    return int(stem) if stem.isdigit() else name


def ablated_captions(model: Any, samples: Any, batch_size: int) -> dict[str, list[str]]:
    """Return what the captioner says when it sees nothing, or another picture."""
    found = {"blank pictures": caption_table(model.model, samples, batch_size, blank=True, name="blank")[0]}
    if len(set(samples.table.groups)) > 1:
        order = partners(samples.table.groups, seed=0)
        found["shuffled pictures"] = caption_table(model.model, samples, batch_size, order=order, name="shuffled")[0]
    return found


def baselines(model: Any, samples: Any, dataset: str, batch_size: int) -> dict[str, list[str]]:
    """Return the baselines' captions; none where the data set has no training split."""
    arguments = model.arguments
    splits = open_dataset(dataset)
    if arguments.train_split not in splits:
        return {}
    where = f"{dataset}, split {arguments.train_split}"
    rows = map_columns(splits[arguments.train_split], arguments.columns, where)
    columns = columns_of(arguments, arguments.label_column or model.task.label_column, "image")
    train = make_table(rows, columns, no_label_names(rows, columns.label), arguments.train_split, where, read_captions)
    return baseline_captions(model.model, samples, evaluation_samples(model.processor, train), batch_size)


def truth(model: Any, samples: Any, answers: dict[str, list[str]], batch_size: int) -> dict[str, Any]:
    """Return what is true in the captions: F1 with intervals, the lead over each baseline, details, the round trip."""
    table, visible = samples.table, visible_names(samples.table) or []
    named = {name: naming(each, visible) for name, each in answers.items()}
    result: dict[str, Any] = {}
    for position, level in enumerate(("ingredient", "group")):
        mine = named["captions"][position]
        result[f"{level}_f1"] = vars(f1_interval(mine, table.groups))
        result[f"{level}_f1_lead"] = {
            name: vars(f1_interval(mine, table.groups, each[position]))
            for name, each in named.items()
            if name != "captions"
        }
    torch.manual_seed(0)
    sampled, _ = caption_table(model.model, samples, batch_size, name="sampled", do_sample=True, num_beams=1)
    result["details"] = detail_scores(answers["captions"], table)
    # Likeliest captions are mostly lists; drawn ones also count and place.
    result["details_of_sampled_captions"] = detail_scores(sampled, table)
    result["round_trip"] = round_trip(answers["captions"], table)
    return result


def report(content: dict[str, Any]) -> str:
    """Return the scores of captioner, baselines and ablations as lines, and what is true, for the terminal."""
    lines = {"captioner": content["metrics"], **content["baselines_and_ablations"]}
    shown = [name for name in SHOWN if name in content["metrics"]]
    width = max(map(len, lines))
    rows = [f"{'':<{width}}  " + "  ".join(f"{name:>13}" for name in shown)]
    rows += [
        f"{name:<{width}}  " + "  ".join(f"{scores[score]:>13.3f}" for score in shown) for name, scores in lines.items()
    ]
    if content["left_out"]:
        rows.append(content["left_out"])
    if content["truth"] is not None:
        for level in ("ingredient", "group"):
            mine, leads = content["truth"][f"{level}_f1"], content["truth"][f"{level}_f1_lead"]
            rows.append(f"{level} F1 {mine['value']:.3f} [{mine['low']:.3f}, {mine['high']:.3f}]; ahead of")
            rows += [
                f"  {name}: {lead['value']:+.3f} [{lead['low']:+.3f}, {lead['high']:+.3f}]"
                for name, lead in leads.items()
            ]
        for name in ("details", "details_of_sampled_captions", "round_trip"):
            rows.append(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in content["truth"][name].items()))
    return "\n".join(rows)


@torch.inference_mode()
def predict_captions(model: Any, items: Sequence[Any], out: Path, batch_size: int) -> str:
    """Write `ImageID,caption` for every row to `out`, and the same as JSON beside it; return what was written.

    Args:
        model: `scoring.SavedModel` of a captioner.
        items: rows with `item_id` and `picture`.
        out: CSV file.
        batch_size: pictures per batch.

    Raises:
        BadInputError: a picture is missing or broken; its row is named and nothing is written.
    """
    captions: list[str] = []
    for start in tqdm(range(0, len(items), batch_size), desc=model.name, disable=None):
        pictures = []
        for item in items[start : start + batch_size]:
            try:
                pictures.append(open_picture(item.picture))
            except (OSError, ValueError) as error:
                raise BadInputError(f"row {item.item_id}: {error}; mend or remove it") from error
        pixels = model.processor(images=pictures)["pixel_values"].to(model.model.device, model.model.dtype)
        texts = model.processor.tokenizer.batch_decode(model.model.generate(pixels), skip_special_tokens=True)
        captions += [as_sentence(text) for text in texts]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_captions(out, out.with_suffix(".json"), [item.item_id for item in items], captions)
    return f"{len(captions)} captions written to {out} and {out.with_suffix('.json')}"
