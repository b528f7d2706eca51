"""The parts of a text-to-image pipeline that training uses, and what its denoiser reads of a prompt."""

from collections.abc import Iterable, Sequence
from typing import Any

from diffusers import DDPMScheduler, DiffusionPipeline
from torch import Tensor, nn

from dataset_builder.errors import BadInputError
from dataset_builder.pictures.pipelines import PromptReader, errors_only

EPSILON, VELOCITY = "epsilon", "v_prediction"
DENOISERS = ("UNet2DConditionModel", "PixArtTransformer2DModel")
# What `encode_prompt` may return for a prompt, in the order in which its result is taken apart.
STATES, POOLED, MASK = "states", "pooled", "mask"
ENCODERS = ("text_encoder", "text_encoder_2")


class Conditions:
    """How a pipeline reads prompts, and hands them to its denoiser.

    Args:
        pipeline: a latent diffusion pipeline of diffusers: Stable Diffusion 1.x or 2.x, SDXL, or PixArt.
        name: its folder or Hub id, for messages.

    Raises:
        BadInputError: the pipeline has other parts.
    """

    def __init__(self, pipeline: DiffusionPipeline, name: str):
        self.pipeline = pipeline
        denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
        kind = type(denoiser).__name__
        lacking = [part for part in ("vae", "tokenizer", "text_encoder") if getattr(pipeline, part, None) is None]
        if denoiser is None or lacking:
            missing = "UNet or transformer" if denoiser is None else lacking[0].replace("_", " ")
            raise BadInputError(
                f"pipeline {name!r} is a {type(pipeline).__name__} without a {missing}, which training needs; give a "
                "latent diffusion pipeline (Stable Diffusion 1.x or 2.x, SDXL, PixArt)"
            )
        if kind not in DENOISERS:
            raise BadInputError(
                f"pipeline {name!r}: its {kind} is not trained here; give one with a {' or a '.join(DENOISERS)}"
            )
        self.denoiser: nn.Module = denoiser
        self.part = "unet" if getattr(pipeline, "unet", None) is denoiser else "transformer"
        self.is_unet = kind == DENOISERS[0]
        # SDXL tells its UNet the size of the picture, and a vector of the whole prompt.
        self.has_sizes = self.is_unet and getattr(denoiser.config, "addition_embed_type", None) == "text_time"
        self.outputs = (STATES, POOLED) if self.has_sizes else (STATES,) if self.is_unet else (STATES, MASK)
        self.schedule = noise_schedule(pipeline.scheduler.config, name)

    @property
    def text_encoders(self) -> list[nn.Module]:
        """The text encoders of the pipeline."""
        found = (getattr(self.pipeline, name, None) for name in ENCODERS)
        return [each for each in found if each is not None]

    def encode(self, prompts: Sequence[str]) -> tuple[Tensor, ...]:
        """Return what the denoiser reads of prompts, in the order of `outputs`, as the pipeline itself computes it.

        Returns:
            states `(prompts, tokens, size)` float32; for SDXL vectors `(prompts, size)` float32 too; for PixArt the
            mask of the tokens `(prompts, tokens)` float32.
        """
        device = next(self.text_encoders[0].parameters()).device
        # The pipeline itself would look for the device of its first part, which may lie elsewhere.
        with errors_only():  # a pipeline reports what it cuts for each batch; see `unread`
            found = self.pipeline.encode_prompt(
                list(prompts), device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
        chosen = {STATES: 0, POOLED: 2, MASK: 1}
        return tuple(found[chosen[name]].float() for name in self.outputs)

    def unread(self, prompts: Iterable[str]) -> int:
        """Return how many prompts are longer than the text encoders read; the rest of these is cut off."""
        reader = PromptReader(self.pipeline)
        return sum(reader.part_read(prompt) is not None for prompt in prompts)

    def predict(self, latents: Tensor, steps: Tensor, text: Sequence[Tensor], size: int) -> Tensor:
        """Return what the denoiser predicts.

        Args:
            latents: noisy ones, `(batch, channels, height, width)`.
            steps: of the noise schedule, `(batch,)` int64.
            text: as `encode` returns it.
            size: height and width of the pictures in pixels.

        Returns:
            of the shape of `latents`.
        """
        given = dict(zip(self.outputs, text, strict=True))
        denoiser: Any = self.denoiser
        more: dict[str, Any] = {}
        if self.has_sizes:
            sizes = latents.new_tensor([size, size, 0, 0, size, size]).expand(len(latents), -1)
            more["added_cond_kwargs"] = {"text_embeds": given[POOLED], "time_ids": sizes}
        elif not self.is_unet:
            more["encoder_attention_mask"] = given[MASK]
            more["added_cond_kwargs"] = {"resolution": None, "aspect_ratio": None}
            if denoiser.use_additional_conditions:
                # As the pipeline itself states them for a square picture.
                more["added_cond_kwargs"] = {
                    "resolution": latents.new_tensor([size, size]).expand(len(latents), -1),
                    "aspect_ratio": latents.new_ones(len(latents), 1),
                }
        found = denoiser(latents, timestep=steps, encoder_hidden_states=given[STATES], **more).sample
        # A denoiser that also learned the variance of its prediction returns it behind it.
        return found[:, : latents.shape[1]]


def noise_schedule(config: Any, name: str) -> DDPMScheduler:
    """Return the schedule that noise is added by in training, from the configuration of a pipeline's scheduler.

    Raises:
        BadInputError: it predicts neither noise nor velocity, such as one of flow matching.
    """
    kind = config.get("prediction_type", None)
    if kind not in (EPSILON, VELOCITY):
        raise BadInputError(
            f"pipeline {name!r}: its scheduler predicts {kind or 'a flow'}; training knows {EPSILON} and {VELOCITY}"
        )
    return DDPMScheduler.from_config(config)


def loss_weights(schedule: DDPMScheduler, gamma: float | None) -> Tensor | None:
    """Return the weight of each step, `(steps,)` float32; None where all weigh the same.

    Min-SNR weighting (Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy"): the ratio of
    signal to noise, at most gamma, is the weight of an error in the clean latents; here it is expressed for an error in
    what the denoiser predicts.
    """
    if gamma is None:
        return None
    kept = schedule.alphas_cumprod
    ratio = kept / (1 - kept)
    # A schedule that ends in pure noise has steps without any signal, whose noise cannot be weighed by it.
    scale = ratio + 1 if schedule.config.prediction_type == VELOCITY else ratio.clamp(min=1e-8)
    return ratio.clamp(max=gamma) / scale
