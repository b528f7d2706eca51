"""Options: what an argument may hold, what reads it and when it may change, stated where the argument is defined.

Parsers, range checks, refusals, the check of a resumed run, saved configurations and `--help` are computed from it, so
a new option is one new field. This module imports no library that is slow to load.
"""

from dataclasses import MISSING, dataclass, field, fields
from math import inf
from typing import Any

from dataset_builder.errors import BadInputError

OPTION = "option"
REQUIRED = MISSING  # default of a positional argument


@dataclass(frozen=True)
class Range:
    """Numbers between two limits.

    Attributes:
        low: least number.
        high: largest number.
        above: whether `low` itself is left out.
        below: whether `high` itself is left out.
    """

    low: float
    high: float = inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        )

    def __str__(self) -> str:
        if self.high == inf:
            return f"be {'above' if self.above else 'at least'} {self.low:g}"
        return f"lie in {'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"


NATURAL, COUNT = Range(0), Range(1)
SEED = Range(0, 2**32 - 1)  # as NumPy takes them
POSITIVE = Range(0, above=True)
SHARE, SHARE_BELOW_ONE = Range(0, 1), Range(0, 1, below=True)

CLASSIFIERS = ("classification", "multilabel")
MASKS = ("segmentation", "ingredients")
CAPTIONS = ("captioning",)
DRAWING = ("text_to_image",)
PREDICTING = (*CLASSIFIERS, *MASKS, *CAPTIONS)  # whose models give probabilities


@dataclass(frozen=True)
class Option:
    """The properties of an argument beside its name, type, default and help text.

    Attributes:
        group: heading in `--help`; None: that of its class.
        allowed: numbers it may hold; the value None stands for a default and is always allowed.
        choices: words it may hold, where its type does not list them.
        metavar: name of the value in `--help`.
        may_be_absent: whether a positional list may be empty.
        tasks: tasks that read it; empty: all. A value other than the default is refused in the others.
        modalities: modalities that read it; empty: all. Refused in others like `tasks`, except for parts of a model:
            a configuration may describe both encoders and be run with one of them.
        needs: another training argument, and the value without which this one, given on the command line, is refused.
        refused: why training cannot keep its promises with this option; None: it can.
        refused_value: the one value that is refused; None: every value that switches the option on.
        resumable: whether an interrupted run may go on with another value, because it does not change what is learned.
        derived: whether each machine works it out by itself, so that saved configurations leave it out.
        config_fields: fields of the model's config that it sets and that shape training but no weight: training that
            starts from a checkpoint sets them anew.
        checkpoint_has: what a checkpoint has in place of it; None: nothing. Given on the command line together with a
            checkpoint, such an option is refused.
    """

    group: str | None = None
    allowed: Range | None = None
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    may_be_absent: bool = False
    tasks: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    needs: tuple[str, str] | None = None
    refused: str | None = None
    refused_value: Any = None
    resumable: bool = False
    derived: bool = False
    config_fields: tuple[str, ...] = ()
    checkpoint_has: str | None = None


def option(default: Any, help: str, **properties: Any) -> Any:
    """Return a dataclass field with the properties of an `Option`.

    Args:
        default: its default; a class is called for a new one each time, REQUIRED makes a positional argument.
        help: line of `--help`.
        properties: those of `Option`.
    """
    # An `Option` rather than the `validator` of huggingface_hub's strict dataclasses: `strict` refuses the Trainer's
    # arguments at their own defaults (warmup_steps is annotated float and holds the int 0), and `crop_scale=1` in ours.
    metadata = {"help": help, OPTION: Option(**properties)}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def options_of(*parts: Any) -> dict[str, Option]:
    """Return the options of argument dataclasses, or of instances of them, by name.

    A class that inherits fields of a library states their properties in `INHERITED_OPTIONS`.
    """
    # Fields with init=False are state of a library, not arguments.
    found = {}
    for part in parts:
        inherited = getattr(part, "INHERITED_OPTIONS", {})
        for item in fields(part):
            if item.init:
                found[item.name] = item.metadata.get(OPTION) or inherited.get(item.name) or Option()
    return found


def check_ranges(arguments: Any) -> None:
    """Raise BadInputError that names the first number outside its range."""
    for name, properties in options_of(arguments).items():
        value = getattr(arguments, name)  # None where a default takes its place, and words such as "auto"
        if properties.allowed is None or not isinstance(value, int | float):
            continue
        if value not in properties.allowed:
            raise BadInputError(f"{name} is {value:g}; it must {properties.allowed}")
