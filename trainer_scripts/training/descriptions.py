"""What a run tells of itself: its settings and its rows on the terminal, its results in `metrics.json`."""

import textwrap
from typing import Any

import yaml
from transformers import Trainer

from dataset_builder.columns import INGREDIENTS
from model_cards.runs import CONFIGURATION
from trainer_scripts.evaluation.score_file import SCHEMA_VERSION
from trainer_scripts.evaluation.scores import definitions
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.tasks.common.trainer import megabytes
from trainer_scripts.training.adapters import describe_adapters
from trainer_scripts.training.data import TrainingData
from trainer_scripts.training.longer import planned

LOSS = "loss"  # chooses a checkpoint like any score, although it is none: it holds weights and smoothing


def settings_block(configuration: Configuration) -> str:
    """Return the settings that differ from the defaults as a few lines."""
    settings = []
    for name, value in configuration.changes().items():
        # Mappings in the form in which they are written in YAML, on one line.
        shown = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
        settings.append(f"{name} {shown.removesuffix('...').strip().removesuffix('...').strip()}")
    lines = textwrap.wrap("; ".join(settings), 116, break_long_words=False, break_on_hyphens=False)
    where = configuration.output_dir / CONFIGURATION
    heading = f"configuration {configuration.name}; what differs from the defaults (all settings: {where}):"
    return "\n".join([heading, *(f"  {line}" for line in lines)])


def describe(data: TrainingData) -> str:
    """Return one line with the task and the numbers of rows and labels."""
    left_out = f", {data.left_out} left out because they are in two splits" if data.left_out else ""
    if data.stream is not None:
        return (
            f"{data.task.name}: training rows stream, the first {len(data.train)} give vocabulary and class shares, "
            f"{len(data.selection)} rows choose the checkpoint, {len(data.names)} labels"
        )
    rows = f"{len(data.train)} training rows, {len(data.selection)} rows choose the checkpoint"
    lacking = [sum(counts) for counts in zip(data.train.lacking(), data.selection.lacking(), strict=True)]
    if any(lacking):
        left_out += f", {lacking[0]} rows lack their text and {lacking[1]} their picture"
    return f"{data.task.name}: {rows}, {len(data.names)} labels{left_out}"


def describe_results(
    configuration: Configuration, data: TrainingData, trainer: Trainer, seconds: float, evaluated: dict[str, float]
) -> dict[str, Any]:
    """Return the content of `metrics.json`: selection scores of a checkpoint, `evaluated`, and facts of the run."""
    scores = data.task.scores(data.names)
    chosen_by = str(trainer.args.metric_for_best_model).removeprefix("eval_")
    names = [*([LOSS] if chosen_by == LOSS else []), *(score.name for score in scores)]
    seen = len(data.train) - data.unlabelled
    if data.stream is not None:  # it has no length: the rows of all steps
        arguments = trainer.args
        at_once = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        seen = trainer.state.global_step * at_once
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {
        "schema_version": SCHEMA_VERSION,
        "configuration": configuration.name,
        "task": data.task.name,
        "modality": configuration.model.modality,
        "dataset": configuration.data.dataset,
        "dataset_revision": configuration.data.dataset_revision,
        "selection_split": data.selection.split,
        "selection_metric": chosen_by,
        "selection": {name: evaluated[f"eval_{name}"] for name in names},
        "definitions": definitions(scores),
        "label_names": data.names,
        "dishes": INGREDIENTS in data.train.rows.column_names,
        "rows": {"train": seen, "selection": len(data.selection), "left_out": data.left_out},
        **({} if configuration.training.teacher is None else {"teacher": describe_teacher(configuration, data)}),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "megabytes": megabytes(model),
        **describe_adapters(configuration, model),
        "seconds": seconds,
        "steps": trainer.state.global_step,
        **planned(configuration),
        "best_step": trainer.state.best_global_step,
        "epochs": trainer.state.epoch,
        "seed": configuration.training.seed,
        "device": str(trainer.args.device),
        "precision": trainer.accelerator.mixed_precision.replace("no", "fp32"),
        "history": trainer.state.log_history,
    }


def describe_teacher(configuration: Configuration, data: TrainingData) -> dict[str, Any]:
    """Return the facts about a teacher for `metrics.json`."""
    training = configuration.training
    return {"model": training.teacher, "share": training.teacher_share, "unlabelled_rows": data.unlabelled}
