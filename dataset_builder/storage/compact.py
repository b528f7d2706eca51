"""Sets and maps of 64-bit hashes for tables of millions of rows: some 20 bytes an entry, Python's take over 100."""

from array import array

_FIRST = 1 << 12  # slots of an empty map
_LOAD = 0.6  # share of the slots in use above which their number doubles


class HashMap:
    """A map from hashes to whole numbers of 64 bits each, by open addressing; what is once in it stays.

    Values take memory from the first one on that is not 0, so that a map without any is a set.

    >>> counts = HashMap()
    >>> counts[hash("soup")] = 3
    >>> counts.get(hash("soup")), counts.get(hash("cake")), hash("cake") in counts
    (3, None, False)
    """

    def __init__(self) -> None:
        self._keys = array("q", bytes(8 * _FIRST))
        self._values: array | None = None
        self._used = 0

    def __len__(self) -> int:
        return self._used

    @property
    def nbytes(self) -> int:
        """Bytes of all slots."""
        return self._keys.itemsize * len(self._keys) * (1 if self._values is None else 2)

    def __contains__(self, key: int) -> bool:
        return self._keys[self._slot(key or 1)] != 0

    def get(self, key: int, default: int | None = None) -> int | None:
        """Return the value of a hash, `default` where it is not in the map."""
        slot = self._slot(key or 1)
        if self._keys[slot] == 0:
            return default
        return 0 if self._values is None else self._values[slot]

    def __setitem__(self, key: int, value: int) -> None:
        key = key or 1  # 0 marks a free slot
        slot = self._slot(key)
        if self._keys[slot] == 0:
            if self._used >= _LOAD * len(self._keys):
                self._grow()
                slot = self._slot(key)
            self._keys[slot] = key
            self._used += 1
        if self._values is None and value:
            self._values = array("q", bytes(8 * len(self._keys)))
        if self._values is not None:
            self._values[slot] = value

    def add(self, key: int) -> None:
        """Put a hash into the map as into a set."""
        self[key] = 0

    def _slot(self, key: int) -> int:
        """Return the place of a hash, or the free one where it belongs."""
        keys = self._keys
        last = len(keys) - 1
        slot = key & last
        while keys[slot] not in (0, key):
            slot = (slot + 1) & last
        return slot

    def _grow(self) -> None:
        keys, values = self._keys, self._values
        size = 2 * keys.itemsize * len(keys)
        self._keys, self._values = array("q", bytes(size)), None if values is None else array("q", bytes(size))
        for place, key in enumerate(keys):
            if key:
                slot = self._slot(key)
                self._keys[slot] = key
                if values is not None and self._values is not None:
                    self._values[slot] = values[place]
