"""Models, samples and batches of the two tasks on masks: segmentation, and naming the ingredients of a picture."""

from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from dataset_builder.columns import UNKNOWN
from dataset_builder.errors import BadInputError
from dataset_builder.messages import echo
from modeling_flavour.configuration_flavour_segmentation import FlavourSegmentationConfig
from modeling_flavour.modeling_flavour_segmentation import FlavourForSegmentation
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.masks import Masks, source_names
from trainer_scripts.data.pictures import augmentation, training_picture, varies
from trainer_scripts.data.samples import class_prior
from trainer_scripts.data.table import Table
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.tasks.common.model_folder import load_processor, model_folder
from trainer_scripts.tasks.common.starting_points import building, check_kind, continue_model, input_size, open_sources
from trainer_scripts.tasks.common.task import TrainingData
from trainer_scripts.tasks.segmentation.classes import class_map, shown_classes
from trainer_scripts.tasks.segmentation.samples import MaskCollator, MaskSamples

WEIGHED_MASKS = 500


def training_samples(configuration: Configuration, data: TrainingData, processor: FlavourProcessor) -> MaskSamples:
    """Return the training samples, with the augmentation of the configuration."""
    given = configuration.data
    augment = None
    if varies(given) or given.crop_size is not None:
        size = given.crop_size or input_size(processor)
        if given.mask_stride < 1 or size % given.mask_stride:
            raise BadInputError(f"mask_stride {given.mask_stride} does not divide pictures of {size} pixels")
        augment = augmentation(given, size)
    mapped = class_map(source_names(data.train.rows), data.names, given.label_level)
    # Crops are taken from the picture as it is; otherwise it is shrunk as in evaluation.
    prepare = training_picture(input_size(processor)) if given.crop_scale < 1 else None
    return MaskSamples(data.train, processor, mapped, len(data.names), augment, prepare, configuration.training.seed)


def evaluation_samples(processor: FlavourProcessor, table: Table) -> MaskSamples:
    """Return samples of whole pictures, never augmented; the caller maps mask ids to the classes of the model."""
    return MaskSamples(table, processor)


def collator(processor: FlavourProcessor, classes: int = 0, configuration: Configuration | None = None) -> MaskCollator:
    """Return the collator, with the labels that the configuration's model learns."""
    normal = processor.image_processor
    fields = {} if configuration is None else configuration.model.config
    named = bool(fields.get("ingredient_head")) or bool(configuration and configuration.model.init_segmenter)
    stride = 1 if configuration is None else configuration.data.mask_stride
    return MaskCollator(normal.image_mean, normal.image_std, fields.get("head") != "none", named, stride)


def build(configuration: Configuration, data: TrainingData) -> tuple[FlavourForSegmentation, FlavourProcessor]:
    """Return the segmenter and the processor of a configuration, ready for training.

    Raises:
        BadInputError: parts that do not fit together.
    """
    arguments = configuration.model
    if (
        configuration.data.mixup_alpha > 0
        or configuration.training.balanced_sampling
        or configuration.data.target_column
    ):
        raise BadInputError(
            "tasks on masks support neither mixup_alpha nor balanced_sampling nor target_column; leave them out"
        )
    if arguments.modality != "image":
        raise BadInputError(f"a segmenter reads pictures alone, not {arguments.modality!r}; set modality: image")
    sources, fields = open_sources(arguments), model_fields(configuration, data)
    if arguments.model_name_or_path:
        config = sources["model_name_or_path"]
        check_kind(configuration, config, FlavourSegmentationConfig)
        check_heads(configuration, config)
        return continue_model(configuration, config, FlavourForSegmentation, lambda _: fields)
    revision = arguments.model_revision or "main"
    leave_out_other_places(configuration, fields, sources.get("init_image_encoder"))
    with building():
        if arguments.init_segmenter:
            processor = load_processor(model_folder(arguments.init_segmenter, revision))
            # A field without a value must not overwrite that of the checkpoint.
            fields = {name: value for name, value in fields.items() if value is not None}
            model = FlavourForSegmentation.from_single_task(arguments.init_segmenter, revision, **fields)
        else:
            processor = make_processor(configuration)
            image = arguments.image_encoder or arguments.vision_config
            stride = (arguments.vision_config.get("model_args") or {}).get("output_stride")
            model = FlavourForSegmentation.from_parts(image=image, output_stride=stride, **fields)
        if arguments.init_image_encoder:
            model.load_image_encoder(arguments.init_image_encoder)
    return model, processor


def leave_out_other_places(
    configuration: Configuration, fields: dict[str, Any], donor: PreTrainedConfig | None
) -> None:
    """Take the head over places out of the config's fields where the encoder to start from knows other classes."""
    known, classes = getattr(donor, "num_place_labels", 0), len(fields["id2label"])
    if fields.get("place_scores") and donor is not None and known != classes:
        fields["place_scores"] = False
        if configuration.training.process_index == 0:
            start = configuration.model.init_image_encoder
            echo(f"place_scores left out: {start} knows {known} classes at each place, the data {classes}")


def check_heads(configuration: Configuration, config: PreTrainedConfig) -> None:
    """Raise BadInputError unless a checkpoint has the heads that the configuration gives labels to."""
    fields = configuration.model.config
    wanted = (fields.get("head") != "none", bool(fields.get("ingredient_head") or configuration.model.init_segmenter))
    has = (config.head != "none", config.ingredient_head)
    if wanted != has:
        heads = [
            f"{'a' if each[0] else 'no'} mask head and {'an' if each[1] else 'no'} ingredient head"
            for each in (wanted, has)
        ]
        raise BadInputError(
            f"the configuration trains a model with {heads[0]}, and {configuration.model.model_name_or_path} has "
            f"{heads[1]}; choose the configuration of that checkpoint"
        )


def make_processor(configuration: Configuration) -> FlavourProcessor:
    """Return the processor of a new segmenter; it shrinks the whole picture to a square and crops nothing.

    Raises:
        BadInputError: the configuration names no picture part.
    """
    arguments = configuration.model
    image = arguments.image_encoder or arguments.vision_config
    if not image:
        raise BadInputError("a segmenter needs image_encoder (pretrained) or vision_config; name one")
    processor = FlavourProcessor.from_parts(None, image, arguments.image_size, arguments.max_length)
    size = input_size(processor)
    processor.image_processor.do_center_crop = False
    processor.image_processor.size = {"height": size, "width": size}
    return processor


def model_fields(configuration: Configuration, data: TrainingData) -> dict[str, Any]:
    """Return the config's fields that follow from configuration and data."""
    arguments, names = configuration.model, list(data.names)
    source = source_names(data.train.rows)
    mapped = class_map(source, names, configuration.data.label_level)
    fields = {
        "class_weights": None,
        **arguments.config,
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
        "source_labels": source,
        "class_map": mapped,
        "freeze_image": arguments.freeze_image,
        "trainable_image_layers": arguments.trainable_image_layers,
    }
    if configuration.training.class_weights:
        fields["class_weights"] = pixel_weights(Masks(data.train, mapped), len(names))
    named = bool(fields.get("ingredient_head") or arguments.init_segmenter)
    if configuration.training.prior_bias and named and fields.get("ingredients_from") != "masks":
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
    # Scaled so that the mean loss per pixel, and with it the learning rate, keeps its size.
    weights = 1 / np.sqrt(np.maximum(counts, 1))
    return (weights * counts.sum() / (weights * counts).sum()).tolist()
