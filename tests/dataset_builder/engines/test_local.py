"""Units of work in processes of this machine: in order, bounded, with progress; what fails is named."""

import itertools
import os
import subprocess
import sys
import time

import pytest

from dataset_builder.engines.local import IN_FLIGHT, LocalEngine
from dataset_builder.errors import BadInputError


class Doubling:
    """Doubles numbers; units may be told to fail."""

    uses_gpu = False
    forks = True

    def start(self, number, workers):
        def double(unit, report):
            if unit == "bad":
                raise BadInputError("a bad unit")
            if unit == "gone":
                os._exit(7)
            if unit == 0:
                time.sleep(0.2)  # the first one comes last
            report(1)
            return 2 * unit

        return double


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_are_counted(processes):
    counted: list[int] = []
    found = list(LocalEngine(processes).run(Doubling(), range(20), counted.append))
    assert found == [2 * unit for unit in range(20)]
    assert sum(counted) == 20


def test_units_are_read_as_they_are_needed():
    read = []
    results = LocalEngine(2).run(Doubling(), (read.append(n) or n for n in itertools.count()))
    assert list(itertools.islice(results, 5)) == [0, 2, 4, 6, 8]
    assert len(read) <= 5 + IN_FLIGHT * 2
    results.close()


@pytest.mark.parametrize("processes", [1, 2])
def test_bad_input_of_a_worker_is_raised_here(processes):
    with pytest.raises(BadInputError, match="a bad unit"):
        list(LocalEngine(processes).run(Doubling(), [1, "bad", 2]))


def test_a_worker_that_ends_is_said_with_its_status():
    with pytest.raises(OSError, match="a worker process ended with status 7; repeat"):
        list(LocalEngine(2).run(Doubling(), [1, "gone", 2]))


LEFT_EARLY = """
from dataset_builder.engines.local import LocalEngine
from tests.dataset_builder.engines.test_local import Large

for _ in range(15):
    results = LocalEngine(2).run(Large(), (bytes(2_000_000) for _ in range(12)))
    next(results)
    results.close()
"""


class Large(Doubling):
    """Takes and returns more than a pipe holds, so that workers are ended while they read and write."""

    def start(self, number, workers):
        return lambda unit, report: bytes(20_000_000)


def test_workers_that_are_ended_while_they_read_and_write_keep_nobody_waiting():
    subprocess.run([sys.executable, "-c", LEFT_EARLY], check=True, timeout=60)


def test_no_units_start_nothing():
    assert list(LocalEngine(2).run(Doubling(), [])) == []
