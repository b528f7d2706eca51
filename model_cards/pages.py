"""Self-contained HTML pages of reports: style, pictures and text in one file, every foreign text escaped."""

import base64
from collections.abc import Mapping
from typing import Any

from model_cards.cards import environment

MOST_BYTES = 5_000_000  # of a page


def inline(content: bytes, kind: str = "image/jpeg") -> str:
    """Return a file as an address that needs no network."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """Return a page.

    Args:
        template: name of a template of this package; `report.html` is what all have in common.
        values: what it names; texts are escaped, and one that is missing is an error.
    """
    return environment(escape=True).get_template(template).render(values)
