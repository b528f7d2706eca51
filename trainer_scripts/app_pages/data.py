"""The page of a data set: filter its rows, look at one with everything that is known of it, and mark what is wrong."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from dataset_builder import columns
from dataset_builder.building.corrections import EXCLUDE, NEW_FLAVOUR, NEW_TITLE, NOTE
from dataset_builder.columns import FLAVOURS
from trainer_scripts.app_pages import markup
from trainer_scripts.app_pages.data_marks import KEEP, Marks, marks_html, with_mark, without_mark, write_marks
from trainer_scripts.app_pages.data_view import PAGE, row_html, tiles_html
from trainer_scripts.app_pages.inputs import as_message, short
from trainer_scripts.data.row_index import ALL, DOUBTS, RowTable

CORRECTABLE = {columns.ID, columns.TITLE, columns.INGREDIENTS, columns.FLAVOUR}
# A click on a tile names its place in the index; the server checks it.
CLICKS = """
element.addEventListener('click', (event) => {
  const tile = event.target.closest('[data-place]');
  if (tile) trigger('select', {place: tile.dataset.place});
});
"""
SCROLL = "() => document.querySelector('#data-row')?.scrollIntoView({behavior: 'smooth'})"


@dataclass(frozen=True)
class Answers:
    """What the page answers to what a visitor does.

    Attributes:
        rows: of the data set.
        folder: of the files that visitors download, one folder for each.
    """

    rows: RowTable
    folder: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def show(
        self, split: str, flavour: str, cuisine: str, doubt: str, words: str, page: int, marks: Marks
    ) -> tuple[Any, ...]:
        """Return count, tiles and page of the rows that the filters let through, and what the buttons become."""
        found = self.rows.find(split, flavour, cuisine, doubt, short(words))
        last = max(0, -(-len(found) // PAGE) - 1)
        page = min(max(page, 0), last)
        more = "" if self.rows.read.is_set() else ", still reading"
        line = f"{len(found):,} of {len(self.rows.index()):,} rows{more}, page {page + 1} of {last + 1}"
        # A file that cannot be read ends the list, and that is said wherever rows are counted.
        fault = "" if self.rows.fault is None else markup.note(f"The others are missing: {self.rows.fault}")
        return (
            f'<p class="count" role="status">{line}</p>{fault}',
            tiles_html(self.rows, found, page, marks),
            page,
            gr.update(interactive=page > 0),
            gr.update(interactive=page < last),
        )

    def turn(self, step: int, *given: Any) -> tuple[Any, ...]:
        """Return what `show` does, of the page so many pages on."""
        split, flavour, cuisine, doubt, words, page, marks = given
        return self.show(split, flavour, cuisine, doubt, words, page + step, marks)

    def select(self, event: gr.EventData, marks: Marks) -> tuple[Any, ...]:
        """Return the row that was clicked, and the fields of its mark."""
        place = getattr(event, "place", None)
        row = self.rows.at(place)
        mark = marks.get(row[columns.ID], {})
        name = markup.text(row.get(columns.TITLE) or row[columns.ID])
        return (
            row_html(self.rows, row),
            gr.update(visible=set(self.rows.features) >= CORRECTABLE),
            f"<p>Is <strong>{name}</strong> right?</p>",
            place,
            mark.get(NEW_FLAVOUR) or KEEP,
            mark.get(NEW_TITLE, ""),
            mark.get(NOTE, ""),
            bool(mark.get(EXCLUDE)),
        )

    def mark(
        self, place: object, flavour: str, title: str, note: str, exclude: bool, marks: Marks, own: int | None
    ) -> tuple[Any, ...]:
        """Return the marks with that of a row, and the file of all."""
        return self._kept(with_mark(marks, self.rows, self.rows.at(place), flavour, title, note, exclude), own)

    def unmark(self, place: object, marks: Marks, own: int | None) -> tuple[Any, ...]:
        """Return the marks without that of a row, and the file of all."""
        return self._kept(without_mark(marks, self.rows.at(place)), own)

    def _kept(self, marks: Marks, own: int | None) -> tuple[Any, ...]:
        # Each visitor has a folder, so that nobody downloads the marks of another.
        own = next(self._numbers) if own is None else own
        file = str(write_marks(marks, self.folder / str(own))) if marks else None
        return marks, own, marks_html(marks), gr.update(value=file, interactive=bool(marks))


def _filters(rows: RowTable) -> list[Any]:
    """Add the filters; return them in the order in which `Answers.show` takes them."""
    choices = rows.choices()
    with gr.Row(equal_height=True, elem_classes="filters"):
        split = gr.Dropdown(choices["split"], value=ALL, label="Split", min_width=130, elem_id="data-split")
        flavour = gr.Dropdown(choices["flavour"], value=ALL, label="Flavour", min_width=130, elem_id="data-flavour")
        cuisine = gr.Dropdown(
            choices["cuisine"], value=ALL, label="Cuisine", min_width=130, visible=len(choices["cuisine"]) > 1
        )
        doubt = gr.Dropdown(list(DOUBTS), value=ALL, label="Doubts", min_width=200, elem_id="data-doubt")
        words = gr.Textbox(label="Words of the title", placeholder="soup", min_width=160, elem_id="data-words")
    return [split, flavour, cuisine, doubt, words]


def _tiles() -> list[Any]:
    """Add the rows that are shown; return count, tiles, back and next."""
    count = gr.HTML("", elem_id="data-count")
    tiles = gr.HTML(markup.empty("Reading the first rows"), js_on_load=CLICKS, elem_id="data-tiles")
    with gr.Row(elem_classes="pages"):
        back = gr.Button("Back", size="sm", elem_id="data-back", min_width=100)
        forth = gr.Button("Next", size="sm", elem_id="data-next", min_width=100)
    return [count, tiles, back, forth]


def _form() -> tuple[list[Any], Any, Any]:
    """Add the form of a mark; return its parts (all of it, heading, fields), and the two buttons."""
    with gr.Group(visible=False, elem_id="marking") as marking, gr.Column():
        heading = gr.HTML("", elem_id="mark-heading")
        with gr.Row():
            flavour = gr.Dropdown(
                [KEEP, *FLAVOURS], value=KEEP, label="Right label", min_width=140, elem_id="mark-flavour"
            )
            title = gr.Textbox(label="Right title", placeholder="as it is", min_width=180, elem_id="mark-title")
        note = gr.Textbox(label="Note", placeholder="why", elem_id="mark-note")
        exclude = gr.Checkbox(False, label="Leave this row out", elem_id="mark-exclude")
        with gr.Row():
            save = gr.Button("Mark this row", variant="primary", elem_id="mark-save", min_width=140)
            remove = gr.Button("Unmark", elem_id="mark-remove", min_width=140)
    return [marking, heading, flavour, title, note, exclude], save, remove


def _list_of_marks(visible: bool) -> tuple[Any, Any]:
    """Add the list of marks; return it and the button that downloads it."""
    with gr.Accordion("Marks", open=True, visible=visible):
        listed = gr.HTML(marks_html({}), elem_id="marks")
        download = gr.DownloadButton("Download corrections.csv", interactive=False, elem_id="marks-download")
        gr.Markdown(
            "Give the file to `flavour-sd build --corrections corrections.csv`: the next version follows it.",
            elem_classes="quiet-title",
        )
    return listed, download


def build(page_of_app: gr.Blocks, rows: RowTable, folder: Path) -> None:
    """Add the page to the app.

    Args:
        page_of_app: whose first rows are shown when it is opened.
        rows: of the data set.
        folder: an empty one for the files that visitors download.
    """
    answers = Answers(rows, folder)
    marks, page, chosen, own = gr.State({}), gr.State(0), gr.State(None), gr.State(None)
    filters = _filters(rows)
    count, tiles, back, forth = _tiles()
    detail = gr.HTML("", elem_id="data-row")
    (marking, heading, *fields), save, remove = _form()
    listed, download = _list_of_marks(set(rows.features) >= CORRECTABLE)

    private: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "rows", "concurrency_limit": 4}
    shown = [count, tiles, page, back, forth]
    first, again = [*filters, gr.State(0), marks], [*filters, page, marks]
    show = as_message(answers.show)
    *choices, words = filters
    for changed in (*(box.change for box in choices), words.submit, words.blur, page_of_app.load):
        changed(show, first, shown, **private)
    for button, step in ((back, -1), (forth, 1)):
        button.click(as_message(partial(answers.turn, step)), again, shown, **private)
    selected = tiles.select(as_message(answers.select), [marks], [detail, marking, heading, chosen, *fields], **private)
    selected.success(None, None, None, js=SCROLL)
    kept = [marks, own, listed, download]
    for button, answer, given in (
        (save, answers.mark, [chosen, *fields, marks, own]),
        (remove, answers.unmark, [chosen, marks, own]),
    ):
        button.click(as_message(answer), given, kept, **private).success(show, again, shown, **private)
