"""The build that `--fresh` replaces in a store: copied aside first, and removed only when the new one is finished.

Files of a store cannot be moved, and nothing there is locked, so that each step leaves a state from which the next
command goes on: before `WHOLE` nothing was removed; before `CLEARED` the copies are what counts; then the new build.
"""

from collections.abc import Sequence
from pathlib import Path

from dataset_builder.storage.places import copy_stored, files_in, remove, store_new

_WHOLE, _CLEARED = "whole", "cleared"


class SetAside:
    """What is set aside in a folder of a store.

    Args:
        root: of the build.
        single: paths below it of files that a build may have: that of a finished one first, that of an unfinished one
            last.
        data: name of the folder below it that holds the shards.
    """

    def __init__(self, root: Path, single: Sequence[str], data: str):
        self._root, self._single, self._data = root, single, data
        self._kept = root / ".replaced"

    def settle(self) -> None:
        """Finish what a killed command left: bring the former build back, or let it go where a new one is there."""
        marks = files_in(self._kept)
        if _WHOLE not in marks:
            return
        if _CLEARED in marks and self._single[0] in files_in(self._root):
            self.drop()
        elif _CLEARED not in marks or not files_in(self._root / self._data):
            self.bring_back()

    def take(self) -> bool:
        """Copy the build that is there aside and clear its place; one that is aside already stays what it is.

        Returns:
            Whether there was a build, finished or not.
        """
        if not set(self._files(self._root)) & {self._single[0], self._single[-1]}:
            return False
        if _WHOLE not in files_in(self._kept):
            remove(self._kept)
            for name in self._files(self._root):
                copy_stored(self._root / name, self._kept / name)
            store_new(self._kept / _WHOLE, b"")
        # Shards go before the settings by which a later command knows them.
        for name in sorted(self._files(self._root), key=lambda name: (name != self._single[0], name in self._single)):
            remove(self._root / name)
        store_new(self._kept / _CLEARED, b"")
        return True

    def bring_back(self) -> None:
        """Put the former build back in its place, and remove what was there of a new one."""
        if _WHOLE not in files_in(self._kept):
            return
        remove(self._kept / _CLEARED)
        former = self._files(self._kept)
        for name in self._files(self._root):
            if name not in former:
                remove(self._root / name)
        for name in reversed(former):  # that which makes it a finished build comes last
            copy_stored(self._kept / name, self._root / name)
        self.drop()

    def drop(self) -> None:
        """Remove what was set aside."""
        if files_in(self._kept):
            remove(self._kept / _WHOLE)  # first: without it the rest counts for nothing
            remove(self._kept)

    def _files(self, folder: Path) -> list[str]:
        """Return the names of the files of a build below a folder, the one that makes it a finished one first."""
        there = [name for name in self._single if Path(name).name in files_in((folder / name).parent)]
        return [*there, *(f"{self._data}/{name}" for name in files_in(folder / self._data))]
