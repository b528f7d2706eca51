"""The denoiser in training: noise is added to the latents of pictures, and it learns to predict what was added."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.utils import ModelOutput

from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.tasks.text_to_image.conditions import VELOCITY, Conditions, loss_weights

MOST_PLACES = 1024  # of latents whose attention is computed as plain products


@dataclass
class DenoisingOutput(ModelOutput):
    """Loss of a batch, and its part of each row.

    Attributes:
        loss: the mean, a scalar.
        losses: of each row, `(batch,)` float32.
    """

    loss: Tensor | None = None
    losses: Tensor | None = None


def attention_of(latents: Tensor) -> Callable[[], AbstractContextManager[None]]:
    """Return how a denoiser of such latents computes attention: as torch chooses, or on a CPU as plain products.

    The fused kernel of CPUs is slow in its backward pass: in a small denoiser it takes a third of a step. Plain
    products keep a matrix of all pairs of places, so large latents are left to the kernel.

    Args:
        latents: `(batch, ..., height, width)`.
    """
    small = latents.shape[-1] * latents.shape[-2] <= MOST_PLACES
    if latents.device.type == "cpu" and small and torch.is_grad_enabled():
        return lambda: sdpa_kernel(SDPBackend.MATH)
    return nullcontext


class TrainedDenoiser(nn.Module):
    """A pipeline as the Trainer sees it: only what training changes counts as its weights.

    Args:
        conditions: the parts of the pipeline.
        size: height and width of the pictures in pixels.
        configuration: of the run.
    """

    # The Trainer asks models for these.
    supports_gradient_checkpointing = True
    main_input_name = "labels"

    def __init__(self, conditions: Conditions, size: int, configuration: Configuration):
        super().__init__()
        self.conditions = conditions
        self.config = conditions.denoiser.config
        self.size = size
        self.denoiser = conditions.denoiser
        self.text_encoder = nn.ModuleList(conditions.text_encoders)
        self.vae = conditions.pipeline.vae
        training = configuration.training
        self._noise_offset = training.noise_offset
        self._weights = loss_weights(conditions.schedule, training.min_snr_gamma)
        self.vae.requires_grad_(False)
        self.text_encoder.requires_grad_(training.train_text_encoder)
        self.trains_text = training.train_text_encoder
        # The weights that the Trainer saves, averages and loads are those that it changes: the others are the base's.
        self.register_state_dict_post_hook(_trained_alone)
        self.register_load_state_dict_post_hook(_miss_only_trained)

    def train(self, mode: bool = True) -> "TrainedDenoiser":
        """Set the mode of the parts that are trained; dropout in the others would be noise."""
        super().train(mode)
        self.vae.eval()
        if not self.trains_text:
            self.text_encoder.eval()
        return self

    def get_input_embeddings(self) -> None:
        """Return nothing: words are read by an encoder of the pipeline."""

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Compute activations of the denoiser again in the backward pass, to save memory."""
        denoiser: Any = self.denoiser
        denoiser.enable_gradient_checkpointing()

    @property
    def scale(self) -> tuple[float, float]:
        """What is subtracted from latents, and what they are multiplied by."""
        config = self.vae.config
        return float(getattr(config, "shift_factor", None) or 0), float(config.scaling_factor)

    @torch.no_grad()
    def moments(self, pictures: Tensor) -> Tensor:
        """Return mean and standard deviation of the latents of pictures.

        Args:
            pictures: `(batch, 3, height, width)` float32 in -1..1.

        Returns:
            `(batch, 2, channels, height, width)` float32, not scaled.
        """
        found = self.vae.encode(pictures.to(self.vae.dtype)).latent_dist
        return torch.stack([found.mean, found.std], dim=1).float()

    def forward(
        self,
        labels: Tensor | None = None,
        draw: Tensor | None = None,
        moments: Tensor | None = None,
        pixel_values: Tensor | None = None,
        text: Sequence[Tensor] | None = None,
        prompts: Sequence[str] | None = None,
    ) -> DenoisingOutput:
        """Return the loss of a batch.

        In evaluation noise and steps follow from the rows alone, so that evaluations can be compared.

        Args:
            labels: not read; the Trainer evaluates rows with labels.
            draw: random seed of each row, `(batch,)` int64.
            moments: stored ones as `moments` returns them, in place of `pixel_values`.
            pixel_values: as `moments` takes them.
            text: stored states as `Conditions.encode` returns them, in place of `prompts`.
            prompts: texts of the batch.
        """
        if moments is None:
            assert pixel_values is not None
            moments = self.moments(pixel_values)
        attention = attention_of(moments)
        if text is None:
            with torch.set_grad_enabled(self.trains_text and torch.is_grad_enabled()), attention():
                text = self.conditions.encode(prompts or [])
        schedule = self.conditions.schedule
        mean, deviation = moments.unbind(dim=1)
        sampled, noise, steps = self._drawn(mean, draw)
        shift, factor = self.scale
        latents = (mean + deviation * sampled - shift) * factor
        noisy = schedule.add_noise(latents, noise, steps)
        with attention():
            predicted = self.conditions.predict(noisy, steps, text, self.size)
        velocity = schedule.config.prediction_type == VELOCITY
        target = schedule.get_velocity(latents, noise, steps) if velocity else noise
        losses = functional.mse_loss(predicted.float(), target, reduction="none").mean(dim=(1, 2, 3))
        if self._weights is not None:
            losses = losses * self._weights.to(losses.device)[steps]
        return DenoisingOutput(loss=losses.mean(), losses=losses)

    def _drawn(self, like: Tensor, draw: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the noise that samples latents, the noise that is learned, and the step of each row."""
        rows, last = like.shape, len(self.conditions.schedule.alphas_cumprod)
        if self.training or draw is None:
            # Not `randn_like`, which fills a tensor in the order in which it lies in memory.
            sampled, noise = torch.randn(2, *rows, device=like.device).unbind()
            if self._noise_offset:
                # The same for all places of a channel, so that very dark and very light pictures are learned too.
                noise = noise + self._noise_offset * torch.randn(*rows[:2], 1, 1, device=like.device)
            return sampled, noise, torch.randint(last, (len(like),), device=like.device)
        each = [torch.Generator().manual_seed(int(seed)) for seed in draw]
        numbers = torch.stack([torch.randn(2, *rows[1:], generator=one) for one in each])
        steps = torch.stack([torch.randint(last, (), generator=one) for one in each])
        sampled, noise = numbers.to(like.device).unbind(dim=1)
        return sampled, noise, steps.to(like.device)


def _trained_alone(module: nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
    trained = {f"{prefix}{name}" for name, value in module.named_parameters() if value.requires_grad}
    for name in [name for name in state if name.startswith(prefix) and name not in trained]:
        del state[name]


def _miss_only_trained(module: nn.Module, incompatible: Any) -> None:
    trained = {name for name, value in module.named_parameters() if value.requires_grad}
    missing = [name for name in incompatible.missing_keys if name in trained]
    incompatible.missing_keys[:] = missing
