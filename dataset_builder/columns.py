"""The one table of `flavour-sd`: names of columns and labels. Their types are in `schema.py`."""

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
