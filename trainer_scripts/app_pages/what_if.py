"""The page of dishes that change: exchange an ingredient, and see plate, rule and model before and after."""

import threading
from collections.abc import Sequence
from functools import lru_cache, partial

import gradio as gr
import torch

from dataset_builder.catalogue.ingredients import find_ingredients
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.labelling.choice import AnyLabeller, make_labeller
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.labelling.rule import Label
from dataset_builder.pictures.illustrator import Illustrator
from dataset_builder.pictures.prompts import render
from dataset_builder.pictures.revisions import pipeline_revision
from dataset_builder.pictures.settings import PLATING, GenerationSettings, Picture, PictureTask
from dataset_builder.recipes.hub_names import pinned
from trainer_scripts.app_pages import markup
from trainer_scripts.app_pages.inputs import LONGEST_LIST, as_message, short, then_seen
from trainer_scripts.app_pages.models import ServedModel

SIZE = 256  # pixels of a drawn plate
KEPT_PLATES = 16
MOST_LINES = 40
WAITING = "Exchange an ingredient and see what becomes of the plate and of its taste."
DISH = ("Beef with soy sauce", "beef\nsoy sauce\nmushroom\nrice\nspring onion", "soy sauce", "lemon")


class Kitchen:
    """What labels and draws a dish: the rule, and one pipeline.

    Args:
        pipeline: "plating", or a folder, Hub id or `ID@REVISION` of a diffusers text-to-image pipeline.

    Raises:
        BadInputError: the pipeline cannot be loaded.
    """

    def __init__(self, pipeline: str):
        self.pipeline = pipeline
        name, revision = pinned(pipeline)
        size = SIZE if name == PLATING else None  # a pipeline knows the size that it has learned
        settings = GenerationSettings(name, revision, size=size, batch_size=1)
        device = "cuda" if name != PLATING and torch.cuda.is_available() else "cpu"
        self._illustrator = Illustrator(settings, pipeline_revision(name, revision), device=device)
        self._lock = threading.Lock()
        self._labeller: AnyLabeller | None = None
        # A dish stays the same while its exchanges are tried, and a diffusion pipeline takes its time.
        self._plates = lru_cache(KEPT_PLATES)(self._drawn)

    def label(self, title: str, lines: Sequence[str]) -> Label:
        """Return the label that the rule gives."""
        with self._lock:
            if self._labeller is None:
                self._labeller = make_labeller(Lexicon.load())
        return self._labeller.label(title, lines)

    def draw(self, title: str, lines: Sequence[str]) -> Picture:
        """Return the plate of a dish; without an image, but with the reasons, where every attempt was rejected."""
        with self._lock:
            return self._plates(title, tuple(lines))

    def _drawn(self, title: str, lines: tuple[str, ...]) -> Picture:
        # Of one seed, so that what differs between two plates is what differs between their dishes.
        task = PictureTask("what-if", "what-if", title, render("ingredients", title, lines), 7)
        return next(iter(self._illustrator.draw([task])))


def exchanged(title: str, lines: Sequence[str], old: str, new: str) -> tuple[str, list[str]]:
    """Return title and ingredients with one ingredient in place of another; an empty new one leaves it out.

    Raises:
        BadInputError: no ingredient is named like the old one.
    """
    wanted = old.casefold()
    named = {item.name for item in find_ingredients(old)}
    places = [place for place, line in enumerate(lines) if wanted in line.casefold()]
    places = places or [
        place for place, line in enumerate(lines) if named & {item.name for item in find_ingredients(line)}
    ]
    if not places:
        raise BadInputError(f"no ingredient is named {old!r}; write it as it stands in the list")
    changed = [new if place in places else line for place, line in enumerate(lines)]
    lower = title.casefold()
    if wanted in lower and new:
        start = lower.index(wanted)
        title = title[:start] + new + title[start + len(old) :]
    return title, [line for line in changed if line]


def side_html(
    kitchen: Kitchen, models: Sequence[ServedModel], head: str, title: str, lines: Sequence[str], shown: str
) -> str:
    """Return one side: the plate, the ingredients, the taste by rule and by each model."""
    label = kitchen.label(title, lines)
    drawn = kitchen.draw(title, lines)
    parts = [f"<h3>{markup.text(head)}</h3>"]
    if drawn.image is not None:
        known = ", ".join(item.name for line in lines for item in find_ingredients(line))
        parts.append(markup.figure(markup.address(drawn.image, SIZE), f"A drawn plate of {title} with {known}", title))
    else:
        parts.append(markup.note(f"Every drawn plate was rejected: {'; '.join(drawn.generation['rejected'])}."))
    parts.append(f'<p class="dish-lines">{shown}</p>')
    rule = markup.badge(label.flavour) if label.flavour else "no flavour leads"
    parts.append(f"<h4>By the rule: {rule}</h4>")
    parts.append(markup.bars(dict(zip(FLAVOURS, label.taste, strict=True)), ranked=False))
    for served in models:
        if drawn.image is None and served.reads == ("image",):
            parts.append(f"<h4>{markup.text(served.name)} reads the plate alone, so it has no answer</h4>")
            continue
        found = served.answer(drawn.image, title)
        shares = found.shares
        sure = markup.badge(served.saved.names[int(shares.argmax())]) if found.sure else "not sure"
        parts.append(
            f"<h4>By {markup.text(served.name)}, from {markup.text(' and '.join(_read(served, drawn)))}: {sure}</h4>"
        )
        parts.append(markup.bars(dict(zip(served.saved.names, shares.tolist(), strict=True)), ranked=False))
    return f'<div class="side">{"".join(parts)}</div>'


def _read(served: ServedModel, drawn: Picture) -> list[str]:
    names = {"image": "the plate", "text": "the title"}
    return [names[one] for one in served.reads if one == "text" or drawn.image is not None]


def exchange_html(kitchen: Kitchen, models: Sequence[ServedModel], title: str, listed: str, old: str, new: str) -> str:
    """Return a dish before and after an exchange, side by side.

    Args:
        kitchen: labels and draws both.
        models: classifiers that answer for both.
        title: of the dish.
        listed: its ingredients, one per line.
        old: the ingredient that leaves.
        new: the one that takes its place; empty for none.

    Raises:
        BadInputError: too many or no ingredients, or none like the old one.
    """
    title, old, new = short(title), short(old, what="the ingredient"), short(new, what="the ingredient")
    given = [line.strip() for line in short(listed, LONGEST_LIST, "the list").splitlines() if line.strip()]
    if not given or len(given) > MOST_LINES:
        raise BadInputError(f"give 1 to {MOST_LINES} ingredients, one per line; there are {len(given)}")
    if not old:
        raise BadInputError("name the ingredient to exchange")
    other_title, other = exchanged(title, given, old, new)
    before = ", ".join(markup.text(line) if line in other else f"<del>{markup.text(line)}</del>" for line in given)
    after = ", ".join(markup.text(line) if line in given else f"<ins>{markup.text(line)}</ins>" for line in other)
    sides = side_html(kitchen, models, "As it is", title, given, before)
    sides += side_html(kitchen, models, f"With {new}" if new else f"Without {old}", other_title, other, after)
    by = "a simulator from its ingredients" if kitchen.pipeline == PLATING else kitchen.pipeline
    return markup.card(f'<div class="pair">{sides}</div>', markup.note(f"Each plate is drawn by {by}, with one seed."))


def build(models: Sequence[ServedModel], pipeline: str) -> None:
    """Add the page to the app."""
    kitchen = Kitchen(pipeline)
    gr.Markdown(
        "Change one ingredient of a dish. Its plate is drawn anew, and rule and model answer anew.",
        elem_classes="lede",
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            title = gr.Textbox(DISH[0], label="Title", max_lines=2, elem_id="if-title")
            lines = gr.Textbox(DISH[1], label="Ingredients, one per line", lines=6, max_lines=14, elem_id="if-lines")
            with gr.Row():
                old = gr.Textbox(DISH[2], label="Exchange", min_width=120, elem_id="if-old")
                new = gr.Textbox(DISH[3], label="for", min_width=120, elem_id="if-new", placeholder="nothing")
            go = gr.Button("See what changes", variant="primary", elem_id="if-go")
        with gr.Column(scale=8, min_width=320):
            answer = gr.HTML(markup.empty(WAITING), elem_id="if-answer")

    for trigger in (go.click, new.submit):
        change = as_message(partial(exchange_html, kitchen, models))
        asked = trigger(change, [title, lines, old, new], answer, api_visibility="private", concurrency_id="model")
        then_seen(asked, "if-answer")
