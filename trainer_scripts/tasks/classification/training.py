"""Models, samples and collators of the two classification tasks."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedConfig

from dataset_builder.errors import BadInputError
from modeling_flavour.configuration_flavour import FlavourConfig
from modeling_flavour.modeling_flavour import FlavourForClassification
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.masks import source_names
from trainer_scripts.data.pictures import augmentation, evaluation_picture, training_picture, varies
from trainer_scripts.data.place_samples import PlaceSamples, learns_places, place_names
from trainer_scripts.data.samples import ClassificationCollator, Samples, class_prior, class_weights
from trainer_scripts.data.table import Table
from trainer_scripts.data.tokenizer import train_tokenizer
from trainer_scripts.settings.arguments import Configuration, ModelArguments
from trainer_scripts.tasks.common.smaller_text import make_smaller
from trainer_scripts.tasks.common.starting_points import building, check_kind, continue_model, input_size, open_sources
from trainer_scripts.tasks.common.task import TrainingData

PROBLEM_TYPES = {1: "single_label_classification", 2: "multi_label_classification"}


def build(configuration: Configuration, data: TrainingData) -> tuple[FlavourForClassification, FlavourProcessor]:
    """Return the model and the processor of a configuration, ready for training.

    Raises:
        BadInputError: parts that do not fit together.
    """
    arguments = configuration.model
    sources = open_sources(arguments)
    if arguments.model_name_or_path:
        config = sources["model_name_or_path"]
        check_kind(configuration, config, FlavourConfig)
        places = len(place_names(configuration, data.train)) if learns_places(configuration) else None
        fields = partial(_config_fields, configuration, data)
        model, processor = continue_model(configuration, config, FlavourForClassification, fields, places)
        make_smaller(configuration, model, processor, data.train.texts or [])
        return model, processor
    with building():
        processor = make_processor(arguments, data.train.texts)
        model = FlavourForClassification.from_parts(
            text=_text_part(arguments, processor),
            image=None if arguments.modality == "text" else arguments.image_encoder or arguments.vision_config,
            num_place_labels=_place_labels(configuration, data.train, sources.get("init_image_encoder")),
            **_config_fields(configuration, data, processor),
        )
        # A configuration may describe both encoders and be run with one; the command line means what it says.
        starts = arguments.modality != "text" or "init_image_encoder" in configuration.given
        if arguments.init_image_encoder and starts:
            model.load_image_encoder(arguments.init_image_encoder)
    make_smaller(configuration, model, processor, data.train.texts or [])
    return model, processor


def _place_labels(configuration: Configuration, train: Table, donor: PreTrainedConfig | None) -> int:
    """Return the number of classes at each place: those of the masks, or where none teach, those that a donor knows."""
    if configuration.model.modality == "text":
        return 0
    pools = configuration.model.config.get("image_pooling") == "places" and not learns_places(configuration)
    return (getattr(donor, "num_place_labels", 0) if pools else 0) or len(place_names(configuration, train))


def make_processor(arguments: ModelArguments, texts: Sequence[str] | None) -> FlavourProcessor:
    """Return the processor of a new model; a tokenizer of its own is trained on `texts`, the training split's.

    Raises:
        BadInputError: no tokenizer or no picture part is named for a part of the model.
    """
    text: Any = None
    if arguments.modality != "image":
        if arguments.tokenizer is not None:
            text = train_tokenizer(texts or [], arguments.tokenizer, arguments.vocabulary_size, arguments.max_length)
        elif arguments.text_encoder is not None:
            text = arguments.text_encoder
        else:
            raise BadInputError("a text model needs text_encoder (pretrained) or tokenizer (trained here); name one")
    image: Any = None
    if arguments.modality != "text":
        image = arguments.image_encoder or arguments.vision_config
        if not image:
            raise BadInputError("a picture model needs image_encoder (pretrained) or vision_config; name one")
    processor = FlavourProcessor.from_parts(text, image, arguments.image_size, arguments.max_length)
    processor.letters_only = arguments.letters_only
    if image is not None and arguments.image_fit == "squash":
        squash(processor)
    return processor


def squash(processor: FlavourProcessor) -> None:
    """Let a processor shrink the whole picture to its square in place of cropping the middle."""
    side = input_size(processor)
    processor.image_processor.size = {"height": side, "width": side}
    processor.image_processor.do_center_crop = False
    processor.image_processor.crop_size = None


def _text_part(arguments: ModelArguments, processor: FlavourProcessor) -> Any:
    # Word vectors that are learned from scratch take the place of a text encoder.
    if arguments.modality == "image" or "word_embedding_size" in arguments.config:
        return None
    if arguments.text_encoder:
        return arguments.text_encoder
    # A tokenizer that was trained here may have fewer entries than the configuration allows.
    return {**arguments.text_config, "vocab_size": len(processor.tokenizer)}


def _config_fields(configuration: Configuration, data: TrainingData, processor: FlavourProcessor) -> dict[str, Any]:
    arguments, labels, classes = configuration.model, data.train.labels, len(data.names)
    # One configuration serves all modalities, so fields of an input that is absent are dropped.
    fields = dict(arguments.config)
    if arguments.modality == "text":
        fields.pop("image_pooling", None)
    if "word_embedding_size" in fields and arguments.modality != "image":
        fields["word_vocab_size"] = len(processor.tokenizer)
    elif arguments.modality == "image":
        fields.pop("word_embedding_size", None)
    if arguments.modality != "image":
        fields["pad_token_id"] = processor.tokenizer.pad_token_id
    return {
        **fields,
        "id2label": dict(enumerate(data.names)),
        "label2id": {name: index for index, name in enumerate(data.names)},
        "problem_type": PROBLEM_TYPES[labels.ndim],
        "freeze_text": arguments.freeze_text,
        "freeze_image": arguments.freeze_image,
        "trainable_image_layers": arguments.trainable_image_layers,
        "label_smoothing": configuration.training.label_smoothing_factor,
        "class_weights": class_weights(labels, classes) if configuration.training.class_weights else None,
        "class_prior": class_prior(labels, classes) if configuration.training.prior_bias else None,
    }


def training_samples(configuration: Configuration, data: TrainingData, processor: FlavourProcessor) -> Samples:
    """Return the training samples, pictures with the augmentation of the configuration."""
    arguments, places = configuration.data, learns_places(configuration)
    if arguments.class_crops and not places:
        raise BadInputError("class_crops centres crops on the classes of masks; it needs place_loss_weight in config")
    seed, word_dropout = configuration.training.seed, arguments.word_dropout
    varied = varies(arguments) or places or arguments.crop_size is not None
    if processor.image_processor is None or not varied:
        prepare = _evaluation_prepare(processor)
        return Samples(data.train, processor, prepare, seed=seed, word_dropout=word_dropout)
    size = arguments.crop_size or input_size(processor)
    augment = augmentation(arguments, size)
    # A mask covers its whole picture, so that one must not have lost its borders before.
    whole = arguments.crop_scale < 1 or places or arguments.crop_size is not None
    prepare = training_picture(size) if whole else _evaluation_prepare(processor)
    if not places:
        return Samples(data.train, processor, prepare, augment, seed, word_dropout)
    labels_are_classes = data.names == source_names(data.train.rows)
    return PlaceSamples(data.train, processor, prepare, augment, seed, word_dropout, labels_are_classes)


def evaluation_samples(processor: FlavourProcessor, table: Table) -> Samples:
    """Return samples as the processor itself would make them, never varied."""
    return Samples(table, processor, _evaluation_prepare(processor))


def _evaluation_prepare(processor: FlavourProcessor) -> Any:
    return evaluation_picture(processor.image_processor) if processor.image_processor is not None else None


def collator(
    processor: FlavourProcessor, classes: int, configuration: Configuration | None = None
) -> ClassificationCollator:
    """Return the collator; with a configuration also its soft targets and mixup, for training."""
    settings: dict[str, Any] = {"classes": classes}
    if processor.tokenizer is not None:
        settings["pad_token_id"] = processor.tokenizer.pad_token_id
    if processor.image_processor is not None:
        settings["mean"] = processor.image_processor.image_mean
        settings["std"] = processor.image_processor.image_std
    # Evaluation compares with the labels themselves: no mixup and no soft targets.
    if configuration is not None:
        settings["mixup"] = configuration.data.mixup_alpha
        settings["target_share"] = configuration.data.target_share if configuration.data.target_column else 0.0
        if configuration.training.teacher is not None:
            settings["target_share"] = 1.0  # targets with a teacher's part hold the label's part too
    return ClassificationCollator(**settings)
