"""Named prompt templates: how a recipe is told to a text-to-image pipeline."""

from collections.abc import Callable, Sequence

from dataset_builder.catalogue.ingredients import Ingredient, find_ingredients
from dataset_builder.catalogue.serving import hidden_liquids, vessel_for
from dataset_builder.errors import BadInputError


def _known_in(ingredients: Sequence[str]) -> list[Ingredient]:
    """Return the catalogue ingredients that ingredient lines name, each once, in order of mention."""
    found: dict[str, Ingredient] = {}
    for line in ingredients:
        for ingredient in find_ingredients(line):
            found.setdefault(ingredient.name, ingredient)
    return list(found.values())


def told_of(title: str, ingredients: Sequence[str]) -> list[Ingredient]:
    """Return what a prompt tells of a dish: its visible ingredients; of tea with milk, which has none, its liquids."""
    known = _known_in(ingredients)
    return [item for item in known if item.visible] or hidden_liquids(vessel_for(title), known)


def _title(title: str, names: Sequence[str]) -> str:
    return title


def _ingredients(title: str, names: Sequence[str]) -> str:
    return f"{title}: {', '.join(names)}" if names else title


def _photo(title: str, names: Sequence[str]) -> str:
    contents = f" with {', '.join(names)}" if names else ""
    return f"a photograph of {title}{contents}, served on a plate, food photography"


# Every template takes the title and the names of the ingredients that `told_of` gives.
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
        ingredients: its ingredient lines as given; what can be seen is read out of them.

    Raises:
        BadInputError: an unknown template.
    """
    if template not in TEMPLATES:
        raise BadInputError(f"prompt template {template!r} is unknown; choose one of {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[template](title, [ingredient.name for ingredient in told_of(title, ingredients)])
