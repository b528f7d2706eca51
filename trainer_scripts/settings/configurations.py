"""From a command line to a run: configuration files, and overrides of their settings."""

import argparse
import copy
import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_type_hints

import yaml
from transformers import HfArgumentParser

from dataset_builder.boundaries import outside, parse_yaml, read_text
from dataset_builder.errors import BadInputError
from dataset_builder.kinds import check_kind
from dataset_builder.messages import echo, shown
from trainer_scripts.settings.arguments import PREFIX, Configuration, DataArguments, JsonMapping, ModelArguments
from trainer_scripts.settings.options import OPTION, options_of
from trainer_scripts.settings.train_help import CONFIGURATIONS, asks_for_help, configuration_names, help_page
from trainer_scripts.settings.training_arguments import TrainingArguments
from trainer_scripts.settings.training_options import TrainingOptions

ARGUMENT_CLASSES: tuple[Any, ...] = (ModelArguments, DataArguments, TrainingArguments)
MOST_BASES = 20
NOTHING = ("none", "null")
TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
FALSE = tuple(word for word, value in TRUTH.items() if not value)
DEFAULT_CONFIGURATION = "default"


class _Parser(HfArgumentParser):
    """The parser of argument dataclasses; wrong values raise instead of printing the usage.

    `none` takes an optional setting of ours back, such as one of the configuration's.
    """

    def __init__(self, classes: Sequence[Any], **settings: Any):
        self._options = options_of(*classes)
        # `none` is a word for other options, such as --report_to of the Trainer.
        ours = [item for part in classes for item in dataclasses.fields(part) if OPTION in item.metadata]
        self._optional = {item.name for item in ours if NoneType in get_args(item.type)}
        super().__init__(classes, **settings)

    def _parse_dataclass_field(self, parser: Any, field: Any) -> None:  # type: ignore[override]
        # A copy, because the parent changes the type of the field and gives all of its metadata to argparse.
        shown = copy.copy(field)
        shown.metadata = {"help": field.metadata.get("help")}
        choices = self._options[field.name].choices
        if choices:  # the parent knows choices by their type only
            shown.type = Literal[choices]
        super()._parse_dataclass_field(parser, shown)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        word = arg_string.lower()
        if isinstance(action.const, bool):  # an option that is true or false; the parent knows neither on nor off
            arg_string = str(TRUTH.get(word, arg_string))
        elif action.dest.endswith("_strategy"):
            arg_string = "no" if word in (*NOTHING, *FALSE) else word  # as the Trainer calls it
        elif action.dest == "report_to" and word in FALSE:
            arg_string = "none"
        optional = action.dest in self._optional and action.nargs is None
        return None if optional and arg_string.lower() in NOTHING else super()._get_value(action, arg_string)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if value is not None:  # None is no choice of a Literal, and allowed where `_get_value` returned it
            super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        raise BadInputError(f"{message}; `--help` lists all arguments")


def configuration_path(name: str) -> Path:
    """Return the file of a configuration given as a path, or by the name of one that comes with the package."""
    for path in (Path(name), CONFIGURATIONS / name, CONFIGURATIONS / f"{name}.yaml"):
        if path.is_file():
            return path
    close = difflib.get_close_matches(Path(name).stem, configuration_names(), n=3, cutoff=0.4) or configuration_names()
    raise BadInputError(f"there is no configuration {name!r}; give a YAML file or one of {', '.join(close)}")


def read_configuration(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the settings of a configuration file; `base` names another one that it starts from.

    A base is a file beside this one, or one of the configurations that come with the package.

    Raises:
        BadInputError: it is no YAML mapping of names, or a base does not exist or leads back to it.
    """
    advice = "give a YAML file of `name: value` lines"
    text = read_text(path, advice)
    settings = parse_yaml(text, str(path), advice) or {}
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise BadInputError(f"{path} must hold `name: value` lines, with a word as each name")
    settings |= _words_for_truth(text, path)
    # Settings of the file itself take precedence over those of its base.
    base = settings.pop("base", None)
    if base is None:
        return settings
    names = [folder / f"{base}{suffix}" for folder in (path.parent, CONFIGURATIONS) for suffix in ("", ".yaml")]
    present = [name for name in names if name.is_file()]
    # A file may have the name of the shipped one that it starts from.
    others = [name for name in present if name.resolve() != path.resolve()]
    if not present:
        near = difflib.get_close_matches(str(base), configuration_names(), n=3) or configuration_names()
        raise BadInputError(
            f"{path}: base {shown(base)} is neither a file beside it nor a configuration of the package; give one of "
            f"{', '.join(near)}"
        )
    if not others or len(above) == MOST_BASES or others[0].resolve() in above:
        raise BadInputError(f"{path}: base {shown(base)} leads back to a file before it; name another one")
    return {**read_configuration(others[0], (*above, path.resolve())), **settings}


def _words_for_truth(text: str, path: Path) -> dict[str, str]:
    """Return the settings that are written yes, no, on or off, as these words: YAML 1.1 reads them as true and false.

    `eval_strategy: no` means the word; an option that is true or false takes the words too.

    Raises:
        BadInputError: a setting is given twice, of which YAML would take the last one without a word.
    """
    document = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(document, yaml.MappingNode):
        return {}
    names = [key.value for key, _ in document.value]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise BadInputError(f"{path} sets {shown(twice[0])} twice; leave one of the lines")
    return {
        key.value: value.value
        for key, value in document.value
        if value.tag.endswith(":bool") and value.value.lower() in TRUTH and value.value.lower() not in ("true", "false")
    }


def _refuse_unknown(names: Sequence[str], known: Sequence[str], where: str) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "`train.py --help` lists all arguments"
            raise BadInputError(f"unknown argument {name!r} in {where}; {hint}")


def parse_configuration(arguments: Sequence[str], classes: Sequence[Any] = ARGUMENT_CLASSES) -> Configuration:
    """Return the run that a command line describes: `[CONFIGURATION] [--argument value ...]`.

    Args:
        arguments: words of the command line.
        classes: dataclasses of the arguments of model, data and training.

    Raises:
        BadInputError: an unknown configuration or argument (close matches are named), or a value of the wrong type.
    """
    if asks_for_help(arguments):
        echo(help_page([TrainingOptions if part is TrainingArguments else part for part in classes]).rstrip("\n"))
        raise SystemExit(0)
    given = list(arguments)
    named = frozenset(_argument_name(word) for word in given if word.startswith("--"))
    name = given.pop(0) if given and not given[0].startswith("--") else DEFAULT_CONFIGURATION
    parser = _Parser(classes, prog="train.py", allow_abbrev=False)
    path = configuration_path(name)
    settings = read_configuration(path)
    known = list(options_of(*classes))
    _refuse_unknown(list(settings), known, str(path))
    settings.setdefault("output_dir", f"outputs/{path.stem}")
    _leave_packaged_encoder(settings, named)
    kinds = {name: kind for part in classes for name, kind in get_type_hints(part).items()}
    parser.set_defaults(**_defaults(parser, settings, kinds, str(path)))
    # Words that no argument takes are returned in `rest`, so that close matches of a mistyped one can be named.
    with outside(f"the arguments of {path.stem} cannot be used", "correct that one"):
        *parts, rest = parser.parse_args_into_dataclasses(
            given, return_remaining_strings=True, look_for_args_file=False
        )
    unknown = [_argument_name(word) for word in rest if word.startswith("--")]
    _refuse_unknown(unknown, known, "the command line")
    if rest:
        raise BadInputError(
            f"do not know what {rest[0]!r} means; give one configuration first, then `--argument value`"
        )
    model, data, training = parts
    return Configuration(path.stem, model, data, training, named)


def _leave_packaged_encoder(settings: dict[str, Any], named: frozenset[str]) -> None:
    """Drop a packaged image encoder that a configuration starts from, where the command line names another start."""
    others = {"image_encoder", "vision_config", "model_name_or_path", "init_segmenter"}
    if str(settings.get("init_image_encoder")).startswith(PREFIX) and named & others:
        settings["init_image_encoder"] = None
        if "vision_config" in named:  # fresh weights must be trained
            settings |= {"freeze_image": False, "feature_views": 0}


def _argument_name(word: str) -> str:
    """Return the name of the argument that a word such as `--freeze-text=true` gives."""
    return word.removeprefix("--").split("=")[0].replace("-", "_")


def _defaults(parser: _Parser, settings: dict[str, Any], kinds: dict[str, Any], where: str) -> dict[str, Any]:
    """Return values of a configuration as the parser converts them: scalars as words, so that types are checked."""
    choices = {action.dest: action for action in parser._actions}
    checked = {}
    for name, value in settings.items():
        action = choices[name]
        if isinstance(action.const, bool) and isinstance(value, str):  # an option that is true or false
            value = TRUTH.get(value.lower(), value)
        elif isinstance(value, bool) and (name.endswith("_strategy") or name == "report_to"):
            value = str(value)
        if value is None or isinstance(value, dict | list | bool):
            check_kind(name, value, kinds[name], where)
            checked[name] = JsonMapping(value) if isinstance(value, dict) and action.type is JsonMapping else value
            continue
        try:
            checked[name] = parser._get_value(action, str(value))
        except argparse.ArgumentError as error:
            raise BadInputError(str(error)) from error
        if action.choices and checked[name] not in (*action.choices, None):
            raise BadInputError(f"{name}: {value!r} is none of {', '.join(map(str, action.choices))}")
    return checked
