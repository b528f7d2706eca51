"""The page of segmenters: what lies where, each ingredient to be shown or hidden, and the map of tastes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from dataset_builder.columns import FLAVOURS
from trainer_scripts.app_pages import markup
from trainer_scripts.app_pages.inputs import photograph_page
from trainer_scripts.app_pages.models import ServedModel, mask_pipeline
from trainer_scripts.app_pages.samples import Sample
from trainer_scripts.tasks.segmentation.figures import colours, taste_overlay
from trainer_scripts.tasks.segmentation.tastes import plate_taste, tastes_of

WAITING = "Give a photograph of a plate, and see what lies where."
SIDE = 640  # pixels of the pictures that are sent
# Pixels of masks: a model sees fewer, and of a hundred classes each pixel more costs time.
MASK_SIDE = 384
SMALLEST = 0.002  # share of the picture below which a mask is left out


def masks(served: ServedModel, picture: Image.Image) -> list[dict[str, Any]]:
    """Return the masks of a picture, largest first, as `SegmentationPipeline` does."""
    with served.lock:
        return mask_pipeline(served)(picture, min_area=SMALLEST)


def answer_html(served: ServedModel, picture: Image.Image) -> str:
    """Return the picture with a layer per ingredient that can be switched, and the map of tastes."""
    shown, small = picture.copy(), picture.copy()
    shown.thumbnail((SIDE, SIDE))
    small.thumbnail((MASK_SIDE, MASK_SIDE))
    found = masks(served, small)
    if not found:
        return markup.card(markup.note("Nothing was found on this plate."), title="What lies where")
    names = [one["label"] for one in found]
    palette = colours(len(found) + 1)[1:]
    layers, items, rules = [], [], []
    for number, (one, colour) in enumerate(zip(found, palette, strict=True)):
        layer = markup.tint(np.asarray(one["mask"]) > 127, colour.tolist())
        layers.append(f'<img class="layer m{number}" src="{layer}" alt="">')
        red, green, blue = colour.tolist()
        items.append(
            f'<li><label><input type="checkbox" class="t{number}" checked><span class="dot" '
            f'style="background:rgb({red} {green} {blue})"></span><span>{markup.text(one["label"])}</span>'
            f'<span class="area">{markup.percent(one["area"])}</span></label></li>'
        )
        rules.append(f".plate-view:has(.t{number}:not(:checked)) .m{number}{{opacity:0 !important}}")
    style = f"<style>{''.join(rules)}</style>"
    alt = f"The plate, with {', '.join(names[:8])} marked"
    left = markup.figure(markup.address(shown, SIDE), alt, "Switch an ingredient off to see what is under it", layers)
    listed = f'<ul class="masks">{"".join(items)}</ul>'
    view = f'{style}<div class="plate-view"><div>{left}</div><div>{listed}</div></div>'
    return markup.card(view, title="What lies where") + _tastes(served, small, found)


def _tastes(served: ServedModel, picture: Image.Image, found: Sequence[dict[str, Any]]) -> str:
    config = served.saved.model.config
    tastes = tastes_of(config)
    ids = np.zeros(picture.size[::-1], np.int64)
    shares = np.zeros(len(tastes))
    for one in found:
        number = config.label2id[one["label"]]
        ids[np.asarray(one["mask"]) > 127] = number
        shares[number] = one["area"]
    if not tastes[ids].any():
        return markup.card(markup.note("The catalogue knows no taste of what was found."), title="Flavour map")
    taste = plate_taste(shares, tastes)
    overlay = markup.address(taste_overlay(picture, ids, tastes), SIDE)
    view = markup.figure(overlay, "The plate coloured by the taste of what lies there", "Colours are those of the bars")
    weighed = markup.bars(dict(zip(FLAVOURS, taste.tolist(), strict=True)))
    notes = markup.note("Tastes of the ingredients by the catalogue, weighed by their areas.")
    return markup.card(
        f'<div class="plate-view"><div>{view}</div><div>{weighed}{notes}</div></div>', title="Flavour map"
    )


def build(models: Sequence[ServedModel], samples: Sequence[Sample]) -> None:
    """Add the page to the app."""
    photograph_page("plate", "Find ingredients", WAITING, models, samples, answer_html)
