"""The one table of `flavour-sd`: column names, label names and their `datasets.Features`."""

from collections.abc import Sequence

from datasets import ClassLabel, Features, Image, List, Value

FLAVOURS = ("sweet", "salty", "sour", "bitter", "umami")
SPLITS = ("train", "validation", "test")

# "seasoning" is what one tastes without seeing it; every other group is visible on a plate.
SEASONING = "seasoning"
FOOD_GROUPS = (
    "seafood", "meat", "egg", "cheese", "dairy", "pasta", "grain", "bakery", "leaf", "herb", "root", "vegetable",
    "citrus", "berry", "fruit", "nut", "chocolate", "legume", "mushroom", "pickle", "sauce", SEASONING,
)  # fmt: skip

BACKGROUND = 0
BACKGROUND_NAME = "background"
UNKNOWN = 255
MAX_VISIBLE_INGREDIENTS = 254

ID = "id"
DISH_ID = "dish_id"
IMAGE = "image"
TITLE = "title"
INGREDIENTS = "ingredients"
INSTRUCTIONS = "instructions"
CAPTIONS = "captions"
FLAVOUR = "flavour"
FLAVOURS_PRESENT = "flavours"
TASTE = "taste"
LABEL_SOURCE = "label_source"
LABEL_VOTES = "label_votes"
MASK = "mask"
INGREDIENT_LABELS = "ingredient_labels"
GENERATION = "generation"

# Columns of imported sets that have labels of their own instead of flavours.
LABEL = "label"
LABELS = "labels"


def vote_features() -> dict:
    """Return the struct of `label_votes`: per method and flavour, the words that voted for it."""
    words = {flavour: List(Value("string")) for flavour in FLAVOURS}
    return {"ingredients": dict(words), "title": dict(words)}


def generation_features() -> dict:
    """Return the struct of `generation`: everything that is needed to draw the picture again."""
    return {
        "prompt": Value("string"),
        "negative_prompt": Value("string"),
        "seed": Value("int64"),
        "pipeline": Value("string"),
        "revision": Value("string"),
        "scheduler": Value("string"),
        "lora": Value("string"),
        "dtype": Value("string"),
        "steps": Value("int32"),
        "guidance": Value("float32"),
        "height": Value("int32"),
        "width": Value("int32"),
        "attempts": Value("int32"),
        "rejected": List(Value("string")),
    }


def recipe_features() -> dict:
    """Return the columns of the recipe as given."""
    return {
        TITLE: Value("string"),
        INGREDIENTS: List(Value("string")),
        INSTRUCTIONS: Value("string"),
    }


def label_features() -> dict:
    """Return the columns that labelling fills."""
    return {
        FLAVOUR: ClassLabel(names=list(FLAVOURS)),
        FLAVOURS_PRESENT: List(ClassLabel(names=list(FLAVOURS))),
        TASTE: List(Value("float32"), length=len(FLAVOURS)),
        LABEL_SOURCE: Value("string"),
        LABEL_VOTES: vote_features(),
    }


def table_features(visible_ingredients: Sequence[str]) -> Features:
    """Return the features of the whole table.

    Args:
        visible_ingredients: names in id order, without the background; the first one gets mask id 1.

    Raises:
        ValueError: more names than an 8-bit mask can hold beside background and unknown.
    """
    if len(visible_ingredients) > MAX_VISIBLE_INGREDIENTS:
        raise ValueError(
            f"{len(visible_ingredients)} visible ingredients do not fit an 8-bit mask; "
            f"name at most {MAX_VISIBLE_INGREDIENTS}"
        )
    ingredient = ClassLabel(names=[BACKGROUND_NAME, *visible_ingredients])
    return Features(
        {
            ID: Value("string"),
            DISH_ID: Value("string"),
            IMAGE: Image(),
            **recipe_features(),
            CAPTIONS: List(Value("string")),
            **label_features(),
            MASK: Image(),
            INGREDIENT_LABELS: List(ingredient),
            GENERATION: generation_features(),
        }
    )
