"""Features of a finished model's backbones: each picture and each text passes them once, however often it is scored.

Frozen backbones share the store of training; the features of fine-tuned ones are kept in memory while a command runs.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from modeling_flavour.base_flavour import FlavourPreTrainedModel
from trainer_scripts.data.samples import RowFeatures, stacked
from trainer_scripts.features.engines import ImageEngine, feature_shapes
from trainer_scripts.features.frozen import (
    PICTURES_AT_ONCE,
    TEXTS_AT_ONCE,
    PictureExtractor,
    TextExtractor,
    image_key,
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

    def attach(self, samples: Any, whole: Any = None) -> None:
        """Set `image_features` and `text_features` of evaluation samples, as far as the model has such backbones.

        Args:
            samples: of a table.
            whole: samples with features of the split that the table was chosen from, or None.
        """
        if self._model.dtype != torch.float32:
            return
        encoder = getattr(self._model, "text_encoder", None)
        # Word vectors are looked up faster than features.
        if encoder is not None and not isinstance(encoder.model, nn.Embedding):
            samples.text_features = _chosen(samples, whole, "text_features") or self._texts(samples)
        if getattr(self._model, "image_encoder", None) is not None and samples.pictures is not None:
            samples.image_features = _chosen(samples, whole, "image_features") or self._pictures(samples)

    def stream(self, samples: Any, batches: Sequence[range]) -> Iterator[Any]:
        """Yield the outputs of the image backbone for batches of rows, each a tensor or a tuple; nothing is kept."""
        extractor = self._extractor(samples)
        extractor.prepare()
        shapes = feature_shapes(self._model.image_encoder, extractor.pixels(0))
        for values in computed_batches(batches, extractor):
            yield stacked([RowFeatures(values, len(values), shapes=shapes)[row] for row in range(len(values))])

    def _extractor(self, samples: Any) -> PictureExtractor:
        """Return what computes the features of the pictures of samples; all share one engine and its graph."""
        assert self._normal is not None
        if self._engine is None:
            self._engine = ImageEngine(self._model.image_encoder, False, len(samples.table))
        self._engine.expect(len(samples.table))
        return PictureExtractor(self._engine, samples, self._normal)

    def _pictures(self, samples: Any) -> RowFeatures | None:
        assert self._normal is not None
        encoder, table, extractor = self._model.image_encoder, samples.table, self._extractor(samples)
        config = self._model.config
        frozen = getattr(config, "freeze_image", False) and not getattr(config, "trainable_image_layers", 0)
        shapes = feature_shapes(encoder, extractor.pixels(0))
        keys, whole = [], table.chosen_from
        if frozen:
            keys = [
                image_key(encoder, samples, self._normal, table=each) for each in (table, whole and whole[0]) if each
            ]
        found = self._read(keys, samples, extractor, "image", PICTURES_AT_ONCE)
        if found is not None:
            found.shapes = shapes
        return found

    def _texts(self, samples: Any) -> RowFeatures | None:
        encoder, tokens = self._model.text_encoder, samples.tokens
        extractor = TextExtractor(encoder, tokens, self._model.config.pad_token_id or 0)
        keys = [text_key(self._model, tokens)] if getattr(self._model.config, "freeze_text", False) else []  # type: ignore[arg-type]
        return self._read(keys, samples, extractor, "text", TEXTS_AT_ONCE, token_offsets(encoder, tokens))

    def _read(
        self,
        keys: list[dict[str, Any]],
        samples: Any,
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


def _chosen(samples: Any, whole: Any, name: str) -> RowFeatures | None:
    """Return the features of rows that were chosen from a split whose features are at hand."""
    features = getattr(whole, name, None)
    return None if features is None else features.select(samples.table.chosen_from[1])


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
