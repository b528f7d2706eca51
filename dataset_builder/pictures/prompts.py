"""Named prompt templates that turn a recipe into the prompt of a text-to-image pipeline."""

from collections.abc import Callable, Sequence

from dataset_builder.catalogue.ingredients import Ingredient, find_ingredients
from dataset_builder.catalogue.serving import hidden_liquids, vessel_for
from dataset_builder.errors import BadInputError


def ingredients_to_name(title: str, ingredients: Sequence[str]) -> list[Ingredient]:
    """Return the ingredients for a prompt: the visible ones, or the liquids of a dish such as tea that has none."""
    # In order of mention; a dictionary keeps the first position of each name.
    known = list({item.name: item for line in ingredients for item in find_ingredients(line)}.values())
    return [item for item in known if item.visible] or hidden_liquids(vessel_for(title), known)


def _title(title: str, names: Sequence[str]) -> str:
    return title


def _ingredients(title: str, names: Sequence[str]) -> str:
    return f"{title}: {', '.join(names)}" if names else title


def _photo(title: str, names: Sequence[str]) -> str:
    contents = f" with {', '.join(names)}" if names else ""
    return f"a photograph of {title}{contents}, served on a plate, food photography"


# Every template takes the title and the names of the ingredients from `ingredients_to_name`.
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
        ingredients: its ingredient lines as given; ingredients of the catalogue are found in them.

    Raises:
        BadInputError: an unknown template.
    """
    if template not in TEMPLATES:
        raise BadInputError(f"prompt template {template!r} is unknown; choose one of {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[template](title, [ingredient.name for ingredient in ingredients_to_name(title, ingredients)])
