"""The steps of `compare.py`: lines on the same rows, tests, ablations, report, plots, cards."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME

from dataset_builder.errors import BadInputError
from dataset_builder.files import sole_writer, write_json
from dataset_builder.messages import echo
from dataset_builder.progress import progress
from model_cards.runs import COMPARISON
from trainer_scripts.comparing.by_row import examples, write_rows
from trainer_scripts.comparing.calibration_and_cost import calibration, cost, spread
from trainer_scripts.comparing.comparison import (
    ablate,
    adjusted,
    as_plain,
    gather,
    is_prediction_folder,
    paired_tests,
    stated_baselines,
    verdicts,
)
from trainer_scripts.comparing.page import write_page
from trainer_scripts.comparing.plots import draw
from trainer_scripts.comparing.report import report
from trainer_scripts.comparing.transfer import check_also, transfer
from trainer_scripts.evaluation.lines import BASELINE
from trainer_scripts.evaluation.scores import definitions
from trainer_scripts.scoring.results import refresh_card
from trainer_scripts.scoring.scored_models import LoadedModels


def run(given: argparse.Namespace) -> None:
    """Compare models on one split, with the options of the command line.

    Writes comparison.json, comparison.md, one page of everything (report.html), answers by row and plots.

    Raises:
        BadInputError: models that cannot be compared, or an option about data of which nothing is read.
    """
    models, dataset = models_and_dataset(given.sources)
    for option in ("split", "columns", "dataset_revision"):
        if dataset is None and getattr(given, option) is not None:
            raise BadInputError(
                f"only predictions of score.py are compared, which --{option} does not change; leave it out"
            )
    check_also(given, dataset)
    given.out.mkdir(parents=True, exist_ok=True)
    with sole_writer(given.out):
        comparison = gather(models, dataset, given)
        content = describe(comparison, given.batch_size, given.ablation_rows)
        if given.also is not None:
            content["transfer"] = transfer(comparison, given)
        draw(comparison, content, given.out)
        write_rows(comparison, given.out)
        text = report(content)
        (given.out / "comparison.md").write_text(text, encoding="utf-8")
        write_json(given.out / COMPARISON, as_plain(content))
        write_page(comparison, content, given.out)
        for model in comparison.saved.values():
            refresh_card(model, given.out / COMPARISON)
    echo(text)
    echo("Verdicts\n\n" + "\n".join(content["verdicts"]))
    echo(f"written to {given.out}")


def models_and_dataset(sources: Sequence[str]) -> tuple[list[str], str | None]:
    """Return the models and the data set of a command line; None where only folders of `score.py` are given.

    Raises:
        BadInputError: no data set is named, or one that nothing would be read of.
    """
    *models, last = sources
    if is_prediction_folder(last):
        if not all(map(is_prediction_folder, models)):
            raise BadInputError(f"name the data set last; {last!r} holds predictions of score.py")
        return [*models, last], None
    is_model = (Path(last) / CONFIG_NAME).is_file()
    if is_model or not models:
        what = "a model" if is_model else "the only argument"
        raise BadInputError(f"name the data set last, after the models; {last!r} is {what}")
    if all(map(is_prediction_folder, models)):
        raise BadInputError(
            f"only predictions of score.py are compared, and nothing would be read of {last!r}; leave it out"
        )
    return models, last


def describe(comparison: LoadedModels, batch_size: int, ablation_rows: int) -> dict[str, Any]:
    """Return the content of comparison.json, with intervals as objects."""
    differences = paired_tests(comparison)
    ablations = ablate(comparison, batch_size, ablation_rows)
    first, tested = comparison.metrics[comparison.widest.name], comparison.tested
    return {
        "dataset": comparison.dataset or first.get("dataset"),
        "dataset_revision": comparison.revision,
        "split": comparison.split,
        "selection_split": first.get("selection_split"),
        "rows": first["rows"],
        "groups": len(set(tested.predictions.groups)),
        "rows_sha256": first["rows_sha256"],
        "task": comparison.task.name,
        "main_score": comparison.main_score.name,
        "decisive": [score.name for score in comparison.decisive],
        "tested": tested.name,
        "verdicts": verdicts(comparison, differences, ablations),
        "entries": {
            line.name: {
                "kind": line.kind,
                "modality": line.modality,
                "scores": {score.name: line.score(score) for score in comparison.scores if line.has(score)},
            }
            for line in progress(comparison.lines, "bootstrap intervals", "lines")
        }
        | {
            name: {"kind": BASELINE, "modality": "", "scores": scores}
            for name, scores in stated_baselines(comparison).items()
        },
        "differences": differences,
        "adjusted_p": adjusted(differences, comparison.main_score.name),
        "ablations": ablations,
        "calibration": calibration(comparison),
        "seeds": spread(comparison, batch_size),
        "cost": cost(comparison),
        "examples": examples(comparison),
        "without_model": [line.name for line in comparison.models if line.name not in comparison.saved],
        "definitions": definitions(comparison.scores),
    }
