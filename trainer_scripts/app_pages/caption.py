"""The page of captioners: sentences about a photograph, and where the model looked at each word."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image

from modeling_flavour.modeling_flavour_captioning import FlavourForTransformerCaptioning
from trainer_scripts.app_pages import markup
from trainer_scripts.app_pages.inputs import photograph_page
from trainer_scripts.app_pages.models import ServedModel, caption_pipeline
from trainer_scripts.app_pages.samples import Sample
from trainer_scripts.tasks.captioning.figures import attention_per_word, whole_words

WAITING = "Give a photograph, and the model writes what it sees."
BEAMS = "Beam search"
SAMPLING = "Sampling"
MOST_BEAMS, MOST_CAPTIONS = 8, 5


def captions(
    served: ServedModel, picture: Image.Image, how: str, beams: int, number: int, temperature: float
) -> list[dict[str, Any]]:
    """Return captions with their scores, the likeliest first."""
    settings: dict[str, Any] = {"top_k": number}
    if how == SAMPLING:
        settings |= {"do_sample": True, "num_beams": 1, "temperature": temperature}
    else:
        settings |= {"num_beams": max(beams, number)}
    with served.lock:
        found = caption_pipeline(served)(picture, **settings)
    return sorted(found, key=lambda one: -one["log_probability"])


def words_with_maps(served: ServedModel, picture: Image.Image) -> list[tuple[str, np.ndarray]]:
    """Return the words of the model's own caption and where it looked for each; [] for one without attention."""
    if not isinstance(served.saved.model, FlavourForTransformerCaptioning):
        return []
    processor = served.saved.processor
    with served.lock, torch.inference_mode():
        pixels = processor(images=[picture])["pixel_values"].to(served.saved.model.device)
        tokens, maps = attention_per_word(served.saved.model, pixels)
    special = set(processor.tokenizer.all_special_tokens)
    pieces = processor.tokenizer.convert_ids_to_tokens(tokens)
    return [(word, seen) for word, seen in whole_words(pieces, maps) if word not in special]


def look_html(served: ServedModel, picture: Image.Image) -> str:
    """Return the caption word by word over its picture; a word shows its map while it is pointed at or clicked."""
    words = words_with_maps(served, picture)
    if not words:
        return markup.note("This captioner has no attention over the picture, so it shows no place of a word.")
    layers, buttons, rules = [], [], []
    width, height = picture.size
    scale = 380 / max(width, height)
    for number, (word, seen) in enumerate(words):
        spread = max(float(seen.max() - seen.min()), 1e-9)
        layer = markup.heat((seen - seen.min()) / spread, (round(width * scale), round(height * scale)))
        layers.append(f'<img class="layer m{number}" src="{markup.address(layer)}" alt="">')
        buttons.append(f'<button type="button" class="w w{number}">{markup.text(word)}</button>')
        rules.append(f".caption-view:has(.w{number}:is(:hover,:focus)) .m{number}{{opacity:1 !important}}")
    shown = markup.figure(markup.address(picture), "The photograph that is described", layers=layers)
    style = f"<style>{''.join(rules)}</style>"
    said = f'<p class="said">{" ".join(buttons)}</p>'
    hint = markup.note("Point at a word, or touch it: warm places are where the model looked as it wrote it.")
    return f'{style}<div class="caption-view">{shown}{said}{hint}</div>'


def answer_html(found: Sequence[dict[str, Any]], look: str) -> str:
    """Return captions and their probabilities."""
    rows = [
        [f"{markup.text(one['generated_text'])}", f"{one['score']:.2f}", f"{one['log_probability']:.1f}"]
        for one in found
    ]
    listed = markup.table(("caption", "probability of a word", "log-probability"), rows)
    return markup.card(look, title="Word by word", kind="words-card") + markup.card(listed, title="Captions")


def settings() -> list[Any]:
    """Add the settings of how captions are written; return them in the order of `described`."""
    with gr.Accordion("Settings", open=False):
        how = gr.Radio([BEAMS, SAMPLING], value=BEAMS, label="How words are chosen")
        beams = gr.Slider(1, MOST_BEAMS, 3, step=1, label="Beams")
        temperature = gr.Slider(0.2, 2.0, 0.8, step=0.1, label="Temperature of sampling")
        number = gr.Slider(1, MOST_CAPTIONS, 3, step=1, label="Captions")
    return [how, beams, temperature, number]


def described(
    served: ServedModel, picture: Image.Image, how: str, beams: float, temperature: float, number: float
) -> str:
    """Return the captions of a picture, with settings that a visitor sent, and where the model looked."""
    beams, number = min(max(int(beams), 1), MOST_BEAMS), min(max(int(number), 1), MOST_CAPTIONS)
    found = captions(served, picture, how, beams, number, min(max(float(temperature), 0.05), 5.0))
    return answer_html(found, look_html(served, picture))


def build(models: Sequence[ServedModel], samples: Sequence[Sample]) -> None:
    """Add the page to the app."""
    photograph_page("caption", "Describe", WAITING, models, samples, described, settings)
