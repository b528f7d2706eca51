"""Options of training that this trainer adds to the Trainer's, or gives another default; no library is loaded here."""

from dataclasses import dataclass
from typing import Literal

from trainer_scripts.settings.options import (
    CAPTIONS,
    CLASSIFIERS,
    COUNT,
    DRAWING,
    NATURAL,
    POSITIVE,
    PREDICTING,
    SHARE,
    SHARE_BELOW_ONE,
    Range,
    option,
)


@dataclass
class TrainingOptions:
    """Options of training beside those that the Trainer of transformers has, and defaults that differ from its own."""

    _argument_group_name = "training"

    # The checkpoint is always chosen by evaluations, so both happen at the same steps.
    eval_strategy: str = option("epoch", "When to evaluate: epoch or steps.")
    save_strategy: str = option("epoch", "When to save; the same as eval_strategy.")
    logging_strategy: str = option("steps", "When to print and log loss and rate: epoch or steps.", resumable=True)
    logging_steps: float = option(
        50, "Steps from one such line to the next; below 1: share of all steps.", allowed=POSITIVE, resumable=True
    )
    # The Trainer's own default is to print nothing wherever the libraries' messages are silenced, as they are here.
    disable_tqdm: bool | None = option(False, "Print no line at each logged loss and evaluation.", resumable=True)
    load_best_model_at_end: bool = option(True, "Keep the checkpoint with the best selection score.")
    save_total_limit: int | None = option(
        2, "Number of checkpoints kept during training.", allowed=COUNT, resumable=True
    )
    restore_callback_states_from_checkpoint: bool = option(
        True, "Early stopping continues its count when a run is resumed."
    )
    ddp_find_unused_parameters: bool | None = option(False, "Every parameter of our models takes part in the loss.")
    remove_unused_columns: bool = option(False, "The collator makes exactly the inputs of the model.")
    task: str | None = option(None, "classification, multilabel, ...; none: inferred from the label column.")
    # `precision` stands for `bf16` and `fp16`.
    bf16: bool = option(False, "The same as --precision bf16.", derived=True)
    use_cpu: bool = option(False, "Train on the CPU even where there is a GPU.", resumable=True)
    fp16: bool = option(False, "The same as --precision fp16.", derived=True)
    precision: Literal["auto", "fp32", "fp16", "bf16"] = option(
        "auto", "auto: that of `accelerate launch`, else bf16 where the device gains from it."
    )
    text_learning_rate: float | None = option(
        None, "Learning rate of the text encoder; none: learning_rate.", allowed=NATURAL
    )
    image_learning_rate: float | None = option(
        None, "Learning rate of the image encoder; none: learning_rate.", allowed=NATURAL
    )
    early_stopping_patience: int | None = option(
        None, "Stop after this number of evaluations without a better one.", allowed=COUNT
    )
    class_weights: bool = option(False, "Weight classes by inverse frequency.", config_fields=("class_weights",))
    gradient_log_steps: int = option(
        0,
        "Multi-task: interval in steps at which the angle between the two losses' gradients in the encoder is logged; "
        "0: never.",
        allowed=NATURAL,
        tasks=("segmentation",),
    )
    frozen_image_epochs: float = option(
        0.0, "Captioning: number of first epochs in which the image encoder is fixed.", allowed=NATURAL, tasks=CAPTIONS
    )
    self_critical_draws: int = option(
        0,
        "Captioning: train for CIDEr on this number of sampled captions per picture, at least 2; 0: train on the "
        "captions of the data.",
        allowed=NATURAL,
        tasks=CAPTIONS,
    )
    train_text_encoder: bool = option(
        False, "Text to image: train the text encoders too, not only the denoiser.", tasks=DRAWING
    )
    text_dropout: float = option(
        0.0,
        "Text to image: share of the rows learned without their prompt, which guidance needs; 0.1 is usual.",
        allowed=SHARE_BELOW_ONE,
        tasks=DRAWING,
    )
    min_snr_gamma: float | None = option(
        None,
        "Text to image: weigh steps by their ratio of signal to noise, at most this; 5 is usual. none: all alike.",
        allowed=POSITIVE,
        tasks=DRAWING,
    )
    noise_offset: float = option(
        0.0,
        "Text to image: strength of noise that is the same all over the picture; 0.05 helps dark and light pictures.",
        allowed=NATURAL,
        tasks=DRAWING,
    )
    sample_pictures: int = option(
        0,
        "Text to image: number of prompts of the selection split that are drawn after each evaluation, into "
        "`grid.png`.",
        allowed=NATURAL,
        tasks=DRAWING,
        resumable=True,
    )
    sample_steps: int = option(
        20, "Text to image: steps of those pictures.", allowed=COUNT, tasks=DRAWING, resumable=True
    )
    sample_guidance: float = option(
        3.0, "Text to image: guidance of those pictures.", allowed=NATURAL, tasks=DRAWING, resumable=True
    )
    balanced_sampling: bool = option(False, "Draw training rows so that classes come equally often.")
    prior_bias: bool = option(
        True,
        "Start the output bias at the log-odds of the training split.",
        checkpoint_has="its own output bias",
    )
    lora_rank: int = option(
        0,
        "Train low-rank adapters of this rank (peft) in place of the backbones' weights, and save them in `adapter/`; "
        "0: none. A frozen backbone gets none.",
        allowed=NATURAL,
    )
    lora_targets: list[str] | None = option(
        None,
        "Layers that get an adapter, by the end of their names, such as query value, or all-linear; none: the linear "
        "layers of a backbone, or its convolutions where it is made of these.",
    )
    lora_merge: bool = option(
        True,
        "Merge the adapters in the end, so that the folder holds an ordinary model; false: the folder has no other "
        "weights than those in `adapter/`, which are read together with the base model.",
        resumable=True,
    )
    teacher: str | None = option(
        None,
        "Finished model (folder or Hub id) whose probabilities the training rows learn beside their labels.",
        tasks=PREDICTING,
    )
    teacher_revision: str | None = option(None, "Revision of a teacher on the Hub.", tasks=PREDICTING)
    teacher_share: float = option(
        0.5, "Weight of the teacher's probabilities; the rest is on the label.", allowed=SHARE, tasks=PREDICTING
    )
    ema_decay: float | None = option(
        None,
        "Average the weights over steps with this decay and evaluate the average.",
        allowed=SHARE_BELOW_ONE,
    )
    average_best: int = option(
        0,
        "Try the mean of the weights of up to this number of best checkpoints, and keep it where it scores higher on "
        "the selection split; 0: never.",
        allowed=NATURAL,
    )
    familiar_share: float | None = option(
        0.99,
        "Share of the selection rows whose text and picture a fusion knows as familiar; it answers without a part that "
        "is not. none: it reads every input.",
        allowed=Range(0, 1, above=True),
        tasks=CLASSIFIERS,
        modalities=("fusion",),
        resumable=True,
    )
    max_minutes: float | None = option(
        None,
        "Minutes that features, training and evaluations may take; the schedule fits the time, and the best model so "
        "far is kept.",
        allowed=POSITIVE,
    )
    verbose: bool = option(False, "Show the messages and progress bars of libraries too.", resumable=True, derived=True)
    seeds: int = option(
        1, "Number of trainings, with seed, seed + 1, ...; their spread is reported.", allowed=COUNT, resumable=True
    )
    soup: bool = option(
        False,
        "With several seeds: try the mean of their weights, and keep it in `soup/` where it scores higher on the "
        "selection split. All seeds then start from the same weights.",
    )
    search: int = option(
        0,
        "Number of trials of a search for hyperparameters (Optuna), in place of one training; the best are saved as "
        "`best.yaml`.",
        allowed=NATURAL,
        resumable=True,
    )
    search_space: str | None = option(
        None, "YAML file with the options that a search tries and their values; none: rates, decay and dropout."
    )
    overwrite: bool = option(
        False,
        "Train again in a folder that holds a finished run, or one by another configuration; it is removed when the "
        "new one has its first checkpoint.",
        resumable=True,
    )
