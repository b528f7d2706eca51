"""A finished build on disk: its Parquet shards, its manifest, and the facts about the rows in both."""

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import ClassLabel, DatasetInfo, Features, SplitInfo
from datasets.splits import SplitDict

from dataset_builder.building.shards import LEXICON, MANIFEST_KINDS, ROWS_PER_GROUP, damaged_shards
from dataset_builder.columns import DISH_ID, FLAVOUR, FLAVOURS, FLAVOURS_PRESENT, GENERATION, ID, LABEL_SOURCE, SPLITS
from dataset_builder.errors import BadInputError
from dataset_builder.files import read_json, write_whole
from dataset_builder.hub_files import sha256_of
from dataset_builder.labelling.lexicon import NEGATION, Lexicon
from dataset_builder.storage.places import files_in, on_disk, opened, place
from dataset_builder.storage.stored_sets import SHARD

MANIFEST = "manifest.json"
DATA = "data"
RULE = {
    "weighed": ("rule", "min_lead"),
    "votes": ("rule", "match", "min_ingredient_votes", "min_title_votes", "on_conflict"),
}
MANIFEST_KEYS = {
    "schema_version": "version of the columns",
    "generator": "settings with which the pictures were made",
    "simulator": "whether a program drew them",
    "seeds": "seeds of the build",
    "lexicon_sha256": "hash of the lexicon that gave the labels",
    "counts": "rows per split and label",
}


@dataclass(frozen=True)
class FinishedBuild:
    """The result of `flavour-sd build` in a folder, checked to be whole.

    Attributes:
        folder: holds `data/*.parquet` and `manifest.json`.
        manifest: the manifest as read.
        shards: files of each split in order; a split without rows is absent.
        features: columns and their types, label names included.
    """

    folder: Path
    manifest: Mapping[str, Any]
    shards: Mapping[str, Sequence[Path]]
    features: Features

    def read(self, columns: Sequence[str]) -> dict[str, pa.Table]:
        """Return these columns of each split; only they are read."""
        return {
            split: pa.concat_tables([_read_columns(path, columns) for path in paths])
            for split, paths in self.shards.items()
        }

    @cached_property
    def labels(self) -> dict[str, pa.Table]:
        """Ids, dishes and labels of each split; flavours as names."""
        columns = (ID, DISH_ID, FLAVOUR, FLAVOURS_PRESENT, LABEL_SOURCE)
        return {split: named_labels(table, self.features) for split, table in self.read(columns).items()}

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """Rows per split and flavour."""
        counts = {split: Counter(table[FLAVOUR].to_pylist()) for split, table in self.labels.items()}
        none: Counter[str] = Counter()
        return {split: {flavour: counts.get(split, none)[flavour] for flavour in FLAVOURS} for split in SPLITS}

    @property
    def rows(self) -> int:
        """Rows of all splits."""
        return sum(table.num_rows for table in self.labels.values())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the bytes of all shards."""
        digest = hashlib.sha256()
        for paths in self.shards.values():
            for path in paths:
                # Hash of hashes, so that no shard is held in memory.
                digest.update(f"{path.name}:{sha256_of(path)}\n".encode())
        return digest.hexdigest()

    @cached_property
    def pictures(self) -> list[dict[str, Any]]:
        """Distinct ways in which pictures were made, with the number of rows of each."""
        keys = ("pipeline", "revision", "lora", "dtype", "scheduler", "steps", "guidance", "height", "width")
        ways: Counter[tuple] = Counter()
        for table in self.read([GENERATION]).values():
            for row in table[GENERATION].to_pylist():
                # Imported rows have no record of a generation.
                ways[tuple((row or {}).get(key) for key in keys)] += 1
        return [{**dict(zip(keys, way, strict=True)), "rows": rows} for way, rows in ways.most_common()]

    @property
    def example_prompt(self) -> str | None:
        """The prompt of a row."""
        prompts = (
            (row or {}).get("prompt") for table in self.read([GENERATION]).values() for row in table[0].to_pylist()
        )
        return next(filter(None, prompts), None)

    def has(self, column: str) -> bool:
        """Return whether any row has a value in an optional column such as the mask."""
        for path in (path for paths in self.shards.values() for path in paths):
            # Row group by row group, to stop at the first value without reading all pictures.
            with opened(path) as stream:
                batches = pq.ParquetFile(stream).iter_batches(ROWS_PER_GROUP, columns=[column])
                if any(_has_value(batch.column(0)) for batch in batches):
                    return True
        return False

    @cached_property
    def lexicon_file(self) -> Path | None:
        """The lexicon beside the manifest, if it is the one that gave the labels."""
        path = self.folder / LEXICON
        try:
            with on_disk(path) if path.is_file() else nullcontext() as file:
                kept = Lexicon.load(file).digest if file is not None else None
        except BadInputError:
            kept = None
        return path if kept == self.manifest["lexicon_sha256"] else None

    @property
    def info(self) -> DatasetInfo:
        """Features, sizes and splits, as the metadata of the card states them."""
        splits, download, sizes = SplitDict(), 0, files_in(self.folder / DATA)
        for split, paths in self.shards.items():
            groups = [_metadata(path) for path in paths]
            size = sum(group.row_group(n).total_byte_size for group in groups for n in range(group.num_row_groups))
            rows = sum(group.num_rows for group in groups)
            splits[split] = SplitInfo(split, num_bytes=size, num_examples=rows)
            download += sum(sizes[path.name] for path in paths)
        size = sum(split.num_bytes for split in splits.values())
        return DatasetInfo(features=self.features, splits=splits, download_size=download, dataset_size=size)


def _read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    with opened(path) as stream:
        return pq.ParquetFile(stream).read(list(columns))


def _metadata(path: Path) -> pq.FileMetaData:
    with opened(path) as stream:
        return pq.ParquetFile(stream).metadata


def _has_value(values: pa.Array) -> bool:
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return bool(pc.any(pc.greater(pc.list_value_length(values), 0)).as_py())
    return values.null_count < len(values)


def rule_settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the labelling rule, as `make_labeller` takes them beside the lexicon."""
    stated = manifest.get("settings")
    settings = stated if isinstance(stated, Mapping) else {}
    # Builds that name no rule were made before there were several. Only what the rule reads is returned.
    rule = settings.get("rule", "votes")
    return {"rule": rule, **{name: settings[name] for name in RULE.get(rule, ()) if name in settings}}


def write_lexicon(folder: Path, lexicon: Lexicon) -> None:
    """Write the lexicon of a build beside its manifest, unless it is the one of the package."""
    if lexicon.digest == Lexicon.load().digest:
        return

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("flavour", "source", "phrase", "weight"))
            writer.writerows(entry[1:] for entry in lexicon.entries)
            writer.writerows((NEGATION, place, word, "") for place, word in lexicon.denials)

    write_whole(folder / LEXICON, write)


def named_labels(table: pa.Table, features: Features) -> pa.Table:
    """Return the table with flavour ids replaced by names, for label lists may differ between versions."""
    label = features[FLAVOUR]
    if isinstance(label, ClassLabel):
        ids = table[FLAVOUR].to_pylist()
        # An id of -1 stands for an unknown label.
        names = pa.array([None if one is None or one < 0 else label.names[one] for one in ids], pa.string())
        table = table.set_column(table.schema.get_field_index(FLAVOUR), FLAVOUR, names)
    return table


def read_build(folder: str | Path, verify: bool = False) -> FinishedBuild:
    """Return a finished build.

    Args:
        folder: the folder given to `flavour-sd build --out`.
        verify: whether to compare all bytes of its shards with the hashes of its manifest.

    Raises:
        BadInputError: the folder holds no build, an unfinished one, or one that contradicts its manifest.
    """
    folder = place(folder)
    manifest = _read_manifest(folder)
    damaged = damaged_shards(folder / DATA, manifest, verify)
    if damaged:
        listed = "; ".join(f"{name} is {what}" for name, what in damaged.items())
        raise BadInputError(f"{folder}: {listed}; repeat the `flavour-sd build` command with --verify to draw it again")
    shards = _find_shards(folder, manifest["counts"])
    features = _shared_features([path for paths in shards.values() for path in paths])
    needed = (ID, DISH_ID, FLAVOUR, FLAVOURS_PRESENT, LABEL_SOURCE, GENERATION)
    missing = [name for name in needed if name not in features]
    if missing:
        raise BadInputError(f"the shards in {folder / DATA} lack the columns {', '.join(missing)}; build again")
    build = FinishedBuild(folder, manifest, shards, features)
    ids = pa.concat_arrays([table[ID].combine_chunks() for table in build.labels.values()])
    if pc.count_distinct(ids).as_py() != len(ids):
        raise BadInputError(f"{folder} holds rows of equal id; build again")
    if manifest["counts"] != build.counts:
        raise BadInputError(
            f"{folder / MANIFEST} counts {manifest['counts']}, the shards hold {build.counts}; "
            "they are not of one build, build again"
        )
    return build


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    manifest = read_json(path, "build again, or give the folder of a build", MANIFEST_KINDS)
    if manifest is None:
        raise BadInputError(f"{folder} has no {MANIFEST}, so no build was finished there; run `flavour-sd build` first")
    if manifest.get("finished") is not True:
        raise BadInputError(f"the build in {folder} is not finished; repeat the `flavour-sd build` command to go on")
    missing = [f"{key} ({meaning})" for key, meaning in MANIFEST_KEYS.items() if key not in manifest]
    if missing:
        raise BadInputError(f"{path} does not state {', '.join(missing)}; build again with this version of the package")
    return manifest


def _find_shards(folder: Path, counts: Mapping[str, Mapping[str, int]]) -> dict[str, list[Path]]:
    found: dict[str, dict[int, tuple[int, Path]]] = {}
    for path in (folder / DATA / name for name in sorted(files_in(folder / DATA))):
        match = SHARD.fullmatch(path.name)
        if match is None or match["split"] not in SPLITS:
            raise BadInputError(f"{path} is no shard such as train-00000-of-00001.parquet; move it elsewhere")
        found.setdefault(match["split"], {})[int(match["index"])] = (int(match["total"]), path)
    # Of few recipes a split may be empty; then the manifest counts nothing in it.
    # A build that was copied in part lacks files that its manifest counts.
    missing = [split for split in SPLITS if split not in found and any(counts.get(split, {}).values())]
    if missing or not found:
        raise BadInputError(
            f"{folder / DATA} lacks the shards of {', '.join(missing or SPLITS)}, which {MANIFEST} counts; build again"
        )
    for split, shards in found.items():
        # Every file name states the same total, and each number below it occurs.
        if {total for total, _ in shards.values()} != {len(shards)} or set(shards) != set(range(len(shards))):
            raise BadInputError(f"the shards of {split} in {folder / DATA} are not complete; repeat the build")
    return {split: [found[split][index][1] for index in sorted(found[split])] for split in SPLITS if split in found}


def _shared_features(paths: Sequence[Path]) -> Features:
    every: list[Features] = []
    for path in paths:
        try:
            with opened(path) as stream:
                every.append(Features.from_arrow_schema(pq.read_schema(stream)))
        except pa.ArrowInvalid as error:
            raise BadInputError(f"{path} is not Parquet ({error}); build again") from error
        if every[-1] != every[0]:
            raise BadInputError(f"{path} has other columns than {paths[0].name}; build again")
    return every[0]
