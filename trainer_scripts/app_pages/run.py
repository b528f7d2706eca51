"""The steps of `app.py`: models and data set, the pages of those that are given, and the server."""

import argparse
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Read when gradio is imported: it neither counts its users nor looks for newer versions.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch

from dataset_builder.errors import BadInputError
from dataset_builder.messages import echo

try:
    import gradio as gr
    from starlette.middleware import Middleware
except ImportError as error:
    raise BadInputError("the app needs gradio, which is not installed; pip install 'flavour-fusion[app]'") from error

from trainer_scripts.app_pages import caption, data, labels, markup, plate, taste, what_if
from trainer_scripts.app_pages.inputs import MOST_UPLOADED
from trainer_scripts.app_pages.models import ServedModel, load_models
from trainer_scripts.app_pages.samples import Sample, folder_samples, plated_samples, row_samples
from trainer_scripts.app_pages.theme import style, theme
from trainer_scripts.data.row_index import RowTable, open_rows
from trainer_scripts.data.table import CLASSIFICATION, MULTILABEL

LOOPBACK = "127.0.0.1"
# Uploaded files are removed after this many seconds, looked for as often.
KEPT_SECONDS = 1_800
SESSIONS = 1_000  # states of visitors that are kept
# No address outside of the server may be fetched by a page, or by a stranger through it.
# Pages of the app hold their own styles and scripts; pictures are of the server, of the visitor's camera, or inline.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
TITLE = "Flavour"
WORDS = (
    "What does a dish taste of? Try a photograph or a title, see why the model answers as it does, "
    "change the dish, and correct the data."
)


def run(given: argparse.Namespace) -> None:
    """Serve the app until it is interrupted, with the options of the command line.

    Raises:
        BadInputError: a model or the data set cannot be loaded, or the port is taken.
    """
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    with serve(given) as address:
        echo(f"serving on {address} (Ctrl-C ends it)")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            echo("ended")


@contextmanager
def serve(given: argparse.Namespace) -> Iterator[str]:
    """Serve the app inside the block; its address is yielded."""
    models = load_models(given.models, given.revision, given.trust_remote_code)
    rows = None if given.dataset is None else open_rows(given.dataset)
    with tempfile.TemporaryDirectory(prefix="flavour-app-") as folder:
        app = build(models, rows, Path(folder), given.pipeline, given.dataset, given.examples)
        app.queue(max_size=given.waiting, default_concurrency_limit=4)
        try:
            _, address, _ = app.launch(
                # A Space states its address in this variable.
                server_name=given.host or os.environ.get("GRADIO_SERVER_NAME") or LOOPBACK,
                server_port=given.port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                inbrowser=False,
                show_error=False,
                max_file_size=MOST_UPLOADED,
                state_session_capacity=SESSIONS,
                theme=theme(),
                css=style(),
                footer_links=[],
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                strict_cors=True,
                app_kwargs={"middleware": [Middleware(SafeHeaders)], "docs_url": None, "redoc_url": None},
            )
        except OSError as error:
            raise BadInputError(f"{error}; give another --port") from error
        try:
            yield address
        finally:
            app.close(verbose=False)


def build(
    models: list[ServedModel],
    rows: RowTable | None,
    folder: Path,
    pipeline: str,
    dataset: str | None,
    examples: Path | None,
) -> gr.Blocks:
    """Return the app.

    Args:
        models: loaded.
        rows: of the data set; None without one.
        folder: an empty one for examples and downloads; only its files are shown.
        pipeline: draws the plates of what-if.
        dataset: whose validation rows thresholds are measured on.
        examples: folder of pictures to try; None takes rows of the data set, or plates.
    """
    chosen = folder_samples(examples) if examples is not None else []
    chosen = chosen or (row_samples(rows, folder / "examples") if rows is not None else [])
    chosen = chosen or plated_samples(folder / "examples")
    of_task: dict[str, list[ServedModel]] = {}
    for one in models:
        of_task.setdefault(one.saved.task.name, []).append(one)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as app:
        gr.HTML(masthead(models, rows), elem_id="masthead")
        with gr.Tabs():
            _tabs(app, of_task, rows, folder, pipeline, chosen, dataset)
    return app


def _tabs(
    app: gr.Blocks,
    of_task: dict[str, list[ServedModel]],
    rows: RowTable | None,
    folder: Path,
    pipeline: str,
    examples: list[Sample],
    dataset: str | None,
) -> None:
    classifiers = of_task.get(CLASSIFICATION, [])
    if classifiers:
        with gr.Tab("Taste", id="taste"):
            taste.build(classifiers, examples)
    with gr.Tab("What if", id="what-if"):
        what_if.build(classifiers, pipeline)
    if captioners := of_task.get("captioning"):
        with gr.Tab("Caption", id="caption"):
            caption.build(captioners, examples)
    if segmenters := [*of_task.get("segmentation", []), *of_task.get("ingredients", [])]:
        with gr.Tab("Plate", id="plate"):
            plate.build(segmenters, examples)
    if several := of_task.get(MULTILABEL):
        with gr.Tab("Several labels", id="labels"):
            labels.build(several, dataset, examples)
    if rows is not None:
        with gr.Tab("Data", id="data"):
            data.build(app, rows, folder / "downloads")


def masthead(models: list[ServedModel], rows: RowTable | None) -> str:
    """Return the head of the page: what this is, and which models and data are served."""
    served = [f"<code>{markup.text(one.name)}</code>" for one in models]
    if rows is not None:
        served.append(f"data <code>{markup.text(rows.name)}</code>")
    line = f'<p class="served">Serving {", ".join(served)}</p>' if served else ""
    return f"<h1>{TITLE}</h1><p>{markup.text(WORDS)}</p>{line}"


class SafeHeaders:
    """Middleware that adds the policy to every answer.

    Args:
        app: the application behind it.
    """

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on and add the headers to its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await self.app(scope, receive, with_headers)
