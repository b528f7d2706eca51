"""The page of classifiers of one label: a photograph, a title or both -> flavours, and why."""

from collections.abc import Sequence

import gradio as gr
import numpy as np
from PIL import Image

from modeling_flavour.explanation_flavour import Explanation, explain
from trainer_scripts.app_pages import markup
from trainer_scripts.app_pages.inputs import add_examples, as_message, open_upload, picture_input, short, then_seen
from trainer_scripts.app_pages.models import SURE, Answer, ServedModel, named
from trainer_scripts.app_pages.samples import Sample

WAITING = "Give a photograph, the title of a dish, or both."
PARTS = {"text": "the title", "image": "the photograph"}


def answer_html(served: ServedModel, picture: Image.Image | None, title: str) -> str:
    """Return the flavours of a sample with their calibrated shares, or "not sure" where the model is not."""
    found = served.answer(picture, title)
    shares = found.shares
    best = int(shares.argmax())
    name, share = served.saved.names[best], float(shares[best])
    if found.sure:
        head = f'<p class="verdict">{markup.badge(name)}</p>'
        why = f"{markup.percent(share)} sure."
    else:
        head = '<p class="verdict">Not sure</p>'
        reason = "nothing of this is like what the model learned from" if found.foreign else "that is too little"
        why = f"{name} leads with {markup.percent(share)}; {reason}."
    calibrated = (
        f"Shares are calibrated: logits divided by {served.temperature:.2f}, fitted on validation rows."
        if served.calibrated
        else "Shares are not calibrated: no comparison of this model is beside it."
    )
    unread = [PARTS[one] for one in PARTS if one not in served.reads and (title if one == "text" else picture)]
    ignored = markup.note(f"{served.name} does not read {' and '.join(unread)}.") if unread else ""
    shown = dict(zip(served.saved.names, shares.tolist(), strict=True))
    return markup.card(
        head,
        f'<p class="lead">{markup.text(why)}</p>',
        markup.bars(shown),
        familiar_html(served, found, len(served.fitting(picture, title))),
        ignored,
        markup.note(f"{calibrated} {limit_line(served, found)}"),
        kind="answer",
    )


def limit_line(served: ServedModel, found: Answer) -> str:
    """Return from where on an answer is given, and where that limit comes from."""
    if served.own_limit is None:
        limit, where = markup.percent(SURE), "a limit of this app, as the model has none of its own"
    else:
        limit = f"{markup.percent(served.own_limit)} before calibration (here {markup.percent(found.raw)})"
        where = "the model's own limit, chosen on validation rows in its training"
    return f"Answers below {limit} are not given: {where}."


def familiar_html(served: ServedModel, found: Answer, given: int) -> str:
    """Return whether the model has learned from such inputs, for each part that it was given.

    Args:
        served: the model.
        found: its answer.
        given: number of parts that it read.
    """
    if not found.familiar:
        return markup.note("Whether it has learned from such inputs is not known to this model.")
    strange = sum(not familiar for familiar in found.familiar.values())
    # As the model does: where nothing else is left, what is foreign is read all the same.
    left_out = served.answers_without_a_part and strange < given
    rows = []
    for part, familiar in found.familiar.items():
        kind = "known" if familiar else "foreign"
        said = "like those of training" if familiar else "unlike those of training"
        said += ", so it is left out" if not familiar and left_out else ""
        rows.append(f'<li class="{kind}">{markup.text(f"{PARTS[part].capitalize()} is {said}.")}</li>')
    return f'<h4>Has it seen such inputs?</h4><ul class="familiar">{"".join(rows)}</ul>'


def why_html(served: ServedModel, picture: Image.Image | None, title: str) -> str:
    """Return why: a heat map, the weight of each word, the share of each part, and what changes the answer."""
    given = served.fitting(picture, title)
    shares = served.probabilities(picture, title)
    label = served.saved.names[int(shares.argmax())]
    with served.lock:
        found = explain(
            served.saved.model,
            served.saved.processor,
            given.get("images", [None])[0],
            given.get("text", [None])[0],
            label,
        )
    parts = [*_heat_map(found, label), *_words(found, label), *_shares(found, label)]
    return markup.card(*parts, _changes(served, picture, title, shares), title=f"Why {label}?", kind="why")


def _heat_map(found: Explanation, label: str) -> list[str]:
    if found.heatmap is None or found.picture is None:
        return []
    layer = markup.heat(found.heatmap, found.picture.size)
    over = f'<img class="layer" src="{markup.address(layer)}" alt="">'
    return [
        markup.figure(
            markup.address(found.picture),
            f"The photograph as the model sees it; warm colours lie where it found {label}.",
            f"Warm where the evidence for {label} lies",
            [over],
        )
    ]


def _words(found: Explanation, label: str) -> list[str]:
    if not found.words:
        return []
    largest = max(abs(weight) for _, weight in found.words) or 1.0
    chips = []
    for word, weight in found.words:
        kind, strength = "for" if weight >= 0 else "against", abs(weight) / largest
        signed = f"{weight:+.2f}" if abs(weight) >= 0.005 else "0.00"
        chips.append(
            f'<span class="word {kind}" style="--w:{strength:.2f}" '
            f'title="{signed} in log-probability">{markup.text(word)} <b>{signed}</b></span>'
        )
    lead = f"What each word adds to {label} (log-probability lost when it is left out)"
    return [f'<h4>{markup.text(lead)}</h4><p class="words">{" ".join(chips)}</p>']


def _shares(found: Explanation, label: str) -> list[str]:
    if found.shares is None:
        return []
    rows = []
    largest = max(*(abs(share) for share in found.shares.values()), 1e-6)
    for part, share in found.shares.items():
        kind = "for" if share >= 0 else "against"
        rows.append(
            f'<li class="bar"><span class="bar-name">{PARTS[part]}</span><span class="bar-track">'
            f'<span class="bar-fill {kind}" style="width:{100 * abs(share) / largest:.0f}%"></span></span>'
            f'<span class="bar-value">{100 * share:+.0f} points</span></li>'
        )
    return [f"<h4>What each part adds to the share of {markup.text(label)}</h4><ul class='bars'>{''.join(rows)}</ul>"]


def _changes(served: ServedModel, picture: Image.Image | None, title: str, shares: np.ndarray) -> str:
    if len(served.reads) < 2 or picture is None or not title:
        return ""
    names = served.saved.names
    cases = {"both, as given": shares}
    cases["without the photograph"] = served.probabilities(None, title)
    cases["without the title"] = served.probabilities(picture, None)
    best = names[int(shares.argmax())]
    rows = []
    for case, found in cases.items():
        first = names[int(found.argmax())]
        changed = "the same" if first == best else "<strong>another answer</strong>"
        rows.append([markup.text(case), f"{markup.badge(first)} {markup.percent(float(found.max()))}", changed])
    return "<h4>What changes the answer</h4>" + markup.table(("given", "answer", ""), rows)


def build(models: Sequence[ServedModel], samples: Sequence[Sample]) -> None:
    """Add the page to the app."""
    by_name = {one.name: one for one in models}
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            picture = picture_input(label="Photograph", height=300, elem_id="taste-picture", buttons=[])
            title = gr.Textbox(
                label="Title", placeholder="Lemon tart with meringue", max_lines=2, elem_id="taste-title"
            )
            chosen = gr.Dropdown(list(by_name), value=models[0].name, label="Model", visible=len(models) > 1)
            why = gr.Checkbox(True, label="Explain the answer", elem_id="taste-why")
            go = gr.Button("Taste", variant="primary", elem_id="taste-go")
            add_examples(samples, picture, title)
        with gr.Column(scale=7, min_width=320):
            answer = gr.HTML(markup.empty(WAITING), elem_id="taste-answer")
            reasons = gr.HTML("", elem_id="taste-reasons")

    def taste(path: str | None, words: str, name: str) -> tuple[str, str]:
        served = named(by_name, name)
        return answer_html(served, open_upload(path), short(words)), ""

    def explained(path: str | None, words: str, name: str, wanted: bool) -> str:
        return why_html(named(by_name, name), open_upload(path), short(words)) if wanted else ""

    for trigger in (go.click, title.submit):
        tasted = trigger(
            as_message(taste),
            [picture, title, chosen],
            [answer, reasons],
            api_visibility="private",
            concurrency_id="model",
        )
        then_seen(tasted, "taste-answer")
        tasted.success(
            as_message(explained),
            [picture, title, chosen, why],
            reasons,
            api_visibility="private",
            concurrency_id="model",
        )
