"""The one table of `flavour-sd`: the types of its columns, as `datasets.Features`."""

from collections.abc import Sequence

from datasets import ClassLabel, Features, Image, List, Value

from dataset_builder.columns import (
    BACKGROUND_NAME,
    CAPTIONS,
    DISH_ID,
    FLAVOUR,
    FLAVOURS,
    FLAVOURS_PRESENT,
    GENERATION,
    ID,
    IMAGE,
    INGREDIENT_LABELS,
    INGREDIENTS,
    INSTRUCTIONS,
    LABEL_SOURCE,
    LABEL_VOTES,
    MASK,
    MAX_VISIBLE_INGREDIENTS,
    TASTE,
    TITLE,
)


def vote_features() -> dict:
    """Return the struct of `label_votes`: per method and flavour, the words that voted for it."""
    words = {flavour: List(Value("string")) for flavour in FLAVOURS}
    return {"ingredients": dict(words), "title": dict(words)}


def generation_features() -> dict:
    """Return the struct of `generation`: everything that is needed to draw the picture again.

    `prompt_read` is the part of the prompt that the text encoders read where they cut it, null where they read all.
    """
    return {
        "prompt": Value("string"),
        "prompt_read": Value("string"),
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
    # The names start with the background, so that label ids equal mask ids.
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
