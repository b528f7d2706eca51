"""Starting points of a model: parts named by folder or Hub id, or a whole checkpoint that is trained further.

A checkpoint keeps its weights, its tokenizer and its preprocessing. A contradicting option on the command line is
refused; a contradicting value in the configuration file is only printed, so that one configuration can continue models
of several sizes. Where the data has other labels than the checkpoint, the head alone starts anew.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.utils import cached_file

from dataset_builder.errors import BadInputError
from dataset_builder.messages import echo
from modeling_flavour.base_flavour import FlavourPreTrainedModel
from modeling_flavour.loading_flavour import load_checked
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.settings.arguments import Configuration, ModelArguments
from trainer_scripts.settings.configurations import configuration_names
from trainer_scripts.settings.options import options_of
from trainer_scripts.tasks.common.model_folder import load_config, load_processor, load_weights, model_folder

SOURCES = ("model_name_or_path", "text_encoder", "image_encoder", "init_image_encoder", "init_segmenter")

# Prefixes of folders: a missing folder is refused at once, without a request to the Hub.
FOLDERS = (".", "~", "/", "outputs/")
TOKENIZER_KINDS = {"WordLevel": "words", "WordPiece": "wordpiece"}
NAMED = 4
# Fields of a config that a new head is made by.
HEAD_FIELDS = ("id2label", "problem_type", "class_prior", "ingredient_prior")


@contextmanager
def building() -> Iterator[None]:
    """Turn errors of configs and backbones into bad input; timm raises RuntimeError for an unknown name.

    Raises:
        BadInputError: the model of a configuration cannot be built; the message gives the reason.
    """
    try:
        yield
    except BadInputError:
        raise
    except (TypeError, ValueError, RuntimeError, StrictDataclassError) as error:
        raise BadInputError(f"the model of this configuration cannot be built: {error}") from error


def open_sources(arguments: ModelArguments) -> dict[str, Any]:
    """Return the config of every checkpoint that the configuration names, by option.

    Raises:
        BadInputError: names the option, its value and why nothing can be loaded from there.
    """
    configs = {}
    options = options_of(arguments)
    for option in SOURCES:
        value, properties = getattr(arguments, option), options[option]
        if arguments.model_name_or_path:
            read = properties.checkpoint_has is None  # what it has is not loaded from elsewhere
        else:
            # A part that the model does not have is not fetched, such as the text encoder of an image model.
            read = not properties.modalities or arguments.modality in properties.modalities
        if not value or not read:
            continue
        # A Hub id has one slash at most, so that such a name can only be a folder that is missing.
        if not Path(value).exists() and (value.count("/") > 1 or value.startswith(FOLDERS)):
            name = Path(value).name
            first = f"; train it first: `train.py {name}`" if name in configuration_names() else ""
            raise BadInputError(
                f"{option}: there is no folder {value!r}; give a checkpoint's folder or a Hub id{first}"
            )
        # The revision belongs to a model of this package, never to a backbone.
        own = option in ("model_name_or_path", "init_segmenter")
        try:
            folder = model_folder(value, arguments.model_revision or "main" if own else "main")
            configs[option] = load_config(folder)
        except BadInputError as error:
            raise BadInputError(
                f"{option}: nothing can be loaded from {value!r}, neither as a folder nor from the Hub ({error})"
            ) from error
    return configs


@dataclass(frozen=True)
class Contradiction:
    """A setting that loaded weights do not follow.

    Attributes:
        option: name of the argument.
        name: the same, with the field of a mapping.
        wanted: its value in the configuration.
        kept: value of the checkpoint.
    """

    option: str
    name: str
    wanted: Any
    kept: Any

    def __str__(self) -> str:
        return f"{self.name} {self.wanted!r} (the checkpoint: {self.kept!r})"


def check_kind(configuration: Configuration, config: PreTrainedConfig, config_class: type[PreTrainedConfig]) -> None:
    """Raise BadInputError unless checkpoint and configuration have the same task and inputs."""
    source = configuration.model.model_name_or_path
    if not isinstance(config, config_class):
        pictures = f", or take its image part alone: --image_encoder {source}" if config.vision_config else ""
        raise BadInputError(
            f"model_name_or_path: {source} holds a {config.model_type}, which cannot be trained further in this task "
            f"(it needs a {config_class.model_type}); give another checkpoint or --task{pictures}"
        )
    modality = "fusion" if config.has_text and config.has_image else "text" if config.has_text else "image"
    if modality != configuration.model.modality:
        raise BadInputError(
            f"modality {configuration.model.modality!r} does not fit {source}, a model of modality {modality!r}; "
            f"give --modality {modality}"
        )


def other_labels(config: PreTrainedConfig, wanted: dict[str, Any]) -> str | None:
    """Return how the labels of the data differ from those of a checkpoint; None where they are the same."""
    if "id2label" not in wanted:
        return None
    kept, names = list((config.id2label or {}).values()), list(wanted["id2label"].values())
    if kept != names:
        missing = [name for name in names if name not in kept]
        extra = [name for name in kept if name not in names]
        shown = [f"only the data: {', '.join(missing[:NAMED])}"] if missing else []
        shown += [f"only the checkpoint: {', '.join(extra[:NAMED])}"] if extra else []
        return f"has {len(kept)} labels and the data {len(names)} ({'; '.join(shown) or 'in another order'})"
    problem = wanted.get("problem_type", config.problem_type)
    if config.problem_type != problem:
        return f"was made for {config.problem_type}, and the label column is for {problem}"
    return None


def continue_model(
    configuration: Configuration,
    config: PreTrainedConfig,
    model_class: type[FlavourPreTrainedModel],
    fields: Callable[[FlavourProcessor], dict[str, Any]],
    places: int | None = None,
) -> tuple[Any, FlavourProcessor]:
    """Return the model and the processor of a checkpoint, ready for further training.

    Args:
        configuration: of the run.
        config: that of the checkpoint; its fields are changed.
        model_class: class of the checkpoint.
        fields: processor -> fields of the config that a new model of the configuration would get.
        places: number of classes of the masks that teach it, None where none do.

    Raises:
        BadInputError: a value that the config refuses, or a setting of the command line that contradicts the weights.
    """
    arguments = configuration.model
    revision = arguments.model_revision or "main"
    with building():
        folder = model_folder(str(arguments.model_name_or_path), revision)
        processor = load_processor(folder)
    wanted = fields(processor)
    difference = other_labels(config, wanted)
    _settle(configuration, config, processor, wanted, places, difference is not None)
    with building():
        # The settled config is passed on, so that dropout and losses are those of this run.
        if difference is None:
            model: Any = load_weights(model_class, folder, config)
        else:
            model = with_new_head(model_class, config, folder)
            if configuration.training.process_index == 0:
                echo(f"{arguments.model_name_or_path} {difference}: its body is kept, its head starts anew")
        if arguments.init_image_encoder:
            model.load_image_encoder(arguments.init_image_encoder)
    return model, processor


def with_new_head(
    model_class: type[FlavourPreTrainedModel], config: PreTrainedConfig, folder: Path
) -> FlavourPreTrainedModel:
    """Return the model of a config whose labels differ from the checkpoint's: all of its weights but those per label.

    Weights per label are left out by name, because another label set may have as many labels.
    """
    donor = load_weights(model_class, folder)
    model = model_class(config).to(donor.dtype)
    heads = model_class.label_parameters
    body = {name: value for name, value in donor.state_dict().items() if not name.startswith(heads)}
    load_checked(model, body, str(folder), allowed_missing=heads)
    return model


def _settle(
    configuration: Configuration,
    config: PreTrainedConfig,
    processor: FlavourProcessor,
    wanted: dict[str, Any],
    places: int | None,
    new_head: bool,
) -> None:
    """Apply the settings that shape training only to a checkpoint's config, and refuse or print the others."""
    if places is not None and config.num_place_labels != places:
        has = f"distinguishes {config.num_place_labels} classes" if config.num_place_labels else "has no head for them"
        raise BadInputError(
            f"place_loss_weight: the masks show {places} classes at each place, and "
            f"{configuration.model.model_name_or_path} {has}; leave place_loss_weight out of config"
        )
    # An option of the command line is meant for this run, while a configuration serves many checkpoints.
    refused: list[Contradiction] = []
    printed: list[Contradiction] = []
    for each in _contradictions(configuration, config, processor, wanted):
        if new_head and each.option == "prior_bias":  # the bias of a new head starts as that of a new model
            continue
        (refused if each.option in configuration.given else printed).append(each)
    if refused:
        raise BadInputError(
            f"a checkpoint keeps its weights, tokenizer and pictures: {'; '.join(map(str, refused[:NAMED]))}; leave "
            "out such arguments, or leave out model_name_or_path to train a new model"
        )
    if printed and configuration.training.process_index == 0:
        echo(f"kept as in the checkpoint, not as in the configuration: {'; '.join(map(str, printed))}")
    with building():
        applied = [name for name in wanted if name in _config_fields(configuration)]
        # The labels come first: setting them empties the fields that describe the former ones.
        for name in [*(name for name in HEAD_FIELDS if new_head and name in wanted), *applied]:
            setattr(config, name, wanted[name])
        # Values that were set one by one have passed no cross-field check yet.
        config.validate()


def input_size(processor: FlavourProcessor) -> int:
    """Return the side of the square picture that the model reads."""
    sizes = processor.image_processor.crop_size or processor.image_processor.size
    return int(sizes["height"])


def _contradictions(
    configuration: Configuration, config: PreTrainedConfig, processor: FlavourProcessor, wanted: dict[str, Any]
) -> list[Contradiction]:
    arguments, values = configuration.model, configuration.values
    applied = _config_fields(configuration)
    contradictions: list[Contradiction] = []
    for name in arguments.config:
        if not hasattr(config, name):
            raise BadInputError(f"config: {type(config).__name__} has no field {name!r}")
        # Fields that shape training only are applied to the checkpoint, and cannot contradict it.
        if name not in applied and name in wanted:
            contradictions.append(Contradiction("config", f"config.{name}", wanted[name], getattr(config, name)))
    for option in ("text_config", "vision_config"):
        part = getattr(config, option, None)
        for name, value in getattr(arguments, option).items():
            if part is not None:
                contradictions.append(Contradiction(option, f"{option}.{name}", value, getattr(part, name, None)))
    contradictions += _of_processor(arguments, processor)
    for option, properties in configuration.options.items():
        # A default contradicts nothing: only options of the command line count here.
        if properties.checkpoint_has and option in configuration.given and values[option]:
            contradictions.append(Contradiction(option, option, values[option], properties.checkpoint_has))
    return [each for each in contradictions if _plain(each.wanted) != _plain(each.kept)]


def _config_fields(configuration: Configuration) -> set[str]:
    """Return the fields of a model's config that shape training but no weight; a checkpoint gets them anew."""
    return {name for properties in configuration.options.values() for name in properties.config_fields}


def _of_processor(arguments: ModelArguments, processor: FlavourProcessor) -> list[Contradiction]:
    """Return the settings of texts and pictures beside those of the checkpoint's processor."""
    contradictions = []
    pictures, tokenizer = processor.image_processor, processor.tokenizer
    if pictures is not None and arguments.image_size is not None:
        contradictions.append(Contradiction("image_size", "image_size", arguments.image_size, input_size(processor)))
    if pictures is not None and arguments.image_fit == "squash":
        fit = "crop" if pictures.do_center_crop else "squash"
        contradictions.append(Contradiction("image_fit", "image_fit", "squash", fit))
    if tokenizer is not None:
        contradictions.append(Contradiction("max_length", "max_length", arguments.max_length, processor.max_length))
        letters = (arguments.letters_only, processor.letters_only)
        contradictions.append(Contradiction("letters_only", "letters_only", *letters))
        kind = type(tokenizer.backend_tokenizer.model).__name__
        if arguments.tokenizer is not None:
            wanted = (arguments.tokenizer, TOKENIZER_KINDS.get(kind, kind))
            contradictions.append(Contradiction("tokenizer", "tokenizer", *wanted))
            # The vocabulary size is an upper limit, so that a smaller vocabulary is no contradiction.
            limits = (arguments.vocabulary_size, max(len(tokenizer), arguments.vocabulary_size))
            contradictions.append(Contradiction("vocabulary_size", "vocabulary_size", *limits))
    return contradictions


def _plain(value: object) -> object:
    """Return a value with lists for tuples and plain mappings."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def file_of_model(source: str | Path, name: str, revision: str | None = None) -> Path | None:
    """Return a file beside a model, from its folder or from the cache of the Hub; None where the model has none.

    Raises:
        OSError: the Hub has no such model or revision, or does not answer.
    """
    path = cached_file(source, name, revision=revision, _raise_exceptions_for_missing_entries=False)
    return None if path is None else Path(path)
