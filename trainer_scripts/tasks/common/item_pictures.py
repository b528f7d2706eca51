"""Pictures of the rows to predict: decoded, prepared and passed through the backbone in threads, ahead of the model."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from dataset_builder.errors import BadInputError
from modeling_flavour.base_flavour import FlavourPreTrainedModel
from trainer_scripts.data.pictures import evaluation_picture, normalise
from trainer_scripts.data.samples import on_device, stacked
from trainer_scripts.features.engines import cores
from trainer_scripts.features.reader import PictureStream
from trainer_scripts.tasks.common.items import Item
from trainer_scripts.tasks.common.task import SavedModel

BATCHES_AHEAD = 2


@dataclass
class Seen:
    """One picture as far as it has been computed.

    Attributes:
        value: normalised pixels `(3, height, width)`, or the outputs of the backbone.
        size: height and width of the picture itself, in pixels.
    """

    value: Any
    size: tuple[int, int]


class ItemPictures:
    """Reads the pictures of items in batches.

    Args:
        model: their model; a graph gets pixels, a model of the family features.
        items: the rows, each with a picture.
    """

    def __init__(self, model: SavedModel, items: Sequence[Item]):
        self._model, self._items = model, items
        self._normal = model.processor.image_processor
        self._prepare = evaluation_picture(self._normal)
        self._stream: PictureStream | None = None
        self._stored: Any = None
        if isinstance(model.model, FlavourPreTrainedModel) and model.model.dtype == torch.float32:
            self._stream = model.reader.stream(len(items))
            self._stored = model.reader.stored(self._files, len(items), repr(self._prepare))

    def batches(self, batch_size: int) -> Iterator[list[Future]]:
        """Yield a future of `Seen` per row, batch by batch; its `result` raises what opening the picture raised."""
        waiting: deque[list[Future]] = deque()
        with ThreadPoolExecutor(cores()) as pool:
            for start in range(0, len(self._items), batch_size):
                rows = range(start, min(start + batch_size, len(self._items)))
                waiting.append([pool.submit(self._load, row) for row in rows])
                if len(waiting) > BATCHES_AHEAD:
                    yield waiting.popleft()
            yield from waiting

    def whole_batches(self, batch_size: int) -> Iterator[list[Seen]]:
        """Yield the pictures batch by batch.

        Raises:
            BadInputError: a picture is missing or broken; the message names the row.
        """
        rows = iter(self._items)
        for batch in self.batches(batch_size):
            seen = []
            for future, item in zip(batch, rows, strict=False):
                try:
                    seen.append(future.result())
                except (OSError, ValueError) as error:
                    raise BadInputError(f"row {item.item_id}: {error}; mend or remove it") from error
            yield seen

    def inputs(self, seen: Sequence[Seen | None], dtype: torch.dtype | None = None) -> dict[str, Any]:
        """Return `pixel_values` or `image_features` of a batch, and `image_present` where some have no picture."""
        there = [one for one in seen if one is not None]
        if not there:
            return {}
        name, values = "pixel_values", [one.value for one in there]
        if self._stream is not None:
            name, values = "image_features", values if self._stored is not None else self._stream.finish(values)
        # A missing picture is filled with zeros, which the model replaces by its stand-in.
        given = iter(values)
        nothing = _zeros(values[0])
        batch = stacked([nothing if one is None else next(given) for one in seen])
        found: dict[str, Any] = {name: on_device(batch, self._model.model.device, dtype)}
        if len(there) < len(seen):
            found["image_present"] = torch.tensor([one is not None for one in seen], device=self._model.model.device)
        return found

    def _files(self) -> Iterator[bytes]:
        for item in self._items:
            yield item.read_bytes() if item.has_picture else b""

    def _load(self, row: int) -> Seen:
        # Opened in any case: a broken picture has no features, and a mask has the size of its picture.
        picture = self._items[row].read_picture()
        if self._stored is not None:
            return Seen(self._stored[row], (picture.height, picture.width))
        pixels = normalise([self._prepare(picture)], self._normal.image_mean, self._normal.image_std)[0]
        value = pixels if self._stream is None else self._stream.load(pixels)
        return Seen(value, (picture.height, picture.width))


def _zeros(value: Any) -> Any:
    return tuple(map(torch.zeros_like, value)) if isinstance(value, tuple) else torch.zeros_like(value)
