"""The builder class of the data set `flavour-sd`.

`flavour-sd build` writes the rows to a folder. `FlavourSD` gives the same rows through the cache of `datasets`:

    FlavourSD(config_name="tiny").download_and_prepare()
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import datasets

from dataset_builder import columns
from dataset_builder.building.plan import Plan
from dataset_builder.building.settings import BuildSettings
from dataset_builder.building.shards import Shard
from dataset_builder.catalogue.ingredients import visible_ingredients
from dataset_builder.pictures.settings import GenerationSettings
from dataset_builder.schema import table_features

CONTENT_VERSION = "1.0.0"


@dataclass
class FlavourSDConfig(datasets.BuilderConfig):
    """A configuration of the builder; the fields of `BuildSettings` that are worth choosing, under their names."""

    recipes: str | None = None
    number: int = 3600
    images_per_dish: int = 1
    seed: int = 0
    pipeline: str = "plating"
    size: int | None = None
    steps: int | None = None
    guidance: float | None = None

    def plan(self) -> Plan:
        """Return the rows of this configuration, made afresh: configurations are shared, copied and changed."""
        # Only these settings of the pictures are fields of the configuration; the others keep their defaults.
        names = ("pipeline", "size", "steps", "guidance")
        generation = GenerationSettings(**{name: getattr(self, name) for name in names})
        return Plan(
            BuildSettings(self.recipes, self.number, None, self.images_per_dish, self.seed, generation=generation)
        )

    def create_config_id(self, config_kwargs: dict, custom_features: datasets.Features | None = None) -> str:
        """Return the name of the cache folder: it changes with everything that shapes the rows."""
        return f"{self.name}-{self.plan().digest}"


class FlavourSD(datasets.GeneratorBasedBuilder):
    """Builder of `flavour-sd`; run it directly, as `load_dataset` runs no scripts."""

    VERSION = datasets.Version(CONTENT_VERSION)
    BUILDER_CONFIG_CLASS = FlavourSDConfig
    BUILDER_CONFIGS = [
        FlavourSDConfig(name="full", version=VERSION, description="the embedded catalogue, widened to 3,600 recipes"),
        FlavourSDConfig(name="tiny", version=VERSION, description="60 recipes at 64 px", number=60, size=64),
    ]
    DEFAULT_CONFIG_NAME = "full"

    @cached_property
    def plan(self) -> Plan:
        """The rows of this builder."""
        return self.config.plan()

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Dishes with title, ingredients, picture and flavour.",
            features=table_features(visible_ingredients()),
        )

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"shards": self.plan.shards(split)})
            for split in columns.SPLITS
        ]

    def _generate_examples(self, shards: list[Shard]) -> Iterator[tuple[str, dict[str, Any]]]:
        illustrator = self.plan.illustrator()
        for shard in shards:
            for group in self.plan.groups(shard):
                for row_id, row, _ in self.plan.draw(group, illustrator):
                    if row is not None:
                        yield row_id, row
