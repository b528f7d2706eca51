"""Named prompt templates that turn a recipe into the prompt of a text-to-image pipeline."""

from collections.abc import Sequence

from dataset_builder.catalogue.ingredients import find_ingredients
from dataset_builder.catalogue.serving import hidden_liquids, vessel_for
from dataset_builder.errors import BadInputError

TEMPLATES = ("ingredients", "photo", "title")


def render(template: str, title: str, ingredients: Sequence[str]) -> str:
    """Return the prompt of one recipe.

    It names the visible ingredients, or the liquids of a dish such as tea that has no visible one.

    Args:
        template: a name in `TEMPLATES`.
        title: title of the recipe.
        ingredients: its ingredient lines as given, in which ingredients of the catalogue are looked up.

    Raises:
        BadInputError: an unknown template.
    """
    if template not in TEMPLATES:
        raise BadInputError(f"prompt template {template!r} is unknown; choose one of {', '.join(TEMPLATES)}")
    # In order of mention; a dictionary keeps the first position of each name.
    known = list({item.name: item for line in ingredients for item in find_ingredients(line)}.values())
    shown = [item for item in known if item.visible] or hidden_liquids(vessel_for(title), known)
    names = ", ".join(item.name for item in shown)
    if template == "photo":
        return f"a photograph of {title}{f' with {names}' if names else ''}, served on a plate, food photography"
    return f"{title}: {names}" if names and template == "ingredients" else title
