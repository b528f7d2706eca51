"""Latents of pictures and states of prompts, computed once and kept on disk, in the store of all frozen features."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataset_builder.errors import BadInputError
from trainer_scripts.data.pictures import normalise
from trainer_scripts.data.samples import RowFeatures
from trainer_scripts.data.table import decode_bytes
from trainer_scripts.features.frozen import backbone_key
from trainer_scripts.features.storage import digest_of, stored_features
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.tasks.text_to_image.model import TrainedDenoiser
from trainer_scripts.tasks.text_to_image.samples import MIDDLE, SPREAD, PromptSamples

PICTURES_AT_ONCE, PROMPTS_AT_ONCE = 8, 32


def store(configuration: Configuration, model: TrainedDenoiser, samples: Sequence[PromptSamples]) -> dict[str, str]:
    """Let samples carry stored latents and text states, and return why a part of them is computed in every epoch.

    Raises:
        BadInputError: `frozen_features: store` was given, and a part changes from epoch to epoch.
    """
    data, reasons = configuration.data, {}
    if data.frozen_features == "recompute":
        return {}
    if any(each.varies for each in samples) and data.feature_views < 1:
        reasons["image"] = "pictures vary at random; --feature_views K keeps K random views of each"
    if model.trains_text:
        reasons["text"] = "the text encoder is trained"
    if data.frozen_features == "store" and reasons:
        raise BadInputError(f"frozen_features: store is impossible here: {'; '.join(reasons.values())}; change that")
    root = Path(data.features_dir)
    for each in samples:
        if "image" not in reasons:
            each.image_features = latents(root, model, each, data.feature_views if each.varies else 1)
        if "text" not in reasons:
            each.text_features = states(root, model, each)
    return reasons


class LatentExtractor:
    """Means and deviations of the latents of pictures."""

    def __init__(self, model: TrainedDenoiser, samples: PromptSamples):
        self._model = model
        self._samples = samples

    def prepare(self) -> None:
        """Nothing: the autoencoder runs as it is."""

    def load(self, place: int) -> Tensor:
        """Return one picture `(3, height, width)` in -1..1."""
        view, row = divmod(place, len(self._samples))
        return normalise([self._samples.picture(row, view, once=True)], MIDDLE, SPREAD)[0]

    def run(self, loaded: Sequence[Tensor]) -> np.ndarray:
        """Return `(pictures, 2, channels, height, width)` float32."""
        pictures = torch.stack(list(loaded)).to(next(self._model.vae.parameters()).device)
        return self._model.moments(pictures).cpu().numpy()


class StateExtractor:
    """What the denoiser reads of prompts, flattened side by side."""

    def __init__(self, model: TrainedDenoiser, prompts: Sequence[str]):
        self._model = model
        self._prompts = prompts

    def prepare(self) -> None:
        """Nothing: text encoders run as they are."""

    def load(self, place: int) -> str:
        """Return one prompt."""
        return self._prompts[place]

    @torch.no_grad()
    def run(self, loaded: Sequence[str]) -> np.ndarray:
        """Return `(prompts, size)` float32."""
        found = self._model.conditions.encode(loaded)
        return torch.cat([each.flatten(1) for each in found], dim=1).cpu().numpy()

    @torch.no_grad()
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shape of each output for one prompt."""
        return tuple(tuple(each.shape[1:]) for each in self._model.conditions.encode([""]))


def latents(root: Path, model: TrainedDenoiser, samples: PromptSamples, views: int) -> RowFeatures:
    """Return the stored latents of the pictures of some samples."""
    table = samples.table
    assert samples.pictures is not None
    key = {
        "part": "image",
        "backbone": backbone_key(model.vae),
        "output": "latent moments",
        "pictures_sha256": digest_of(map(decode_bytes, table.cells(), table.ids)),
        "preparation": samples.pictures.preparation,
        "views": views,
        "variation": samples.variation,
    }
    return stored_features(root, key, len(samples), LatentExtractor(model, samples), batch_size=PICTURES_AT_ONCE)


def states(root: Path, model: TrainedDenoiser, samples: PromptSamples) -> RowFeatures:
    """Return the stored states of the prompts of some samples, each distinct prompt once."""
    prompts = samples.all_prompts()
    distinct = list(dict.fromkeys(prompts))
    number = {prompt: place for place, prompt in enumerate(distinct)}
    extractor = StateExtractor(model, distinct)
    tokenizers = [getattr(model.conditions.pipeline, name, None) for name in ("tokenizer", "tokenizer_2")]
    key = {
        "part": "text",
        "backbone": [backbone_key(each) for each in model.text_encoder],
        "tokenizers": [each and digest_of([str(sorted(each.get_vocab().items()))]) for each in tokenizers],
        "output": list(model.conditions.outputs),
        "prompts_sha256": digest_of(distinct),
        "views": 1,
    }
    found = stored_features(root, key, len(distinct), extractor, batch_size=PROMPTS_AT_ONCE)
    places = np.array([number[prompt] for prompt in prompts])
    shapes = extractor.shapes()
    assert math.prod(found.values.shape[1:]) == sum(map(math.prod, shapes))
    return replace(found, chosen=places, shapes=shapes)
