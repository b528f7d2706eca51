"""A data set opens no files of the reader's machine but its own, unless the user means it."""

import os

import pytest
from datasets import Dataset, Features, Image
from PIL import Image as Pictures

from dataset_builder.errors import BadInputError
from trainer_scripts.data.picture_files import check_files
from trainer_scripts.data.split_guard import row_keys
from trainer_scripts.data.table import decode_bytes
from trainer_scripts.scoring.predicted_rows import RowsWanted, read_items


@pytest.fixture
def place(tmp_path):
    for path in (tmp_path / "set" / "a.png", tmp_path / "private.png"):
        path.parent.mkdir(exist_ok=True)
        Pictures.new("RGB", (4, 4)).save(path)
    os.mkfifo(tmp_path / "set" / "pipe.png")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "private.png")
    return tmp_path


def rows(*cells):
    return Dataset.from_dict({"image": list(cells)}, Features({"image": Image(decode=False)}))


def check(place, path, allow_outside=False):
    data = (place / "set" / "a.png").read_bytes()
    cells = [{"bytes": data, "path": "stored.png"}, {"bytes": None, "path": path}]
    check_files(rows(*cells), "image", str(place / "set"), allow_outside, "the set, split train")


def test_rows_may_name_pictures_of_their_own_data_set(place):
    check(place, str(place / "set" / "a.png"))
    check(place, str(place / "set" / "none.png"))  # reported where it is read, with the id of its row


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../private.png", r"is outside its folder; --allow_outside takes it"),
        ("link.png", r"is outside its folder; --allow_outside takes it"),
        ("/etc/passwd", r"is outside its folder; --allow_outside takes it"),
        ("pipe.png", r"is no regular file; mend or remove the row"),
    ],
)
def test_rows_that_name_other_files_are_refused(place, name, reason):
    with pytest.raises(BadInputError, match=f"the set, split train, row 1: the picture .*{reason}"):
        check(place, os.path.join(place, "set", name))


def test_outside_is_opened_where_the_user_means_it(place):
    check(place, str(place / "private.png"), allow_outside=True)
    with pytest.raises(BadInputError, match="is no regular file"):
        check(place, "/dev/zero", allow_outside=True)


@pytest.mark.parametrize("path", ["/dev/zero", "{}/set/pipe.png"])
def test_no_device_or_pipe_is_ever_read(place, path):
    cell = {"bytes": None, "path": path.format(place)}
    with pytest.raises(BadInputError, match=r"row 7: picture .* cannot be read: it is no regular file"):
        decode_bytes(cell, "7")
    assert row_keys("7", None, None, cell).items == [("picture", cell["path"])]


def test_ids_of_a_table_open_pictures_of_the_folder_only(place):
    table = place / "table.csv"
    names = ["a.png", "../private.png", "link.png", "/etc/passwd", "pipe.png", "none.png"]
    table.write_text("ImageID,Text\n" + "".join(f"{name},x\n" for name in names))
    items = read_items(str(table), RowsWanted("fusion", place / "set", text_column="Text"))
    assert items[0].read_picture().size == (4, 4)
    reasons = ["outside its folder; --allow_outside takes it"] * 3 + ["no regular file", "missing"]
    for item, reason in zip(items[1:], reasons, strict=True):
        with pytest.raises(ValueError, match=f"{item.item_id.rpartition('/')[2]} is {reason}"):
            item.read_picture()
    allowed = read_items(str(table), RowsWanted("fusion", place / "set", text_column="Text", allow_outside=True))
    assert allowed[1].read_picture().size == allowed[2].read_picture().size == (4, 4)
