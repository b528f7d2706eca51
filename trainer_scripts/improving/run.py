"""What `train.py` does with a configuration: one training, several seeds and their mean, or a search."""

from trainer_scripts.improving.search import search
from trainer_scripts.improving.soup import make_soup
from trainer_scripts.improving.teaching import teach
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.tasks.common.task import TrainingData
from trainer_scripts.training import run as training


def run(configuration: Configuration) -> None:
    """Do what a configuration describes."""
    if configuration.training.search:
        search(configuration, teach)
        return

    def finish(repeated: list[Configuration], data: TrainingData | None) -> None:
        if configuration.training.soup and configuration.training.should_save:
            make_soup(repeated, data, teach)

    training.run(configuration, teach, finish)
