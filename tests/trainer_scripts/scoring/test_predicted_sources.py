"""Where rows to predict come from: files of every kind, folders of pictures, pictures in text, numbers as ids."""

import base64
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Image, load_dataset
from huggingface_hub import HfApi

from dataset_builder.errors import BadInputError
from tests.trainer_scripts.conftest import png
from trainer_scripts.data.splits import open_dataset
from trainer_scripts.scoring.predicted_rows import RowsWanted, read_items

PIXELS = png(np.zeros((4, 4, 3), dtype=np.uint8))
FUSION = RowsWanted("fusion")


def shapes(items):
    return [item.read_picture().size for item in items]


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "set" / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "test_b.png", "sub/c.PNG"), start=4):
        (tmp_path / "set" / name).write_bytes(png(np.zeros((number, 4, 3), dtype=np.uint8)))
    return tmp_path / "set"


def test_what_save_to_disk_wrote_is_read_whole_split_by_split_and_as_a_file(small_dataset, small_rows, tmp_path):
    whole = load_dataset(str(small_dataset))
    whole.save_to_disk(tmp_path / "all")
    whole["test"].save_to_disk(tmp_path / "one")
    expected = [row["id"] for row in small_rows["test"]]
    file = next((tmp_path / "one").glob("*.arrow"))
    for source, split in ((tmp_path / "all", "test"), (tmp_path / "one", None), (file, None)):
        items = read_items(str(source), RowsWanted("fusion", split=split))
        assert [item.item_id for item in items] == expected
        assert items[3].text == small_rows["test"][3]["title"]
        assert items[3].read_bytes() == small_rows["test"][3]["image"]["bytes"]
    # The same for training and scoring.
    assert list(open_dataset(str(tmp_path / "all"))) == ["train", "validation", "test"]
    assert open_dataset(str(tmp_path / "one"))["test"].num_rows == 30
    streamed = open_dataset(str(tmp_path / "one"), streaming=True)["test"]
    assert next(iter(streamed.select_columns(["id"]))) == {"id": expected[0]}
    assert open_dataset(str(file))["train"].num_rows == 30


def test_a_folder_of_photographs_is_a_table_by_itself(photos):
    items = read_items(str(photos), RowsWanted("image"))
    # `datasets` would take `test_b` for a split of its own, and leave the others out.
    assert [item.item_id for item in items] == ["a.png", "sub/c.PNG", "test_b.png"]
    assert shapes(items) == [(4, 4), (4, 6), (4, 5)]
    with pytest.raises(BadInputError, match="holds no table"):
        read_items(str(photos), FUSION)
    with pytest.raises(BadInputError, match="holds no table"):
        read_items(str(photos), RowsWanted("image", split="test"))


def test_photographs_with_metadata_are_joined_with_it_in_a_folder_and_on_a_hub(photos, connected_hub):
    (photos / "sub" / "metadata.csv").write_text("file_name,title\nc.PNG,cake\n")
    (photos / "metadata.csv").write_text("file_name,title\ntest_b.png,soup\na.png,tea\n")
    expected = [("test_b.png", "soup", (4, 5)), ("a.png", "tea", (4, 4)), ("sub/c.PNG", "cake", (4, 6))]
    items = read_items(str(photos), FUSION)
    assert [(item.item_id, item.text, item.read_picture().size) for item in items] == expected
    for name in ("test_b.png", "sub/metadata.csv"):  # which `datasets` takes for a split, and for one more kind
        (photos / name).unlink()
    api = HfApi()
    api.create_repo("org/photos", repo_type="dataset")
    (photos / "metadata.csv").write_text("file_name,title\na.png,tea\nsub/c.PNG,cake\n")
    api.upload_folder(repo_id="org/photos", repo_type="dataset", folder_path=photos)
    for source, wanted in (("org/photos", FUSION), (str(photos), RowsWanted("fusion", split="train"))):
        found = read_items(source, wanted)
        assert sorted((item.text, item.read_picture().size) for item in found) == [("cake", (4, 6)), ("tea", (4, 4))]


def test_a_hubs_rows_open_no_file_of_this_machine(connected_hub, tmp_path):
    (tmp_path / "private.png").write_bytes(PIXELS)
    (tmp_path / "set").mkdir()
    rows = Dataset.from_dict({"id": ["1"], "image": [{"bytes": None, "path": str(tmp_path / "private.png")}]})
    rows.cast_column("image", Image()).to_parquet(tmp_path / "set" / "test.parquet")
    # As a file of this machine it may name what lies beside it.
    assert shapes(
        read_items(str(tmp_path / "set" / "test.parquet"), RowsWanted("image", tmp_path, image_column="image"))
    )
    api = HfApi()
    api.create_repo("org/thief", repo_type="dataset")
    api.upload_folder(repo_id="org/thief", repo_type="dataset", folder_path=tmp_path / "set")
    (item,) = read_items("org/thief", RowsWanted("image"))
    with pytest.raises(ValueError, match=r"private\.png is outside its folder"):
        item.read_picture()
    assert shapes(read_items("org/thief", RowsWanted("image", allow_outside=True))) == [(4, 4)]


def test_a_cell_of_text_may_hold_the_picture_itself(tmp_path):
    plain = base64.b64encode(PIXELS).decode()
    rows = [{"image": plain, "title": "a"}, {"image": f"data:image/png;base64,{plain}", "title": "b"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    for name in ("t.jsonl", "t.parquet"):
        items = read_items(str(tmp_path / name), FUSION)
        assert shapes(items) == [(4, 4), (4, 4)]
        assert [item.item_id for item in items] == ["1", "2"]


def test_ids_without_an_ending_are_read_under_the_header_of_the_assignment(tmp_path):
    for name in ("007.png", "b.png"):
        (tmp_path / name).write_bytes(PIXELS)
    table = tmp_path / "test.csv"
    table.write_text('ImageID,Caption\n007,"a cake, with cream"\nb,soup\n')
    items = read_items(str(table), RowsWanted("fusion", tmp_path))
    assert [(item.item_id, item.text) for item in items] == [("007", "a cake, with cream"), ("b", "soup")]
    assert shapes(items) == [(4, 4)] * 2


def test_numbers_and_nothing_at_all_name_rows_too(tmp_path):
    (tmp_path / "3.png").write_bytes(PIXELS)
    # As pandas writes whole numbers beside a missing one.
    pq.write_table(pa.table({"id": [3.0], "title": [0]}), tmp_path / "t.parquet")
    (item,) = read_items(str(tmp_path / "t.parquet"), RowsWanted("fusion", tmp_path))
    assert (item.item_id, item.text, item.read_picture().size) == ("3", "0", (4, 4))
    (tmp_path / "titles.csv").write_text("title\ncake\nsoup\n")
    found = read_items(str(tmp_path / "titles.csv"), RowsWanted("text"))
    assert [(each.item_id, each.text) for each in found] == [("1", "cake"), ("2", "soup")]
