"""Features of frozen backbones, computed once: later epochs, runs and models read them from disk.

A model trains on them through its inputs `image_features` and `text_features`, so its frozen backbones are not run.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer
from transformers.integrations import is_deepspeed_zero3_enabled

from dataset_builder.errors import BadInputError
from modeling_flavour.base_flavour import FlavourPreTrainedModel
from modeling_flavour.encoders_flavour import FlavourImageEncoder, FlavourTextEncoder
from modeling_flavour.modeling_flavour import FlavourForClassification
from trainer_scripts.data.pictures import normalise, varies
from trainer_scripts.data.place_samples import learns_places
from trainer_scripts.data.samples import PictureSamples, RowFeatures, Samples, padded
from trainer_scripts.data.table import decode_bytes
from trainer_scripts.features.engines import ImageEngine, engine_precision, feature_shapes
from trainer_scripts.features.storage import digest_of, stored_features
from trainer_scripts.settings.arguments import Configuration, DataArguments

IMAGE, TEXT = "image", "text"
PICTURES_AT_ONCE, TEXTS_AT_ONCE = 8, 64


@dataclass(frozen=True)
class Frozen:
    """The backbones whose features are stored, and why other frozen ones are computed in every epoch.

    Attributes:
        parts: `image`, `text`, both or none.
        reasons: for each frozen part that is not stored, the reason.
    """

    parts: tuple[str, ...]
    reasons: dict[str, str]


def frozen_parts(configuration: Configuration, model: FlavourPreTrainedModel, samples: PictureSamples) -> Frozen:
    """Return the backbones of a configuration's model whose features can be stored.

    Raises:
        BadInputError: `--frozen_features store` was given, and a frozen backbone must be computed in every epoch.
    """
    config = model.config
    parts: list[str] = []
    reasons: dict[str, str] = {}
    if configuration.data.frozen_features == "recompute":
        return Frozen((), {})
    encoder = getattr(model, "text_encoder", None)
    has_image = getattr(model, "image_encoder", None) is not None
    frozen = {
        IMAGE: getattr(config, "freeze_image", False) and has_image,
        TEXT: getattr(config, "freeze_text", False) and not isinstance(getattr(encoder, "model", None), nn.Embedding),
    }
    for part in [part for part, is_frozen in frozen.items() if is_frozen and (part == IMAGE or encoder is not None)]:
        reason = "streamed rows pass once" if configuration.data.streaming else None
        if is_deepspeed_zero3_enabled():
            reason = "ZeRO-3 shares its weights out to the processes"
        if part == IMAGE and reason is None:
            reason = _image_reason(configuration, model, samples)
        if part == TEXT and configuration.data.word_dropout > 0:
            reason = "word_dropout makes other words unknown in each epoch"
        if reason is None:
            parts.append(part)
        else:
            reasons[part] = reason
    if has_image and configuration.data.feature_views and not (frozen[IMAGE] and _vary(configuration.data)):
        why = "no picture varies (crop_scale, flip, ...)" if frozen[IMAGE] else "none is frozen (freeze_image)"
        raise BadInputError(f"feature_views keeps random views for a frozen backbone, and {why}")
    if configuration.data.frozen_features == "store" and (reasons or not parts):
        why = "; ".join(reasons.values()) or "the configuration freezes no backbone: freeze_image, freeze_text"
        raise BadInputError(f"frozen_features: store is impossible here: {why}; leave it out, or change that")
    return Frozen(tuple(parts), reasons)


def _vary(data: DataArguments) -> bool:
    """Whether training pictures differ from those of evaluation, by random variation or by their size."""
    return varies(data) or data.crop_size is not None


def _image_reason(configuration: Configuration, model: FlavourPreTrainedModel, samples: PictureSamples) -> str | None:
    """Return why the frozen image backbone has to be computed in every epoch, or None."""
    data = configuration.data
    if getattr(model.config, "trainable_image_layers", 0):
        return "trainable_image_layers lets the last layers of the image backbone train"
    if samples.not_stored:
        return samples.not_stored
    if configuration.training.teacher is not None and not isinstance(samples, Samples):
        return "the teacher looks at each picture too"
    if learns_places(configuration):
        return "what lies at each place is read from the backbone's whole map, varied with the mask"
    if data.mixup_alpha > 0:
        return "mixup_alpha mixes pixels before the backbone sees them"
    varied = _vary(data)
    if varied and samples.not_stored_varied:
        return samples.not_stored_varied
    if varied and data.feature_views < 1:
        return "pictures vary at random; --feature_views K keeps K random views of each"
    return None


@contextmanager
def features_once(configuration: Configuration, trainer: Trainer) -> Iterator[Frozen]:
    """Let the samples of a trainer carry the stored features of frozen backbones inside this block.

    Args:
        configuration: of the run.
        trainer: its training and evaluation samples are changed; features not on disk yet are computed first.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    frozen = frozen_parts(configuration, model, trainer.train_dataset)
    tables = {"training": trainer.train_dataset, "evaluation": trainer.eval_dataset}
    was_training = model.training
    # Normalisation statistics must not move and dropout must not act while features are computed.
    model.eval()
    for name, samples in tables.items():
        views = configuration.data.feature_views if name == "training" and samples.varies else 1
        if IMAGE in frozen.parts:
            collator = trainer.data_collator
            normal = ([float(value) for value in collator.mean], [float(value) for value in collator.std])
            samples.image_features = image_features(configuration, model, samples, normal, views)
        else:
            # Pictures that are still read are decoded before worker processes are forked, which then share them.
            for kept in (samples.pictures, samples.masks):
                if kept is not None:
                    kept.load()
        if TEXT in frozen.parts:
            samples.text_features = text_features(configuration, model, samples)
    model.train(was_training)
    workers = trainer.args.dataloader_num_workers
    if IMAGE in frozen.parts:
        # No picture is decoded any more: starting worker processes would take longer than an epoch.
        trainer.args.dataloader_num_workers = 0
    try:
        yield frozen
    finally:
        trainer.args.dataloader_num_workers = workers


def backbone_key(module: PreTrainedModel) -> dict[str, str]:
    """Return what identifies a backbone of transformers or diffusers: its configuration, and the hash of its weights.

    Running statistics count as weights.
    """
    config = dict(module.config.to_dict() if hasattr(module.config, "to_dict") else module.config)
    # These differ between equal backbones that were loaded from other places or versions.
    for changing in ("transformers_version", "_name_or_path", "dtype", "_diffusers_version", "_use_default_values"):
        config.pop(changing, None)
    weights = (part for name, value in sorted(module.state_dict().items()) for part in (name, _bytes(value)))
    return {"config": json.dumps(config, sort_keys=True, default=str), "weights_sha256": digest_of(weights)}


def _bytes(value: Tensor) -> bytes:
    # Viewed as bytes first, because NumPy has no bfloat16. A moving average turns -0.0 into the 0.0 that it equals.
    return (value.detach() + 0).cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


class PictureExtractor:
    """Features of pictures that are prepared as the collator prepares them.

    Args:
        engine: runs the backbone.
        samples: samples whose pictures are read.
        normal: channel means and standard deviations.
    """

    def __init__(self, engine: ImageEngine, samples: PictureSamples, normal: tuple[Sequence[float], Sequence[float]]):
        self._engine = engine
        self._samples = samples
        self._normal = normal

    def prepare(self) -> None:
        """Get ready, before the first `load`."""
        self._engine.prepare(self.pixels(0))

    def load(self, place: int) -> Any:
        """Decode, prepare, vary and normalise one picture; where pictures go one by one, compute its features too."""
        pixels = self.pixels(place)
        return self._engine.one(pixels) if self._engine.by_picture else pixels

    def run(self, loaded: Sequence[Any]) -> np.ndarray:
        """Return pooled features `(pictures, size)` or maps `(pictures, size, height, width)`."""
        if self._engine.by_picture:
            return np.concatenate(loaded)
        return self._engine.batch(torch.stack(list(loaded)).contiguous(memory_format=torch.channels_last))

    def pixels(self, place: int) -> Tensor:
        """Return one normalised picture `(3, height, width)`."""
        # The file holds all rows in the first view, then all rows in the second.
        view, row = divmod(place, len(self._samples.table))
        # Features are computed once, so caching their pictures would gain nothing.
        return normalise([self._samples.picture(row, view, once=True)], *self._normal)[0]


def outputs_of(encoder: FlavourImageEncoder) -> str:
    """Return the name of the backbone's outputs that `encoder.features` returns."""
    read = {"stages": bool(encoder.stages), "map": encoder.reads_map, "pooled": encoder.reads_vector}
    return " and ".join(name for name, is_read in read.items() if is_read)


def image_key(
    encoder: FlavourImageEncoder,
    pictures: Iterable[bytes],
    preparation: str,
    normal: tuple[Sequence[float], Sequence[float]],
    bf16: bool = False,
    views: int = 1,
    variation: str | None = None,
) -> dict[str, Any]:
    """Return everything that the features of pictures depend on.

    Args:
        encoder: holds the backbone.
        pictures: their files, in order.
        preparation: description of the steps between a file and its pixels.
        normal: channel means and standard deviations.
        bf16: whether PyTorch may compute in bfloat16.
        views: random views of each picture.
        variation: description of how they vary; None where they do not.
    """
    return {
        "part": IMAGE,
        "backbone": backbone_key(encoder.model),
        "output": outputs_of(encoder),
        "precision": engine_precision(bf16, encoder.device),
        "pictures_sha256": digest_of(pictures),
        "preparation": preparation,
        "normalisation": normal,
        "views": views,
        "variation": variation,
    }


def image_features(
    configuration: Configuration,
    model: FlavourPreTrainedModel,
    samples: PictureSamples,
    normal: tuple[Sequence[float], Sequence[float]],
    views: int,
) -> RowFeatures:
    """Return the features of every picture of some samples, in `views` random views."""
    table, encoder, bf16 = samples.table, model.image_encoder, configuration.training.bf16
    assert samples.pictures is not None  # the samples of a model with an image encoder have pictures
    files, preparation = map(decode_bytes, table.cells(), table.ids), samples.pictures.preparation
    key = image_key(encoder, files, preparation, normal, bf16, views, samples.variation)
    extractor = PictureExtractor(ImageEngine(encoder, bf16, len(table) * views), samples, normal)
    root = Path(configuration.data.features_dir)
    found = stored_features(root, key, len(table), extractor, batch_size=PICTURES_AT_ONCE)
    found.shapes = feature_shapes(encoder, extractor.pixels(0))
    return found


class TextExtractor:
    """Features of texts: one vector each, or the states of all tokens.

    Args:
        encoder: runs the backbone.
        tokens: token ids of each text.
        pad_token_id: fills up short texts of a batch.
    """

    def __init__(self, encoder: FlavourTextEncoder, tokens: Sequence[Sequence[int]], pad_token_id: int):
        self._encoder = encoder
        self._tokens = tokens
        self._pad_token_id = pad_token_id

    def prepare(self) -> None:
        """Nothing: PyTorch runs text backbones as they are."""

    def load(self, place: int) -> Sequence[int]:
        """Return the tokens of one text."""
        return self._tokens[place]

    @torch.inference_mode()
    def run(self, loaded: Sequence[Sequence[int]]) -> np.ndarray:
        """Return vectors `(texts, size)`, or the states of all tokens in a row `(tokens, size)`."""
        input_ids, mask = padded(loaded, self._pad_token_id)
        device = self._encoder.device
        features = self._encoder.features(input_ids.to(device), mask.to(device))
        return (features if self._encoder.pooled else features[mask.bool().to(device)]).float().cpu().numpy()


def text_key(model: FlavourForClassification, tokens: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return everything that the features of texts depend on."""
    encoder = model.text_encoder
    return {
        "part": TEXT,
        "backbone": backbone_key(encoder.model),
        "output": model.config.text_pooling if encoder.pooled else "tokens",
        "precision": "fp32",
        "tokens_sha256": digest_of(np.asarray(text, dtype=np.int64).tobytes() for text in tokens),
        "views": 1,
    }


def token_offsets(encoder: FlavourTextEncoder, tokens: Sequence[Sequence[int]]) -> np.ndarray | None:
    """Return where the token states of each text begin, and their number; None for one vector per text."""
    # Texts differ in length, so their token states lie one after another in one array.
    return None if encoder.pooled else np.cumsum([0, *map(len, tokens)])


def text_features(configuration: Configuration, model: FlavourForClassification, samples: Samples) -> RowFeatures:
    """Return the features of every text of some samples."""
    encoder, tokens = model.text_encoder, samples.tokens
    assert tokens is not None  # the samples of a model with a text encoder have texts
    extractor = TextExtractor(encoder, tokens, model.config.pad_token_id or 0)
    root, offsets = Path(configuration.data.features_dir), token_offsets(encoder, tokens)
    return stored_features(root, text_key(model, tokens), len(tokens), extractor, offsets, TEXTS_AT_ONCE)
