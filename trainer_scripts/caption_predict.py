"""Captions for the pictures of a table, as CSV and in COCO's results format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dataset_builder.errors import BadInputError
from modeling_flavour.captioning_pipeline_flavour import as_sentence
from modeling_flavour.processing_flavour import open_picture
from trainer_scripts.caption_scoring import write_captions


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
