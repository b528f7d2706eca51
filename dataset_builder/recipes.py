"""Read recipe tables of any common shape: CSV, JSON lines, Parquet, a folder of them, or a data set on the Hub."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dish:
    """One recipe.

    Attributes:
        dish_id: slug, equal for all rows that belong to one named dish.
        title: as given, blanks trimmed.
        ingredients: as given, one string each, the most important first where the source knows.
        instructions: as given, empty when there are none.
        variant: 0 for the dish as named, 1.. for its variants.
        image_path: an existing photograph, None without one.
    """

    dish_id: str
    title: str
    ingredients: tuple[str, ...]
    instructions: str = ""
    variant: int = 0
    image_path: str | None = None
