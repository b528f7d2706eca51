"""The help page of `train.py`, made without loading a library: transformers alone would take seconds.

The options of this package are dataclass fields. Those of the Trainer are read out of the source file of transformers,
as text.
"""

import argparse
import ast
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from trainer_scripts.settings.arguments import DataArguments, ModelArguments
from trainer_scripts.settings.options import options_of
from trainer_scripts.settings.training_options import TrainingOptions

CONFIGURATIONS = Path(__file__).parents[1] / "configurations"
LIBRARY_GROUP = "further arguments of the Trainer of transformers"
USAGE = "train.py [CONFIGURATION] [--argument value ...]"
PAGE = (ModelArguments, DataArguments, TrainingOptions)


def configuration_names() -> list[str]:
    """Return the names of the configurations that come with the package."""
    return sorted(path.stem for path in CONFIGURATIONS.glob("*.yaml"))


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for the help page."""
    return bool({"-h", "--help"} & set(arguments))


def help_page(classes: Sequence[type] = PAGE) -> str:
    """Return the help page: the options of argument dataclasses in groups by concern, then those of the Trainer.

    Args:
        classes: the dataclasses of our own options.
    """
    parser = argparse.ArgumentParser(
        prog="train.py",
        usage=USAGE,
        description="Configurations: " + ", ".join(configuration_names()),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    options = options_of(*classes)
    groups: dict[str, Any] = {}
    for part in classes:
        kinds = get_type_hints(part)
        for item in fields(part):
            group = options[item.name].group or str(getattr(part, "_argument_group_name"))  # noqa: B009
            groups[group] = groups.get(group) or parser.add_argument_group(group)
            default = item.default if item.default_factory is MISSING else item.default_factory()
            shown = _shown_values(kinds[item.name], options[item.name].choices)
            _add(groups[group], item.name, item.metadata["help"], default, **shown)
    library = parser.add_argument_group(LIBRARY_GROUP)
    for name, help_text, default in _trainer_options():
        if name not in options:
            _add(library, name, help_text, default)
    return parser.format_help()


def _shown_values(kind: Any, choices: tuple[str, ...]) -> dict[str, Any]:
    """Return how argparse shows the values of an annotated type."""
    members = [member for member in get_args(kind) if member is not NoneType]
    if NoneType in get_args(kind):
        return _shown_values(members[0], choices)
    if get_origin(kind) is Literal or choices:
        return {"choices": choices or tuple(members)}
    return {"nargs": "+"} if get_origin(kind) is list else {"nargs": "?"} if kind is bool else {}


def _add(group: Any, name: str, help_text: str, default: Any, **shown: Any) -> None:
    # Both spellings are taken; a literal % would be read as the name of a value.
    spellings = dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))
    group.add_argument(*spellings, default=default, help=help_text.replace("%", "%%") or " ", **shown)


def _trainer_options() -> Iterator[tuple[str, str, str]]:
    """Yield name, help text and default of each argument of the Trainer, in the order of its class."""
    # Finding a package does not import it.
    found = importlib.util.find_spec("transformers")
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).with_name("training_args.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    members = next(
        node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments"
    )
    for member in members:
        if not (isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name)):
            continue
        settings = {}
        if isinstance(member.value, ast.Call):
            settings = {keyword.arg: keyword.value for keyword in member.value.keywords}
        elif member.value is not None:
            settings = {"default": member.value}
        # State of the Trainer is no argument of the command line.
        if isinstance(init := settings.get("init"), ast.Constant) and init.value is False:
            continue
        default = ast.unparse(settings["default"]).strip("'") if "default" in settings else "None"
        yield member.target.id, _help_of(settings.get("metadata")), default


def _help_of(metadata: ast.expr | None) -> str:
    """Return the text of `metadata={"help": ...}`."""
    if isinstance(metadata, ast.Dict):
        for key, value in zip(metadata.keys, metadata.values, strict=True):
            if isinstance(key, ast.Constant) and key.value == "help":
                return str(value.value) if isinstance(value, ast.Constant) else ast.unparse(value)
    return ""
