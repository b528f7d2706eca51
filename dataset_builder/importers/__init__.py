"""Readers of other systems' data that give the columns of the one table."""

import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dataset_builder.errors import BadInputError
from dataset_builder.importers.coco import read_coco
from dataset_builder.importers.comp5329 import read_comp5329
from dataset_builder.importers.flickr8k import read_flickr8k
from dataset_builder.importers.foodseg103 import read_foodseg103
from dataset_builder.importers.table import ImportedTable, ImportSummary, write_table
from dataset_builder.importers.upmc_food101 import read_upmc_food101
from dataset_builder.storage.places import check_writable, fetched, files_in, is_url, place, store_whole

IMPORTERS: dict[str, Callable[[str], ImportedTable]] = {
    "comp5329": read_comp5329,
    "flickr8k": read_flickr8k,
    "coco": read_coco,
    "foodseg103": read_foodseg103,
    "upmc-food101": read_upmc_food101,
}


def import_table(
    name: str, source: str, out: str | Path, embed: bool = True, strict: bool = False, allow_outside: bool = False
) -> ImportSummary:
    """Read `source` with the importer called `name` and write it as Parquet into the folder `out`.

    Args:
        name: a key of `IMPORTERS`.
        source: a folder in the layout of that set, also by its URL in a store (for `foodseg103` also a Hub id).
        out: the new folder, also by its URL in a store; `load_dataset(out)` reads a folder of this machine.
        embed: put the pictures into the Parquet files; otherwise they are referenced by absolute path.
        strict: missing or broken pictures are an error instead of being counted and named.
        allow_outside: pictures may lie outside the folder that the set keeps them in, by their names or by links.

    Raises:
        BadInputError: the source is not in the layout of the set, or a picture is bad and `strict` is set.
    """
    how = {"embed": embed, "strict": strict, "allow_outside": allow_outside}
    folder = place(out)
    if not is_url(folder):
        return write_table(IMPORTERS[name](_here(source)), folder, **how)
    if not embed:
        raise BadInputError(
            f"--reference refers to pictures of this machine, which nobody finds from {folder}; leave it out"
        )
    check_writable(folder)
    if files_in(folder / "data"):
        raise BadInputError(f"{folder} exists; give --out a folder that does not")
    with tempfile.TemporaryDirectory(prefix="flavour-") as place_here:
        made = Path(place_here, "set")
        summary = write_table(IMPORTERS[name](_here(source)), made, **how)
        for path in sorted(made.rglob("*")):
            if path.is_file():
                store_whole(folder / path.relative_to(made).as_posix(), partial(shutil.copyfile, path))
    return summary


def _here(source: str) -> str:
    return str(fetched(source)) if is_url(source) else source
