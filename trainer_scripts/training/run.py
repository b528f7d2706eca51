"""The steps of `train.py`: configuration, data, model, Trainer, results; once per seed."""

import copy
import dataclasses
import gc
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import transformers
from accelerate import PartialState
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    set_seed,
)
from transformers.integrations import get_available_reporting_integrations
from transformers.trainer_utils import IntervalStrategy, SchedulerType

from dataset_builder.errors import BadInputError
from dataset_builder.files import sole_writer
from dataset_builder.messages import echo
from modeling_flavour.base_flavour import FlavourPreTrainedModel
from modeling_flavour.familiarity_flavour import KnowsItsInputs
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.samples import sampling_weights
from trainer_scripts.data.streaming import StreamSamples
from trainer_scripts.features.reader import BackboneReader
from trainer_scripts.settings.arguments import DEFAULT_DATASET, Configuration
from trainer_scripts.settings.checks import refuse_idle_options
from trainer_scripts.settings.training_arguments import TrainingArguments
from trainer_scripts.tasks.common.adapters import merge_in_place
from trainer_scripts.tasks.common.package_weights import with_packages
from trainer_scripts.tasks.common.teacher import Teacher, check_heads
from trainer_scripts.tasks.common.trainer import AveragedWeights
from trainer_scripts.training.adapters import add_adapters, save_adapters
from trainer_scripts.training.averaging import BestWeights
from trainer_scripts.training.callbacks import EpochOfSamples, RemoveReplaced, StreamPosition, TrainingLines
from trainer_scripts.training.data import TrainingData, load_training_data, vocabulary_texts
from trainer_scripts.training.descriptions import LOSS, describe, describe_results, settings_block
from trainer_scripts.training.folder import (
    RunState,
    aside,
    check_budget,
    check_processes,
    finish_run,
    inspect_run,
    replacing,
    start_run,
    write_spread,
)
from trainer_scripts.training.longer import why_not_longer
from trainer_scripts.training.time_budget import TimeBudget
from trainer_scripts.training.vocabulary_record import (
    VOCABULARY_SOURCE,
    check_vocabulary,
    load_vocabulary_record,
    record_vocabulary,
)
from trainer_scripts.training.whole_checkpoints import WholeCheckpoint

Prepare = Callable[[Configuration, TrainingData], TrainingData]
Finish = Callable[[list[Configuration], TrainingData | None], None]


def run(configuration: Configuration, prepare: Prepare | None = None, finish: Finish | None = None) -> None:
    """Train the model of a configuration, once per seed; finished seeds are skipped, interrupted ones resumed.

    Args:
        configuration: of the run.
        prepare: changes the data after they are read and checked, such as for a teacher.
        finish: called with the configuration of each seed after the last one, and with the data where they were read.
    """
    transformers.utils.logging.disable_progress_bar()
    refuse_idle_options(configuration)  # before the folder is compared: what is refused differs from every run
    # The first of several seeds trains in the run's own folder.
    repeated = [configuration]
    for index in range(1, configuration.training.seeds):
        training = copy.copy(configuration.training)
        training.seed += index
        training.output_dir = str(configuration.output_dir / f"seed-{index}")
        repeated.append(dataclasses.replace(configuration, training=training))
    # The main process of a launcher holds the folder for all.
    main = configuration.training.process_index == 0
    with sole_writer(configuration.output_dir) if main else nullcontext():
        data = _train_seeds(configuration, repeated, prepare)
        if finish is not None:
            finish(repeated, data)
    # A process that exits early would stop the others, so all wait here. The process group is destroyed because one
    # that is alive when the interpreter exits aborts it; collecting the wrapped models first releases the group.
    gc.collect()
    together = PartialState()
    together.wait_for_everyone()
    together.destroy_process_group()


def _train_seeds(
    configuration: Configuration, repeated: list[Configuration], prepare: Prepare | None
) -> TrainingData | None:
    """Train the seeds that are not finished, and write their spread; return the data where any was trained."""
    data = None
    states = [inspect_run(one) for one in repeated]
    if all(state.finished for state in states):
        say(configuration, f"{configuration.training.output_dir} is finished; --overwrite true trains it anew")
    else:
        for state in states:
            if state.checkpoint is not None and not state.finished:
                check_processes(state.checkpoint, configuration.training.world_size)
        say(configuration, settings_block(configuration))
        ensure_dataset(configuration)
        # Read once for all seeds: they differ in the model and in the order of the rows alone.
        data = load_training_data(configuration)
        say(configuration, describe(data))
        if prepare is not None:
            data = prepare(configuration, data)
        for one, state in zip(repeated, states, strict=True):
            if not state.finished:
                # Only networks that start from the same weights have a mean of any use.
                train_once(one, data, state, configuration.training.seed if configuration.training.soup else None)
    if len(repeated) > 1 and configuration.training.should_save:
        echo(write_spread(repeated))
    return data


def say(configuration: Configuration, message: str) -> None:
    """Print on the main process only."""
    if configuration.training.process_index == 0:
        echo(message)


def ensure_dataset(configuration: Configuration) -> None:
    """Build the embedded data set when the configuration names it and it has not been built yet."""
    out = Path(DEFAULT_DATASET)
    if configuration.data.dataset == DEFAULT_DATASET and not (out / "manifest.json").is_file():
        from dataset_builder.building.build import build
        from dataset_builder.building.settings import BuildSettings

        say(configuration, f"building the embedded data set in {out}")
        build(BuildSettings(), out)


def prepare_trainer(
    configuration: Configuration, data: TrainingData, first_seed: int | None = None
) -> tuple[Any, Any, dict[str, Any] | None]:
    """Return the Trainer of a run with its model, the processor, and the record of the vocabulary.

    Args:
        configuration: of the run.
        data: of the run.
        first_seed: seed that draws the weights; None is that of the configuration.
    """
    set_seed(configuration.training.seed if first_seed is None else first_seed)
    # The saved configuration keeps the names of packages; folders of the cache are of this machine.
    local = with_packages(configuration)
    model, processor = data.task.build(local, data)
    if first_seed is not None:
        set_seed(configuration.training.seed)
    # So that pipelines take rows of this data set as they are; mapped columns have another name there.
    given = configuration.data
    processor.text_column = given.columns.get(given.text_column, given.text_column)
    processor.image_column = given.columns.get(given.image_column, given.image_column)
    # What a checkpoint knows of the rows of its own training does not hold for these; it is learned anew in the end.
    if isinstance(model, KnowsItsInputs):
        model.forget_familiarity()
    vocabulary = vocabulary_record(local, data)
    check_vocabulary(vocabulary, data.held_out_texts)
    check_budget(model, configuration.model.max_mb)
    if configuration.training.lora_rank:
        say(configuration, data.task.adapt(configuration, model) or add_adapters(configuration, model))
    return make_trainer(configuration, data, model, processor, vocabulary), processor, vocabulary


def train_once(
    configuration: Configuration, data: TrainingData, state: RunState, first_seed: int | None = None
) -> None:
    """Train one model and write checkpoint, code, metrics and card into its folder."""
    trainer, processor, vocabulary = prepare_trainer(configuration, data, first_seed)
    # All that can be checked has been: from here on the folder changes.
    if state.replaced:
        folder = configuration.output_dir
        say(configuration, f"the run in {folder} is kept in {aside(folder)} until the new one has a checkpoint")
    with replacing(configuration, state):
        fit(configuration, data, trainer, processor, vocabulary, state.checkpoint)


def fit(
    configuration: Configuration,
    data: TrainingData,
    trainer: transformers.Trainer,
    processor: FlavourProcessor,
    vocabulary: dict[str, Any] | None,
    checkpoint: Path | None,
) -> None:
    """Train, from a checkpoint where there is one, and write everything into the folder of the run."""
    model = trainer.model
    if configuration.training.should_save:
        start_run(configuration)
    started = time.time()
    # The features of frozen encoders are computed here, once, so their time is part of the training time.
    with data.task.keep_features(configuration, trainer) as frozen:
        for part, reason in frozen.reasons.items():
            say(configuration, f"the frozen {part} backbone is computed in every epoch: {reason}")
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except ImportError as error:  # the package of the chosen optimizer or kernels is missing
            raise BadInputError(str(error)) from error
        averaged, evaluated = finished_scores(configuration, data, trainer, processor)
        results = describe_results(configuration, data, trainer, time.time() - started, evaluated)
        if averaged:
            results["averaged_steps"] = averaged
    # With sharded weights (FSDP, DeepSpeed) every process takes part in gathering them.
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if configuration.training.should_save:
        if not data.task.save(configuration, model, processor, results):
            save_model(configuration, model, processor, results, weights)
        if vocabulary is not None:
            record = json.dumps(vocabulary)
            (configuration.output_dir / VOCABULARY_SOURCE).write_text(record, encoding="utf-8")
        # The last state and the best one, where the run can be made longer.
        state = trainer.state
        kept = [] if why_not_longer(configuration) else [state.global_step, state.best_global_step or 0]
        finish_run(configuration.output_dir, results, kept)
    score = f"{results['selection_metric']} {results['selection'][results['selection_metric']]:.4f}"
    seconds = f"{results['seconds']:.0f} s"
    say(configuration, f"{configuration.output_dir}: {score} on {data.selection.split}, {seconds}")


def save_model(
    configuration: Configuration,
    model: PreTrainedModel,
    processor: FlavourProcessor,
    results: dict[str, Any],
    weights: dict[str, Any],
) -> None:
    """Write a model of transformers, or its adapters alone, and its processor into the folder of the run."""
    if configuration.training.lora_rank:
        save_adapters(configuration, model, processor, results)
        merge_in_place(model)
        weights = model.state_dict()
    if configuration.training.lora_merge:
        model.save_pretrained(configuration.output_dir, state_dict=weights)
    else:
        model.config.save_pretrained(configuration.output_dir)
    processor.save_pretrained(configuration.output_dir)


def finished_scores(
    configuration: Configuration, data: TrainingData, trainer: transformers.Trainer, processor: FlavourProcessor
) -> tuple[list[int], dict[str, float]]:
    """Finish a model whose steps have been taken; return the steps of a mean of checkpoints, and its scores."""
    averaged = average_best(configuration, trainer)
    completed = complete(configuration, data, trainer, processor)
    # The checkpoint that was chosen has been scored already, unless it was changed since.
    evaluated = None if averaged or completed else scores_of_best(trainer)
    return averaged, evaluated or trainer.evaluate()


def scores_of_best(trainer: transformers.Trainer) -> dict[str, float] | None:
    """Return the evaluation of the weights that training has left: those of the best step, or of the last one."""
    state = trainer.state
    step = state.best_global_step if trainer.args.load_best_model_at_end else state.global_step
    return next((line for line in reversed(state.log_history) if line["step"] == step and "eval_loss" in line), None)


def complete(
    configuration: Configuration, data: TrainingData, trainer: transformers.Trainer, processor: FlavourProcessor
) -> bool:
    """Let the trained model know which inputs are familiar and when it is not sure, where that can be learned.

    Returns:
        Whether it learned that, so that its answers may have changed.
    """
    share = configuration.training.familiar_share
    # Sharded weights cannot be called by one process.
    if share is None or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return False
    model = trainer.accelerator.unwrap_model(trainer.model)
    reader = None
    if isinstance(model, FlavourPreTrainedModel) and not configuration.training.lora_rank:
        pictures = processor.image_processor
        normal = None if pictures is None else (list(pictures.image_mean), list(pictures.image_std))
        reader = BackboneReader(model, Path(configuration.data.features_dir), normal)
    line = data.task.complete(model, processor, data.train, data.selection, share, reader)
    if line is not None:
        say(configuration, line)
    return line is not None


def average_best(configuration: Configuration, trainer: transformers.Trainer) -> list[int]:
    """Try the mean of the best checkpoints where the configuration says so; return the steps of one that is kept."""
    best = next((each for each in trainer.callback_handler.callbacks if isinstance(each, BestWeights)), None)
    if best is None:
        return []
    steps = best.average(trainer)
    if configuration.training.should_save:
        best.finish()
    kept = f"the mean of the checkpoints at steps {', '.join(map(str, steps))} is kept"
    say(configuration, kept if steps else "no mean of checkpoints scores higher than the best one alone")
    return steps


def vocabulary_record(configuration: Configuration, data: TrainingData) -> dict[str, Any] | None:
    """Return the record of the texts a tokenizer was trained on; for one that was not trained here, its own record."""
    if configuration.model.model_name_or_path:
        return load_vocabulary_record(configuration.model.model_name_or_path, configuration.model.model_revision)
    texts = vocabulary_texts(data.train)
    # A captioner's tokenizer is always trained here: its texts are the labels, and there is no text input.
    if texts and (configuration.model.tokenizer is not None or data.train.texts is None):
        return record_vocabulary(texts, configuration.data.train_split)
    return load_vocabulary_record(configuration.model.text_encoder) if configuration.model.text_encoder else None


def trainer_arguments(configuration: Configuration, data: TrainingData) -> TrainingArguments:
    """Return the Trainer's arguments: the checkpoint is chosen by a named score of the selection split."""
    arguments = copy.copy(configuration.training)
    arguments.label_smoothing_factor = 0.0  # the model smooths labels itself, for one label and for many
    name = (arguments.metric_for_best_model or data.task.selection_metric).removeprefix("eval_")
    arguments.metric_for_best_model = f"eval_{name}"
    arguments.greater_is_better = name != LOSS and data.task.score_named(name, data.names).greater_is_better
    if arguments.lr_scheduler_type == SchedulerType.REDUCE_ON_PLATEAU:
        mode = "max" if arguments.greater_is_better else "min"
        arguments.lr_scheduler_kwargs = {"mode": mode, **dict(arguments.lr_scheduler_kwargs or {})}
    return arguments


def check_settings(configuration: Configuration, model: PreTrainedModel) -> None:
    """Raise BadInputError for a setting that this model cannot follow, or for a tracker that is not installed."""
    if configuration.data.mixup_alpha > 0 and getattr(model.config, "num_place_labels", False):
        raise BadInputError("mixup_alpha mixes pictures, and masks cannot be mixed; set place_loss_weight: 0 in config")
    has_words = model.get_input_embeddings() is not None and not getattr(model.config, "freeze_text", False)
    if configuration.training.neftune_noise_alpha is not None and not has_words:
        raise BadInputError("neftune_noise_alpha: this model learns from no word vectors; leave it out")
    installed = get_available_reporting_integrations()
    missing = [name for name in configuration.training.report_to if name not in installed]
    if missing:
        raise BadInputError(
            f"report_to names {missing[0]!r}, which is not installed (there are: {', '.join(installed) or 'none'}); "
            "install it, or leave report_to out"
        )


def make_trainer(
    configuration: Configuration,
    data: TrainingData,
    model: PreTrainedModel,
    processor: FlavourProcessor,
    vocabulary: dict[str, Any] | None = None,
) -> transformers.Trainer:
    """Return the Trainer of a run; `vocabulary` is the record that its checkpoints get."""
    check_settings(configuration, model)
    started = time.time()
    arguments, task = trainer_arguments(configuration, data), data.task
    samples: Any
    if data.stream is None:
        samples = task.training_samples(configuration, data, processor)
        callbacks: list[TrainerCallback] = [EpochOfSamples(samples)]
    else:
        samples = StreamSamples(configuration, data, processor, arguments.process_index, arguments.world_size)
        callbacks = [StreamPosition(samples)]
        arguments.ignore_data_skip = True  # the stream is set to its position, instead of being read again up to there
    if arguments.early_stopping_patience is not None and arguments.eval_strategy != IntervalStrategy.NO:
        callbacks.append(EarlyStoppingCallback(arguments.early_stopping_patience))
    averaged = AveragedWeights(arguments.ema_decay) if arguments.ema_decay is not None else None
    budget = TimeBudget(arguments.max_minutes) if arguments.max_minutes is not None else None
    rates = {"text_encoder.": arguments.text_learning_rate, "image_encoder.": arguments.image_learning_rate}
    trainer: transformers.Trainer = task.trainer_class(
        model=model,
        args=arguments,
        train_dataset=samples,
        eval_dataset=task.evaluation_samples(processor, data.selection),
        data_collator=task.collator(processor, len(data.names), configuration),
        evaluation_collator=task.evaluation_collator(processor, len(data.names), configuration),
        compute_metrics=task.compute_metrics(data.names),
        callbacks=callbacks,
        learning_rates={prefix: rate for prefix, rate in rates.items() if rate is not None},
        sampling_weights=sampling_weights(data.train.labels) if arguments.balanced_sampling else None,
        averaged=averaged,
        teacher=beside(configuration, data, model, processor),
        budget=budget,
    )
    # After the averaged weights, which it keeps.
    if arguments.average_best > 1:
        chosen_by, direction = str(arguments.metric_for_best_model), bool(arguments.greater_is_better)
        trainer.add_callback(BestWeights(arguments.average_best, chosen_by, direction, configuration.output_dir))

    def results(scores: dict[str, float]) -> dict[str, Any]:
        return describe_results(configuration, data, trainer, time.time() - started, scores)

    for callback in task.callbacks(configuration, data, model, averaged):
        trainer.add_callback(callback)
    trainer.add_callback(WholeCheckpoint(configuration, processor, vocabulary, results))
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    trainer.add_callback(RemoveReplaced(aside(configuration.output_dir)))  # last: the others write into checkpoints too
    if not arguments.disable_tqdm:
        trainer.add_callback(TrainingLines(str(arguments.metric_for_best_model), budget))
    return trainer


def beside(
    configuration: Configuration, data: TrainingData, model: PreTrainedModel, processor: FlavourProcessor
) -> Teacher | None:
    """Return the teacher that looks at each batch of a run, None where there is none.

    Raises:
        BadInputError: it lacks a head of the student, or has another vocabulary.
    """
    saved, training = data.teacher, configuration.training
    if saved is None:
        return None
    if data.names:
        check_heads(model.config, saved.model.config, str(training.teacher))
    elif saved.processor.tokenizer.get_vocab() != processor.tokenizer.get_vocab():
        raise BadInputError(
            f"teacher: {training.teacher} has another vocabulary, so that its probabilities are of other words; give "
            "both the same tokenizer, vocabulary_size and training captions"
        )
    pictures = (processor.image_processor, saved.processor.image_processor)
    normal = [(list(each.image_mean), list(each.image_std)) for each in pictures]
    order = [saved.names.index(name) for name in data.names]
    return Teacher(saved.model, training.teacher_share, order, normal)
