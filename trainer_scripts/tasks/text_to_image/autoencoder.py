"""Autoencoders of latent diffusion: pictures become latents and come back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoProcessor, Trainer

from dataset_builder.boundaries import outside
from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from trainer_scripts.data.table import Table
from trainer_scripts.evaluation.scores import Score
from trainer_scripts.features.frozen import Frozen
from trainer_scripts.settings.arguments import PREFIX, Configuration
from trainer_scripts.tasks.common.package_weights import package_folder
from trainer_scripts.tasks.common.task import TrainingData
from trainer_scripts.tasks.text_to_image.drawing import DrawingTask, Writer, mean_score, refuse_others
from trainer_scripts.tasks.text_to_image.model import DenoisingOutput
from trainer_scripts.tasks.text_to_image.samples import PromptSamples, varied_samples
from trainer_scripts.tasks.text_to_image.scratch import load_autoencoder

# The autoencoder unless the configuration says otherwise: sides become four times smaller.
PARTS = {
    "block_out_channels": (24, 48, 96),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
}
# Weights of the parts of the loss beside the mean absolute error of the pixels.
LOSSES = {"coarse_weight": 0.5, "perceptual_weight": 0.25, "kl_weight": 1e-4}
COARSE = (4, 12)  # sides of the squares whose mean colours count by themselves: colours come before edges
NORMAL_ROWS = 512  # from which mean and spread of the latents are measured
ERROR = mean_score(
    "reconstruction_l1",
    "mean absolute error of the pixels, in -1..1, of pictures that went through the autoencoder",
    2.0,
)


class Perception(nn.Module):
    """Distance of pictures in the features of an image encoder (Johnson et al. 2016), which is kept as it is.

    Args:
        name: `package:NAME`, a folder or a Hub id.

    Raises:
        BadInputError: it cannot be loaded, or is no ResNet.
    """

    def __init__(self, name: str):
        super().__init__()
        folder = str(package_folder(name.removeprefix(PREFIX), "perceptual")) if name.startswith(PREFIX) else name
        with outside(f"perceptual: {name!r} cannot be loaded", "give an image encoder of this package"):
            model: Any = AutoModel.from_pretrained(folder, trust_remote_code=False, use_safetensors=True)
        encoder = model.image_encoder
        stages = [part for name, part in encoder.named_modules() if name.endswith(("layer1", "layer2", "layer3"))]
        if len(stages) != 3:
            raise BadInputError(f"perceptual: {name!r} is no ResNet, whose first three stages are read; give one")
        self.encoder = encoder.requires_grad_(False).eval()
        self._seen: list[Tensor] = []
        for stage in stages:
            stage.register_forward_hook(lambda _, inputs, output: self._seen.append(output))
        pictures: Any = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
        normal = pictures.image_processor.image_mean, pictures.image_processor.image_std
        self._normal = [torch.tensor(each).view(1, 3, 1, 1) for each in normal]

    def train(self, mode: bool = True) -> "Perception":
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distance of two batches of pictures in -1..1, a scalar."""
        self._seen.clear()
        mean, spread = (each.to(first.device) for each in self._normal)
        self.encoder(pixel_values=((torch.cat([first, second]) + 1) / 2 - mean) / spread)
        pairs = [functional.normalize(each.float(), dim=1).chunk(2) for each in self._seen]
        return torch.stack([(a - b).square().sum(dim=1).mean() for a, b in pairs]).mean()


class TrainedAutoencoder(nn.Module):
    """An autoencoder as the Trainer sees it.

    Args:
        vae: the autoencoder.
        size: height and width of the pictures in pixels.
        perception: a distance that counts beside that of the pixels; None for none.
        weights: of the parts of the loss, see `LOSSES`.
    """

    supports_gradient_checkpointing = False
    main_input_name = "labels"

    def __init__(self, vae: AutoencoderKL, size: int, perception: Perception | None, weights: dict[str, float]):
        super().__init__()
        self.vae: Any = vae
        self.config = vae.config
        self.size = size
        self._perception = [perception]  # in a list, as it is no part of the model
        self._weights = weights

    def get_input_embeddings(self) -> None:
        """Return nothing: it reads no words."""

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, draw: Tensor | None = None, **other: object
    ) -> DenoisingOutput:
        """Return the loss of a batch, and the mean absolute error of each picture.

        Args:
            pixel_values: `(batch, 3, height, width)` in -1..1.
            labels, draw, other: not read.
        """
        latents = self.vae.encode(pixel_values).latent_dist
        mean, spread = latents.mean.float(), latents.logvar.float()
        noise = torch.randn(mean.shape, device=mean.device) if self.training else 0
        found = self.vae.decode(mean + (0.5 * spread).exp() * noise).sample.float()
        errors = (found - pixel_values).abs().mean(dim=(1, 2, 3))
        loss = errors.mean()
        for side in COARSE:
            ours, theirs = (functional.avg_pool2d(each, side) for each in (found, pixel_values))
            loss = loss + self._weights["coarse_weight"] * functional.l1_loss(ours, theirs)
        # Kingma & Welling 2014, as the mean over places and channels.
        divergence = 0.5 * (mean.square() + spread.exp() - 1 - spread).mean()
        loss = loss + self._weights["kl_weight"] * divergence
        if self._perception[0] is not None:
            loss = loss + self._weights["perceptual_weight"] * self._perception[0](found, pixel_values)
        return DenoisingOutput(loss=loss, losses=errors)


class AutoencoderWriter(Writer):
    """Saves the autoencoder of a run."""

    def __init__(self, model: TrainedAutoencoder):
        super().__init__(model.size)
        self._vae = model.vae

    def save_pretrained(self, folder: Path) -> None:
        """Write the autoencoder into `vae/`, and beside it what the card tells."""
        self._vae.save_pretrained(Path(folder) / "vae", safe_serialization=True)
        facts = {"architectures": [type(self._vae).__name__], "image_size": self.size}
        write_json(Path(folder) / "config.json", facts)


class AutoencoderTask(DrawingTask):
    """Pictures through few numbers: an `AutoencoderKL`, around which text_to_image makes a pipeline."""

    name = "autoencoder"
    selection_metric = ERROR.name

    def build(self, configuration: Configuration, data: TrainingData) -> tuple[Any, Any]:
        """Return the autoencoder of a configuration, fresh or that of `vae`, and what saves it.

        Raises:
            BadInputError: there is no such autoencoder, or it cannot take pictures of this size.
        """
        refuse_others(configuration, "autoencoder", "image")
        arguments = configuration.model
        given = dict(arguments.config)
        perceptual, weights = given.pop("perceptual", None), {name: given.pop(name, LOSSES[name]) for name in LOSSES}
        size = arguments.image_size or 96
        if arguments.vae is not None:
            vae = load_autoencoder(arguments.vae, arguments.model_revision)
        else:
            with outside("the autoencoder cannot be made", "correct its fields in config; see AutoencoderKL"):
                depth = len(given.get("block_out_channels", PARTS["block_out_channels"]))
                blocks = {
                    "down_block_types": ("DownEncoderBlock2D",) * depth,
                    "up_block_types": ("UpDecoderBlock2D",) * depth,
                }
                vae = AutoencoderKL(**{**PARTS, **blocks, **given, "sample_size": size, "scaling_factor": 1.0})
        smaller = 2 ** (len(vae.config.block_out_channels) - 1)
        if size % smaller:
            raise BadInputError(f"image_size {size}: the autoencoder makes it {smaller} times smaller; give a multiple")
        model = TrainedAutoencoder(vae, size, Perception(perceptual) if perceptual else None, weights)
        return model, AutoencoderWriter(model)

    def training_samples(self, configuration: Configuration, data: TrainingData, processor: Any) -> PromptSamples:
        """Return the varied samples of the training split."""
        return varied_samples(configuration, data.train, [[""]] * len(data.train), processor.size)

    def evaluation_samples(self, processor: Any, table: Table) -> PromptSamples:
        """Return samples that are never varied."""
        return PromptSamples(table, [[""]] * len(table), processor.size)

    @contextmanager
    def keep_features(self, configuration: Configuration, trainer: Trainer) -> Iterator[Frozen]:
        """Keep nothing: nothing is frozen."""
        yield Frozen((), {})

    def complete(
        self, model: Any, processor: Any, train: Table, selection: Table, share: float, reader: Any = None
    ) -> str:
        """Let the latents of training pictures have mean 0 and spread 1 in each channel, as diffusion expects them."""
        samples = PromptSamples(train.first(NORMAL_ROWS), [[""]] * len(train.first(NORMAL_ROWS)), processor.size)
        device = next(model.parameters()).device
        found = []
        for start in range(0, len(samples), 32):
            batch = self.collator(processor, 0)([samples[row] for row in range(start, min(start + 32, len(samples)))])
            with torch.no_grad():
                found.append(model.vae.encode(batch["pixel_values"].to(device)).latent_dist.mean.float())
        latents = torch.cat(found)
        normalise_latents(model.vae, latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3)))
        return f"latents of {len(samples)} training pictures have mean 0 and spread 1 in each channel"

    def save(self, configuration: Configuration, model: Any, processor: Any, results: dict[str, Any]) -> bool:
        """Write the autoencoder."""
        processor.save_pretrained(configuration.output_dir)
        return True

    def scores(self, label_names: Sequence[str]) -> tuple[Score, ...]:
        """Return the error of the pixels, which chooses the checkpoint."""
        return (ERROR,)


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, mean: Tensor, spread: Tensor) -> None:
    """Shift and scale the latents of an autoencoder within its own weights; what it decodes stays the same.

    Args:
        vae: changed in place: the convolutions around its latents.
        mean: of each channel, `(channels,)`.
        spread: of each channel.
    """
    before, after = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    # Means (the first half) are shifted and scaled; of logarithms of variances, scaling is a shift.
    before.weight[:channels] /= spread.view(-1, 1, 1, 1)
    before.bias[:channels] = (before.bias[:channels] - mean) / spread
    before.bias[channels:] -= 2 * spread.log()
    after.bias += (after.weight.flatten(1) * mean).sum(dim=1)
    after.weight *= spread.view(1, -1, 1, 1)
