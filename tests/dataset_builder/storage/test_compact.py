"""Maps of hashes in little memory behave as dictionaries do."""

import random

from dataset_builder.storage.compact import HashMap


def test_a_map_of_hashes_is_a_dictionary():
    draw = random.Random(0)
    known: dict[int, int] = {}
    compact = HashMap()
    for _ in range(30_000):
        key = draw.choice((0, draw.randrange(-(2**63), 2**63), hash(str(draw.randrange(5000)))))
        assert (key in compact) == (key in known or (key in (0, 1) and bool({0, 1} & known.keys())))
        if draw.random() < 0.7:
            known[key] = compact[key] = draw.randrange(-(2**63), 2**63)
    assert len(compact) == len(known)
    assert all(compact.get(key) == value for key, value in known.items())
    assert compact.get(12345, -1) == -1


def test_a_map_without_values_is_a_set_of_less_memory():
    compact = HashMap()
    for number in range(20_000):
        compact.add(hash(f"dish {number}"))
    assert len(compact) == 20_000
    assert hash("dish 7") in compact
    assert hash("no dish") not in compact
    assert compact.get(hash("dish 7")) == 0
    assert compact.nbytes < 20_000 * 30
