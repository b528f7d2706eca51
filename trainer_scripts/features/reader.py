"""Features of a finished model's backbones: each picture and each text passes them once, however often it is scored.

Frozen backbones share the store of training; the features of fine-tuned ones are kept in memory while a command runs.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modeling_flavour.base_flavour import FlavourPreTrainedModel
from modeling_flavour.encoders_flavour import FlavourImageEncoder
from trainer_scripts.data.samples import PictureSamples, RowFeatures, Samples, stacked
from trainer_scripts.data.table import Table, decode_bytes
from trainer_scripts.features.engines import ImageEngine, feature_shapes
from trainer_scripts.features.frozen import (
    PICTURES_AT_ONCE,
    TEXTS_AT_ONCE,
    PictureExtractor,
    TextExtractor,
    image_key,
    outputs_of,
    text_key,
    token_offsets,
)
from trainer_scripts.features.storage import (
    Extractor,
    computed_batches,
    computed_features,
    finished_features,
    stored_features,
)

# All that the features of one table may take in memory; beyond that the backbone is run in each pass.
MOST_BYTES = 2 * 1024**3


class BackboneReader:
    """Lets samples carry the features of a finished model's backbones in place of pictures and tokens.

    Answers are those of the whole model up to the order of additions (within 1e-5).

    Args:
        model: in evaluation mode, in float32.
        root: folder of all stored features, that of training.
        normal: channel means and standard deviations of the pictures; None for a model without pictures.
    """

    def __init__(
        self, model: FlavourPreTrainedModel, root: Path, normal: tuple[Sequence[float], Sequence[float]] | None
    ):
        self._model = model
        self._root = root
        self._normal = normal
        self._engine: ImageEngine | None = None
        self._whole: tuple[Table, str, dict[str, Any]] | None = None

    def attach(self, samples: Samples, whole: Samples | None = None) -> None:
        """Set `image_features` and `text_features` of evaluation samples, as far as the model has such backbones.

        Args:
            samples: of a table.
            whole: samples with features of the split that the table was chosen from, or None.
        """
        # Where rows may lack their picture there is nothing to compute for these.
        if self._model.dtype != torch.float32 or samples.table.pictured is not None:
            return
        encoder = getattr(self._model, "text_encoder", None)
        # Word vectors are looked up faster than features.
        if encoder is not None and not isinstance(encoder.model, nn.Embedding):
            samples.text_features = _chosen(samples, whole, "text_features") or self._texts(samples)
        if getattr(self._model, "image_encoder", None) is not None and samples.pictures is not None:
            samples.image_features = _chosen(samples, whole, "image_features") or self._pictures(samples)

    def batches(self, samples: PictureSamples, batches: Sequence[range]) -> Iterator[Any]:
        """Yield the outputs of the image backbone for batches of rows, each a tensor or a tuple; nothing is kept."""
        extractor = PictureExtractor(self._engine_for(len(samples.table)), samples, self._pixels_as)
        extractor.prepare()
        shapes = feature_shapes(self._model.image_encoder, extractor.pixels(0))
        for values in computed_batches(batches, extractor):
            yield stacked(rows_of(values, shapes))

    def stream(self, pictures: int) -> "PictureStream":
        """Return what computes the image backbone for about so many pictures that come one by one."""
        return PictureStream(self._engine_for(pictures), self._model.image_encoder)

    def stored(self, pictures: Callable[[], Iterable[bytes]], number: int, preparation: str) -> RowFeatures | None:
        """Return the features of picture files that are on disk already; None without a frozen backbone or a file."""
        if not self._frozen_image or not self._root.is_dir():
            return None
        encoder = self._model.image_encoder
        try:
            key = image_key(encoder, pictures(), preparation, self._pixels_as)
        except (OSError, ValueError):  # of a missing picture, which is reported where it is read
            return None
        found = finished_features(self._root, key, number)
        # The form of several outputs is not on disk; a finished model that reads several is rare.
        return None if found is None or " and " in outputs_of(encoder) else found

    @property
    def _pixels_as(self) -> tuple[Sequence[float], Sequence[float]]:
        assert self._normal is not None
        return self._normal

    @property
    def _frozen_image(self) -> bool:
        config = self._model.config
        return getattr(config, "freeze_image", False) and not getattr(config, "trainable_image_layers", 0)

    def _engine_for(self, pictures: int) -> ImageEngine:
        """Return the engine of the image backbone; all tables share it and its graph."""
        if self._engine is None:
            self._engine = ImageEngine(self._model.image_encoder, False, pictures)
        self._engine.expect(pictures)
        return self._engine

    def _pictures(self, samples: PictureSamples) -> RowFeatures | None:
        encoder, table, pictures = self._model.image_encoder, samples.table, samples.pictures
        assert pictures is not None  # the samples of a model with an image encoder have pictures
        extractor = PictureExtractor(self._engine_for(len(table)), samples, self._pixels_as)
        keys, whole = [], table.chosen_from
        for each in (table, whole and whole[0]):
            if self._frozen_image and each:
                keys.append(self._key_of(each, pictures.preparation, each is not table))
        found = self._read(keys, samples, extractor, "image", PICTURES_AT_ONCE)
        if found is not None:
            found.shapes = feature_shapes(encoder, extractor.pixels(0))
        return found

    def _key_of(self, table: Table, preparation: str, is_whole: bool) -> dict[str, Any]:
        """Return the key of the pictures of a table; that of a whole split is kept, as it reads all of its files."""
        if is_whole and self._whole is not None and self._whole[0] is table and self._whole[1] == preparation:
            return self._whole[2]
        files = map(decode_bytes, table.cells(), table.ids)
        key = image_key(self._model.image_encoder, files, preparation, self._pixels_as)
        if is_whole:
            self._whole = (table, preparation, key)
        return key

    def _texts(self, samples: Samples) -> RowFeatures | None:
        encoder, tokens = self._model.text_encoder, samples.tokens
        assert tokens is not None  # the samples of a model with a text encoder have texts
        extractor = TextExtractor(encoder, tokens, self._model.config.pad_token_id or 0)
        keys = [text_key(self._model, tokens)] if getattr(self._model.config, "freeze_text", False) else []
        return self._read(keys, samples, extractor, "text", TEXTS_AT_ONCE, token_offsets(encoder, tokens))

    def _read(
        self,
        keys: list[dict[str, Any]],
        samples: PictureSamples,
        extractor: Extractor,
        name: str,
        batch_size: int,
        offsets: np.ndarray | None = None,
    ) -> RowFeatures | None:
        """Return features from disk where a backbone is frozen (`keys`: of the rows, and of their whole split)."""
        rows, part = len(samples.table), samples.table.chosen_from
        if part is not None:
            for key, number, chosen in zip(keys, (rows, len(part[0])), (np.arange(rows), part[1]), strict=False):
                found = finished_features(self._root, key, number, offsets)
                if found is not None:
                    return found.select(chosen)
        # Parts of a split are not worth a file: the next command may choose others.
        elif keys and _writable(self._root):
            return stored_features(self._root, keys[0], rows, extractor, offsets, batch_size)
        return computed_features(rows, extractor, name, offsets, batch_size, MOST_BYTES)


class PictureStream:
    """The outputs of an image backbone for pictures that come one by one, from several threads.

    Args:
        engine: runs the backbone.
        encoder: holds it.
    """

    def __init__(self, engine: ImageEngine, encoder: FlavourImageEncoder):
        self._engine = engine
        self._encoder = encoder
        self._shapes: Any = None
        self._prepared = False
        self._first = threading.Lock()

    def load(self, pixels: Tensor) -> Any:
        """Return what `finish` needs of one normalised picture `(3, height, width)`."""
        with self._first:
            if not self._prepared:
                self._engine.prepare(pixels)
                self._shapes = feature_shapes(self._encoder, pixels)
                self._prepared = True
        return self._engine.one(pixels) if self._engine.by_picture else pixels

    def finish(self, loaded: Sequence[Any]) -> list[Any]:
        """Return the outputs of each of some pictures: a tensor, or a tuple of several outputs."""
        if self._engine.by_picture:
            return rows_of(np.concatenate(loaded), self._shapes)
        return rows_of(self._engine.batch(torch.stack(list(loaded))), self._shapes)


def rows_of(values: np.ndarray, shapes: tuple[tuple[int, ...], ...] | None) -> list[Any]:
    """Return the outputs of each row of a batch, several of them in their shapes."""
    features = RowFeatures(values, len(values), shapes=shapes)
    return [features[row] for row in range(len(values))]


def _chosen(samples: Samples, whole: Samples | None, name: str) -> RowFeatures | None:
    """Return the features of rows that were chosen from a split whose features are at hand."""
    features, part = getattr(whole, name, None), samples.table.chosen_from
    return None if features is None or part is None else features.select(part[1])


def _writable(folder: Path) -> bool:
    """Whether features can be stored in a folder; it is made where it is absent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{id(folder)}"
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
