"""Rows as HTML: a page of tiles, and everything that is known of one row."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from dataset_builder import columns
from dataset_builder.columns import BACKGROUND, FLAVOURS, UNKNOWN
from dataset_builder.errors import BadInputError
from dataset_builder.publishing.review import doubts
from trainer_scripts.app_pages import markup
from trainer_scripts.data.row_index import RowTable, mask_of, picture_of
from trainer_scripts.tasks.segmentation.figures import colours

PAGE = 12  # rows of one page


def tiles_html(rows: RowTable, found: pa.Table, page: int, marks: Mapping[str, Any]) -> str:
    """Return one page of rows as tiles."""
    shown = found.slice(page * PAGE, PAGE)
    if not len(shown):
        return markup.empty("No row is like this. Loosen a filter.")
    listed = shown.to_pylist()
    tiles = []
    for place, row in zip(listed, rows.rows(shown, (columns.IMAGE, columns.CAPTIONS)), strict=True):
        name = place["title"] or next(iter(row.get(columns.CAPTIONS) or ()), None) or place["id"]
        try:
            picture = picture_of(row.get(columns.IMAGE))
            image = (
                f'<img src="{markup.address(picture, 256)}" alt="" loading="lazy">'
                if picture is not None
                else '<span class="no-picture">no picture</span>'
            )
        except BadInputError:
            image = '<span class="no-picture">broken picture</span>'
        label = markup.badge(place["flavour"]) if place["flavour"] else ""
        flags = [place["split"]]
        flags += [f"{place['attempts']} attempts"] if (place["attempts"] or 1) > 1 else []
        flags += ["marked"] if place["id"] in marks else []
        kind = " marked" if place["id"] in marks else ""
        tiles.append(
            f'<button type="button" class="tile{kind}" data-place="{place["file"]}.{place["row"]}">{image}'
            f'<span class="body"><span class="name">{markup.text(name, 160)}</span><span>{label}</span>'
            f'<span class="flags">{markup.text(", ".join(flags))}</span></span></button>'
        )
    return f'<div class="grid">{"".join(tiles)}</div>'


def row_html(rows: RowTable, row: Mapping[str, Any]) -> str:
    """Return everything that is known of one row."""
    named = rows.named(row)
    title = row.get(columns.TITLE) or row.get(columns.ID) or "row"
    left = _picture(rows, row, title)
    right = [f"<h3>{markup.text(title)}</h3>"]
    flavour = named.get(columns.FLAVOUR)
    facts = [markup.badge(flavour) if flavour else "", markup.text(row["split"])]
    facts += [f"label source: {markup.text(row[columns.LABEL_SOURCE])}"] if row.get(columns.LABEL_SOURCE) else []
    right.append(f"<p>{' &middot; '.join(filter(None, facts))}</p>")
    if reasons := [reason for _, reason in doubts(named)]:
        listed = "".join(f"<li>{markup.text(reason)}</li>" for reason in reasons)
        right.append(f"<h4>Worth a look, because</h4><ul>{listed}</ul>")
    taste = row.get(columns.TASTE)
    if taste and len(taste) == len(FLAVOURS):
        right.append("<h4>Soft label</h4>" + markup.bars(dict(zip(FLAVOURS, taste, strict=True))))
    if lines := row.get(columns.INGREDIENTS):
        right.append(f"<h4>Ingredients</h4><p>{', '.join(map(markup.text, lines))}</p>")
    if votes := _votes(row.get(columns.LABEL_VOTES)):
        right.append("<h4>Words that voted</h4>" + markup.table(("method", "flavour", "words"), votes))
    if captions := row.get(columns.CAPTIONS):
        listed = "".join(f"<li>{markup.text(one)}</li>" for one in captions)
        right.append(f"<h4>Captions</h4><ul>{listed}</ul>")
    right.append(_generation(row.get(columns.GENERATION)))
    right.append(f'<p class="facts">{markup.text(row.get(columns.ID) or "")}</p>')
    return markup.card(f'<div class="row-view"><div>{left}</div><div>{"".join(right)}</div></div>')


def _picture(rows: RowTable, row: Mapping[str, Any], title: str) -> str:
    try:
        picture = picture_of(row.get(columns.IMAGE))
    except BadInputError as error:
        return markup.note(str(error))
    if picture is None:
        return markup.note("This row has no picture, or refers to one by its path.")
    address = markup.address(picture, 600)
    try:
        mask = mask_of(row.get(columns.MASK))
    except BadInputError as error:
        return markup.figure(address, f"Picture of {title}") + markup.note(str(error))
    if mask is None:
        return markup.figure(address, f"Picture of {title}")
    ids = [int(one) for one in np.unique(mask) if one not in (BACKGROUND, UNKNOWN)]
    palette = colours(int(mask.max()) + 2)
    layer = np.zeros((*mask.shape, 4), np.uint8)
    layer[..., :3] = palette[np.minimum(mask, len(palette) - 1)]
    layer[..., 3] = np.where((mask == BACKGROUND) | (mask == UNKNOWN), 0, 150)
    over = f'<img class="layer" src="{markup.address(Image.fromarray(layer), 600)}" alt="">'
    names = _mask_names(rows)
    legend = "".join(
        f'<li><span class="badge"><i style="background:rgb({" ".join(map(str, palette[one].tolist()))})"></i>'
        f"{markup.text(names.get(one, one))}</span></li>"
        for one in ids
    )
    shown = markup.figure(address, f"Picture of {title}, its ingredients marked", layers=[over])
    toggle = '<label class="toggle"><input type="checkbox" checked> show the mask</label>'
    return f'<div class="stack-with-toggle">{shown}{toggle}<ul class="legend">{legend}</ul></div>'


def _mask_names(rows: RowTable) -> dict[int, str]:
    feature = rows.features.get(columns.INGREDIENT_LABELS)
    names = getattr(getattr(feature, "feature", None), "names", None) or []
    return dict(enumerate(names))


def _votes(votes: Any) -> list[list[str]]:
    found = []
    for method, of in (votes or {}).items():
        for flavour, words in (of or {}).items():
            if words:
                found.append([markup.text(method), markup.badge(flavour), ", ".join(map(markup.text, words))])
    return found


def _generation(made: Any) -> str:
    if not made:
        return ""
    facts = [[markup.text(name), markup.text(value)] for name, value in made.items() if value not in (None, [])]
    return f"<details><summary>How the picture was made</summary>{markup.table(('setting', 'value'), facts)}</details>"
