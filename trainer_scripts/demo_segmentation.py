"""Steps of `make demo TASK=segmentation`: three tiny models from one start, a verdict on sharing, figures to look at.

All three go on from one warmed-up segmenter for the same number of epochs, so that what differs is what they learn.
"""

from pathlib import Path
from typing import Any

from trainer_scripts import compare, score, train
from trainer_scripts.predictions import METRICS, read_metrics

START = "segmentation_deeplabv3_tiny"
# Name of the run -> its recipe, and the argument that names what it starts from.
MODELS = {
    "single-task": ("segmentation_deeplabv3_tiny_continued", "--model_name_or_path"),
    "multi-task": ("multitask_deeplabv3_tiny", "--init_segmenter"),
    "classifier": ("ingredients_tiny", "--init_image_encoder"),
    "ingredient-level": ("segmentation_deeplabv3_tiny_ingredients", "--init_image_encoder"),
}
COMPARED = ("multi-task", "single-task", "classifier")


def run(data: Path, out: Path, epochs: float | None = None) -> None:
    """Train, score and compare the models on a finished build.

    Args:
        data: what `flavour-sd build --out` was given.
        out: folder of the results: a folder per model, each with `scores/`; `verdict/` the comparison.
        epochs: of each training; None: the recipes'.
    """
    common = ["--dataset", str(data), *(["--num_train_epochs", str(epochs)] if epochs else [])]
    start = out / "start"
    train.main([START, "--output_dir", str(start), *common])
    for name, (recipe, argument) in MODELS.items():
        print(f"== training {name} ({recipe})", flush=True)
        train.main([recipe, "--output_dir", str(out / name), argument, str(start), *common])
    for name in MODELS:
        print(f"== {name} on held-out dishes", flush=True)
        classifier = [] if name == "classifier" else ["--classifier", str(out / "classifier")]
        score.main([str(out / name), str(data), "--out", str(out / name / "scores" / "test"), *classifier])
    compare.main([*(str(out / name) for name in COMPARED), str(data), "--out", str(out / "verdict")])
    print(summary({name: read_metrics(out / name / "scores" / "test") for name in MODELS}))
    print(f"== panels, bars, confusions, flavour maps: {out}/*/scores/test/*.png; the verdict: {out}/verdict/{METRICS}")


def summary(scored: dict[str, dict[str, Any]]) -> str:
    """Return the figures that matter, one line per model."""
    lines = []
    for name, content in scored.items():
        shown = [
            _figure(content, key) for key in ("miou_food", "miou", "ingredient_samples_f1") if key in content["metrics"]
        ]
        zero = [label for label, entry in content.get("per_class", {}).items() if entry["iou"] == 0]
        missed = f", never found: {', '.join(zero[:8])}{' ...' if len(zero) > 8 else ''}" if zero else ""
        lines.append(f"{name:<17} {len(content['label_names']) - 1} classes: {', '.join(shown)}{missed}")
    return "\n".join(lines)


def _figure(content: dict[str, Any], name: str) -> str:
    entry = content["metrics"][name]
    interval = f" [{entry['low']:.3f}, {entry['high']:.3f}]" if "low" in entry else ""
    return f"{name} {entry['value']:.3f}{interval}"
