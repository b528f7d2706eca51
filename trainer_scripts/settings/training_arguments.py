"""Arguments of training: those of transformers' Trainer, with the options and defaults of `TrainingOptions`."""

import inspect
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from transformers.integrations.deepspeed import is_deepspeed_available
from transformers.trainer_utils import SchedulerType
from transformers.training_args import trainer_log_levels
from transformers.utils import strtobool

from dataset_builder.errors import BadInputError
from trainer_scripts.settings.options import (
    CAPTIONS,
    CLASSIFIERS,
    COUNT,
    NATURAL,
    POSITIVE,
    SEED,
    SHARE_BELOW_ONE,
    Option,
    check_ranges,
    option,
)
from trainer_scripts.settings.training_options import TrainingOptions

_HALF = "it would leave the saved weights in half precision, and evaluation computes as training does (--precision)"


# Arguments of the Trainer that change neither weights nor scores, so that an interrupted run may go on with others.
RUN_ALONE = (
    "activation_checkpointing",
    "activation_checkpointing_kwargs",
    "dataloader_multiprocessing_context",
    "dataloader_prefetch_factor",
    "ddp_backend",
    "ddp_broadcast_buffers",
    "ddp_bucket_cap_mb",
    "ddp_find_unused_parameters",
    "ddp_static_graph",
    "debug",
    "do_eval",
    "do_train",
    "enable_jit_checkpoint",
    "eval_accumulation_steps",
    "eval_do_concat_batches",
    "eval_use_gather_object",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "hub_always_push",
    "hub_model_id",
    "hub_private_repo",
    "hub_revision",
    "hub_strategy",
    "include_for_metrics",
    "include_num_input_tokens_seen",
    "log_level",
    "log_on_each_node",
    "logging_first_step",
    "project",
    "report_to",
    "run_name",
    "save_on_each_node",
    "skip_memory_metrics",
    "torch_empty_cache_steps",
    "trackio_bucket_id",
    "trackio_space_id",
    "trackio_static_space_id",
    "use_cache",
)


# Older releases of transformers lack some of them.
_INHERITED = {each.name for each in fields(transformers.TrainingArguments)}


@dataclass
class TrainingArguments(TrainingOptions, transformers.TrainingArguments):
    """The Trainer's own arguments, and what this trainer adds."""

    # Properties of the Trainer's arguments that are not defined anew below.
    INHERITED_OPTIONS: ClassVar[dict[str, Option]] = {
        **dict.fromkeys(("data_seed", "seed"), Option(allowed=SEED)),
        **dict.fromkeys(("learning_rate", "max_grad_norm", "warmup_steps", "weight_decay"), Option(allowed=NATURAL)),
        "per_device_train_batch_size": Option(allowed=COUNT),
        "per_device_eval_batch_size": Option(allowed=COUNT, resumable=True),
        **{f"{kind}_steps": Option(needs=(f"{kind}_strategy", "steps")) for kind in ("eval", "save")},
        "dataloader_num_workers": Option(allowed=NATURAL, resumable=True),
        "gradient_accumulation_steps": Option(allowed=COUNT),
        "label_smoothing_factor": Option(
            allowed=SHARE_BELOW_ONE, tasks=(*CLASSIFIERS, *CAPTIONS), config_fields=("label_smoothing",)
        ),
        "num_train_epochs": Option(allowed=POSITIVE),
        "output_dir": Option(resumable=True),
        # What is logged, and how batches reach the device, is not what is learned.
        **dict.fromkeys((name for name in RUN_ALONE if name in _INHERITED), Option(resumable=True)),
        "batch_eval_metrics": Option(refused="scores are of all rows together"),
        "bf16_full_eval": Option(refused=_HALF),
        "dataloader_persistent_workers": Option(
            refused="it keeps copies of the samples that are not updated at the next epoch, so every epoch would show "
            "the same variations of the pictures"
        ),
        "do_predict": Option(refused="score.py scores the test split, predict.py predicts a table"),
        "fp16_full_eval": Option(refused=_HALF),
        "prediction_loss_only": Option(refused="scores are computed for every checkpoint"),
        "push_to_hub": Option(
            refused="it sends checkpoints before one is chosen, without processor and card (`hf upload ID FOLDER` "
            "publishes a finished run)"
        ),
        "resume_from_checkpoint": Option(
            resumable=True,
            refused="a repeated command goes on from the last checkpoint in its output_dir by itself (`true` says the "
            "same), and model_name_or_path starts from other weights",
        ),
        "train_sampling_strategy": Option(
            refused="it would prepare every picture to learn how long its text is, and texts are short here "
            "(max_length)",
            refused_value="group_by_length",
        ),
        # Each machine works these out by itself.
        **dict.fromkeys(
            ("accelerator_config", "ddp_timeout", "fsdp_config", "hub_token", "local_rank", "logging_nan_inf_filter"),
            Option(derived=True),
        ),
    }

    # The Trainer's "warning" would let processes beside the main one say what that one keeps quiet.
    log_level_replica: str = option(
        "passive",
        "Messages of transformers in processes beside the main one; passive: as many as there.",
        choices=tuple(trainer_log_levels),
        resumable=True,
    )
    dataloader_pin_memory: bool = option(torch.cuda.is_available(), "Pin memory for the copy to a GPU.", resumable=True)

    def __post_init__(self):
        check_ranges(self)
        given: Any = self
        given.disable_tqdm = bool(given.disable_tqdm)  # saved configurations may leave it open
        # A habit from the Trainer: what it asks for happens in any case.
        if str(given.resume_from_checkpoint).lower() in ("true", "false"):
            given.resume_from_checkpoint = None
        wants_deepspeed = self.deepspeed or strtobool(os.environ.get("ACCELERATE_USE_DEEPSPEED", "false"))
        if wants_deepspeed and not is_deepspeed_available():
            raise ValueError(
                "a DeepSpeed configuration is given, and deepspeed is not installed; `pip install deepspeed`, "
                "or train without it"
            )
        self._choose_precision()
        # Kept, because the Trainer replaces them by defaults of its own.
        named = given.metric_for_best_model, given.greater_is_better
        super().__post_init__()
        # The Trainer puts "loss" where nothing is given, and the launcher's precision in the place of fp32.
        self.metric_for_best_model, self.greater_is_better = named
        if self.precision == "fp32":
            self.mixed_precision = "no"
        settings: Any = self.lr_scheduler_kwargs or {}
        check_schedule(SchedulerType(self.lr_scheduler_type), settings)

    def _choose_precision(self) -> None:
        """Set `fp16` and `bf16` from `precision`, or `precision` from them."""
        if self.fp16 and self.bf16:
            raise BadInputError("fp16 and bf16 are two precisions; give one of them")
        if self.fp16 or self.bf16:
            self.precision = "fp16" if self.fp16 else "bf16"
        chosen: str = self.precision
        if chosen == "auto":
            chosen = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
            if chosen == "no" and bf16_gains(self.use_cpu):
                chosen = "bf16"
        self.fp16, self.bf16 = chosen == "fp16", chosen == "bf16"
        if self.bf16 and not torch.cuda.is_available():
            self.use_cpu = True  # without it the Trainer refuses bf16 where there is no GPU


def check_schedule(kind: SchedulerType, settings: dict[str, Any]) -> None:
    """Raise BadInputError for a setting that the schedule of the learning rate does not know, or lacks."""
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, get_scheduler

    plateau = kind == SchedulerType.REDUCE_ON_PLATEAU
    schedule: Any = torch.optim.lr_scheduler.ReduceLROnPlateau if plateau else TYPE_TO_SCHEDULER_FUNCTION[kind]
    own = {"self", "optimizer", "num_warmup_steps", "num_training_steps"}
    known = [name for name in inspect.signature(schedule).parameters if name not in own]
    for name in settings:
        if name not in known:
            raise BadInputError(
                f"lr_scheduler_kwargs: the schedule {kind.value} has no setting {name!r}; "
                f"it has {', '.join(known) or 'none'}"
            )
    # Values are checked by making the schedule, for one parameter that nothing trains.
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    try:
        get_scheduler(kind, optimizer, 0, 1, dict(settings))
    except (TypeError, ValueError) as error:
        raise BadInputError(f"lr_scheduler_kwargs: the schedule {kind.value} cannot be made: {error}") from error


def bf16_gains(cpu_only: bool = False) -> bool:
    """Whether bf16 is faster than float32 here: a GPU that computes in it, or a CPU with bf16 instructions."""
    if torch.cuda.is_available() and not cpu_only:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Other CPUs emulate bf16 and are slower than in float32.
    return "amx_bf16" in _cpu_flags() or "avx512_bf16" in _cpu_flags()


def _cpu_flags() -> frozenset[str]:
    """Return the CPU's feature flags; empty where the system does not list them."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    return next((frozenset(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), frozenset())
