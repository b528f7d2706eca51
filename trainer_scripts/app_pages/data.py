"""The page of a data set: filter its rows, look at one with everything that is known of it, and mark what is wrong."""

import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pyarrow as pa
from PIL import Image

from dataset_builder import columns
from dataset_builder.building.corrections import EXCLUDE, HEADER, NEW_FLAVOUR, NEW_TITLE, NOTE
from dataset_builder.columns import BACKGROUND, FLAVOURS, UNKNOWN
from dataset_builder.errors import BadInputError
from dataset_builder.files import write_csv
from dataset_builder.publishing.review import cells_of, doubts
from trainer_scripts.app_pages import markup
from trainer_scripts.app_pages.inputs import as_message, short
from trainer_scripts.app_pages.rows import ALL, DOUBTS, RowTable, mask_of, picture_of
from trainer_scripts.tasks.segmentation.figures import colours

PAGE = 12  # rows of one page
MOST_MARKS = 2_000
KEEP = "keep"
CORRECTIONS = "corrections.csv"
# A click on a tile names its place in the index; the server checks it.
CLICKS = """
element.addEventListener('click', (event) => {
  const tile = event.target.closest('[data-place]');
  if (tile) trigger('select', {place: tile.dataset.place});
});
"""
Marks = dict[str, dict[str, Any]]


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
    named = _named(rows, row)
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


def _named(rows: RowTable, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its flavour as a name."""
    feature, value = rows.features.get(columns.FLAVOUR), row.get(columns.FLAVOUR)
    names = getattr(feature, "names", None)
    if names is not None:
        value = names[value] if value is not None and 0 <= value < len(names) else None
    return {**row, columns.FLAVOUR: value}


def marks_html(marks: Marks) -> str:
    """Return the list of marks."""
    if not marks:
        return markup.note("Nothing is marked yet.")
    rows = []
    for row_id, mark in marks.items():
        said = [f"label {mark[NEW_FLAVOUR]}"] if mark[NEW_FLAVOUR] else []
        said += [f"title {mark[NEW_TITLE]}"] if mark[NEW_TITLE] else []
        said += ["left out"] if mark[EXCLUDE] else []
        rows.append([markup.text(row_id), markup.text(", ".join(said) or "looked at"), markup.text(mark[NOTE])])
    return markup.table(("row", "mark", "note"), rows)


def write_marks(marks: Marks, folder: Path) -> Path:
    """Write the marks as the corrections that `flavour-sd build --corrections` reads; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CORRECTIONS
    write_csv(path, HEADER, [[mark.get(name, "") for name in HEADER] for mark in marks.values()])
    return path


def build(page_of_app: gr.Blocks, rows: RowTable, folder: Path) -> None:
    """Add the page to the app.

    Args:
        page_of_app: whose first rows are shown when it is opened.
        rows: of the data set.
        folder: of the files that visitors download, one folder for each.
    """
    choices = rows.choices()
    correctable = {columns.ID, columns.TITLE, columns.INGREDIENTS, columns.FLAVOUR} <= set(rows.features)
    numbers = itertools.count()
    marks, page, chosen, own = gr.State({}), gr.State(0), gr.State(None), gr.State(None)
    with gr.Row(equal_height=True, elem_classes="filters"):
        split = gr.Dropdown(choices["split"], value=ALL, label="Split", min_width=130, elem_id="data-split")
        flavour = gr.Dropdown(choices["flavour"], value=ALL, label="Flavour", min_width=130, elem_id="data-flavour")
        cuisine = gr.Dropdown(
            choices["cuisine"], value=ALL, label="Cuisine", min_width=130, visible=len(choices["cuisine"]) > 1
        )
        doubt = gr.Dropdown(list(DOUBTS), value=ALL, label="Doubts", min_width=200, elem_id="data-doubt")
        words = gr.Textbox(label="Words of the title", placeholder="soup", min_width=160, elem_id="data-words")
    count = gr.HTML("", elem_id="data-count")
    tiles = gr.HTML(markup.empty("Reading the first rows"), js_on_load=CLICKS, elem_id="data-tiles")
    with gr.Row(elem_classes="pages"):
        back = gr.Button("Back", size="sm", elem_id="data-back", min_width=100)
        forth = gr.Button("Next", size="sm", elem_id="data-next", min_width=100)
    detail = gr.HTML("", elem_id="data-row")
    with gr.Group(visible=False, elem_id="marking") as marking, gr.Column():
        heading = gr.HTML("", elem_id="mark-heading")
        with gr.Row():
            new_flavour = gr.Dropdown(
                [KEEP, *FLAVOURS], value=KEEP, label="Right label", min_width=140, elem_id="mark-flavour"
            )
            new_title = gr.Textbox(label="Right title", placeholder="as it is", min_width=180, elem_id="mark-title")
        note = gr.Textbox(label="Note", placeholder="why", elem_id="mark-note")
        exclude = gr.Checkbox(False, label="Leave this row out", elem_id="mark-exclude")
        with gr.Row():
            save = gr.Button("Mark this row", variant="primary", elem_id="mark-save", min_width=140)
            remove = gr.Button("Unmark", elem_id="mark-remove", min_width=140)
    with gr.Accordion("Marks", open=True, visible=correctable):
        listed = gr.HTML(marks_html({}), elem_id="marks")
        download = gr.DownloadButton("Download corrections.csv", interactive=False, elem_id="marks-download")
        gr.Markdown(
            "Give the file to `flavour-sd build --corrections corrections.csv`: the next version follows it.",
            elem_classes="quiet-title",
        )

    filters = [split, flavour, cuisine, doubt, words]

    def show(split: str, flavour: str, cuisine: str, doubt: str, words: str, page: int, marks: Marks):  # type: ignore[no-untyped-def]
        found = rows.find(split, flavour, cuisine, doubt, short(words))
        last = max(0, -(-len(found) // PAGE) - 1)
        page = min(max(page, 0), last)
        more = "" if rows.read.is_set() else ", still reading"
        line = f"{len(found):,} of {len(rows.index()):,} rows{more}, page {page + 1} of {last + 1}"
        tiles = tiles_html(rows, found, page, marks)
        return (
            f'<p class="count" role="status">{line}</p>', tiles, page,
            gr.update(interactive=page > 0), gr.update(interactive=page < last),
        )  # fmt: skip

    def turned(step: int, *given: Any):  # type: ignore[no-untyped-def]
        split, flavour, cuisine, doubt, words, page, marks = given
        return show(split, flavour, cuisine, doubt, words, page + step, marks)

    def select(event: gr.EventData, marks: Marks):  # type: ignore[no-untyped-def]
        row = _row_at(rows, getattr(event, "place", None))
        mark = marks.get(row[columns.ID], {})
        name = markup.text(row.get(columns.TITLE) or row[columns.ID])
        head = f"<p>Is <strong>{name}</strong> right?</p>"
        return (
            row_html(rows, row), gr.update(visible=correctable), head, event.place, mark.get(NEW_FLAVOUR) or KEEP,
            mark.get(NEW_TITLE, ""), mark.get(NOTE, ""), bool(mark.get(EXCLUDE)),
        )  # fmt: skip

    def keep(marks: Marks, own: int | None):  # type: ignore[no-untyped-def]
        own = next(numbers) if own is None else own
        file = str(write_marks(marks, folder / str(own))) if marks else None
        return marks, own, marks_html(marks), gr.update(value=file, interactive=bool(marks))

    def mark(place: Any, flavour: str, title: str, note: str, exclude: bool, marks: Marks, own: int | None):  # type: ignore[no-untyped-def]
        row = _row_at(rows, place)
        if flavour not in (KEEP, *FLAVOURS):
            raise BadInputError("choose a flavour of the list")
        if len(marks) >= MOST_MARKS:
            raise BadInputError(f"{MOST_MARKS:,} rows are marked; download the file and begin another")
        said = {
            NEW_FLAVOUR: "" if flavour == KEEP else flavour,
            NEW_TITLE: short(title),
            EXCLUDE: "yes" if exclude else "",
            NOTE: short(note, what="the note"),
        }
        if not any(said.values()):
            raise BadInputError("say what is wrong: a label, a title, leave it out, or a note")
        return keep({**marks, row[columns.ID]: {**cells_of(_named(rows, row), row["split"]), **said}}, own)

    def unmark(place: Any, marks: Marks, own: int | None):  # type: ignore[no-untyped-def]
        row = _row_at(rows, place)
        return keep({row_id: one for row_id, one in marks.items() if row_id != row[columns.ID]}, own)

    shown = [count, tiles, page, back, forth]
    private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "rows", "concurrency_limit": 4}
    first = [*filters, gr.State(0), marks]
    for box in (split, flavour, cuisine, doubt):
        box.change(as_message(show), first, shown, **private)
    words.submit(as_message(show), first, shown, **private)
    words.blur(as_message(show), first, shown, **private)
    for button, step in ((back, -1), (forth, 1)):
        button.click(as_message(partial(turned, step)), [*filters, page, marks], shown, **private)
    page_of_app.load(as_message(show), first, shown, **private)
    tiles.select(
        as_message(select),
        [marks],
        [detail, marking, heading, chosen, new_flavour, new_title, note, exclude],
        **private,
    ).success(None, None, None, js="() => document.querySelector('#data-row')?.scrollIntoView({behavior: 'smooth'})")
    kept = [marks, own, listed, download]
    again = ([*filters, page, marks], shown)
    save.click(as_message(mark), [chosen, new_flavour, new_title, note, exclude, marks, own], kept, **private).success(
        as_message(show), *again, **private
    )
    remove.click(as_message(unmark), [chosen, marks, own], kept, **private).success(as_message(show), *again, **private)


def _row_at(rows: RowTable, place: Any) -> dict[str, Any]:
    """Return the row at a place that a page names; it comes from a visitor."""
    file, _, row = str(place).partition(".")
    if not file.isdecimal() or not row.isdecimal():
        raise BadInputError("choose a row first")
    index = rows.index()
    wanted = index.filter((pa.compute.field("file") == int(file)) & (pa.compute.field("row") == int(row)))
    if len(wanted) != 1:
        raise BadInputError("there is no such row; choose one of the page")
    return {columns.ID: wanted["id"][0].as_py(), **rows.rows(wanted)[0]}
