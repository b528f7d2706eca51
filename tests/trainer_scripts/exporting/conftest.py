"""Exports of the tests time their graphs in a few rounds."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _short_rounds():
    from trainer_scripts.exporting import measure

    measure.LATENCY_ROUNDS = 3
