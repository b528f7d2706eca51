"""The comparison as one self-contained page: verdicts, plots, tables, and the surest errors with their pictures."""

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset_builder.errors import BadInputError
from dataset_builder.files import write_whole
from model_cards.pages import inline, render_page
from trainer_scripts.comparing.report import report
from trainer_scripts.data.pictures import readable_picture
from trainer_scripts.data.table import Table, decode_bytes
from trainer_scripts.evaluation.scores import CLASSES
from trainer_scripts.scoring.scored_models import LoadedModels

PAGE = "report.html"
ERRORS = 24
PLOT_SIDE, PICTURE_SIDE = 900, 200  # pixels
_BAR = re.compile(r"(?<!\\)\|")


def write_page(comparison: LoadedModels, content: Mapping[str, Any], out: Path) -> None:
    """Write the page beside the plots that it shows."""
    wrong, errors = surest_errors(comparison)
    values = {
        "title": f"Comparison of {', '.join(line.name for line in comparison.models)}",
        "lead": f"{content['rows']:,} rows of {content['dataset']}, split {content['split']}.",
        "footer": "Written by compare.py; nothing on this page is fetched.",
        "verdicts": [line.removeprefix("- ") for line in content["verdicts"]],
        "plots": [{"source": _plot(path), "description": _plot_name(path)} for path in sorted(out.glob("*.png"))],
        "model": comparison.widest.name,
        "rows": content["rows"],
        "wrong": wrong,
        "errors": errors,
        "sections": list(sections_of(report(content))),
    }
    page = render_page("comparison_report.html", values)
    write_whole(out / PAGE, lambda path: path.write_text(page, encoding="utf-8"))


def surest_errors(comparison: LoadedModels) -> tuple[int, list[dict[str, str]]]:
    """Return how many rows the widest model has wrong, and those that it was surest of, with their pictures.

    Only a model of one label per row has a surest error; (0, []) for others.
    """
    line, names = comparison.widest, comparison.label_names
    truth, shares = line.predictions.parts.get(CLASSES, (None, None))
    if truth is None or np.ndim(truth) != 1 or not names:
        return 0, []
    answers = shares.argmax(axis=1)
    wrong = np.flatnonzero(answers != truth)
    order = wrong[np.argsort(-shares[wrong].max(axis=1), kind="stable")][:ERRORS]
    table = comparison.tables.get(line.name)
    places = {} if table is None else {row_id: place for place, row_id in enumerate(table.ids)}
    others = [one for one in comparison.models if one is not line and CLASSES in one.predictions.parts]
    rows = []
    for row in order.tolist():
        row_id = line.predictions.ids[row]
        said = [f"{one.name} answers {names[int(one.predictions.parts[CLASSES][1][row].argmax())]}" for one in others]
        title, picture = _shown(table, places.get(row_id))
        rows.append(
            {
                "id": row_id,
                "title": title or row_id,
                "picture": picture,
                "answer": names[int(answers[row])],
                "truth": names[int(truth[row])],
                "share": f"{100 * float(shares[row].max()):.0f} %",
                "others": ", ".join(said),
            }
        )
    return len(wrong), rows


def _shown(table: Table | None, place: int | None) -> tuple[str, str]:
    """Return text and picture of a row; empty where the table has none."""
    if table is None or place is None:
        return "", ""
    title = table.texts[place] if table.texts is not None else ""
    if table.image_column is None:
        return title, ""
    (cell,) = table.select([place]).cells()
    try:
        picture = readable_picture(decode_bytes(cell, table.ids[place]), table.ids[place])
    except BadInputError:
        return title, ""
    return title, _small(picture, PICTURE_SIDE, "JPEG")


def _small(picture: Image.Image, side: int, kind: str) -> str:
    picture = picture.copy()
    picture.thumbnail((side, side))
    encoded = io.BytesIO()
    picture.convert("RGB").save(encoded, kind, quality=85)
    return inline(encoded.getvalue(), f"image/{kind.lower()}")


def _plot(path: Path) -> str:
    with Image.open(path) as plot:
        return _small(plot, PLOT_SIDE, "WEBP")


def _plot_name(path: Path) -> str:
    words = path.stem.replace("_", " ")
    return words[:1].upper() + words[1:]


def sections_of(markdown: str) -> Iterator[dict[str, Any]]:
    """Yield the sections of a comparison's report as titles and blocks: paragraphs, lists and tables.

    >>> next(sections_of("## Scores\\n\\n| model | f1 |\\n|---|---|\\n| a | .5 |"))["blocks"][0]["rows"]
    [['model', 'f1'], ['a', '.5']]
    """
    for part in re.split(r"^## ", markdown, flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        blocks = [_block(text) for text in re.split(r"\n\s*\n", body.strip()) if text.strip()]
        yield {"title": title.strip(), "blocks": blocks}


def _block(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    if lines[0].startswith("|"):
        cells = [[_plain(cell) for cell in _BAR.split(line.strip().strip("|"))] for line in lines]
        return {"kind": "table", "rows": [row for row in cells if set("".join(row)) - set("-: ")]}
    if lines[0].startswith("- "):
        return {"kind": "list", "rows": [_plain(line.removeprefix("- ")) for line in lines]}
    return {"kind": "text", "rows": _plain(" ".join(lines))}


def _plain(text: str) -> str:
    """Return Markdown of a cell as text."""
    return text.replace("\\|", "|").replace("**", "").replace("`", "").strip()
