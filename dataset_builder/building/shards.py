"""A build's folder on disk: shards that appear whole or not at all, and the settings they were made with.

While a build runs, everything is below `.unfinished`, which no data set reader looks into:

    DIR/.unfinished/settings.json
    DIR/.unfinished/plan/plan.json, train-00000.parquet, ...
    DIR/.unfinished/data/train-00000-of-00010.parquet

When all shards are there, the data folder is renamed to `DIR/data` and `DIR/manifest.json` is written last. A build
that another one replaces (`--fresh`) lies in `DIR/.replaced` until the other has a shard; in a store until the other is
finished.
"""

import io
import json
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from dataset_builder.errors import BadInputError
from dataset_builder.files import create_json, lock_file, read_json, write_json, write_whole
from dataset_builder.hub_files import sha256_of
from dataset_builder.messages import echo, one_line
from dataset_builder.storage.places import check_writable, files_in, is_url, make_folder, opened, place, remove
from dataset_builder.storage.replacing import SetAside

# Small enough for the viewer of the Hub, which reads whole row groups.
ROWS_PER_GROUP = 100
# As `Dataset.push_to_hub` writes: of a new version the Hub transfers what changed, and readers find single pages.
PARQUET: dict[str, Any] = {"use_content_defined_chunking": True, "write_page_index": True}

MEND = "give --fresh or another folder"
PLAN = "plan"
PARTS = "parts"
WHOLE = "whole"  # in the folder of a replaced build, when all of it is there
LEXICON = "lexicon.csv"  # beside the manifest, where the build used another than the package's
# Hash of a content -> settings that matter only through it.
SAME_CONTENT = {"recipes_sha256": {"recipes", "columns", "number"}, "lexicon_sha256": {"lexicon"}}
# Setting -> message where its recorded hash differs.
CHANGED = {
    "recipes_sha256": "the recipes, their labels or their splits changed",
    "lexicon_sha256": "the lexicon changed",
    "corrections_sha256": "the corrections by people changed",
}


# Types of the entries of `manifest.json`; what a person changed by hand is refused by name.
MANIFEST_KINDS: dict[str, Any] = {
    "finished": bool,
    "generator": dict[str, Any],
    "simulator": bool,
    "seeds": dict[str, int],
    "lexicon_sha256": str,
    "counts": dict[str, dict[str, int]],
    "rows": int,
    "shards": dict[str, int],
    "hashes": dict[str, dict[str, int | str]],
    "skipped_recipes": dict[str, dict[str, Any]],
    "given_up": dict[str, list[str]],
    "rejected": dict[str, int],
    "prompts_cut": int,
    "soft_labels_calibrated": bool,
    "settings": dict[str, Any],
    "history": list[dict[str, Any]],
    "corrections": dict[str, Any],
}


def damaged_shards(data: Path, manifest: Mapping[str, Any], fully: bool) -> dict[str, str]:
    """Return the shards that are not as a manifest states them: name -> what is wrong.

    Args:
        data: folder of the shards.
        manifest: of a finished build; those of earlier versions hold no hashes, and rows are counted instead.
        fully: whether to compare the hash of all bytes rather than the size alone.
    """
    found: dict[str, str] = {}
    sizes = files_in(data)
    for name, rows in manifest.get("shards", {}).items():
        path, stated = data / name, manifest.get("hashes", {}).get(name)
        if name not in sizes:
            found[name] = "missing"
        elif stated is None:
            with suppress(pa.ArrowException, OSError), opened(path) as stream:
                if pq.ParquetFile(stream).metadata.num_rows == rows:
                    continue
            found[name] = f"without its {rows} rows"
        elif sizes[name] != stated.get("bytes"):
            found[name] = f"of {sizes[name]} bytes in place of {stated.get('bytes')}"
        elif fully and sha256_of(path) != stated.get("sha256"):
            found[name] = "of other content"
    return found


@dataclass(frozen=True)
class Shard:
    """One file of a split: recipes `first` to `last` (exclusive) of that split."""

    split: str
    index: int
    count: int
    first: int
    last: int

    @property
    def file_name(self) -> str:
        """Name in the form that `load_dataset` recognises."""
        return f"{self.split}-{self.index:05d}-of-{self.count:05d}.parquet"


def divide(split: str, recipes: int, recipes_per_shard: int) -> list[Shard]:
    """Divide the recipes of a split into shards of nearly equal length; no recipes give no shard."""
    count = -(-recipes // recipes_per_shard)
    return [
        Shard(split, index, count, index * recipes // count, (index + 1) * recipes // count) for index in range(count)
    ]


class _PatientFile(io.RawIOBase):
    """A file that stores the first error of its writes instead of raising it."""

    def __init__(self, path: Path):
        self._file = path.open("wb")
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        if self.error is None:
            try:
                self._file.write(content)
            except OSError as error:
                self.error = error
        return len(content)

    def close(self) -> None:
        try:
            self._file.close()
        finally:
            super().close()


class ShardWriter(pq.ParquetWriter):
    """Writes a Parquet file with the settings of `PARQUET`; a full disk is an `OSError`.

    Arrow aborts the whole process when a write fails within a content-defined chunk, so the error is raised later.
    """

    def __init__(self, path: Path, schema: pa.Schema):
        self._sink = _PatientFile(path)
        super().__init__(self._sink, schema, **PARQUET)

    def write_table(self, table: pa.Table, row_group_size: int | None = None) -> None:
        """Write a table as one or more row groups."""
        super().write_table(table, row_group_size)
        self._raise()

    def close(self) -> None:
        """Write the end of the file."""
        super().close()
        self._sink.close()
        self._raise()

    def _raise(self) -> None:
        if self._sink.error is not None:
            raise self._sink.error


def write_table(path: Path, table: pa.Table) -> None:
    """Write Parquet whole."""

    def write(temporary: Path) -> None:
        with ShardWriter(temporary, table.schema) as writer:
            if table.num_rows:  # `load_dataset` fails on a row group that is empty, not on a file that has none
                writer.write_table(table, row_group_size=ROWS_PER_GROUP)

    write_whole(path, write)


class BuildFolder:
    """State of one build in one folder.

    Args:
        root: the folder that `--out` names.
    """

    def __init__(self, root: Path):
        self.root = root = place(root)
        # Files of a store cannot be moved, and there are no locks: shards are where they stay from the beginning.
        self._stored = is_url(root)
        self.manifest_path = root / "manifest.json"
        self._unfinished = root / ".unfinished"
        self._settings_path = self._unfinished / "settings.json"
        self._replaced = root / ".replaced"
        self._lock: FileLock | None = None
        self._has_set_aside = False  # whether this process has set a build in a store aside
        self._aside = SetAside(root, ("manifest.json", LEXICON, ".unfinished/settings.json"), "data")

    @property
    def data(self) -> Path:
        """Where shards are: below `.unfinished` until all are there; in a store always where they stay."""
        final = self.root / "data"
        return final if self._stored or final.is_dir() else self._unfinished / "data"

    @property
    def plan(self) -> Path:
        """Where the plan is while the build runs."""
        return self._unfinished / PLAN

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest of a finished build, None before that."""
        manifest = read_json(self.manifest_path, MEND, MANIFEST_KINDS)
        return manifest if manifest and manifest.get("finished") else None

    def lock(self) -> None:
        """Keep other builds out of the folder until `close`.

        Raises:
            BadInputError: another build runs here.
        """
        if self._stored:
            check_writable(self.root)
        elif self._lock is None:
            self._unfinished.mkdir(parents=True, exist_ok=True)
            refusal = f"another build is running in {self.root}; wait for it or give another --out"
            self._lock = lock_file(self._unfinished / "lock", refusal)
            for leftover in self._unfinished.glob(f"{PLAN}.*"):  # plans that killed processes were making
                shutil.rmtree(leftover, ignore_errors=True)

    def open(self, settings: Mapping[str, Any], fresh: bool = False, verify: bool = False) -> None:
        """Prepare the folder for a build with these settings, or for going on with one.

        Shards of a finished build that are missing or damaged are said and removed, to be drawn again.

        Args:
            settings: of the build.
            fresh: throw away the build that is there.
            verify: compare all bytes of the shards with their hashes; their sizes are always compared.

        Raises:
            BadInputError: another build runs here, the folder holds data of other settings, or data of no build.
        """
        self.lock()
        if self._stored:
            self._aside.settle()
            if fresh and self._aside.take():
                self._has_set_aside = True
                remove(self._unfinished / PARTS)
        else:
            self._settle_replaced()  # a killed build left it
            if fresh:
                self._set_aside()
        self.check(settings)
        self._reopen(verify)
        if self.manifest() is None:
            make_folder(self._unfinished)
            write_json(self._settings_path, settings)
            make_folder(self.data)
            self.clear_leftovers()

    def join(self, settings: Mapping[str, Any], part: str) -> None:
        """Prepare the folder for one part of a build, which others may be drawing too; nothing is locked or removed.

        Args:
            settings: of the build.
            part: its number and the count of all, such as `3/10`.

        Raises:
            BadInputError: the parts that were here before are of another build.
        """
        check_writable(self.root)
        for folder in (self._unfinished / PARTS, self.data):
            make_folder(folder)
        self.check(settings, strictly=True)
        if self.manifest() is None:
            # The first part states the settings for all; whoever comes at the same moment is compared with it.
            create_json(self._settings_path, settings)
            self.check(settings, strictly=True)
            create_json(self._unfinished / PARTS / part.replace("/", "-of-"), {"part": part})

    def part_counts(self) -> list[int]:
        """Return into how many parts the build was divided, by those that were here."""
        found = {name.partition("-of-")[2] for name in files_in(self._unfinished / PARTS)}
        return sorted(int(count) for count in found if count.isdigit())

    def check(self, settings: Mapping[str, Any], strictly: bool = False) -> None:
        """Refuse settings other than those recorded here, with the differences named.

        Args:
            settings: of the build.
            strictly: refuse them before the first shard, too: a part with the recorded ones may be drawing it.
        """
        manifest = read_json(self.manifest_path, MEND, MANIFEST_KINDS)
        recorded = manifest.get("settings") if manifest else read_json(self._settings_path, MEND)
        # Interrupted before its first shard: any settings may follow.
        if not strictly and self.manifest() is None and recorded is not None and not any(self.finished()):
            return
        if recorded is None:
            if files_in(self.root / "data") if self._stored else (self.root / "data").exists():
                raise BadInputError(f"{self.root} has a data folder that no build wrote; give another folder as --out")
            return
        # As JSON would return them: tuples become lists.
        known = json.loads(json.dumps(settings))
        differing = {name for name in recorded.keys() | known.keys() if recorded.get(name) != known.get(name)}
        # A table or lexicon of another name is the same one where its content is.
        for content, names in SAME_CONTENT.items():
            if recorded.get(content) is not None and content not in differing:
                differing -= names
        here = "parts of a build" if strictly else "a build"
        differences = [
            CHANGED.get(name) or f"{name} was {recorded.get(name)!r} and is {known.get(name)!r}"
            for name in sorted(differing)
        ]
        if differences:
            raise BadInputError(
                f"{self.root} holds {here} with other settings: {'; '.join(differences)}; "
                "repeat it with the old ones, give another --out, or --fresh to throw it away"
            )

    def _reopen(self, fully: bool) -> None:
        """Make a finished build unfinished where a shard is not as the manifest states it."""
        manifest = self.manifest()
        damaged = {} if manifest is None else damaged_shards(self.data, manifest, fully)
        if manifest is None or not damaged:
            return
        listed = "; ".join(f"{name} is {what}" for name, what in damaged.items())
        number = f"{len(damaged)} of {len(manifest['shards'])} shards are drawn again"
        echo(one_line(f"{self.root}: {number}: {listed}"), sys.stderr)
        # First, so that a build that is interrupted from here on is none that is finished.
        write_json(self.manifest_path, {**manifest, "finished": False})
        for name in damaged:
            remove(self.data / name)

    def clear_leftovers(self) -> None:
        """Remove the temporary files of processes that were killed; in a store there are none."""
        if self._stored:
            return
        for leftover in (*self.data.glob("*.tmp"), *self._unfinished.glob("*.tmp")):
            leftover.unlink(missing_ok=True)

    def finished(self) -> frozenset[str]:
        """Return the names of the shards that are there, by one listing of the folder."""
        return frozenset(name for name in files_in(self.data) if name.endswith(".parquet"))

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Move the shards to their final place and write the manifest."""
        self.clear_leftovers()  # of workers that were lost and replaced
        if not self._stored and self.data.parent == self._unfinished:
            os.rename(self.data, self.root / "data")
        write_json(self.manifest_path, manifest)
        if self._stored:
            remove(self._unfinished)
            self._aside.drop()
        self.close()

    def close(self) -> None:
        """Release the folder; of a finished build only its result remains."""
        if self._stored and self._has_set_aside and not self.finished():
            self._aside.bring_back()
        if self._lock is None:
            return
        try:
            self._settle_replaced()
            if self.manifest() is not None:
                shutil.rmtree(self._unfinished, ignore_errors=True)
        finally:
            self._lock.release()
            self._lock = None
            # Not empty while unfinished; Windows removes the lock file only when it is released.
            with suppress(OSError):
                self._unfinished.rmdir()

    def _set_aside(self) -> None:
        """Move the files of a build, and no others, to where they can be moved back from."""
        if not self.manifest_path.exists() and not self._settings_path.exists():
            return
        # The manifest goes first and comes back last: without it the data are not taken for a finished build.
        for path in self._files():
            if path.exists():
                kept = self._replaced / path.relative_to(self.root)
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, kept)
        (self._replaced / WHOLE).touch()

    def _settle_replaced(self) -> None:
        """Remove the build that was set aside if the new one has a shard; else move it back."""
        if not self._replaced.exists():
            return
        # Killed while it moved, its own shards may still lie where those of the new build will.
        if not (self._replaced / WHOLE).exists() or not any(self.data.glob("*.parquet")):
            for path in reversed(self._files()):
                kept = self._replaced / path.relative_to(self.root)
                if kept.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                if kept.exists():
                    path.parent.mkdir(exist_ok=True)
                    os.replace(kept, path)
        shutil.rmtree(self._replaced, ignore_errors=True)

    def _files(self) -> tuple[Path, ...]:
        """Return where the files of a build are, finished or not."""
        lexicon = self.root / LEXICON
        return self.manifest_path, self._settings_path, lexicon, self.root / "data", self._unfinished / "data"
