"""Models, samples, batches and training of the captioning task."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import datasets
import numpy as np
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from dataset_builder.columns import BACKGROUND_NAME, INGREDIENT_LABELS
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.captions import plural
from modeling_flavour.configuration_flavour_captioning import FlavourCaptionerConfig
from modeling_flavour.modeling_flavour_captioning import (
    FlavourCaptioner,
    FlavourForMergeCaptioning,
    FlavourForTransformerCaptioning,
)
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.masks import source_names
from trainer_scripts.data.pictures import augmentation, evaluation_picture, training_picture, varies
from trainer_scripts.data.place_samples import learns_places, place_names
from trainer_scripts.data.table import Table
from trainer_scripts.settings.arguments import Configuration, ModelArguments
from trainer_scripts.tasks.captioning.samples import CaptionCollator, CaptionSamples
from trainer_scripts.tasks.captioning.text import train_caption_tokenizer
from trainer_scripts.tasks.common.starting_points import building, check_kind, continue_model, input_size, open_sources
from trainer_scripts.tasks.common.task import TrainingData

ARCHITECTURES: dict[str, type[FlavourCaptioner]] = {
    "transformer": FlavourForTransformerCaptioning,
    "merge": FlavourForMergeCaptioning,
}


def read_captions(
    rows: datasets.Dataset, column: str, names: Sequence[str], ids: Sequence[str], where: str
) -> np.ndarray:
    """Return the captions of each row as an array of tuples; one caption per row may also be given as a plain string.

    Raises:
        BadInputError: a row without a caption, or a column that holds no text.
    """
    read = np.empty(len(ids), dtype=object)
    for position, value in enumerate(rows[column]):
        captions = (value,) if isinstance(value, str) else tuple(value or ())
        if not all(isinstance(caption, str) for caption in captions):
            raise BadInputError(f"{where}: column {column!r} holds no sentences; name the one with the captions")
        captions = tuple(caption.strip() for caption in captions if caption.strip())
        if not captions:
            raise BadInputError(f"{where}, row {ids[position]}: {column} is empty; remove the row")
        read[position] = captions
    return read


def build(configuration: Configuration, data: TrainingData) -> tuple[FlavourCaptioner, FlavourProcessor]:
    """Return the captioner and the processor of a configuration, ready for training.

    Raises:
        BadInputError: parts that do not fit together.
    """
    arguments, training = configuration.model, configuration.training
    if training.self_critical_draws == 1:
        raise BadInputError("self_critical_draws compares the captions drawn for a picture; give 2 or more, or 0")
    if configuration.data.quarter_turns and training.self_critical_draws:
        raise BadInputError("self_critical_draws judges captions by all of a picture's; leave out quarter_turns")
    if configuration.data.class_crops:
        raise BadInputError("captions describe whole pictures: leave out class_crops, which shows one thing of each")
    if training.balanced_sampling or training.class_weights or configuration.data.mixup_alpha > 0:
        raise BadInputError("captions have no classes: leave out balanced_sampling, class_weights and mixup_alpha")
    sources = open_sources(arguments)
    if arguments.model_name_or_path:
        config = sources["model_name_or_path"]
        check_kind(configuration, config, FlavourCaptionerConfig)
        # Batches of drawn captions carry no masks.
        teaches = learns_places(configuration) and not training.self_critical_draws
        places = len(place_names(configuration, data.train)) if teaches else None
        fields = partial(config_fields, configuration)
        model, processor = continue_model(configuration, config, ARCHITECTURES[config.decoder_type], fields, places)
    else:
        with building():
            processor = make_processor(arguments, [caption for row in data.train.labels for caption in row])
            names = _places(configuration, data.train, sources.get("init_image_encoder"))
            model = new_model(configuration, processor, names)
    set_generation(model, processor, arguments)
    return model, processor


def _places(configuration: Configuration, train: Table, donor: PreTrainedConfig | None) -> list[str]:
    """Return the classes at each place: those of the masks, where they teach or the donor knows as many."""
    if learns_places(configuration) or INGREDIENT_LABELS not in train.rows.column_names:
        return place_names(configuration, train)
    names = source_names(train.rows)
    return names if getattr(donor, "num_place_labels", 0) == len(names) else []


def make_processor(arguments: ModelArguments, captions: Sequence[str]) -> FlavourProcessor:
    """Return the processor of a new captioner, its tokenizer trained on `captions`, the training split's.

    Raises:
        BadInputError: the configuration names no picture part, or names an input that captioners do not read.
    """
    image = arguments.image_encoder or arguments.vision_config
    if not image:
        raise BadInputError("a captioner needs image_encoder (pretrained) or vision_config; name one")
    if arguments.modality != "image":
        raise BadInputError(f"a captioner reads pictures alone, not {arguments.modality!r}; set modality: image")
    kind = arguments.tokenizer or "wordpiece"
    tokenizer = train_caption_tokenizer(captions, kind, arguments.vocabulary_size, arguments.max_length)
    return FlavourProcessor.from_parts(tokenizer, image, arguments.image_size, arguments.max_length)


def new_model(
    configuration: Configuration, processor: FlavourProcessor, places: Sequence[str] = ()
) -> FlavourCaptioner:
    """Return a captioner with a fresh decoder for the tokenizer of the processor."""
    arguments, tokenizer = configuration.model, processor.tokenizer
    kind = arguments.config.get("decoder_type", "transformer")
    if kind not in ARCHITECTURES:
        raise ValueError(f"decoder_type {kind!r} is none of {', '.join(ARCHITECTURES)}")
    model = ARCHITECTURES[kind].from_parts(
        image=arguments.image_encoder or arguments.vision_config,
        **{"num_place_labels": len(places), **config_fields(configuration, processor)},
    )
    # Masks teach which classes are seen, and the decoder reads them as the words that name them.
    if model.seen_words is not None:
        model.seen_words.name([name_tokens(name, tokenizer) for name in places])
    if arguments.init_image_encoder:
        model.load_image_encoder(arguments.init_image_encoder)
    return model


def config_fields(configuration: Configuration, processor: FlavourProcessor) -> dict[str, Any]:
    """Return the config's fields that follow from the configuration and the tokenizer."""
    arguments, tokenizer = configuration.model, processor.tokenizer
    return {
        "max_position_embeddings": arguments.max_length,
        "label_smoothing": configuration.training.label_smoothing_factor,
        "freeze_image": arguments.freeze_image,
        "trainable_image_layers": arguments.trainable_image_layers,
        # The fields of the tokenizer stand behind those of the configuration, which cannot change them.
        **arguments.config,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def name_tokens(name: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that may name a class of the masks, one or many of it; none for the background."""
    if name == BACKGROUND_NAME:
        return []
    # The unknown token would stand for every rare class at once.
    ids = tokenizer([name, plural(name)], add_special_tokens=False)["input_ids"]
    return sorted({token for each in ids for token in each} - {tokenizer.unk_token_id})


def set_generation(model: FlavourCaptioner, processor: FlavourProcessor, arguments: ModelArguments) -> None:
    """Set the decoding of the model: no special token inside a caption, and the settings of `generation`.

    Raises:
        BadInputError: `generation` holds a setting that `generate` does not know.
    """
    config, tokenizer = model.config, processor.tokenizer
    known = set(GenerationConfig().to_dict())
    unknown = [name for name in arguments.generation if name not in known]
    if unknown:
        raise BadInputError(
            f"generation: generate() has no setting {unknown[0]!r}; see GenerationConfig of transformers"
        )
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        # In training only the begin token comes before a caption, and none of these is part of one.
        suppress_tokens=[tokenizer.unk_token_id, config.pad_token_id, config.bos_token_id],
        **{"max_new_tokens": processor.max_length - 1, "use_cache": True, **arguments.generation},
    )


def training_samples(configuration: Configuration, data: TrainingData, processor: FlavourProcessor) -> CaptionSamples:
    """Return the varied samples of the training split."""
    arguments, size = configuration.data, configuration.data.crop_size or input_size(processor)
    # A crop needs the whole picture; otherwise training reads pictures as evaluation does.
    cropped = arguments.crop_scale < 1 or arguments.crop_size is not None
    # The samples flip and turn by themselves, as it depends on the caption whether a picture may be.
    still = replace(arguments, flip=False, quarter_turns=False)
    return CaptionSamples(
        data.train,
        processor,
        training_picture(size) if cropped else evaluation_picture(processor.image_processor),
        augmentation(still, size) if cropped or varies(still) else None,
        flip=arguments.flip,
        turn=arguments.quarter_turns,
        every_caption=arguments.captions_per_picture == "all",
        first_share=arguments.first_caption_share,
        masks=learns_places(configuration) and not configuration.training.self_critical_draws,
        numbered=configuration.training.self_critical_draws > 0,
        seed=configuration.training.seed,
    )


def evaluation_samples(processor: FlavourProcessor, table: Table) -> CaptionSamples:
    """Return samples whose pictures are as the processor itself makes them, never varied."""
    return CaptionSamples(table, processor, evaluation_picture(processor.image_processor))


def collator(
    processor: FlavourProcessor, classes: int = 0, configuration: Configuration | None = None
) -> CaptionCollator:
    """Return the collator."""
    return CaptionCollator(processor.image_processor.image_mean, processor.image_processor.image_std)
