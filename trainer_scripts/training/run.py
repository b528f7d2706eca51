"""The steps of `train.py`: recipe, data, model, Trainer, results; once per seed."""

import copy
import dataclasses
import gc
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from accelerate import PartialState
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, TrainerCallback, set_seed
from transformers.integrations import get_available_reporting_integrations
from transformers.trainer_utils import IntervalStrategy, SchedulerType

from dataset_builder.errors import BadInputError
from trainer_scripts.data.class_balance import sampling_weights
from trainer_scripts.data.streaming import StreamSamples
from trainer_scripts.evaluation.scores import definitions
from trainer_scripts.features.frozen import features_once
from trainer_scripts.settings.arguments import DEFAULT_DATASET, Recipe, TrainingArguments
from trainer_scripts.tasks.trainer import AveragedWeights, megabytes
from trainer_scripts.training.callbacks import EpochOfSamples, LinePerEvaluation, StreamPosition
from trainer_scripts.training.data import TrainingData, load_training_data, vocabulary_texts
from trainer_scripts.training.folder import (
    RunState,
    check_budget,
    check_processes,
    finish_run,
    inspect_run,
    start_run,
    write_spread,
)
from trainer_scripts.training.vocabulary_record import (
    check_vocabulary,
    load_vocabulary_record,
    record_vocabulary,
    save_vocabulary_record,
)

LOSS = "loss"  # chooses a checkpoint like any score, although it is none: it holds the recipe's weights and smoothing


def run(recipe: Recipe) -> None:
    """Train what a recipe describes, as often as it asks for."""
    transformers.utils.logging.disable_progress_bar()
    repeated = [repetition(recipe, index) for index in range(recipe.training.seeds)]
    states = [inspect_run(one) for one in repeated]
    if all(state.finished for state in states):
        say(recipe, f"{recipe.training.output_dir} is finished; --overwrite trains it anew")
    else:
        train_unfinished(recipe, repeated, states)
    if len(repeated) > 1 and recipe.training.should_save:
        print(write_spread(repeated), flush=True)
    # A process that is gone while another still works would end that one too, and a group that is alive when the
    # interpreter ends aborts it; the wrapped models of past runs keep it alive.
    gc.collect()
    together = PartialState()
    together.wait_for_everyone()
    together.destroy_process_group()


def train_unfinished(recipe: Recipe, repeated: Sequence[Recipe], states: Sequence[RunState]) -> None:
    """Read the data once, and train with each seed that has not come to its end."""
    for state in states:
        if state.checkpoint is not None and not state.finished:
            check_processes(state.checkpoint, recipe.training.world_size)
    say(recipe, f"recipe {recipe.name}\n{recipe.as_yaml()}")
    ensure_dataset(recipe)
    data = load_training_data(recipe)
    say(recipe, describe(data))
    for one, state in zip(repeated, states, strict=True):
        if not state.finished:
            train_once(one, data, state.checkpoint)


def say(recipe: Recipe, message: str) -> None:
    """Print on the main process only."""
    if recipe.training.process_index == 0:
        print(message, flush=True)


def repetition(recipe: Recipe, index: int) -> Recipe:
    """Return the recipe of one of several seeds; the first trains in the run's own folder."""
    repeated = dataclasses.replace(recipe, training=copy.copy(recipe.training))
    if index:
        repeated.training.seed += index
        repeated.training.output_dir = str(recipe.output_dir / f"seed-{index}")
    return repeated


def ensure_dataset(recipe: Recipe) -> None:
    """Build the embedded data set when the default one is asked for and not there."""
    out = Path(DEFAULT_DATASET)
    if recipe.data.dataset == DEFAULT_DATASET and not (out / "manifest.json").is_file():
        from dataset_builder.building.build import build
        from dataset_builder.building.plan import BuildSettings

        say(recipe, f"building the embedded data set in {out}")
        build(BuildSettings(), out)


def describe(data: TrainingData) -> str:
    """Return one line about the rows."""
    left_out = f", {data.left_out} left out because they are on two sides" if data.left_out else ""
    if data.stream is not None:
        return (
            f"{data.task.name}: training rows stream, the first {len(data.train)} give vocabulary and class shares, "
            f"{len(data.selection)} rows choose the checkpoint, {len(data.names)} labels"
        )
    return (
        f"{data.task.name}: {len(data.train)} training rows, {len(data.selection)} rows choose the checkpoint, "
        f"{len(data.names)} labels{left_out}"
    )


def train_once(recipe: Recipe, data: TrainingData, checkpoint: Path | None) -> None:
    """Train one model and write checkpoint, code, metrics and card into its folder."""
    set_seed(recipe.training.seed)
    model, processor = data.task.build(recipe, data)
    vocabulary = vocabulary_record(recipe, data)
    check_vocabulary(vocabulary, data.held_out_texts)
    check_budget(model, recipe.model.max_mb)
    if recipe.training.should_save:
        start_run(recipe)
    trainer = make_trainer(recipe, data, model, processor)
    started = time.time()
    with features_once(recipe, trainer) as frozen:
        for part, reason in frozen.reasons.items():
            say(recipe, f"the frozen {part} backbone is computed in every epoch: {reason}")
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except ImportError as error:  # of the optimizer or the kernels that were asked for
            raise BadInputError(str(error)) from error
        results = describe_results(recipe, data, trainer, time.time() - started)
    # Where the weights are shared out (FSDP, DeepSpeed) every process takes part in gathering them.
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if recipe.training.should_save:
        model.save_pretrained(recipe.output_dir, state_dict=weights)
        processor.save_pretrained(recipe.output_dir)
        if vocabulary is not None:
            save_vocabulary_record(vocabulary, recipe.output_dir)
        finish_run(recipe.output_dir, results)
    name = results["selection_metric"]
    value = results["selection"][name]
    say(recipe, f"{recipe.output_dir}: {name} {value:.4f} on {data.selection.split}, {results['seconds']:.0f} s")


def vocabulary_record(recipe: Recipe, data: TrainingData) -> dict[str, Any] | None:
    """Return what the tokenizer saw: the training texts for one trained here, its own record for another."""
    if recipe.model.model_name_or_path:
        return load_vocabulary_record(recipe.model.model_name_or_path, recipe.model.model_revision)
    texts = vocabulary_texts(data.train)
    # Captioners have a tokenizer of their own in any case.
    if texts and (recipe.model.tokenizer is not None or data.train.texts is None):
        return record_vocabulary(texts, recipe.data.train_split)
    return load_vocabulary_record(recipe.model.text_encoder) if recipe.model.text_encoder else None


def trainer_arguments(recipe: Recipe, data: TrainingData) -> TrainingArguments:
    """Return the Trainer's arguments: the checkpoint is chosen by a named score of the selection split."""
    arguments = copy.copy(recipe.training)
    arguments.label_smoothing_factor = 0.0  # the model smooths labels itself, for one label and for many
    name = (arguments.metric_for_best_model or data.task.selection_metric).removeprefix("eval_")
    arguments.metric_for_best_model = f"eval_{name}"
    arguments.greater_is_better = name != LOSS and data.task.score_named(name, data.names).greater_is_better
    if arguments.lr_scheduler_type == SchedulerType.REDUCE_ON_PLATEAU:
        mode = "max" if arguments.greater_is_better else "min"
        arguments.lr_scheduler_kwargs = {"mode": mode, **dict(arguments.lr_scheduler_kwargs or {})}
    return arguments


def check_settings(recipe: Recipe, model: Any) -> None:
    """Raise BadInputError for a setting that this model cannot follow, or that is of no use to it."""
    if recipe.data.mixup_alpha > 0 and recipe.model.modality != "image":
        raise BadInputError("mixup_alpha mixes pictures, and words cannot be mixed; use it with --modality image")
    if recipe.data.mixup_alpha > 0 and model.config.num_place_labels:
        raise BadInputError("mixup_alpha mixes pictures, and masks cannot be mixed; set place_loss_weight: 0 in config")
    if recipe.training.dataloader_persistent_workers:
        raise BadInputError(
            "dataloader_persistent_workers keeps copies of the samples that never hear of the next epoch, so pictures "
            "would be varied alike in all of them; leave it out"
        )
    has_words = model.get_input_embeddings() is not None and not getattr(model.config, "freeze_text", False)
    if recipe.training.neftune_noise_alpha is not None and not has_words:
        raise BadInputError("neftune_noise_alpha: this model learns from no word vectors; leave it out")
    check_trackers(recipe.training.report_to)


def make_trainer(recipe: Recipe, data: TrainingData, model: Any, processor: Any) -> transformers.Trainer:
    """Return the Trainer of a run."""
    check_settings(recipe, model)
    arguments, task = trainer_arguments(recipe, data), data.task
    samples, callbacks = training_samples(recipe, data, processor)
    if data.stream is not None:
        arguments.ignore_data_skip = True  # the stream goes on by itself, without reading all again
    if arguments.early_stopping_patience is not None and arguments.eval_strategy != IntervalStrategy.NO:
        callbacks.append(EarlyStoppingCallback(arguments.early_stopping_patience))
    rates = {"text_encoder.": arguments.text_learning_rate, "image_encoder.": arguments.image_learning_rate}
    trainer: transformers.Trainer = task.trainer_class(
        model=model,
        args=arguments,
        train_dataset=samples,
        eval_dataset=task.evaluation_samples(processor, data.selection),
        data_collator=task.collator(processor, len(data.names), recipe),
        evaluation_collator=unmixed(task.collator(processor, len(data.names), recipe)),
        compute_metrics=task.compute_metrics(data.names),
        callbacks=callbacks,
        learning_rates={prefix: rate for prefix, rate in rates.items() if rate is not None},
        sampling_weights=sampling_weights(data.train.labels) if arguments.balanced_sampling else None,
        averaged=AveragedWeights(arguments.ema_decay) if arguments.ema_decay is not None else None,
    )
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    if not arguments.disable_tqdm:
        trainer.add_callback(LinePerEvaluation(str(arguments.metric_for_best_model)))
    return trainer


def unmixed(collator: Any) -> Any:
    """Return a training collator as evaluation needs it: pictures and labels as they are."""
    return dataclasses.replace(collator, mixup=0.0, target_share=0.0) if hasattr(collator, "mixup") else collator


def check_trackers(names: Sequence[str]) -> None:
    """Raise BadInputError for a tracker that is not installed; none is needed."""
    installed = get_available_reporting_integrations()
    missing = [name for name in names if name not in installed]
    if missing:
        raise BadInputError(
            f"report_to names {missing[0]!r}, which is not installed (there are: {', '.join(installed) or 'none'}); "
            "install it, or leave report_to out"
        )


def training_samples(recipe: Recipe, data: TrainingData, processor: Any) -> tuple[Any, list[TrainerCallback]]:
    """Return the training samples, and the callback that keeps track of where they are."""
    if data.stream is None:
        samples = data.task.training_samples(recipe, data, processor)
        return samples, [EpochOfSamples(samples)]
    stream = StreamSamples(recipe, data, processor, recipe.training.process_index, recipe.training.world_size)
    return stream, [StreamPosition(stream)]


def rows_seen(data: TrainingData, trainer: Any) -> int:
    """Return the number of training rows; of a stream, how many were read."""
    if data.stream is None:
        return len(data.train)
    arguments = trainer.args
    at_once = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    return trainer.state.global_step * at_once


def describe_results(recipe: Recipe, data: TrainingData, trainer: Any, seconds: float) -> dict[str, Any]:
    """Return what `metrics.json` holds: the chosen checkpoint's scores on the selection split, and its making."""
    evaluated = trainer.evaluate()
    scores = data.task.scores(data.names)
    chosen_by = str(trainer.args.metric_for_best_model).removeprefix("eval_")
    names = [*([LOSS] if chosen_by == LOSS else []), *(score.name for score in scores)]
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {
        "recipe": recipe.name,
        "task": data.task.name,
        "modality": recipe.model.modality,
        "dataset": recipe.data.dataset,
        "dataset_revision": recipe.data.dataset_revision,
        "selection_split": data.selection.split,
        "selection_metric": chosen_by,
        "selection": {name: evaluated[f"eval_{name}"] for name in names},
        "definitions": definitions(scores),
        "label_names": data.names,
        "rows": {"train": rows_seen(data, trainer), "selection": len(data.selection), "left_out": data.left_out},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "megabytes": megabytes(model),
        "seconds": seconds,
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "epochs": trainer.state.epoch,
        "seed": recipe.training.seed,
        "device": str(trainer.args.device),
        "precision": trainer.accelerator.mixed_precision.replace("no", "fp32"),
        "history": trainer.state.log_history,
    }
