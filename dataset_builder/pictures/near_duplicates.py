"""Pictures that look the same: perceptual hashes, a colour check, and a search that does not compare all pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dataset_builder.engines.local import LocalEngine
from dataset_builder.engines.work import Engine, Report
from dataset_builder.pictures.photographs import as_rgb
from dataset_builder.progress import progress

HASH_BITS = 64
MAX_BITS = 6  # copies that were compressed, resized or made brighter differ by fewer, different plates by more
THUMBNAIL = 8
MAX_COLOUR = 20.0  # mean difference of the thumbnails, out of 255; the hash itself is blind to colour


@dataclass(frozen=True)
class Looks:
    """The features of a picture that are compared: a perceptual hash of 64 bits and a thumbnail, `(8, 8, 3)` bytes."""

    bits: int
    thumbnail: np.ndarray


def looks_of(picture: Image.Image) -> Looks:
    """Return the hash (`imagehash.phash`) and the thumbnail of a picture."""
    picture = as_rgb(picture)
    bits = int("".join("1" if bit else "0" for bit in imagehash.phash(picture).hash.ravel()), 2)
    small = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return Looks(bits, np.asarray(small, dtype=np.uint8))


class _Bands:
    """Work on bands of hashes, see `engines.work.Work`: one unit finds the close pairs that agree in one band."""

    uses_gpu, forks = False, True

    def __init__(self, hashes: np.ndarray, group_ids: np.ndarray):
        self._hashes, self._group_ids = hashes, group_ids

    def start(self, number: int, workers: int) -> Callable[[tuple[int, int], Report], np.ndarray]:
        return self._pairs

    def _pairs(self, unit: tuple[int, int], report: Report) -> np.ndarray:
        shift, width = unit
        # Sorted by the bits of one band, equal values lie side by side; each run of them is compared within itself.
        band = (self._hashes >> np.uint64(shift)) & np.uint64((1 << width) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order], prepend=band[order][:1] + np.uint64(1)))
        pairs: list[tuple[int, int]] = []
        for members in np.split(order, starts[1:]):
            pairs += _close_pairs(members, self._hashes, self._group_ids)
        return np.array(pairs, np.int64).reshape(-1, 2)


def alike_across(
    looks: Sequence[Looks | None], groups: Sequence[str], engine: Engine | None = None
) -> list[tuple[int, int]]:
    """Return the pairs of pictures that look the same and lie in different groups.

    Two hashes that differ in at most k bits agree in at least one of k + 1 bands of them, so only pictures that share
    a band are compared; pictures of equal hash are compared as one.

    Args:
        looks: None where there is no picture.
        groups: for example the split of each picture.
        engine: compares the bands; None for this process.

    Returns:
        Positions `(i, j)` with `i < j`; of many pictures of equal hash in one group, the first stands for all.
    """
    first: dict[tuple[int, str], int] = {}
    for position, (look, group) in enumerate(zip(looks, groups, strict=True)):
        if look is not None:
            first.setdefault((look.bits, group), position)
    positions = np.array(list(first.values()), dtype=np.int64)
    hashes = np.array([bits for bits, _ in first], dtype=np.uint64)
    group_ids = np.unique([group for _, group in first], return_inverse=True)[1] if first else positions
    pairs: set[tuple[int, int]] = set()
    edges = np.linspace(0, HASH_BITS, MAX_BITS + 2).astype(int)
    bands = list(zip(edges[:-1].tolist(), np.diff(edges).tolist(), strict=True))
    found_in_bands = (engine or LocalEngine(1)).run(_Bands(hashes, group_ids), bands)
    for of_band in progress(found_in_bands, "near-duplicates", "bands", total=len(bands)):
        pairs.update(map(tuple, of_band.tolist()))
    found = []
    for one, other in sorted(pairs):
        i, j = sorted((int(positions[one]), int(positions[other])))
        if _same_colours(looks[i], looks[j]):
            found.append((i, j))
    return sorted(found)


def repeated_within(
    looks: Sequence[Looks | None], groups: Sequence[str], owners: Sequence[str], engine: Engine | None = None
) -> list[list[int]]:
    """Return the sets of pictures that look the same, lie in one group and belong to different owners.

    Args:
        looks: None where there is no picture.
        groups: for example the split of each picture.
        owners: for example the dish of each picture; it may repeat itself.
        engine: see `alike_across`.

    Returns:
        Positions in rising order, the largest set first. Pictures of a set are linked, each to some other of it.
    """
    # Of equal hashes and colours the first stands for all: a pipeline that gives one picture for all has one pair of
    # leader and row per row, not one of every two rows.
    leaders: dict[tuple[int, str], list[int]] = {}
    links: list[tuple[int, int]] = []
    for position, (look, group) in enumerate(zip(looks, groups, strict=True)):
        if look is not None:
            known = leaders.setdefault((look.bits, group), [])
            leader = next((one for one in known if _same_colours(looks[one], look)), None)
            if leader is None:
                known.append(position)
            else:
                links.append((leader, position))
    for group in dict.fromkeys(groups):
        chosen = sorted(one for (_, of), known in leaders.items() if of == group for one in known)
        pairs = alike_across([looks[one] for one in chosen], [str(one) for one in chosen], engine)
        links += [(chosen[i], chosen[j]) for i, j in pairs]
    size = len(looks)
    ends = np.array(links, dtype=np.int64).reshape(-1, 2).T
    # Chains of pairs become sets: the connected components of the graph of links.
    labels = connected_components(coo_array((np.ones(len(links)), tuple(ends)), shape=(size, size)), directed=False)[1]
    sets: dict[int, list[int]] = {}
    for position in np.unique(ends).tolist():
        sets.setdefault(int(labels[position]), []).append(position)
    several = (members for members in sets.values() if len({owners[one] for one in members}) > 1)
    return sorted(several, key=lambda members: (-len(members), members))


def _close_pairs(members: np.ndarray, hashes: np.ndarray, group_ids: np.ndarray) -> list[tuple[int, int]]:
    pairs = []
    for place, one in enumerate(members[:-1]):
        others = members[place + 1 :]
        others = others[group_ids[others] != group_ids[one]]
        # The number of different bits of two hashes is that of their exclusive or.
        near = others[np.bitwise_count(hashes[others] ^ hashes[one]) <= MAX_BITS]
        pairs += [(min(int(one), int(other)), max(int(one), int(other))) for other in near]
    return pairs


def _same_colours(one: Looks | None, other: Looks | None) -> bool:
    assert one is not None
    assert other is not None
    difference = np.abs(one.thumbnail.astype(np.int16) - other.thumbnail.astype(np.int16))
    return float(difference.mean()) <= MAX_COLOUR
