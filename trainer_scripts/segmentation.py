"""Models, samples and batches of the two tasks on masks: segmentation, and naming the ingredients of a picture."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import ClassLabel, Image
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from dataset_builder.catalogue import ingredients
from dataset_builder.columns import BACKGROUND, BACKGROUND_NAME, FOOD_GROUPS, INGREDIENT_LABELS, MASK, UNKNOWN
from dataset_builder.errors import BadInputError
from modeling_flavour.processing_flavour import FlavourProcessor
from modeling_flavour.segmentation_flavour import FlavourForSegmentation
from trainer_scripts.arguments import DataArguments, Recipe
from trainer_scripts.class_balance import class_prior
from trainer_scripts.classification import input_size
from trainer_scripts.collators import sample_seed, varied
from trainer_scripts.data import Table, decode_bytes
from trainer_scripts.pictures import MEMORY_LIMIT_BYTES, Pictures, augmentation, normalise, training_picture

WEIGHED_MASKS = 500


def source_names(rows: Any) -> list[str]:
    """Return the names of the mask ids, background first.

    Raises:
        BadInputError: the data set does not name them.
    """
    feature = rows.features.get(INGREDIENT_LABELS)
    inner = getattr(feature, "feature", None)
    if not isinstance(inner, ClassLabel):
        raise BadInputError(f"column {INGREDIENT_LABELS!r} must name the ids of the masks, as a list of class labels")
    return list(inner.names)


def class_names(rows: Any, column: str, arguments: DataArguments) -> list[str]:
    """Return the classes that masks are read as, background first: ingredients, or the food groups among them.

    Raises:
        BadInputError: an ingredient without a food group, or a name in `label_filter` that is no class.
    """
    names = source_names(rows)
    if arguments.label_level == "group":
        groups = _groups()
        strangers = [name for name in names[1:] if name not in groups]
        if strangers:
            raise BadInputError(f"{strangers[0]!r} has no food group; use --label_level ingredient for this data set")
        found = {groups[name] for name in names[1:]}
        names = [BACKGROUND_NAME, *(group for group in FOOD_GROUPS if group in found)]
    if arguments.label_filter:
        unknown = [name for name in arguments.label_filter if name not in names[1:]]
        if unknown:
            raise BadInputError(
                f"label_filter names {unknown[0]!r}, which is no class; there are {', '.join(names[1:])}"
            )
        names = [names[BACKGROUND], *(name for name in names[1:] if name in arguments.label_filter)]
    return names


def _groups() -> dict[str, str]:
    return {ingredient.name: ingredient.group for ingredient in ingredients() if ingredient.visible}


def class_map(source: Sequence[str], classes: Sequence[str], level: str) -> list[int]:
    """Return for each mask id the class it stands for: itself or its food group, unknown where a filter left it out.

    >>> class_map(["background", "feta", "tomato"], ["background", "cheese"], "group")
    [0, 1, 255]
    >>> class_map(["background", "feta", "tomato"], ["background", "tomato"], "ingredient")
    [0, 255, 1]
    """
    number = {name: position for position, name in enumerate(classes)}
    names = [_groups()[name] for name in source[1:]] if level == "group" else source[1:]
    return [BACKGROUND, *(number.get(name, UNKNOWN) for name in names)]


def shown_classes(labels: np.ndarray, mapped: Sequence[int], classes: int) -> np.ndarray:
    """Return which classes each row shows, 0/1 `(rows, classes - 1)`; the background is no ingredient.

    Args:
        labels: 0/1 `(rows, mask ids)`.
        mapped: per mask id its class.
        classes: number of classes, background included.
    """
    shown = np.zeros((len(labels), classes), dtype=np.float32)
    for number, target in enumerate(mapped):
        if target != UNKNOWN:
            shown[:, target] = np.maximum(shown[:, target], labels[:, number])
    return shown[:, BACKGROUND + 1 :]


def read_ingredients(rows: Any, column: str, names: Sequence[str], ids: Sequence[str], where: str) -> np.ndarray:
    """Return which mask ids each row shows, 0/1 `(rows, mask ids)`.

    Raises:
        BadInputError: no column of ingredients, or an id outside their names.
    """
    number = len(source_names(rows))
    shown = np.zeros((len(ids), number), dtype=np.float32)
    for row, values in enumerate(rows[INGREDIENT_LABELS]):
        for value in values or ():
            if not BACKGROUND < value < number:
                raise BadInputError(f"{where}, row {ids[row]}: {INGREDIENT_LABELS} {value} is no ingredient; mend it")
            shown[row, value] = 1
    return shown


class Masks:
    """The masks of a table, as class ids: `masks[i]` is a uint8 tensor `(height, width)`.

    Args:
        table: rows with masks.
        mapped: per mask id its class; None leaves ids as they are.
        memory_limit: bytes up to which all are kept in memory.
    """

    def __init__(self, table: Table, mapped: Sequence[int] | None = None, memory_limit: int = MEMORY_LIMIT_BYTES):
        self._cells = table.rows.select_columns([MASK]).cast_column(MASK, Image(decode=False))
        self._ids = table.ids
        self.classes = list(range(len(source_names(table.rows)))) if mapped is None else list(mapped)
        self._kept: dict[int, torch.Tensor] = {}
        self._room = memory_limit

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> torch.Tensor:
        if index in self._kept:
            return self._kept[index]
        mask = self._decode(index)
        if mask.nbytes <= self._room:
            self._room -= mask.nbytes
            self._kept[index] = mask
        return mask

    def _decode(self, index: int) -> torch.Tensor:
        cell, name = self._cells[index][MASK], self._ids[index]
        data = decode_bytes(cell, name)
        try:
            ids = np.array(PIL.Image.open(io.BytesIO(data)))
        except (OSError, SyntaxError) as error:
            raise BadInputError(f"row {name}: the mask cannot be read: {error}") from error
        if ids.ndim != 2 or ids.dtype != np.uint8:
            raise BadInputError(f"row {name}: the mask must be an 8-bit picture of one channel, one id per pixel")
        outside = ids[(ids >= len(self.classes)) & (ids != UNKNOWN)]
        if outside.size:
            file = f" ({cell['path']})" if cell.get("path") else ""
            raise BadInputError(
                f"row {name}{file}: the mask holds id {outside[0]}, but ids go from 0 to {len(self.classes) - 1}, and "
                f"{UNKNOWN} where nobody knows"
            )
        table = np.full(UNKNOWN + 1, UNKNOWN, dtype=np.uint8)
        table[: len(self.classes)] = self.classes
        return torch.from_numpy(table[ids])


def nearest(mask: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return a mask `(height, width)` resized to `size`; no id appears that was not there."""
    return functional.resize(mask[None], list(size), interpolation=v2.InterpolationMode.NEAREST_EXACT)[0]


def whole_picture(size: int) -> Any:
    """Return a resizing of the whole picture to a square, so that every pixel of the mask gets an answer."""

    def prepare(picture: PIL.Image.Image) -> torch.Tensor:
        return functional.resize(functional.pil_to_tensor(picture), [size, size], antialias=True)

    return prepare


class MaskSamples(Dataset):
    """Pictures with their mask, and the ingredients each shows.

    Args:
        table: rows with masks.
        processor: that of the model.
        mapped: per mask id its class; None leaves ids as they are.
        classes: number of classes, with `mapped`.
        augment: joint variation of picture and mask, or None.
        margin: whether pictures are kept larger than the input, for crops.
        seed: of the variation, together with epoch and row.
    """

    def __init__(
        self,
        table: Table,
        processor: FlavourProcessor,
        mapped: Sequence[int] | None = None,
        classes: int = 0,
        augment: v2.Transform | None = None,
        margin: bool = False,
        seed: int = 0,
    ):
        self.table = table
        self.processor = processor
        self.epoch = 0
        self.masks = Masks(table)
        self.shown = table.labels
        self.classes = table.labels.shape[1]
        if mapped is not None:
            self.read_as(mapped, classes)
        size = input_size(processor)
        self.pictures = Pictures(table, training_picture(size) if margin else whole_picture(size))
        self._augment = augment
        self._seed = seed

    def read_as(self, mapped: Sequence[int], classes: int) -> None:
        """Read mask ids as the classes that `mapped` gives them."""
        self.masks = Masks(self.table, mapped)
        self.shown = shown_classes(self.table.labels, mapped, classes)
        self.classes = classes

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = self.pictures[index]
        mask = nearest(self.masks[index], picture.shape[-2:])
        shown = torch.from_numpy(self.shown[index])
        if self._augment is not None:
            draw = sample_seed(self._seed, self.epoch, index)
            picture, mask = varied((tv_tensors.Image(picture), tv_tensors.Mask(mask)), self._augment, draw)
        return {
            "picture": picture.as_subclass(torch.Tensor),
            "labels": mask.as_subclass(torch.Tensor).long(),
            "ingredient_labels": shown,
        }


@dataclass
class MaskCollator:
    """Batches for segmenters.

    Attributes:
        mean: channel means of the image processor.
        std: channel standard deviations of the image processor.
        masks: whether the model learns masks.
        ingredients: whether the model learns ingredients.
    """

    mean: Sequence[float]
    std: Sequence[float]
    masks: bool = True
    ingredients: bool = False

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return the batch that the model's `forward` takes."""
        batch = {"pixel_values": normalise([sample["picture"] for sample in samples], self.mean, self.std)}
        if self.masks:
            batch["labels"] = torch.stack([sample["labels"] for sample in samples])
        if self.ingredients:
            batch["ingredient_labels"] = torch.stack([sample["ingredient_labels"] for sample in samples])
        return batch


def training_samples(recipe: Recipe, data: Any, processor: FlavourProcessor) -> MaskSamples:
    """Return the training samples, varied as the recipe says."""
    given = recipe.data
    varying = given.crop_scale < 1 or given.flip or given.color_jitter > 0 or given.rotation > 0
    augment = None
    if varying:
        size = input_size(processor)
        augment = augmentation(size, given.crop_scale, given.flip, given.color_jitter, given.rotation)
    mapped = class_map(source_names(data.train.rows), data.names, given.label_level)
    margin = given.crop_scale < 1
    return MaskSamples(data.train, processor, mapped, len(data.names), augment, margin, recipe.training.seed)


def evaluation_samples(processor: FlavourProcessor, table: Table) -> MaskSamples:
    """Return samples of whole pictures, never varied; whoever evaluates maps the mask ids to the model's classes."""
    return MaskSamples(table, processor)


def collator(processor: FlavourProcessor, classes: int = 0, recipe: Recipe | None = None) -> MaskCollator:
    """Return the collator, with the labels that the recipe's model learns."""
    normal = processor.image_processor
    fields = {} if recipe is None else recipe.model.config
    named = bool(fields.get("ingredient_head")) or bool(recipe and recipe.model.init_segmenter)
    return MaskCollator(normal.image_mean, normal.image_std, fields.get("head") != "none", named)


def build(recipe: Recipe, data: Any) -> tuple[FlavourForSegmentation, FlavourProcessor]:
    """Return the segmenter and the processor of a recipe, ready for training.

    Raises:
        BadInputError: parts that do not fit together.
    """
    arguments = recipe.model
    if recipe.data.mixup_alpha > 0 or recipe.training.balanced_sampling or recipe.data.target_column:
        raise BadInputError("masks know neither mixup_alpha nor balanced_sampling nor target_column: leave them out")
    if arguments.modality != "image":
        raise BadInputError(f"a segmenter reads pictures alone, not {arguments.modality!r}; set modality: image")
    start = arguments.model_name_or_path or arguments.init_segmenter
    revision = arguments.model_revision or "main"
    try:
        processor = FlavourProcessor.from_pretrained(start, revision=revision) if start else make_processor(recipe)
        if arguments.model_name_or_path:
            model = FlavourForSegmentation.from_pretrained(start, revision=revision)
        elif arguments.init_segmenter:
            fields = {name: value for name, value in model_fields(recipe, data).items() if value is not None}
            model = FlavourForSegmentation.from_single_task(arguments.init_segmenter, revision, **fields)
        else:
            image = arguments.image_encoder or arguments.vision_config
            stride = (arguments.vision_config.get("model_args") or {}).get("output_stride")
            model = FlavourForSegmentation.from_parts(image=image, output_stride=stride, **model_fields(recipe, data))
        if arguments.init_image_encoder:
            model.load_image_encoder(arguments.init_image_encoder)
    except (TypeError, ValueError) as error:
        raise BadInputError(f"the model of this recipe cannot be built: {error}") from error
    return model, processor


def make_processor(recipe: Recipe) -> FlavourProcessor:
    """Return the processor of a new segmenter; it shrinks the whole picture to a square and crops nothing.

    Raises:
        BadInputError: the recipe names no picture part.
    """
    arguments = recipe.model
    image = arguments.image_encoder or arguments.vision_config
    if not image:
        raise BadInputError("a segmenter needs image_encoder (pretrained) or vision_config; name one")
    processor = FlavourProcessor.from_parts(None, image, arguments.image_size, arguments.max_length)
    size = input_size(processor)
    processor.image_processor.do_center_crop = False
    processor.image_processor.size = {"height": size, "width": size}
    return processor


def model_fields(recipe: Recipe, data: Any) -> dict[str, Any]:
    """Return the config's fields that follow from recipe and data."""
    arguments, names = recipe.model, list(data.names)
    source = source_names(data.train.rows)
    mapped = class_map(source, names, recipe.data.label_level)
    fields = {
        **arguments.config,
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
        "source_labels": source,
        "class_map": mapped,
        "freeze_image": arguments.freeze_image,
        "trainable_image_layers": arguments.trainable_image_layers,
    }
    if recipe.training.class_weights:
        fields["class_weights"] = pixel_weights(Masks(data.train, mapped), len(names))
    if recipe.training.prior_bias and (fields.get("ingredient_head") or arguments.init_segmenter):
        fields["ingredient_prior"] = class_prior(shown_classes(data.train.labels, mapped, len(names)), len(names) - 1)
    return fields


def pixel_weights(masks: Masks, classes: int) -> list[float]:
    """Return class weights in inverse proportion to the root of a class's pixels, with mean 1 over the pixels.

    The plain inverse would make rare classes hundreds of times heavier than the background.
    """
    counts = np.zeros(classes)
    for index in range(min(len(masks), WEIGHED_MASKS)):
        ids = masks[index].numpy()
        counts += np.bincount(ids[ids != UNKNOWN], minlength=classes)
    weights = 1 / np.sqrt(np.maximum(counts, 1))
    return (weights * counts.sum() / (weights * counts).sum()).tolist()
