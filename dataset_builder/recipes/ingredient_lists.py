"""Parses the ingredients of one recipe in any notation that tables use."""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dataset_builder.recipes.json_shapes import DEEPEST, depth_of
from dataset_builder.recipes.part_names import name_key
from dataset_builder.recipes.text import readable

_WRITTEN = re.compile(r"[^\W_]")
# How pandas or R write a missing value as text. "Nan" is a bread, and "None" the title of a real recipe.
_MISSING = frozenset({"nan", "NaN", "<NA>", "character(0)"})
_BULLET = re.compile(
    r"^\s*(?:[-*\u2022\u00b7\u25cf\u25aa\u2013]|\[[ xX]?\])\s+|^\s*[\u2022\u25cf\u25aa\u25a2\u2610]\s*"
)
_PYTHON_LIST = re.compile(r"\[\s*'[^'\"\\]*'(?:, '[^'\"\\]*')*\s*\]")
# A printed NumPy array has no commas; read as Python its words would be glued into one.
_NUMPY_LIST = re.compile(r"\[\s*'[^'\"\\]*'(?:\s+'[^'\"\\]*')+\s*\]")
_HOLLOW_LIST = re.compile(r"\[(?:[\s,]|nan|NaN|None|null)*\]")
# A vector as R prints it, which is how one large set of Food.com's recipes is stored.
_R_VECTOR = re.compile(r'c\(("|NA,).*\)', re.DOTALL)
_NULLS = frozenset({"nan", "NaN", "null", "NA"})
# A longer text is not parsed as Python, whose parser takes a hundred times its memory.
_LONGEST_LITERAL = 1 << 18

# Keys of an object in a list of ingredients, compared by `name_key`: the whole line as a person wrote it; else its
# parts; or, of a group with a heading, the list inside it.
_WHOLE = (
    "original", "original_string", "original_text", "raw_text", "raw", "display", "display_text", "text", "line",
    "ingredient_line", "ingredient_text",
)  # fmt: skip
_NAME = ("name", "ingredient", "item", "food", "ingredient_name", "product", "label", "title")
_AMOUNT = ("quantity", "amount", "qty", "measure")
_UNIT = ("unit", "units", "measurement", "unit_name", "unit_of_measure")
_NOTE = ("note", "notes", "comment", "preparation", "extra_comment")
_GROUP = (
    "ingredients", "ingredient_list", "items", "components", "recipe_ingredient", "item_list_element", "list",
    "entries",
)  # fmt: skip
_MEALIE = frozenset(map(name_key, ("food", "unit", "quantity")))
# The same for the steps of a recipe; the name of a section is left out where it has steps.
_STEPS = ("steps", "itemlistelement", "instructions", "items")
_STEP_TEXT = ("text", "displaytext", "rawtext", "instruction", "step", "description", "name")

# What separates the entries of one line, strongest first. Commas also stand in decimal numbers and inside brackets.
_SEPARATORS = (";；؛", "|\t\u2022\u25cf\u25aa", "、", "，", "،", ",")
_OPENING, _CLOSING = "([{（［【", ")]}）］】"
_UNUSUAL = re.compile(r"[;；؛|\t\u00b7\u2022\u25cf\u25aa、，،(\[{（［【]|\d,\d")
_DOTTED = re.compile(r"\s\u00b7\s")  # between words; within one it is a letter's mark, as in Catalan
_NUMBERED = re.compile(r"\s*(\d{1,2})[.)]\s+(?=\S)")
# A heading of a group: a line that ends with a colon, is set off by signs, or begins as such headings do.
_COLON = re.compile(r"[^:：]{1,80}[:：]")
_SET_OFF = re.compile(r"(?:\*\*|__|==+|--+|#+|~~+)\s*([^*_=#~]{1,80}?)\s*(?:\*\*|__|==+|--+|#+|~~+|(?<=\w)$)[:：]?")
_FOR = re.compile(
    r"(?:for (?:the|your) |für (?:den|die|das) |pour (?:la |le |les |l['’])|para (?:la|el|los|las) "
    r"|per (?:la |il |le |i |l['’]))[^\d,;:]{2,40}",
    re.IGNORECASE,
)
# "For serving: lemon wedges" is lemon wedges.
_FOR_WHAT = re.compile(r"(?:for|für|pour|para|per) [^\d,;:：]{2,40}[:：]\s+(?=\S)", re.IGNORECASE)


def parse_ingredients(value: Any) -> tuple[str, ...]:
    """Return the ingredients of one recipe, however they are written.

    Accepts a list (of strings, or of objects with the text or with name, amount and unit), groups of them under
    headings, an object of ingredients with their amounts, all of these also as Python or JSON in a string, a vector
    as R prints it, lines, and one line with separators. HTML is taken off. Left out are headings of groups and
    entries without any letter or digit.

    >>> parse_ingredients("['salt', '2 eggs']")
    ('salt', '2 eggs')
    >>> parse_ingredients("salt; 2 eggs, beaten")
    ('salt', '2 eggs, beaten')
    >>> parse_ingredients("1,5 kg Mehl, Zucker, 1 can (14 oz, drained) beans")
    ('1,5 kg Mehl', 'Zucker', '1 can (14 oz, drained) beans')
    >>> parse_ingredients({"sugar": "1 cup", "salt": None})
    ('1 cup sugar',)
    >>> parse_ingredients([{"name": "For the glaze", "ingredients": [{"amount": 2, "unit": "cups", "name": "sugar"}]}])
    ('2 cups sugar',)
    """
    entries = _listed(cell_text(value)) if isinstance(value, str) else value
    lines: list[str] = []
    for text in _texts(entries):
        if "\n" in text or "<" in text or "&" in text or "\\" in text:
            lines += readable(text).splitlines()
        else:
            lines.append(text)
    if lines and lines[0].lstrip()[:1] == "1":
        lines = _without_numbers([line for line in lines if line.strip()])
    texts = []
    for line in lines:
        # Of a line that begins with a letter or a digit, as most do, neither needs to be looked for.
        plain_begin = line[:1].isalnum()
        text = (line if plain_begin else _BULLET.sub("", line)).strip()
        if plain_begin or _WRITTEN.search(text):
            texts.append(text)
    plain = [text for text in map(_without_heading, texts) if text]
    # What consists of headings alone has ingredients that look like them.
    return tuple(plain or texts)


def _without_numbers(lines: list[str]) -> list[str]:
    """Return lines without their numbers where they are a list from 1 on: these are no amounts."""
    found = [_NUMBERED.match(line) for line in lines]
    numbered = [int(each[1]) for each in found if each] == list(range(1, max(len(lines), 2) + 1))
    return [line[each.end() :] for line, each in zip(lines, found, strict=True) if each] if numbered else lines


def _without_heading(text: str) -> str:
    """Return an ingredient without the heading before it; nothing for a heading alone."""
    last = text[-1]
    if last in ":：" and _COLON.fullmatch(text):
        return ""
    if text[0] in "*_=-#~" and _SET_OFF.fullmatch(text):
        return ""
    if text[0] in "fFpP":
        if _FOR.fullmatch(text):
            return ""
        if begin := _FOR_WHAT.match(text):
            return text[begin.end() :]
    return text


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the ingredients of a list, whatever its entries are, of an object, or of one entry."""
    if isinstance(value, str):
        yield value
    elif depth > DEEPEST:
        return
    elif isinstance(value, Mapping):
        yield from _texts_of_object(value, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        for entry in value:
            if isinstance(entry, str):  # nearly always, and much quicker
                yield entry
            else:
                yield from _texts(entry, depth + 1)
    elif not _is_missing(value):
        yield str(value)


def _texts_of_object(entry: Mapping[str, Any], depth: int) -> Iterator[str]:
    keys = {name_key(name): name for name in reversed(list(entry))}

    def first(names: Sequence[str]) -> Any:
        values = (entry[keys[key]] for key in map(name_key, names) if key in keys)
        return next((value for value in values if not _is_missing(value) and value != "" and value != []), None)

    group, whole, name = first(_GROUP), first(_WHOLE), first(_NAME)
    if isinstance(group, Sequence) and not isinstance(group, str):
        yield from _texts(group, depth)  # the name of a group is a heading
    elif whole is not None:
        yield from _texts(whole, depth)
    elif name is not None and (len(entry) == 1 or not isinstance(name, bool | int | float)):
        amount, unit, note = first(_AMOUNT), first(_UNIT), first(_NOTE)
        if isinstance(name, Sequence) and not isinstance(name, str):
            yield from _texts(name, depth)
            return
        parts = [part for part in (_amount_text(amount), _plain(unit), " ".join(_texts(name, depth))) if part]
        text = " ".join(parts)
        yield f"{text}, {note_text}" if (note_text := _plain(note)) and text else text
    elif (note := first(_NOTE)) is not None and not isinstance(note, Mapping | list) and _MEALIE & keys.keys():
        # Mealie keeps a line that it did not take apart as a note.
        yield " ".join(part for part in (_amount_text(first(_AMOUNT)), _plain(first(_UNIT)), _plain(note)) if part)
    else:
        yield from _texts_of_amounts(entry, depth)


def _texts_of_amounts(entry: Mapping[str, Any], depth: int) -> Iterator[str]:
    """Yield the entries of an object ingredient -> amount, or heading -> ingredients."""
    for name, amount in entry.items():
        if isinstance(amount, Mapping):
            amount = " ".join(_plain(part) for part in amount.values() if not _is_missing(part))
        if _is_missing(amount) or (isinstance(amount, bool | int | float) and not amount):
            continue
        if isinstance(amount, Sequence) and not isinstance(amount, str) and amount:
            yield from _texts(amount, depth)  # a heading, as "for the sauce", and the ingredients under it
        else:
            yield str(name) if amount is True or not amount else f"{_amount_text(amount)} {name}"


def _plain(value: Any) -> str:
    """Return a unit or a note, which may be an object with a name."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("name", "abbreviation", "text", "display") if value.get(key)), None)
    return "" if _is_missing(value) or isinstance(value, bool | list | dict) else str(value).strip()


def _amount_text(value: Any) -> str:
    """Return an amount, a whole number without a point; zero stands for an amount that is not known."""
    if isinstance(value, Mapping):
        # {"value": 2, "unit": "cups"}, {"quantity": 200, "unit": {"name": "g"}}
        return " ".join(part for part in (_amount_text(part) for part in value.values()) if part)
    if isinstance(value, list):
        return _amount_text(value[0]) if value else ""
    if isinstance(value, float) and value == value and value.is_integer():
        value = int(value)
    return "" if isinstance(value, bool) or value == 0 else _plain(value)


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
            if read is not json.loads and len(text) > _LONGEST_LITERAL:
                break
            try:
                value = read(text)
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
            # Releases of Python differ in the depth that they still read; deeper than any recipe it is a text for all.
            if text.count("[") + text.count("{") <= DEEPEST or depth_of(value) <= DEEPEST:
                return value
        text = text[1:-1]
    if "<" in text or "&" in text or "\\" in text:
        text = readable(text)
    lines = [line for line in text.splitlines() if line.strip()]
    return lines if len(lines) > 1 else _separated(text)


def _separated(text: str) -> list[str]:
    """Return the entries of one line, divided at the strongest separator that stands outside brackets."""
    if "," in text and not _UNUSUAL.search(text):  # nearly always
        return text.split(",")
    text = _DOTTED.sub("\u2022", text)
    # A bracket that is never closed, or never opened, encloses nothing.
    heed = sum(map(text.count, _OPENING)) == sum(map(text.count, _CLOSING))
    for marks in _SEPARATORS:
        if any(mark in text for mark in marks) and len(parts := _divided(text, marks, heed)) > 1:
            return parts
    return [text]


def _divided(text: str, marks: str, heed_brackets: bool) -> list[str]:
    parts, begin, depth = [], 0, 0
    for place, letter in enumerate(text):
        if letter in _OPENING:
            depth += heed_brackets
        elif letter in _CLOSING:
            depth -= heed_brackets
        elif letter in marks and depth <= 0:
            if letter in ",，" and text[place - 1 : place].isdigit() and text[place + 1 : place + 2].isdigit():
                continue  # a decimal comma
            parts.append(text[begin:place])
            begin = place + 1
    return [*parts, text[begin:]]


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
    if "<" in text or "&" in text or "\\" in text or text.startswith(("{", "[{", "[[")):
        return bool(parse_ingredients(text))
    return _WRITTEN.search(text) is not None and _HOLLOW_LIST.fullmatch(text) is None


def cell_text(value: Any) -> str:
    """Return the text of a cell, empty for a missing value."""
    text = "" if value is None else str(value).strip()
    return "" if text in _MISSING else text


def lines_of(value: Any) -> str:
    """Return the text of a cell that may be a list of texts, of steps or of sections with steps, as lines."""
    if isinstance(value, str) or not isinstance(value, Sequence | Mapping):
        text = cell_text(value)
        return readable(text).strip() if "<" in text or "&" in text else text
    texts = (line for text in _step_texts(value) for line in readable(text).splitlines())
    return "\n".join(filter(None, map(cell_text, texts)))


def _step_texts(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, Mapping):
        keys = {name_key(name): value[name] for name in reversed(list(value))}
        inner = next((keys[key] for key in _STEPS if isinstance(keys.get(key), list) and keys[key]), None)
        value = inner if inner is not None else next((keys[key] for key in _STEP_TEXT if keys.get(key)), None)
    if isinstance(value, str):
        yield value
    elif isinstance(value, Sequence) and depth < DEEPEST:
        for entry in value:
            yield from _step_texts(entry, depth + 1)
