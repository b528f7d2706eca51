"""Steps of `make demo TASK=segmentation`: tiny models from one start, a verdict on sharing, figures to look at.

A segmenter of all ingredients gives the encoder; one of food groups is the start of the three that are compared. These
go on from it for equally many epochs, so that what differs between them is what they learn.
"""

from pathlib import Path
from typing import Any

from trainer_scripts import compare, score, train
from trainer_scripts.predictions import read_metrics

FINE, START = "ingredient-level", "start"
COMPARED = ("multi-task", "single-task", "classifier")
# Run -> its recipe, the run that it starts from, the argument that names it, epochs where the recipe's are not meant.
RUNS: dict[str, tuple[str, str | None, str, float | None]] = {
    FINE: ("segmentation_deeplabv3_tiny_ingredients", None, "", None),
    START: ("segmentation_deeplabv3_tiny", FINE, "--init_image_encoder", None),
    "single-task": ("segmentation_deeplabv3_tiny_continued", START, "--model_name_or_path", None),
    "multi-task": ("multitask_deeplabv3_tiny", START, "--init_segmenter", None),
    "classifier": ("ingredients_tiny", START, "--init_image_encoder", 4),
}
SHOWN = ("miou_food", "group_miou_food", "ingredient_samples_f1", "ingredient_micro_f1")


def run(data: Path, out: Path, epochs: float | None = None) -> None:
    """Train, score and compare the models on a finished build.

    Args:
        data: what `flavour-sd build --out` was given.
        out: folder of the results: a folder per model, each with `scores/test/`; `verdict/` the comparison.
        epochs: of each training; None: as many as the demo means.
    """
    for name in RUNS:
        train_run(name, data, out, epochs)
    compare.main([*(str(out / name) for name in COMPARED), str(data), "--out", str(out / "verdict")])
    for name in (*COMPARED, FINE):
        classifier = ["--classifier", str(out / "classifier")] if name != "classifier" else []
        score.main([str(out / name), str(data), "--out", str(scores_of(out, name)), *classifier])
    print(summary({name: read_metrics(scores_of(out, name)) for name in (*COMPARED, FINE)}))
    print(f"panels, bars, confusions and flavour maps: {out}/*/scores/test/*.png; the verdict: {out}/verdict")


def train_run(name: str, data: Path, out: Path, epochs: float | None) -> None:
    """Train one model of the demo; a finished one is left as it is."""
    recipe, start, argument, own_epochs = RUNS[name]
    print(f"-- training {name} ({recipe})", flush=True)
    given = ["--dataset", str(data), "--output_dir", str(out / name)]
    if start is not None:
        given += [argument, str(out / start)]
    if epochs or own_epochs:
        given += ["--num_train_epochs", str(epochs or own_epochs)]
    train.main([recipe, *given])


def scores_of(out: Path, name: str) -> Path:
    """Return the folder of a model's scores on the test split."""
    return out / name / "scores" / "test"


def summary(scored: dict[str, dict[str, Any]]) -> str:
    """Return the figures that matter, one line per model, and the food groups that no pixel was found of."""
    lines = []
    for name, content in scored.items():
        figures = [_figure(content, key) for key in SHOWN if key in content["metrics"]]
        groups = content.get("per_group", content.get("per_class", {}))
        missed = [group for group, entry in groups.items() if entry["iou"] == 0]
        told = f"; never found: {', '.join(missed)}" if missed else "; every food group is found" if groups else ""
        lines.append(f"{name:<17} {len(content['label_names']) - 1} classes: {', '.join(figures)}{told}")
    return "\n".join(lines)


def _figure(content: dict[str, Any], name: str) -> str:
    entry = content["metrics"][name]
    interval = f" [{entry['low']:.3f}, {entry['high']:.3f}]" if "low" in entry else ""
    return f"{name} {entry['value']:.3f}{interval}"
