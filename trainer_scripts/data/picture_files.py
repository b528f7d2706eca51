"""Pictures that the rows of a data set name as files: they must lie in the data set itself."""

import os
from pathlib import Path

from datasets import Dataset
from datasets.config import HF_DATASETS_CACHE
from huggingface_hub.constants import HF_HUB_CACHE

from dataset_builder.errors import BadInputError
from dataset_builder.messages import shown
from dataset_builder.named_files import MISSING, OUTSIDE, RefusedFileError, resolve


def check_files(rows: Dataset, column: str, dataset: str, allow_outside: bool, where: str) -> None:
    """Refuse rows whose pictures lie as files outside the data set, which may come from a stranger.

    Args:
        rows: with undecoded pictures.
        column: of the pictures.
        dataset: folder or Hub id.
        allow_outside: whether the user allows files outside it.
        where: data set and split, for messages.

    Raises:
        BadInputError: names the first such row.
    """
    # Nearly all data sets hold the bytes themselves; whether all rows do is known without reading them.
    stored = [chunk.field("bytes").null_count for chunk in rows.data.column(column).chunks]
    if not sum(stored):
        return
    place = Path(dataset)
    caches = [Path(HF_HUB_CACHE), Path(HF_DATASETS_CACHE)]
    roots = [place if place.is_dir() else place.parent] if place.exists() else caches
    for number, cell in enumerate(rows.select_columns([column])):
        path = (cell[column] or {}).get("path")
        if (cell[column] or {}).get("bytes") is not None or not path or "://" in path:
            continue
        reasons = []
        for root in roots:
            try:
                resolve(os.path.abspath(path), root, allow_outside)
            except RefusedFileError as error:
                reasons.append(str(error))
        # A missing file is reported where it is read.
        if len(reasons) == len(roots) and MISSING not in reasons:
            hint = "; --allow_outside takes it" if reasons[0] == OUTSIDE else "; mend or remove the row"
            raise BadInputError(f"{where}, row {number}: the picture {shown(path)} is {reasons[0]}{hint}")
