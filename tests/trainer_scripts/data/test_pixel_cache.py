import errno
import gc
import mmap
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer_scripts.data.pixel_cache import Budget, Kept
from trainer_scripts.tasks.segmentation.answers import possible_winners, predicted_masks, resize

SIDE = 10


class Squares(Kept):
    """Squares of 100 bytes; counts how often each is decoded."""

    def __init__(self, rows, budget):
        super().__init__(rows, budget)
        self.decoded = [0] * rows

    def decode(self, index):
        self.decoded[index] += 1
        return torch.full((SIDE, SIDE), index, dtype=torch.uint8)


def read(squares):
    assert all((squares[index] == index).all() for index in range(len(squares)))
    return squares.decoded


def test_what_fits_is_decoded_once():
    squares = Squares(4, Budget(400))
    assert read(squares) == read(squares) == [1] * 4
    loaded = Squares(4, Budget(400))
    loaded.load()
    assert sum(loaded.decoded) == 5  # one tells the size
    assert sum(read(loaded)) == 5


def test_all_share_one_budget_and_give_back_what_they_held():
    budget = Budget(500)
    first, second = Squares(4, budget), Squares(4, budget)
    read(first)
    assert budget.room == 100
    assert read(second) == [1, 1, 1, 1]
    assert read(second) == [1, 2, 2, 2]
    del first
    gc.collect()
    assert budget.room == 400


def test_nothing_is_kept_of_what_does_not_fit_whole():
    budget = Budget(399)
    squares = Squares(4, budget)
    squares.load()
    read(squares)
    assert budget.room == 399


class Given(Kept):
    """Tensors that are given; each is decoded once at most."""

    def __init__(self, *tensors):
        super().__init__(len(tensors))
        self.tensors = list(tensors)

    def decode(self, index):
        tensor, self.tensors[index] = self.tensors[index], None
        return tensor


def test_a_kept_copy_has_its_values_and_memory_format():
    numbers = torch.arange(3 * 5 * 7, dtype=torch.uint8)
    tensors = (numbers.view(3, 5, 7), numbers.view(5, 7, 3).permute(2, 0, 1), numbers.view(3, 5, 7)[:, 1:4, 2:])
    given = Given(*tensors)
    for index in range(len(tensors)):
        given[index]  # decoded, and copied
    for index, pixels in enumerate(tensors):
        kept = given[index]
        assert torch.equal(kept, pixels)
        assert kept.stride() == torch.empty_like(pixels).stride()
        assert kept.untyped_storage().nbytes() == pixels.numel()  # never the whole array, should it be sent or saved
    assert given.nbytes == sum(pixels.numel() for pixels in tensors)


def test_a_pickled_sequence_leaves_its_pixels_behind_and_decodes_for_itself():
    squares = Squares(4, Budget(400))
    read(squares)
    content = pickle.dumps(squares)
    copy = pickle.loads(content)
    assert read(copy) == [2] * 4
    assert (squares.nbytes, copy.nbytes) == (400, 400)


def test_a_system_that_promises_less_memory_gives_a_smaller_array(monkeypatch):
    def promise(number, size, most=500, mapped=mmap.mmap):
        if size > most:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return mapped(number, size)

    monkeypatch.setattr(mmap, "mmap", promise)
    squares = Squares(6, Budget(1600))
    assert read(squares) == [1] * 6
    assert read(squares) == [1, 1, 1, 1, 2, 2]


MEASURE = """
import numpy as np, torch
from trainer_scripts.data.pixel_cache import Kept

class Decoded(Kept):
    def decode(self, index):
        draw = np.random.default_rng(index)
        for _ in range(3):
            buffer = torch.zeros(int(draw.integers(300_000, 3_000_000)), dtype=torch.uint8)
        return torch.ones(300, 1000, dtype=torch.uint8)

def own_bytes():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))) * 1024

decoded, batch = Decoded(600), []
torch.zeros(20_000_000, dtype=torch.uint8)  # from now on glibc takes buffers of this size from its heap
before = own_bytes()
for index in range(600):
    decoded[index]
    batch = [*batch[-7:], torch.zeros(200_000 + index * 1000)]
print((own_bytes() - before) / (600 * 300_000))
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="the memory of a process is read on Linux")
def test_a_process_grows_by_what_it_keeps_and_not_by_holes():
    grown = float(subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, check=True, text=True).stdout)
    assert 1 <= grown < 1.6  # tensors kept where they were decoded: 1.95


def test_masks_of_many_classes_equal_the_largest_of_all_enlarged_scores():
    scores = torch.randn(2, 41, 6, 7, generator=torch.Generator().manual_seed(0))
    scores[:, 30] = scores[:, 3]  # equal scores: the first wins
    sizes = [(24, 28), (13, 9)]
    for mask, each, size in zip(predicted_masks(scores, sizes), scores, sizes, strict=True):
        enlarged = resize(each[None], size)[0].numpy()
        assert np.array_equal(mask.numpy(), enlarged.argmax(axis=0))


def test_classes_that_can_win_no_pixel_are_left_out_and_those_that_win_between_places_are_kept():
    # On the two places 0 and 1 win; between them 2 does, which is second at both. 3 is below all others everywhere.
    scores = torch.tensor([[9.0, 0.0], [0.0, 9.0], [6.0, 6.0], [-1.0, -1.0]])[:, None]
    assert possible_winners(scores).tolist() == [0, 1, 2]
    assert set(next(predicted_masks(scores[None], [(1, 8)])).flatten().tolist()) == {0, 1, 2}
    assert not next(predicted_masks(torch.full((1, 4, 2, 2), torch.nan), [(4, 4)])).any()
    smooth = torch.nn.functional.interpolate(
        torch.randn(1, 60, 4, 4, generator=torch.Generator().manual_seed(0)) * 4, size=(24, 24), mode="bilinear"
    )
    assert len(possible_winners(smooth[0])) < 60
    for size in ((96, 96), (25, 7), (1, 1)):
        mask = next(predicted_masks(smooth, [size]))
        assert torch.equal(mask, resize(smooth, size)[0].argmax(0))
