"""Whether a value of a YAML or JSON file is of the type that it is annotated with.

The schema of such a file is a mapping of names to annotations, or the annotations of a dataclass.
"""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown

_WORDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    NoneType: "nothing",
    Any: "anything",
}


def check_entries(content: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> None:
    """Raise BadInputError for the first entry that is not of its annotated type; absent entries are no concern here."""
    for name, kind in kinds.items():
        if name in content:
            check_kind(name, content[name], kind, where)


def check_kind(name: str, value: Any, kind: Any, where: str) -> None:
    """Raise BadInputError for a value that is not of an annotated type.

    Args:
        name: of the option.
        value: as YAML or JSON gave it.
        kind: annotation of the option.
        where: file that holds it, for the message.
    """
    if not fits(value, kind):
        quoted = "; put a word such as no or on in quotes" if isinstance(value, bool) else ""
        raise BadInputError(
            f"{where}: {name} holds {shown(value)} ({type(value).__name__}) where {describe(kind)} belongs{quoted}"
        )


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type; whole numbers are numbers too, true and false are none."""
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(value, member) for member in members)
    if origin is Literal:
        return value in members
    if origin in (list, tuple):
        return isinstance(value, list) and (not members or all(fits(one, members[0]) for one in value))
    if kind in (int, float):
        return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    kind = origin or kind
    if kind is Any or not isinstance(kind, type):
        return True
    if issubclass(kind, Mapping):
        inner = members[1] if members else Any
        return isinstance(value, dict) and all(isinstance(key, str) and fits(one, inner) for key, one in value.items())
    return isinstance(value, str if issubclass(kind, Path | Enum) else kind)


def describe(kind: Any) -> str:
    """Return an annotated type in words."""
    members = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(describe(member) for member in members)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, members))}"
    plain = get_origin(kind) or kind
    if plain in (list, tuple):
        return f"a list of {describe(members[0])} each" if members else "a list"
    if isinstance(plain, type) and issubclass(plain, Mapping):
        return f"a mapping of names to {describe(members[1])} each" if members else "a mapping of names"
    if isinstance(plain, type) and issubclass(plain, Path | Enum):
        return "a text"
    return _WORDS.get(plain, str(plain))
