"""The settings on which the rows of a build depend."""

from dataclasses import dataclass, field

from dataset_builder.errors import BadInputError
from dataset_builder.labelling.choice import AnyLabeller, make_labeller, rule_settings
from dataset_builder.labelling.lexicon import Lexicon
from dataset_builder.labelling.report import RULE_OPTIONS
from dataset_builder.pictures.settings import GenerationSettings

# Where pictures come from.
GENERATED, OWN, BOTH = PICTURES = ("generated", "own", "both")


@dataclass(frozen=True)
class BuildSettings:
    """The settings on which the rows of a build depend.

    Attributes:
        recipes: a recipe table (file, folder or Hub id); None is the embedded catalogue.
        number: recipes that the embedded catalogue is widened to.
        lexicon: a lexicon file; None is the one of the package.
        images_per_dish: pictures of each recipe.
        seed: of variants, splits and pictures.
        recipes_per_shard: recipes in one Parquet file, at most.
        generation: settings of the pictures.
        columns: part of a recipe -> column, where the table's columns are not recognised.
        encoding: of a CSV or JSON table; None takes UTF-8 or a guess.
        keep_equal_titles: rows whose title came before are variants of its dish, and not left out.
        pictures: "generated", "own" for the photographs that the table names, or "both".
        allow_outside: photographs may lie outside the folder of the table.
        corrections: tables of what people corrected, see `building.corrections`.
        rule, min_lead, match, min_ingredient_votes, min_title_votes, on_conflict: the labelling rule, see
            `labelling.choice.rule_settings`; None for what follows from the others.
    """

    recipes: str | None = None
    number: int = 3600
    lexicon: str | None = None
    images_per_dish: int = 1
    seed: int = 0
    recipes_per_shard: int = 256
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    columns: dict[str, str] = field(default_factory=dict)
    encoding: str | None = None
    keep_equal_titles: bool = False
    pictures: str = GENERATED
    allow_outside: bool = False
    corrections: tuple[str, ...] = ()
    rule: str | None = None
    min_lead: float | None = None
    match: str | None = None
    min_ingredient_votes: int | None = None
    min_title_votes: int | None = None
    on_conflict: str | None = None

    def __post_init__(self) -> None:
        # The manifest states the rule in full, whichever of its options were given.
        for name, value in rule_settings(**{name: getattr(self, name) for name in RULE_OPTIONS}).items():
            object.__setattr__(self, name, value)
        for name in ("number", "images_per_dish", "recipes_per_shard"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} is {getattr(self, name)}; give a whole number of at least 1")
        if self.seed < 0:
            raise BadInputError(f"seed is {self.seed}; give a whole number of at least 0")
        if self.pictures not in PICTURES:
            raise BadInputError(f"pictures is {self.pictures!r}; choose one of {', '.join(PICTURES)}")
        if self.pictures != GENERATED and self.recipes is None:
            raise BadInputError(f"the catalogue has no photographs; name a table for --pictures {self.pictures}")
        if self.columns and self.recipes is None:
            raise BadInputError("the embedded catalogue has columns of its own; leave --columns out, or name a table")

    def labeller(self, lexicon: Lexicon) -> AnyLabeller:
        """Return the rule that labels the recipes."""
        return make_labeller(lexicon, **{name: getattr(self, name) for name in RULE_OPTIONS})
