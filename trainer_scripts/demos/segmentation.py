"""Steps of `make demo TASK=segmentation`: tiny models from one start, their comparison, and figures.

The three models that are compared start from one segmenter of all ingredients and are trained for the same number of
epochs, so that they differ in their training targets alone. Masks are scored by ingredient and by food group.
"""

from pathlib import Path
from typing import Any

from dataset_builder.messages import echo
from trainer_scripts import compare
from trainer_scripts.demos.all_cores import score_on_all_cores, train_on_all_cores
from trainer_scripts.evaluation.score_file import read_scores

START = "start"
COMPARED = ("multi-task", "single-task", "classifier")
# Run -> its configuration, and the argument that names the start.
RUNS = {
    START: ("segmentation_deeplabv3_tiny", None),
    "single-task": ("segmentation_deeplabv3_tiny_continued", "--model_name_or_path"),
    "multi-task": ("multitask_deeplabv3_tiny", "--init_segmenter"),
    "classifier": ("ingredients_tiny", "--init_image_encoder"),
}
SHOWN = ("group_miou_food", "miou_food", "ingredient_samples_f1", "ingredient_micro_f1")


def run(data: Path, out: Path, epochs: float | None = None) -> None:
    """Train, score and compare the models on a finished build.

    Args:
        data: folder of a finished build.
        out: folder of the results: a folder per model, each with `scores/test/`; `verdict/` the comparison.
        epochs: of each training; None: the configuration's.
    """
    for name, (configuration, argument) in RUNS.items():
        echo(f"-- training {name} ({configuration})")
        start = [] if argument is None else [argument, str(out / START)]
        length = [] if epochs is None else ["--num_train_epochs", str(epochs)]
        train_on_all_cores([configuration, "--dataset", str(data), "--output_dir", str(out / name), *start, *length])
    compare.main([*(str(out / name) for name in COMPARED), str(data), "--out", str(out / "verdict")])
    scores = {name: out / name / "scores" / "test" for name in COMPARED}
    beside = {name: ["--classifier", str(out / "classifier")] if name != "classifier" else [] for name in scores}
    score_on_all_cores([[str(out / name), str(data), "--out", str(to), *beside[name]] for name, to in scores.items()])
    echo(summary({name: read_scores(folder) for name, folder in scores.items()}))


def summary(scored: dict[str, dict[str, Any]]) -> str:
    """Return the main scores, one line per model, with the food groups of which no pixel was segmented correctly."""
    lines = []
    for name, content in scored.items():
        figures = []
        for key in SHOWN:
            if entry := content["metrics"].get(key):
                interval = f" [{entry['low']:.3f}, {entry['high']:.3f}]" if "low" in entry else ""
                figures.append(f"{key} {entry['value']:.3f}{interval}")
        # A model of food groups has no table per group: its classes are the groups.
        groups = content["details"].get("per_group", content["details"].get("per_class", {}))
        missed = [group for group, entry in groups.items() if entry["iou"] == 0]
        rest = f"; never found: {', '.join(missed)}" if missed else "; every food group is found" if groups else ""
        lines.append(f"{name:<17} {len(content['label_names']) - 1} classes: {', '.join(figures)}{rest}")
    return "\n".join(lines)
