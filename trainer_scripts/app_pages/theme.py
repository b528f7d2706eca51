"""How the app looks: colours, letters and spacing of one style sheet, in light and dark, from a phone to a desk."""

from pathlib import Path

import gradio as gr

STYLE = Path(__file__).with_name("style.css")
_SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
_EMBER = gr.themes.Color(
    "#fdf4ef", "#fae4d8", "#f4c6b0", "#eca281", "#e07c53", "#c9552b", "#b2461f", "#93391a", "#762f18", "#5f2817",
    "#33130a",
)  # fmt: skip


def theme() -> gr.themes.Base:
    """Return the theme: letters of the visitor's machine, nothing fetched from elsewhere."""
    plain = gr.themes.Base(
        primary_hue=_EMBER, neutral_hue=gr.themes.colors.stone, radius_size="lg", font=_SANS, font_mono=_MONO
    )
    return plain.set(
        body_background_fill="#faf7f2",
        body_background_fill_dark="#151210",
        body_text_color="#2a2320",
        body_text_color_dark="#f0e9e1",
        body_text_color_subdued="#6b615b",
        body_text_color_subdued_dark="#b5aaa1",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1f1b18",
        block_border_color="#e7dfd5",
        block_border_color_dark="#383029",
        block_label_text_color="#5c534d",
        block_label_text_color_dark="#c9beb4",
        block_shadow="0 1px 2px rgb(60 40 20 / 5%)",
        input_border_width="1px",
        input_background_fill="#ffffff",
        input_background_fill_dark="#26211d",
        input_border_color="#d8cec2",
        input_border_color_dark="#463d35",
        input_placeholder_color="#766c65",
        input_placeholder_color_dark="#a2978d",
        button_primary_background_fill="#b2461f",
        button_primary_background_fill_hover="#93391a",
        button_primary_background_fill_dark="#b2461f",
        button_primary_background_fill_hover_dark="#c9552b",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#f3ede5",
        button_secondary_background_fill_hover="#e9e0d4",
        button_secondary_background_fill_dark="#2d2722",
        button_secondary_background_fill_hover_dark="#3a332c",
        button_large_padding="12px 20px",
    )


def style() -> str:
    """Return the style sheet of the pages."""
    return STYLE.read_text(encoding="utf-8")
