"""Imported sets made by strangers or damaged: one line, or what cannot be used is left out and named."""

import io
import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from dataset_builder import cli
from dataset_builder.errors import BadInputError
from dataset_builder.importers import import_table
from dataset_builder.importers.foodseg103 import read_categories


def save(path, size=(12, 8), **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 120, 40)).save(path, **how)


def rows_of(folder):
    return [row for path in sorted(folder.glob("data/*.parquet")) for row in pq.read_table(path).to_pylist()]


@pytest.fixture
def coco(tmp_path):
    """Write a set of COCO's layout; the names of the training pictures, and changes of its files, can be given."""

    def write(names=("a.jpg", "b.jpg"), where="images/train2017", change=None):
        folder = tmp_path / "coco"
        for part, files in (("train2017", names), ("val2017", ("v.jpg",))):
            images = [{"id": number, "file_name": name} for number, name in enumerate(files, 1)]
            captions = [{"image_id": image["id"], "caption": f"Picture {image['id']}."} for image in images]
            instances = [{"image_id": image["id"], "category_id": 1} for image in images]
            content = {
                f"captions_{part}": {"images": images, "annotations": captions},
                f"instances_{part}": {"annotations": instances, "categories": [{"id": 1, "name": "dish"}]},
            }
            for name, value in content.items():
                if change is not None:
                    value = change(name, value)
                path = folder / "annotations" / f"{name}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(value if isinstance(value, str) else json.dumps(value))
        for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
            save(folder / where / name)
        save(folder / where.replace("train", "val") / "v.jpg")
        return folder

    return write


def test_pictures_outside_the_folder_are_left_out_and_named(coco, tmp_path, capsys):
    (tmp_path / "private").mkdir()
    save(tmp_path / "private" / "me.jpg")
    names = ("a.jpg", "b.jpg", "../../../private/me.jpg", str(tmp_path / "private" / "me.jpg"), "link.jpg", "/dev/zero")
    folder = coco(names)
    (folder / "images" / "train2017" / "link.jpg").symlink_to(tmp_path / "private" / "me.jpg")
    summary = import_table("coco", str(folder), tmp_path / "out")
    reason = "picture outside its folder; --allow-outside takes it"
    assert sorted(summary.left_out[reason]) == sorted(names[2:])
    assert {row["id"] for row in rows_of(tmp_path / "out")} == {"a.jpg", "b.jpg", "v.jpg"}
    with pytest.raises(SystemExit) as status:
        cli.main(["import", "coco", str(folder), "--out", str(tmp_path / "all"), "--allow-outside"])
    assert status.value.code == 0
    assert "left out, picture no regular file: 1 (/dev/zero)" in capsys.readouterr().out
    assert len(rows_of(tmp_path / "all")) == 6


@pytest.mark.parametrize("name", ["sub/c.jpg", "train2017/sub/c.jpg"])
@pytest.mark.parametrize("where", ["images/train2017", "train2017"])
def test_a_coco_file_name_may_have_a_folder(coco, tmp_path, name, where):
    summary = import_table("coco", str(coco(("a.jpg", "b.jpg", name), where)), tmp_path / "out")
    assert not summary.left_out
    assert sum(summary.rows.values()) == 4


def changed(file, *path, to):
    """Return a function that changes one value of one annotation file."""

    def change(name, content):
        if name == file:
            content = json.loads(json.dumps(content))
            place = content
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = to
        return content

    return change


@pytest.mark.parametrize("wrong", [None, [], {}, "x", 7, True], ids=lambda value: json.dumps(value))
@pytest.mark.parametrize(
    "place",
    [
        ("captions_train2017", "images"),
        ("captions_train2017", "annotations"),
        ("captions_train2017", "images", 0),
        ("captions_train2017", "images", 0, "id"),
        ("captions_train2017", "images", 0, "file_name"),
        ("captions_train2017", "annotations", 0),
        ("captions_train2017", "annotations", 0, "image_id"),
        ("captions_train2017", "annotations", 0, "caption"),
        ("instances_val2017", "annotations"),
        ("instances_val2017", "annotations", 0, "image_id"),
        ("instances_val2017", "annotations", 0, "category_id"),
        ("instances_val2017", "categories"),
        ("instances_val2017", "categories", 0),
        ("instances_val2017", "categories", 0, "id"),
        ("instances_val2017", "categories", 0, "name"),
    ],
    ids=lambda place: "-".join(map(str, place)),
)
def test_wrong_types_in_annotations_are_one_line_or_left_out(coco, tmp_path, place, wrong):
    folder = coco(change=changed(*place, to=wrong))
    try:
        summary = import_table("coco", str(folder), tmp_path / "out")
    except BadInputError:
        return
    # What is of a right type after all: a number or a text as an id, a text as a name, an empty list.
    right_type = isinstance(wrong, str | list) or wrong == 7
    assert right_type
    assert summary.left_out or place[-1] in ("id", "name", "caption", "annotations")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "holds no JSON object but a list"),
        ("[" * 900 + "]" * 900, "more than the 64 levels"),
        ("{", "is not JSON"),
        ("version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("\ufeff{}", "lacks images, annotations"),
    ],
)
def test_annotation_files_that_are_something_else_are_named(coco, tmp_path, text, message):
    folder = coco(change=lambda name, content: text if name == "captions_train2017" else content)
    with pytest.raises(BadInputError, match=f"captions_train2017.json.*{message}"):
        import_table("coco", str(folder), tmp_path / "out")


def test_empty_captions_are_left_out_and_named(coco, tmp_path):
    folder = coco(change=changed("captions_train2017", "annotations", 1, "caption", to=" \n"))
    summary = import_table("coco", str(folder), tmp_path / "out")
    assert summary.left_out == {"empty caption of image_id": ["2"], "picture without caption": ["b.jpg"]}


def test_half_a_character_is_named(coco, tmp_path):
    def half(name, content):
        return json.dumps(content).replace("Picture 1.", "Picture \\ud83c") if name == "captions_train2017" else content

    with pytest.raises(BadInputError, match="entry 1 with image_id, caption: caption holds half of a character"):
        import_table("coco", str(coco(change=half)), tmp_path / "out")


def test_flickr8k_names_may_hold_blanks_and_captions_may_be_empty(tmp_path):
    folder = tmp_path / "flickr"
    names = ["a dish.jpg", "b.jpg", "c.jpg", "d.jpg"]
    for name in names:
        save(folder / "Images" / name)
    lines = [f"{name}#0\tA dish ." for name in names[:3]] + ["d.jpg#0\t .", "b.jpg#1\t"]
    (folder / "Flickr8k.token.txt").write_text("\n".join(lines))
    for kind, chosen in (("train", names[:2]), ("dev", names[2:3]), ("test", names[3:])):
        (folder / f"Flickr_8k.{kind}Images.txt").write_text("\r\n".join(chosen) + "\r\n\r\n")
    summary = import_table("flickr8k", str(folder), tmp_path / "out")
    assert summary.rows == {"train": 2, "validation": 1, "test": 0}
    assert summary.left_out == {"with empty captions alone": ["d.jpg"]}


COLOURS = {1: (200, 40, 40), 2: (40, 180, 40)}


def save_pair(folder, name, orientation, size=(48, 32), over="stored"):
    """Save a photograph, its left half as stored of one colour, with EXIF data, and its mask over either form."""
    ids = np.ones(size[::-1], np.uint8)
    ids[:, size[0] // 2 :] = 2
    pixels = np.zeros((*ids.shape, 3), np.uint8)
    for number, colour in COLOURS.items():
        pixels[ids == number] = colour
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture, mask = Image.fromarray(pixels), Image.fromarray(ids)
    if over == "upright":
        mask.getexif()[0x0112] = orientation
        mask = ImageOps.exif_transpose(mask)
    for part in ("train", "test"):
        for kind in ("img_dir", "ann_dir"):
            (folder / "Images" / kind / part).mkdir(parents=True, exist_ok=True)
        picture.save(folder / "Images" / "img_dir" / part / f"{name}.jpg", exif=exif, quality=95)
        mask.save(folder / "Images" / "ann_dir" / part / f"{name}.png")


def test_photographs_turned_by_exif_agree_with_their_masks_or_are_named(tmp_path):
    folder = tmp_path / "set"
    for orientation in range(1, 9):
        for over in ("stored", "upright"):
            save_pair(folder, f"{orientation}-{over}", orientation, over=over)
    save_pair(folder, "square", 6, size=(32, 32))
    (folder / "category_id.txt").write_text("0\tbackground\n1\tbeef\n2\tpea\n")
    summary = import_table("foodseg103", str(folder), tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    for row in rows:
        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(row["image"]["bytes"])))
        mask = np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"])))
        pixels = np.asarray(picture.convert("RGB")).astype(int)
        assert np.array_equal(mask, np.where(pixels[..., 0] > pixels[..., 1], 1, 2)), row["id"]
    left = summary.left_out["picture turned by EXIF data, and its mask does not tell which way it was drawn"]
    # Turned by half, mirrored, or square: both forms have one size.
    assert {name.split("/")[1][:1] for name in left} == {"2", "3", "4", "s"}
    assert {row["id"].split("/")[1][:1] for row in rows} == {"1", "5", "6", "7", "8"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\tbackground\n1\tbeef\n2\tbeef\n", "line 3: beef comes twice"),
        ("0\tbackground\n1\t \n", "line 2: the name is empty"),
        ("0\tbackground\n", "names 1 classes"),
        ("", "names 0 classes"),
    ],
)
def test_class_names_must_be_distinct(tmp_path, text, message):
    (tmp_path / "category_id.txt").write_text(text)
    with pytest.raises(BadInputError, match=message):
        read_categories(tmp_path / "category_id.txt")


def test_a_link_that_points_to_itself_is_one_line(tmp_path):
    (tmp_path / "set" / "Images").mkdir(parents=True)
    os.symlink(tmp_path / "set" / "category_id.txt", tmp_path / "set" / "category_id.txt")
    with pytest.raises(BadInputError, match=r"category_id\.txt is missing"):
        import_table("foodseg103", str(tmp_path / "set"), tmp_path / "out")
