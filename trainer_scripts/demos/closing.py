"""The screen that ends a demo: the scores, where the results are, and the lines that use a model."""

from collections.abc import Mapping
from pathlib import Path

HEADING = "## Scores"
USE = """from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained("{model}", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("{model}", trust_remote_code=True)"""

USE_PIPELINE = """from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained("{model}")
pipeline("plate: tomato, feta, olive", num_inference_steps=25, guidance_scale=3.0).images[0].show()"""


def score_table(report: Path) -> str:
    """Return the table of scores of a `comparison.md`, without its ruler; empty where it has none."""
    lines = report.read_text(encoding="utf-8").splitlines()
    if HEADING not in lines:
        return ""
    rest = lines[lines.index(HEADING) + 1 :]
    start = next((place for place, line in enumerate(rest) if line.startswith("|")), len(rest))
    table = []
    for line in rest[start:]:
        if not line.startswith("|"):
            break
        if set(line) - set("|-: "):
            table.append(line.strip("|").rstrip())
    return "\n".join(table)


def closing_screen(table: str, model: Path, places: Mapping[str, Path], use: str = USE) -> str:
    """Return the last screen of a demo.

    Args:
        table: the scores, see `score_table`; "" for none.
        model: folder of the model that its lines load.
        places: what lies where.
        use: the lines.
    """
    width = max(map(len, places))
    listed = "\n".join(f"{name:<{width}}  {path}" for name, path in places.items())
    parts = [table, listed, use.format(model=model)]
    return "\n" + "\n\n".join(part for part in parts if part)
