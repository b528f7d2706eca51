"""Rows of a data set on a Hub are listed by a few columns, without their pictures and without waiting for all files."""

import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features
from huggingface_hub import HfApi

from dataset_builder import columns
from dataset_builder.columns import FLAVOURS
from dataset_builder.errors import BadInputError
from dataset_builder.schema import table_features
from trainer_scripts.app_pages.data import Answers
from trainer_scripts.data.row_index import ALL, CALLS, open_rows

WRITTEN = (columns.ID, columns.DISH_ID, columns.TITLE, columns.FLAVOUR, columns.TASTE, columns.IMAGE, columns.CAPTIONS)
FILES = 4


def write_rows(folder, rows, bytes_of_picture):
    """Write a data set in four files of which pictures are the most; return their bytes."""
    draw = np.random.default_rng(0)
    known = table_features([])
    features = Features({name: known[name] for name in WRITTEN})
    (folder / "data").mkdir(parents=True)
    each = rows // FILES
    for number in range(FILES):
        names = [f"{number * each + row}" for row in range(each)]
        flavour = draw.integers(0, len(FLAVOURS), each)
        taste = np.full((each, len(FLAVOURS)), 0.1, np.float32)
        taste[np.arange(each), flavour] = 0.6
        cells = {
            columns.ID: [f"row-{name}" for name in names],
            columns.DISH_ID: [f"dish-{name}" for name in names],
            columns.TITLE: [f"Soup number {name}" for name in names],
            columns.FLAVOUR: flavour,
            columns.TASTE: taste.tolist(),
            columns.IMAGE: [{"bytes": draw.bytes(bytes_of_picture), "path": None} for _ in names],
            columns.CAPTIONS: [["a soup"]] * each,
        }
        path = folder / "data" / f"train-{number:05d}-of-{FILES:05d}.parquet"
        pq.write_table(pa.table(cells, schema=features.arrow_schema), path, row_group_size=1_000)
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("rows", "bytes_of_picture"), [(8_000, 2_000), pytest.param(100_000, 2_000, marks=pytest.mark.slow)]
)
def test_rows_of_a_hub_are_listed_without_their_pictures(connected_hub, tmp_path, rows, bytes_of_picture):
    size = write_rows(tmp_path / "set", rows, bytes_of_picture)
    api = HfApi()
    api.create_repo("org/large", repo_type="dataset")
    api.upload_folder(repo_id="org/large", repo_type="dataset", folder_path=tmp_path / "set")
    asked, start = connected_hub.requests, time.monotonic()
    before = len(asked)
    table = open_rows("org/large")
    answers = Answers(table, tmp_path / "downloads")
    tiles = answers.show(ALL, ALL, ALL, ALL, "", 0, {})[1]
    assert time.monotonic() - start < 5, "the first page waits for no more than the first file"
    assert tiles.count("<button") == 12
    assert table.read.wait(60)
    # Of every picture but those of the first page's row group nothing was sent.
    sent = sum(one.sent for one in asked[before:])
    assert sent < 1_000 * bytes_of_picture + size / 12
    assert all("main" not in one.path for one in asked[before + 1 :]), "of the one commit that was found first"
    assert f"{rows:,} of {rows:,} rows, page 1 of" in answers.show(ALL, ALL, ALL, ALL, "", 0, {})[0]
    start = time.monotonic()
    assert f"1 of {rows:,} rows" in answers.show("train", ALL, ALL, ALL, f"number {rows - 1}", 0, {})[0]
    assert f"0 of {rows:,} rows" in answers.show(ALL, ALL, ALL, CALLS, "", 0, {})[0]
    assert time.monotonic() - start < 5
    (last,) = table.find(ALL, ALL, ALL, ALL, f"number {rows - 1}").to_pylist()
    assert table.at(f"{last['file']}.{last['row']}")[columns.TITLE] == f"Soup number {rows - 1}"


def test_a_hub_that_fails_after_the_first_file_is_named_beside_the_rows_that_were_read(connected_hub, tmp_path):
    write_rows(tmp_path / "set", 80, 100)
    api = HfApi()
    api.create_repo("org/broken", repo_type="dataset")
    api.upload_folder(repo_id="org/broken", repo_type="dataset", folder_path=tmp_path / "set")
    damaged = tmp_path / "set" / "data" / f"train-00002-of-{FILES:05d}.parquet"
    damaged.write_bytes(b"PAR1" + bytes(400) + b"PAR1")
    api.upload_folder(repo_id="org/broken", repo_type="dataset", folder_path=tmp_path / "set")
    table = open_rows("org/broken")
    assert table.read.wait(30)
    line = Answers(table, tmp_path / "downloads").show(ALL, ALL, ALL, ALL, "", 0, {})[0]
    assert "40 of 40 rows" in line
    assert "The others are missing: cannot read " in line
    assert damaged.name in line


@pytest.mark.parametrize("name", ["org/none", "org/none@v9"])
def test_a_data_set_that_the_hub_does_not_have_is_one_line(connected_hub, name):
    with pytest.raises(BadInputError, match="cannot read data set 'org/none'"):
        open_rows(name)
