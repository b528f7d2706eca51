"""What strangers send: pictures and texts within limits, errors as messages without markup, and examples to take."""

import functools
import io
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from PIL import Image

from dataset_builder.errors import BadInputError
from dataset_builder.named_files import RefusedFileError, check_pixels, read_regular
from modeling_flavour.pictures_flavour import open_picture
from trainer_scripts.app_pages import markup
from trainer_scripts.app_pages.models import ServedModel, named
from trainer_scripts.app_pages.samples import Sample

MOST_UPLOADED = 20 << 20  # bytes of one uploaded file
LONGEST_TITLE = 300  # characters
LONGEST_LIST = 4_000  # characters of a list of ingredients
LONGEST_SIDE = 2_048  # pixels; larger photographs are made smaller once, and every page works with that

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def picture_input(**settings: Any) -> gr.Image:
    """Return an input of one photograph whose file only `open_upload` opens."""
    box = gr.Image(type="filepath", image_mode=None, sources=["upload", "webcam", "clipboard"], **settings)
    # Gradio would open and convert the file itself, without our limits and with an error of its own.
    box.preprocess = lambda payload: None if payload is None else payload.path  # type: ignore[method-assign]
    return box


def open_upload(path: str | None) -> Image.Image | None:
    """Return an uploaded photograph, upright and in RGB; None where none was uploaded.

    Raises:
        BadInputError: it is no picture, or too large.
    """
    if path is None:
        return None
    try:
        content = read_regular(Path(path))
        if len(content) > MOST_UPLOADED:
            raise RefusedFileError(f"of more than {MOST_UPLOADED >> 20} MB")
        with Image.open(io.BytesIO(content)) as opened:
            check_pixels(opened)
        picture = open_picture(content)
    except RefusedFileError as error:
        raise BadInputError(f"the picture is {error}; give a smaller one") from error
    except (Image.DecompressionBombError, MemoryError) as error:
        raise BadInputError("the picture has too many pixels; give a smaller one") from error
    except (OSError, ValueError, SyntaxError, TypeError) as error:
        raise BadInputError("this file cannot be read as a picture; give a JPEG, PNG or WebP file") from error
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return picture


def short(text: str | None, longest: int = LONGEST_TITLE, what: str = "the title") -> str:
    """Return a text without surrounding blanks.

    Raises:
        BadInputError: it is longer than a page takes.
    """
    text = (text or "").strip()
    if len(text) > longest:
        raise BadInputError(f"{what} has {len(text):,} characters; give at most {longest:,}")
    return text


def as_message(answer: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Return a handler whose refusals the page shows as a message; other errors say that they are ours."""

    @functools.wraps(answer)
    def handler(*given: Given.args, **named: Given.kwargs) -> Answer:
        try:
            return answer(*given, **named)
        except BadInputError as error:
            text = str(error)
            raise gr.Error(
                escape(text[:1].upper() + text[1:]), duration=8, title="Sorry", print_exception=False
            ) from error

    return handler


def add_examples(samples: Sequence[Sample], picture: gr.Image, title: gr.Textbox | None = None) -> None:
    """Add a row of buttons that fill in the picture, and the title where there is one.

    The app gives the files of examples, so that no visitor names one.
    """
    if not samples:
        return
    gr.Markdown("Or take an example", elem_classes="quiet-title")
    outputs = picture if title is None else [picture, title]
    with gr.Row(elem_classes="examples"):
        for sample in samples:
            button = gr.Button(
                sample.title, icon=sample.path, size="sm", elem_classes="example", min_width=140, variant="secondary"
            )
            button.click(_filler(sample, title is not None), None, outputs, api_visibility="private", queue=False)


def _filler(sample: Sample, with_title: bool):  # type: ignore[no-untyped-def]
    return lambda: (str(sample.path), sample.title) if with_title else str(sample.path)


def then_seen(answered: Any, element: str) -> None:
    """Bring an answer into view on a phone, where it lies below what was asked.

    Args:
        answered: the event that writes it.
        element: id of where it stands.
    """
    narrow = (
        f"if (window.innerWidth < 720) document.querySelector('#{element}')?.scrollIntoView({{behavior: 'smooth'}})"
    )
    answered.success(None, None, None, js=f"() => {{ {narrow} }}")


def photograph_page(
    kind: str,
    action: str,
    waiting: str,
    models: Sequence[ServedModel],
    samples: Sequence[Sample],
    answer: Callable[..., str],
    settings: Callable[[], list[Any]] = list,
) -> None:
    """Add a page on which one photograph gets one answer.

    Args:
        kind: begins the names of its parts.
        action: what its button says.
        waiting: what stands where the answer will be.
        models: that answer; with several of them one is chosen.
        samples: photographs to take.
        answer: HTML of a model, a photograph and the values of the settings.
        settings: adds further inputs above the button and returns them.
    """
    by_name = {one.name: one for one in models}
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            picture = picture_input(label="Photograph", height=300, elem_id=f"{kind}-picture", buttons=[])
            chosen = gr.Dropdown(list(by_name), value=models[0].name, label="Model", visible=len(models) > 1)
            more = settings()
            go = gr.Button(action, variant="primary", elem_id=f"{kind}-go")
            add_examples(samples, picture)
        with gr.Column(scale=7, min_width=320):
            shown = gr.HTML(markup.empty(waiting), elem_id=f"{kind}-answer")

    def answered(path: str | None, name: str, *values: Any) -> str:
        served = named(by_name, name)
        opened = open_upload(path)
        if opened is None:
            raise BadInputError(f"{served.name} reads a photograph; give it one")
        return answer(served, opened, *values)

    given = [picture, chosen, *more]
    asked = go.click(as_message(answered), given, shown, api_visibility="private", concurrency_id="model")
    then_seen(asked, f"{kind}-answer")
