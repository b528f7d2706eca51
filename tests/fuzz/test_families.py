"""A few damaged inputs of each family, and every input that failed once."""

import pytest

from tests.fuzz.families import FAMILIES, damaged, fault
from tests.fuzz.run import CORPUS


@pytest.mark.parametrize("name", FAMILIES)
def test_the_sound_input_is_read(name, tmp_path):
    family = FAMILIES[name]
    assert fault(family, family.sound, tmp_path) is None
    assert family.read(tmp_path) is not None


@pytest.mark.parametrize("name", FAMILIES)
def test_damaged_inputs_are_read_or_refused_in_one_line(name, tmp_path):
    family = FAMILIES[name]
    found = {seed: fault(family, damaged(family, seed), tmp_path) for seed in range(25)}
    assert {seed: wrong for seed, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*-*")), ids=lambda path: path.name)
def test_an_input_that_failed_once(path, tmp_path):
    assert fault(FAMILIES[path.name.rpartition("-")[0]], path.read_bytes(), tmp_path) is None
