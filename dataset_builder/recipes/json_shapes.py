"""Finds the recipes in a JSON value of any common shape.

A record is one recipe as an object. Lists, objects that wrap a list, objects keyed by id, the column-wise forms of
pandas, and schema.org's `@graph` become records; what holds no recipe stays as it is, so that it is counted and named.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dataset_builder.recipes.part_names import columns_named, keys_of_parts, numbered_ingredients

Record = dict[str, Any]

# Deeper than any document that people publish, and shallow enough for every function that walks through values.
DEEPEST = 64
_WRAPPED = 8
_GRAPH = "@graph"


def records_of(value: Any) -> Iterator[Any]:
    """Yield the records in one JSON value; an element that is no object comes out as it is."""
    if isinstance(value, dict) and _is_recipe(value):  # nearly always
        yield _with_step_ingredients(value)
        return
    found = _found(value, 0)
    if found is not None:
        yield from map(_with_step_ingredients, found)
    elif isinstance(value, list):
        yield from value
    else:
        yield value


def depth_of(value: Any) -> int:
    """Return how deep a JSON value is nested, at most one more than `DEEPEST`."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        children: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                children += one.values()
            elif isinstance(one, list):
                children += one
        level = [one for one in children if isinstance(one, dict | list)]
        depth += 1
    return depth


def _is_recipe(record: Mapping[str, Any]) -> bool:
    """Return whether an object is one recipe: a title that is text, and ingredients."""
    names = tuple(record)
    parts = keys_of_parts(names)
    if "title" not in parts or not _is_title(record[parts["title"]]):
        return False
    return "ingredients" in parts or bool(numbered_ingredients(names)) or _step_ingredients(record) is not None


def _is_title(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Mapping) and ("rendered" in value or "@value" in value))


def _found(value: Any, depth: int) -> list[Any] | None:
    """Return the recipes in a value; None where there are none."""
    if depth > _WRAPPED:
        return None
    if isinstance(value, list):
        parts = [_found(one, depth + 1) if isinstance(one, dict) else None for one in value]
        if not any(part is not None for part in parts):
            return None
        # Beside recipes, entries that are none stay, to be counted.
        return [
            record for one, part in zip(value, parts, strict=True) for record in (part if part is not None else [one])
        ]
    if not isinstance(value, dict):
        return None
    if _is_recipe(value):
        return [value]
    for read in (_graph, _split, _column_wise):
        if (found := read(value)) is not None:
            return found
    if (keyed := _keyed_by_id(value)) is not None:
        return keyed
    wrapped = [_found(child, depth + 1) for child in value.values() if isinstance(child, dict | list)]
    found = [record for part in wrapped if part for record in part]
    return found or None


def _graph(value: Mapping[str, Any]) -> list[Any] | None:
    """Return the recipes among the nodes of a JSON-LD graph; pages, sites and people are none."""
    nodes = value.get(_GRAPH)
    if not isinstance(nodes, list):
        return None
    kinds = ((node, node.get("@type")) for node in nodes if isinstance(node, dict))
    found = [node for node, kind in kinds if "Recipe" in (kind if isinstance(kind, list) else [kind])]
    return found or None


def _split(value: Mapping[str, Any]) -> list[Any] | None:
    """Return the rows of `DataFrame.to_json(orient="split")` and of `orient="table"`."""
    names, rows = value.get("columns"), value.get("data")
    if not isinstance(rows, list):
        return None
    if isinstance(names, list) and all(isinstance(row, list) and len(row) == len(names) for row in rows):
        return [dict(zip(map(str, names), row, strict=True)) for row in rows]
    return list(rows) if isinstance(value.get("schema"), dict) and all(isinstance(row, dict) for row in rows) else None


def _column_wise(value: Mapping[str, Any]) -> list[Any] | None:
    """Return the rows of column -> {index: cell} or column -> [cells], as pandas writes them."""
    columns = list(value.values())
    if len(columns) < 2:
        return None
    if all(isinstance(column, list) for column in columns) and len({len(column) for column in columns}) == 1:
        if "title" not in keys_of_parts(tuple(value)) or any(isinstance(cell, dict) for cell in columns[0]):
            return None
        return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
    if not all(isinstance(column, dict) for column in columns) or len({tuple(column) for column in columns}) != 1:
        return None
    index, names = list(columns[0]), tuple(value)
    # Objects keyed by id have equal keys, too: there the parts of a recipe are the inner keys.
    numbered = all(str(key).isdigit() for key in index) and not all(name.isdigit() for name in names)
    if not numbered and ("title" not in keys_of_parts(names) or "title" in keys_of_parts(tuple(index))):
        return None
    return [{name: value[name][key] for name in names} for key in index]


def _keyed_by_id(value: Mapping[str, Any]) -> list[Any] | None:
    """Return the recipes of an object id -> recipe, each with its key as id where it has none of its own."""
    recipes = [one for one in value.values() if isinstance(one, dict) and _is_recipe(one)]
    if not recipes or any(not isinstance(one, dict) for one in value.values()):
        return None
    if len(value) == 1 and not next(iter(value)).isdigit():
        return recipes  # {"recipe": {...}} is a wrapper, not an id
    return [{"id": key, **one} if "id" not in keys_of_parts(tuple(one)) else one for key, one in value.items()]


def _step_ingredients(record: Mapping[str, Any]) -> list[Any] | None:
    """Return the ingredients that stand in the steps of a recipe, as Tandoor writes them."""
    steps = next((record[name] for name in columns_named(("steps",), record)), None)
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        return None
    lists = [step["ingredients"] for step in steps if isinstance(step, Mapping) and step.get("ingredients")]
    return [entry for one in lists if isinstance(one, list) for entry in one] or None


def _with_step_ingredients(record: Any) -> Any:
    if isinstance(record, dict) and "ingredients" not in keys_of_parts(tuple(record)):
        found = _step_ingredients(record)
        return record if found is None else {**record, "ingredients": found}
    return record
