"""HTML of the pages, made of strangers' texts: everything passes through `text` or is a number or a picture of ours."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from dataset_builder.columns import FLAVOURS
from dataset_builder.messages import escaped

# Gradio reads `${...}` and `{{...}}` in a page as templates, so these letters are written as entities too.
_TEMPLATE = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})


def text(value: object, longest: int = 2_000) -> str:
    """Return any text as HTML: no markup, no template, no control character.

    >>> text("<b>${x}</b>")
    '&lt;b&gt;&#36;&#123;x&#125;&lt;/b&gt;'
    """
    shown = escaped(str(value), keep="\n")
    shown = shown if len(shown) <= longest else f"{shown[:longest]} ..."
    return escape(shown, quote=True).translate(_TEMPLATE)


def address(picture: Image.Image, largest: int = 512, lossless: bool = False) -> str:
    """Return a picture as the address of an `<img>`, made smaller first."""
    shown = picture.copy()
    shown.thumbnail((largest, largest))
    encoded = io.BytesIO()
    if lossless or shown.mode == "RGBA":
        shown.save(encoded, "PNG", compress_level=3)
        return f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"
    shown.convert("RGB").save(encoded, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def tint(mask: np.ndarray, colour: Sequence[int], opacity: float = 0.62) -> str:
    """Return the address of a layer that shows a colour where a mask `(height, width)` is true, and nothing elsewhere.

    Of two colours, which take a tenth of the time and of the bytes of a layer of all.
    """
    layer = Image.fromarray(mask.astype(np.uint8))
    layer.putpalette([0, 0, 0, *(int(one) for one in colour)])
    encoded = io.BytesIO()
    layer.save(encoded, "PNG", transparency=bytes((0, round(255 * opacity))), compress_level=1, bits=1)
    return f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def heat(values: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Return a layer of a map `(height, width)` of 0..1 in warm colours, transparent where it is low."""
    grey = Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    strength = np.asarray(grey, np.float32) / 255
    layer = np.zeros((*strength.shape, 4), np.uint8)
    layer[..., 0] = 255
    layer[..., 1] = (225 * strength**1.5).astype(np.uint8)
    layer[..., 2] = (70 * strength**3).astype(np.uint8)
    layer[..., 3] = (215 * strength**0.8).astype(np.uint8)
    return Image.fromarray(layer)


def bars(shares: Mapping[str, float], threshold: float | None = None, ranked: bool = True) -> str:
    """Return horizontal bars, the largest first or (to be compared with others) as given, with shares in per cent."""
    rows = []
    for name, share in sorted(shares.items(), key=lambda one: -one[1] if ranked else 0):
        kind = f"f-{name}" if name in FLAVOURS else "f-other"
        mark = "" if threshold is None else f'<i class="mark" style="left:{100 * threshold:.1f}%"></i>'
        below = " below" if threshold is not None and share < threshold else ""
        rows.append(
            f'<li class="bar{below}"><span class="bar-name">{text(name)}</span><span class="bar-track">'
            f'<span class="bar-fill {kind}" style="width:{100 * share:.1f}%"></span>{mark}</span>'
            f'<span class="bar-value">{percent(share)}</span></li>'
        )
    return f'<ul class="bars">{"".join(rows)}</ul>'


def percent(share: float) -> str:
    """Return a share in words for people: no false certainty at the ends.

    >>> percent(0.004), percent(0.423), percent(0.999)
    ('< 1 %', '42 %', '> 99 %')
    """
    return "< 1 %" if 0 < share < 0.01 else "> 99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def badge(flavour: str) -> str:
    """Return the name of a flavour on its colour."""
    kind = f"f-{flavour}" if flavour in FLAVOURS else "f-other"
    return f'<span class="badge"><i class="{kind}"></i>{text(flavour)}</span>'


def card(*parts: str, title: str = "", kind: str = "") -> str:
    """Return a framed part of a page."""
    head = f"<h3>{text(title)}</h3>" if title else ""
    return f'<section class="card {kind}">{head}{"".join(parts)}</section>'


def note(words: str) -> str:
    """Return a small remark."""
    return f'<p class="note">{text(words)}</p>'


def figure(source: str, description: str, caption: str = "", layers: Iterable[str] = ()) -> str:
    """Return a picture with layers over it, and what it shows in words for those who cannot see it."""
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    stack = f'<img src="{source}" alt="{text(description)}">{"".join(layers)}'
    return f'<figure class="plate"><div class="stack">{stack}</div>{below}</figure>'


def empty(words: str) -> str:
    """Return what stands where no answer is yet."""
    circles = '<circle cx="24" cy="24" r="17"/><circle cx="24" cy="24" r="10"/>'
    return f'<div class="empty"><svg viewBox="0 0 48 48" aria-hidden="true">{circles}</svg><p>{text(words)}</p></div>'


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are HTML already."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
