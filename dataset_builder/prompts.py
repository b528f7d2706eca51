"""Named prompt templates: how a recipe is told to a text-to-image pipeline."""

from collections.abc import Callable, Sequence

from dataset_builder.catalogue import Ingredient, find_ingredients
from dataset_builder.errors import BadInputError


def visible_in(ingredients: Sequence[str]) -> list[Ingredient]:
    """Return the visible catalogue ingredients that ingredient lines name, each once, in order of mention."""
    found: dict[str, Ingredient] = {}
    for line in ingredients:
        for ingredient in find_ingredients(line):
            if ingredient.visible:
                found.setdefault(ingredient.name, ingredient)
    return list(found.values())


def _title(title: str, names: Sequence[str]) -> str:
    return title


def _ingredients(title: str, names: Sequence[str]) -> str:
    return f"{title}: {', '.join(names)}" if names else title


def _photo(title: str, names: Sequence[str]) -> str:
    contents = f" with {', '.join(names)}" if names else ""
    return f"a photograph of {title}{contents}, served on a plate, food photography"


# Every template takes the title and the names of the visible ingredients.
TEMPLATES: dict[str, Callable[[str, Sequence[str]], str]] = {
    "title": _title,
    "ingredients": _ingredients,
    "photo": _photo,
}


def render(template: str, title: str, ingredients: Sequence[str]) -> str:
    """Return the prompt of one recipe.

    Args:
        template: a name in `TEMPLATES`.
        title: title of the recipe.
        ingredients: its ingredient lines as given; the visible catalogue ingredients are read out of them.

    Raises:
        BadInputError: an unknown template.
    """
    if template not in TEMPLATES:
        raise BadInputError(f"prompt template {template!r} is unknown; choose one of {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[template](title, [ingredient.name for ingredient in visible_in(ingredients)])
