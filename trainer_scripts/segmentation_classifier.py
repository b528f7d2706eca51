"""The flavour that another saved model gives each row, for a flavour map to be held against."""

import argparse

import numpy as np

from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from trainer_scripts.data import CLASSIFICATION
from trainer_scripts.scores import Decision
from trainer_scripts.scoring import SavedModel, load_model, load_table, score_model
from trainer_scripts.segmentation_evaluation import answer
from trainer_scripts.segmentation_scoring import samples_for
from trainer_scripts.segmentation_tastes import main_flavour, plate_taste, tastes_of


def flavours_said(source: str, given: argparse.Namespace) -> list[str]:
    """Return the flavour of each row by a classifier of flavours, or by the tastes that an ingredient model names.

    Args:
        source: the model.
        given: command line of `score.py`, which names the rows.

    Raises:
        BadInputError: the model knows neither flavours nor ingredients.
    """
    model = load_model(source, columns=given.columns)
    table = load_table(model, given.dataset, given.split, given.dataset_revision)
    if model.task.name == CLASSIFICATION and set(model.names) <= set(FLAVOURS):
        return [model.names[best] for best in score_model(model, table, given.batch_size).probabilities.argmax(axis=1)]
    if getattr(model.model.config, "ingredient_head", False):
        return _tasted(
            model, answer(model.model, samples_for(model, table), given.batch_size, model.name).probabilities
        )
    raise BadInputError(f"{source} knows neither flavours nor ingredients; give a classifier of one of them")


def _tasted(model: SavedModel, probabilities: np.ndarray) -> list[str]:
    tastes = tastes_of(model.model.config)
    named = Decision()(probabilities)
    return [main_flavour(plate_taste(np.concatenate([[0], row]), tastes)) or "none" for row in named]
