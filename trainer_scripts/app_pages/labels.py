"""The page of classifiers of several labels: each label with its probability, and a threshold to slide."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from dataset_builder.errors import BadInputError
from trainer_scripts.app_pages import markup
from trainer_scripts.app_pages.inputs import add_examples, as_message, open_upload, picture_input, short, then_seen
from trainer_scripts.app_pages.models import ServedModel, named
from trainer_scripts.app_pages.samples import Sample
from trainer_scripts.evaluation.intervals import scale_temperature
from trainer_scripts.evaluation.predictions import PREDICTIONS, Predictions
from trainer_scripts.scoring.saved_model import load_selection

WAITING = "Give a photograph, a title, or both."
MOST_ROWS = 1_000  # validation rows that precision and recall are measured on
BATCH = 32


@dataclass
class Measured:
    """What a threshold gives on validation rows, measured in a thread of its own.

    Attributes:
        truth: `(rows, labels)` 0 or 1; None while it is measured.
        shares: probabilities, `(rows, labels)`.
        where: which rows.
        fault: why nothing is measured.
    """

    truth: np.ndarray | None = None
    shares: np.ndarray | None = None
    where: str = ""
    fault: str = ""
    done: threading.Event = field(default_factory=threading.Event, repr=False)

    def at(self, threshold: float) -> tuple[float, float] | None:
        """Return precision and recall over all decisions at a threshold; None where nothing is measured."""
        if self.truth is None or self.shares is None:
            return None
        chosen = self.shares >= threshold
        hits = float((chosen & (self.truth > 0)).sum())
        precision = hits / chosen.sum() if chosen.any() else 1.0
        return float(precision), hits / max(float((self.truth > 0).sum()), 1.0)


def measure(served: ServedModel, dataset: str | None) -> Measured:
    """Begin to measure a model on the rows that chose its checkpoint; predictions beside it are taken first."""
    found = Measured()

    def work() -> None:
        try:
            _measure(found, served, dataset)
        except BadInputError as error:
            found.fault = str(error)
        finally:
            found.done.set()

    threading.Thread(target=work, name="measure", daemon=True).start()
    return found


def _measure(found: Measured, served: ServedModel, dataset: str | None) -> None:
    saved = served.saved
    kept = Path(saved.source) / saved.selection_split / PREDICTIONS
    if kept.is_file():
        predictions = Predictions.load(kept.parent)
        found.where = f"{len(predictions.labels):,} rows of {saved.selection_split}"
    elif dataset is None:
        raise BadInputError("give --dataset to measure precision and recall on its validation rows")
    else:
        table = load_selection(saved, dataset)
        table = table.first(MOST_ROWS)
        with served.lock:
            predictions = saved.task.answers(saved, table, BATCH, saved.name)
        found.where = f"{len(predictions.labels):,} rows of {saved.selection_split}"
    found.shares = scale_temperature(np.asarray(predictions.probabilities, np.float64), served.temperature, True)
    found.truth = np.asarray(predictions.labels)


def answer_html(names: Sequence[str], shares: Sequence[float], threshold: float, measured: Measured) -> str:
    """Return the labels above a threshold, all probabilities, and what the threshold gives on validation rows."""
    chosen = [name for name, share in zip(names, shares, strict=True) if share >= threshold]
    said = " ".join(map(markup.badge, chosen)) or "none passes the threshold"
    head = f'<h3>{len(chosen)} labels</h3><p class="lead">{said}</p>'
    order = np.argsort(-np.asarray(shares))[:20]
    bars = markup.bars({names[place]: float(shares[place]) for place in order}, threshold)
    return markup.card(head, bars, kind="answer") + measured_html(threshold, measured)


def measured_html(threshold: float, measured: Measured) -> str:
    """Return precision and recall of a threshold on validation rows."""
    at = measured.at(threshold)
    if at is None:
        waiting = "Precision and recall are being measured." if not measured.done.is_set() else measured.fault
        return markup.card(markup.note(waiting[:1].upper() + waiting[1:]), title="On validation rows")
    precision, recall = at
    words = (
        f"At {threshold:.2f}, {100 * precision:.0f} % of the labels that are given are right (precision), and "
        f"{100 * recall:.0f} % of the right labels are given (recall)."
    )
    rows = {"precision": precision, "recall": recall}
    return markup.card(
        f"<p>{markup.text(words)}</p>", markup.bars(rows), markup.note(f"Over all labels of {measured.where}."),
        title="On validation rows",
    )  # fmt: skip


def build(models: Sequence[ServedModel], dataset: str | None, samples: Sequence[Sample]) -> None:
    """Add the page to the app."""
    by_name = {one.name: one for one in models}
    measured = {one.name: measure(one, dataset) for one in models}
    answered = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            picture = picture_input(label="Photograph", height=300, elem_id="labels-picture", buttons=[])
            title = gr.Textbox(label="Title or caption", max_lines=3, elem_id="labels-title")
            chosen = gr.Dropdown(list(by_name), value=models[0].name, label="Model", visible=len(models) > 1)
            threshold = gr.Slider(0.05, 0.95, 0.5, step=0.01, label="Threshold", elem_id="labels-threshold")
            go = gr.Button("Label", variant="primary", elem_id="labels-go")
            add_examples(samples, picture, title)
        with gr.Column(scale=7, min_width=320):
            answer = gr.HTML(markup.empty(WAITING), elem_id="labels-answer")

    def label(path: str | None, words: str, name: str, threshold: float) -> tuple[str, list[float]]:
        served = named(by_name, name)
        opened: Image.Image | None = open_upload(path)
        shares = served.probabilities(opened, short(words, 2_000)).tolist()
        return answer_html(served.saved.names, shares, float(threshold), measured[name]), shares

    def slide(shares: list[float] | None, name: str, threshold: float) -> str:
        served = named(by_name, name)
        if shares is None or len(shares) != len(served.saved.names):
            return markup.empty(WAITING) + measured_html(float(threshold), measured[name])
        return answer_html(served.saved.names, shares, float(threshold), measured[name])

    private: dict[str, Any] = {"api_visibility": "private"}
    for trigger in (go.click, title.submit):
        asked = trigger(
            as_message(label),
            [picture, title, chosen, threshold],
            [answer, answered],
            concurrency_id="model",
            **private,
        )
        then_seen(asked, "labels-answer")
    threshold.change(as_message(slide), [answered, chosen, threshold], answer, show_progress="hidden", **private)
    chosen.change(lambda: (markup.empty(WAITING), None), None, [answer, answered], **private)
