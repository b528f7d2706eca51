"""Parses the ingredients of one recipe in any notation that tables use."""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WRITTEN = re.compile(r"[^\W_]")
# How pandas or R write a missing value as text. "Nan" is a bread, and "None" the title of a real recipe.
_MISSING = frozenset({"nan", "NaN", "<NA>", "character(0)"})
_BULLET = re.compile(r"^\s*[-*\u2022\u00b7]\s+")
_PYTHON_LIST = re.compile(r"\[\s*'[^'\"\\]*'(?:, '[^'\"\\]*')*\s*\]")
# A printed NumPy array has no commas; read as Python its words would be glued into one.
_NUMPY_LIST = re.compile(r"\[\s*'[^'\"\\]*'(?:\s+'[^'\"\\]*')+\s*\]")
_HOLLOW_LIST = re.compile(r"\[(?:[\s,]|nan|NaN|None|null)*\]")
# A vector as R prints it, which is how one large set of Food.com's recipes is stored.
_R_VECTOR = re.compile(r'c\(("|NA,).*\)', re.DOTALL)
_NULLS = frozenset({"nan", "NaN", "null", "NA"})
# Keys under which an object in a list of ingredients holds the ingredient, best first.
_ENTRY_KEYS = ("text", "name", "ingredient", "item")


def parse_ingredients(value: Any) -> tuple[str, ...]:
    """Return the ingredients of one recipe, however they are written.

    Accepts a list (of strings, or of objects with a "text" or "name"), an object of ingredients with their amounts,
    both also as Python or JSON in a string, a vector as R prints it, lines, and one line with semicolons or commas.
    Entries without any letter or digit are dropped.

    >>> parse_ingredients("['salt', '2 eggs']")
    ('salt', '2 eggs')
    >>> parse_ingredients("salt; 2 eggs, beaten")
    ('salt', '2 eggs, beaten')
    >>> parse_ingredients({"sugar": "1 cup", "salt": None})
    ('1 cup sugar',)
    """
    entries = _listed(cell_text(value)) if isinstance(value, str) else value
    texts = (_BULLET.sub("", text).strip() for text in _texts(entries))
    return tuple(text for text in texts if _WRITTEN.search(text))


def _texts(value: Any) -> Iterator[str]:
    """Yield the ingredients of a list, whatever its entries are, of an object, or of one entry."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts_of_object(value)
    elif isinstance(value, Sequence):
        for entry in value:
            if isinstance(entry, str):  # nearly always, and much quicker
                yield entry
            else:
                yield from _texts(entry)
    elif not _is_missing(value):
        yield str(value)


def _texts_of_object(entry: Mapping[str, Any]) -> Iterator[str]:
    named = next((entry[key] for key in _ENTRY_KEYS if entry.get(key)), None)
    if named is not None:
        yield from _texts(named)
        return
    for name, amount in entry.items():
        if isinstance(amount, Mapping):
            amount = " ".join(str(part) for part in amount.values() if not _is_missing(part))
        if _is_missing(amount) or (isinstance(amount, bool | int | float) and not amount):
            continue
        if isinstance(amount, Sequence) and not isinstance(amount, str) and amount:
            yield from _texts(amount)  # a heading, as "for the sauce", and the ingredients under it
        else:
            yield name if amount is True or not amount else f"{amount} {name}"


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def _listed(text: str) -> Any:
    """Return the entries of a list, or an object, that is written in a text."""
    if _PYTHON_LIST.fullmatch(text):  # the common case, ten times faster than the general one
        return text[1:-1].strip()[1:-1].split("', '")
    if _NUMPY_LIST.fullmatch(text):
        return re.findall(r"'([^']*)'", text)
    if _R_VECTOR.fullmatch(text):
        text = f"[{text[2:-1]}]"
    if text[:1] + text[-1:] in ("[]", "{}"):
        # Missing values of pandas and of JSON become None; sets become lists, which keep their order.
        for read in (json.loads, lambda code: ast.literal_eval(_Literals().visit(ast.parse(code, mode="eval")))):
            try:
                return read(text)
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
        text = text[1:-1]
    lines = text.splitlines()
    return lines if len(lines) > 1 else text.split(";" if ";" in text else ",")


class _Literals(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(None) if node.id in _NULLS else node

    def visit_Set(self, node: ast.Set) -> ast.expr:
        return self.visit(ast.List(node.elts, ast.Load()))


def has_ingredients(value: Any) -> bool:
    """Return whether `parse_ingredients` gives any, for most texts without parsing them.

    Millions of rows are checked by one process and parsed by several.
    """
    if not isinstance(value, str):
        return bool(parse_ingredients(value))
    text = cell_text(value)
    if text.startswith(("{", "[{", "[[")):
        return bool(parse_ingredients(text))
    return _WRITTEN.search(text) is not None and _HOLLOW_LIST.fullmatch(text) is None


def cell_text(value: Any) -> str:
    """Return the text of a cell, empty for a missing value."""
    text = "" if value is None else str(value).strip()
    return "" if text in _MISSING else text


def lines_of(value: Any) -> str:
    """Return the text of a cell that may be a list of texts, or of objects with a text, as lines."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return cell_text(value)
    return "\n".join(filter(None, map(cell_text, _texts(value))))
