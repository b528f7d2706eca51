"""The plots of a comparison: confusion matrices, reliability before and after temperature scaling, training curves."""

from pathlib import Path
from typing import Any

from trainer_scripts import plots
from trainer_scripts.classification_comparison import confidences
from trainer_scripts.comparison import Comparison
from trainer_scripts.comparison_models import calibrated
from trainer_scripts.predictions import METRICS, read_metrics
from trainer_scripts.scores import CLASSES


def draw(comparison: Comparison, content: dict[str, Any], out: Path) -> None:
    """Write the plots."""
    plots.scores(out / "scores.png", content["entries"], content["decisive"])
    curves = {}
    for line in comparison.models:
        if CLASSES not in line.predictions.parts:
            continue
        labels, probabilities = line.predictions.parts[CLASSES]
        if labels.ndim == 1:
            path = out / f"confusion_{line.name.replace('/', '-')}.png"
            plots.confusion_matrix(path, line.name, labels, probabilities, comparison.label_names)
        curves[line.name] = [confidences(line.predictions)]
        if line.name in content["calibration"]:
            scaled = calibrated(line.predictions, content["calibration"][line.name]["temperature"])
            curves[line.name].append(confidences(scaled))
    if curves:
        plots.reliability(out / "reliability.png", curves)
    histories = {
        name: read_metrics(Path(model.source)).get("history", [])
        for name, model in comparison.saved.items()
        if (Path(model.source) / METRICS).is_file()
    }
    if histories:
        plots.training_curves(out / "training_curves.png", histories, comparison.main_score.name)
