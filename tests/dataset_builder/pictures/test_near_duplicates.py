"""Near-duplicate pictures are found as comparing all pairs would find them, and faster."""

import io
import time

import numpy as np
from PIL import Image, ImageEnhance

from dataset_builder.pictures.near_duplicates import MAX_BITS, Looks, alike_across, looks_of, repeated_within
from tests.dataset_builder.tiny_build import picture


def test_sets_of_equal_pictures_are_found_without_comparing_all_pairs():
    random = np.random.default_rng(1)
    grey, red = np.full((8, 8, 3), 128, np.uint8), np.full((8, 8, 3), (255, 0, 0), np.uint8)
    looks = [Looks(5, grey)] * 20_000 + [Looks(5, red), Looks(5, red), None, Looks(int(random.integers(2**62)), grey)]
    owners = [str(n) for n in range(len(looks))]
    started = time.perf_counter()
    found = repeated_within(looks, ["train"] * len(looks), owners)
    assert time.perf_counter() - started < 20
    assert [len(one) for one in found] == [20_000, 2]
    assert repeated_within(looks[:4], ["a", "b", "a", "b"], ["x", "y", "x", "z"]) == [[1, 3]]
    assert repeated_within([None, None], ["a", "a"], ["x", "y"]) == []


def test_the_search_finds_what_comparing_all_pairs_finds():
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, 40, dtype=np.uint64).tolist()
    for bits in range(10):
        flipped = random.choice(64, size=bits, replace=False)
        hashes.append(hashes[bits] ^ int(sum(1 << int(bit) for bit in flipped)))
    grey = np.full((8, 8, 3), 128, dtype=np.uint8)
    looks = [Looks(int(bits), grey) for bits in hashes]
    looks[5] = None
    groups = ["train" if n % 3 else "test" for n in range(len(looks))]
    expected = [
        (i, j)
        for i in range(len(looks))
        for j in range(i + 1, len(looks))
        if looks[i] and looks[j] and groups[i] != groups[j] and (hashes[i] ^ hashes[j]).bit_count() <= MAX_BITS
    ]
    assert len(expected) > 2
    assert alike_across(looks, groups) == expected
    assert alike_across([None, None], ["train", "test"]) == []


def test_copies_look_alike_and_other_colours_do_not():
    original = picture(7, size=128, detail=9)
    stream = io.BytesIO()
    original.save(stream, format="JPEG", quality=50)
    copies = [Image.open(stream), original.resize((96, 96)), ImageEnhance.Brightness(original).enhance(1.1)]
    for copy in copies:
        assert alike_across([looks_of(original), looks_of(copy)], ["train", "test"]) == [(0, 1)]
    swapped = Image.fromarray(np.asarray(original)[:, :, ::-1].copy())
    recoloured = Image.merge(
        "RGB", [original.convert("L"), Image.new("L", original.size), Image.new("L", original.size)]
    )
    for other in (swapped, recoloured, picture(8, size=128, detail=9)):
        assert alike_across([looks_of(original), looks_of(other)], ["train", "test"]) == []
