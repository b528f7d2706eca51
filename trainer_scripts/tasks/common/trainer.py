"""The HF Trainer with learning rates per part of the model, balanced sampling and averaged weights."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType, broadcast_object_list
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput
from transformers.utils import strtobool

from dataset_builder.errors import BadInputError
from dataset_builder.files import write_whole
from trainer_scripts.tasks.common.adapters import is_adapter
from trainer_scripts.tasks.common.teacher import Teacher

AVERAGED_WEIGHTS = "averaged.safetensors"

BatchNorm = torch.nn.modules.batchnorm._BatchNorm
Collator = Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]


class BalancedSampler(Sampler[int]):
    """Draws rows with replacement so that classes come equally often; the draw follows from seed and epoch."""

    def __init__(self, weights: np.ndarray, seed: int):
        self.weights = torch.from_numpy(np.asarray(weights, dtype=np.float64))
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the draw of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.weights)

    def __iter__(self) -> Iterator[int]:
        # A new generator per epoch: a resumed run draws the same rows as one that was never interrupted.
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        yield from torch.multinomial(self.weights, len(self.weights), replacement=True, generator=generator).tolist()


def check_finite(values: np.ndarray | list[float]) -> None:
    """Raise BadInputError for outputs or a loss with NaN or infinity, after which no checkpoint is of use."""
    if not np.isfinite(values).all():
        raise BadInputError(
            "training diverged: the outputs of the model hold NaN or infinity; lower the learning rates, or raise "
            "warmup_steps, lower max_grad_norm or compute in fp32"
        )


def check_fsdp(arguments: TrainingArguments) -> None:
    """Raise BadInputError where FSDP is requested and accelerate would silently train without it."""
    # `accelerate launch` requests FSDP by an environment variable, a command line by the argument.
    requested = arguments.fsdp or strtobool(os.environ.get("ACCELERATE_USE_FSDP", "false"))
    if requested and arguments.distributed_state.distributed_type in (DistributedType.NO, DistributedType.MULTI_CPU):
        raise BadInputError(
            "FSDP is requested, and accelerate shards weights only across several processes on GPUs or other "
            "accelerators; leave it out here"
        )


def shared_layers(model: PreTrainedModel) -> list[str]:
    """Return the classes of layers that FSDP shards one by one.

    The embedding table must not be within one of them: accelerate shards it separately, and nothing twice.
    """
    words = model.get_input_embeddings()
    around = {type(module).__name__ for module in model.modules() if words in list(module.modules())}
    return sorted(set(model._no_split_modules) - around)


class AveragedWeights(TrainerCallback):
    """Exponential moving average of the weights (Polyak & Juditsky 1992), saved beside each checkpoint.

    Args:
        decay: share of the old average that a step keeps; early steps keep less, (1 + step) / (10 + step).
    """

    def __init__(self, decay: float):
        self.decay = decay
        self._average: dict[str, torch.Tensor] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: object
    ) -> None:
        """Start from the weights, or from the average of the checkpoint that is resumed."""
        saved = checkpoint_folder(args, state) / AVERAGED_WEIGHTS
        current = _floating(model)
        # The folder may hold the average of an earlier run, which a new run must not start from.
        if state.global_step > 0 and saved.is_file():
            loaded = load_file(saved)
            self._average = {name: loaded[name].to(value) for name, value in current.items()}
        else:
            self._average = {name: value.clone() for name, value in current.items()}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: object
    ) -> None:
        """Move the average a little towards the weights."""
        # Early averages forget the untrained weights quickly.
        keep = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        current = _floating(model)
        torch._foreach_lerp_([self._average[name] for name in current], list(current.values()), 1 - keep)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Write the average into the checkpoint."""
        path = checkpoint_folder(args, state) / AVERAGED_WEIGHTS
        if args.should_save and path.parent.is_dir():
            average = {name: value.contiguous() for name, value in self._average.items()}
            # A run that is killed here leaves no broken file to resume from.
            write_whole(path, lambda partial: save_file(average, partial))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: object
    ) -> None:
        """Leave the average in the model: that of the best checkpoint where the best is loaded, else the last one."""
        # The Trainer has loaded the weights of the best step, so the average must be of that step too.
        average = self._average
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            average = load_file(Path(state.best_model_checkpoint) / AVERAGED_WEIGHTS)
        _assign(model, average)
        self._average = {}

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Put the average into the model for a while, then the weights back."""
        # There is no average before training starts and after it has ended.
        if not self._average:
            yield
            return
        weights = {name: value.clone() for name, value in _floating(model).items()}
        _assign(model, self._average)
        try:
            yield
        finally:
            _assign(model, weights)


def checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    """Return the folder of the checkpoint at the current step."""
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _floating(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return all floating-point weights and buffers; running statistics are averaged like weights."""
    return {name: value.detach() for name, value in model.state_dict().items() if value.is_floating_point()}


def _assign(model: nn.Module, values: dict[str, torch.Tensor]) -> None:
    state = model.state_dict()
    for name, value in values.items():
        state[name].copy_(value)


class FlavourTrainer(Trainer):
    """Trainer for models that compute their own loss as a mean over the batch.

    Args:
        learning_rates: parameter-name prefix -> learning rate; all other parameters get `learning_rate`.
        sampling_weights: weight per training row, or None for plain shuffling.
        averaged: moving average of the weights that evaluation uses, or None.
        evaluation_collator: makes the batches of evaluations; None takes that of training.
        budget: callback that stops training in time, with `schedule(scheduler, steps)`; None: no limit.
        teacher: a model that looks at each batch, for Trainers that ask it; None: none.
        **kwargs: as for `transformers.Trainer`.
    """

    optimizer: Any
    data_collator: Collator

    def __init__(
        self,
        *,
        learning_rates: dict[str, float] | None = None,
        sampling_weights: np.ndarray | None = None,
        averaged: AveragedWeights | None = None,
        evaluation_collator: Collator | None = None,
        budget: Any = None,
        teacher: Teacher | None = None,
        args: TrainingArguments,
        **kwargs: object,
    ):
        check_fsdp(args)
        super().__init__(
            args=args,
            # Features that a model returns behind its logits need not be gathered for metrics.
            preprocess_logits_for_metrics=lambda outputs, _: outputs[0] if isinstance(outputs, tuple) else outputs,
            **kwargs,
        )
        plugin = self.accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
        if plugin is not None and plugin.transformer_cls_names_to_wrap is None:
            plugin.transformer_cls_names_to_wrap = shared_layers(self.model)
        if self.model is not None and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            # Convolutions are faster in this layout, which the collators use too; sharding flattens weights.
            self.model.to(memory_format=torch.channels_last)
        if averaged is not None and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise BadInputError("ema_decay averages whole weights, which FSDP and DeepSpeed shard; leave it out")
        # Other targets, such as masks, only teach: evaluation has the labels alone.
        self.label_names = ["labels"]
        self._learning_rates = learning_rates or {}
        self._sampling_weights = sampling_weights
        self._averaged = averaged
        self._evaluation_collator = evaluation_collator or self.data_collator
        if averaged is not None:
            self.add_callback(averaged)
        self._teacher = teacher
        self._budget = budget
        if budget is not None:
            self.add_callback(budget)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Create the schedule of the rates, which follows the time too where that is limited."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if self._budget is not None:
            self._budget.schedule(scheduler, num_training_steps)
        return scheduler

    def evaluate(self, *args: object, **kwargs: object) -> dict[str, float]:
        """Evaluate in the precision of training, with the averaged weights where there are any.

        Tasks whose evaluation is no plain forward (captions are generated) get the precision from here.
        """
        # The checkpoint is chosen by the weights that are saved in the end.
        averaged: Any = nullcontext()
        if self._averaged is not None and self.model is not None:
            averaged = self._averaged.in_place(self.model)
        with self.accelerator.autocast(), averaged:
            metrics = super().evaluate(*args, **kwargs)
        check_finite([value for name, value in metrics.items() if name.endswith("_loss")])
        return metrics

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take a step; a batch of a single row, often the last one, is normalised with running statistics."""
        # Such a row has no statistics of its own where a map has shrunk to one place, and poor ones elsewhere.
        single = next((len(value) == 1 for value in inputs.values() if isinstance(value, torch.Tensor)), False)
        stilled: list[nn.Module] = []

        def still(layer: nn.Module, _: object) -> None:
            if layer.training:  # set by the Trainer at the start of the step
                stilled.append(layer.eval())

        norms = [each for each in model.modules() if isinstance(each, BatchNorm)] if single else []
        hooks = [each.register_forward_pre_hook(still) for each in norms]
        try:
            return super().training_step(model, inputs, *args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
            for each in stilled:
                each.train()

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer with a learning rate per part of the model, without decay of biases and norms."""
        if self.optimizer is not None or not self._learning_rates:
            return super().create_optimizer(model)
        chosen: Any = self.model if model is None else model
        decayed = set(self.get_decay_parameter_names(chosen))
        # Parameters with the same rate and decay share a group: few large updates are faster than many small ones.
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in chosen.named_parameters():
            if parameter.requires_grad:
                decay = self.args.weight_decay if name in decayed else 0.0
                groups.setdefault((self._rate_of(name), decay), []).append(parameter)
        optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, chosen)
        self.optimizer = optimizer_class(
            [{"params": members, "lr": rate, "weight_decay": decay} for (rate, decay), members in groups.items()],
            **options,
        )
        return self.optimizer

    def _rate_of(self, name: str) -> float:
        # DDP puts `module.` before every name.
        for prefix, rate in self._learning_rates.items():
            if name.removeprefix("module.").startswith(prefix):
                return rate
        return self.args.learning_rate

    def get_train_dataloader(self) -> DataLoader:
        """Return the batches of training; a stream is split over the processes already and is not read ahead."""
        if not isinstance(self.train_dataset, IterableDataset):
            return super().get_train_dataloader()
        # A generator of its own: the loader draws a seed when it starts, and a resumed run starts it once more.
        own = torch.Generator().manual_seed(self.args.seed)
        return DataLoader(self.train_dataset, self._train_batch_size, collate_fn=self.data_collator, generator=own)

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader:
        """Return the batches of evaluation, in which nothing is mixed and no row is left out."""
        # The Trainer builds all its loaders from these two settings, so they are changed for this call only.
        training, dropping = self.data_collator, self.args.dataloader_drop_last
        self.data_collator, self.args.dataloader_drop_last = self._evaluation_collator, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator, self.args.dataloader_drop_last = training, dropping

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if self._sampling_weights is None:
            return super()._get_train_sampler(train_dataset)
        # The same seed as that of the sampler which is replaced here.
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return BalancedSampler(self._sampling_weights, seed)


class WholeTableTrainer(FlavourTrainer):
    """Trainer whose evaluation answers and scores all rows at once, for answers that are no plain forward pass."""

    def score_samples(self, model: PreTrainedModel, samples: Any) -> tuple[dict[str, float], float]:
        """Return the scores of a model on evaluation samples, and its loss."""
        raise NotImplementedError

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Score the model on all rows; every process of a distributed run does so for itself."""
        samples: Any = dataloader.dataset
        scores, loss = self.score_samples(self.accelerator.unwrap_model(self.model), samples)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in {**scores, "loss": loss}.items()}
        # Running statistics of batches differ a little between processes, and all must choose the same checkpoint.
        return EvalLoopOutput(np.empty(0), None, broadcast_object_list([metrics])[0], len(samples))


def megabytes(model: nn.Module) -> float:
    """Return the size of all weights and buffers in MB (10^6 bytes), as on disk, where adapters are merged."""
    kept = (value for name, value in model.state_dict().items() if not is_adapter(name))
    return sum(value.numel() * value.element_size() for value in kept) / 1e6
