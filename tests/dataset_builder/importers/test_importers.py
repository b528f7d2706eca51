"""Importers: every record of the odd files is read, and whatever cannot be used is counted and named."""

import json
import shutil
import subprocess
import sys

import pytest
from datasets import Image as ImageFeature
from datasets import load_dataset
from PIL import Image

from dataset_builder import cli, columns
from dataset_builder.errors import BadInputError
from dataset_builder.importers import import_table
from dataset_builder.importers.comp5329 import read_records
from dataset_builder.importers.upmc_food101 import clean_title


def save_picture(path, colour=(200, 120, 40), size=(12, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def load(folder, cache):
    return load_dataset(str(folder), cache_dir=str(cache))


COMP5329_ROWS = [
    '0.jpg,1,"Plain caption."',
    '1.jpg,1 19,"With, two, commas."',
    '2.jpg,10 3,"A sign that reads "no heavy trucking.""',
    '3.jpg,2,"Broken over',
    'two lines."',
    "4.jpg,13,No quotes at all",
    '5.jpg,18,"Separator \x85 and \x1c inside."',
    *[f'{number}.jpg,1,"Filler {number}."' for number in range(6, 20)],
]


@pytest.fixture
def comp5329(tmp_path):
    folder = tmp_path / "comp5329"
    for number in range(20):
        save_picture(folder / "data" / f"{number}.jpg")
    (folder / "train.csv").write_text("ImageID,Labels,Caption\n" + "\n".join(COMP5329_ROWS) + "\n", encoding="utf-8")
    return folder


def test_comp5329_keeps_every_record_despite_quotes_commas_and_newlines(comp5329):
    records = list(read_records(comp5329 / "train.csv", "ImageID,Labels,Caption"))
    assert len(records) == 20
    captions = {record.image_id: record.caption for record in records}
    assert captions["1.jpg"] == "With, two, commas."
    assert captions["2.jpg"] == 'A sign that reads "no heavy trucking."'
    assert captions["3.jpg"] == "Broken over two lines."
    assert captions["4.jpg"] == "No quotes at all"
    assert records[1].labels == (1, 19)


def test_comp5329_table_has_named_labels_and_the_tail_as_test(comp5329, tmp_path):
    import_table("comp5329", str(comp5329), tmp_path / "out")
    data = load(tmp_path / "out", tmp_path / "cache")
    assert {split: len(data[split]) for split in data} == {"train": 14, "validation": 2, "test": 4}
    assert data["test"]["id"][-1] == "19.jpg"
    names = data["train"].features["labels"].feature
    assert names.int2str(data["train"][1]["labels"]) == ["person", "horse"]
    assert data["train"][0]["image"].size == (12, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ImageID,Labels\n", "the header `ImageID,Labels,Caption` is expected"),
        ("ImageID,Labels,Caption\n0.jpg,12,x\n", "line 2: the labels `12` are not all among"),
        ("ImageID,Labels,Caption\n0.jpg,,x\n", "line 2: the labels `` are not all among"),
        ("ImageID,Labels,Caption\nrubbish\n", "line 2: `rubbish` begins no record"),
        *[
            (f"ImageID,Labels,Caption\n0.jpg,1,x\n{line}\n2.jpg,1,x\n", rf"line 3: `{line[:5]}.* begins like a record")
            for line in ('4.jpg,1;3,"x"', '6.jpg,"1 3",x', "my 8.jpg,1,x", "9.JPEG,1.0 3,x", '"7.png",1,x', "5.jpg")
        ],
        ("ImageID,Labels,Caption\n9.jpg,1,x\n8.jpg,1,x\n9.jpg,2,y\n", r"in several records: 1 \(9\.jpg\); leave one"),
    ],
)
def test_comp5329_names_the_faulty_line(tmp_path, text, message):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(BadInputError, match=message):
        import_table("comp5329", str(tmp_path), tmp_path / "out")


def test_missing_and_broken_pictures_are_counted_and_named(comp5329, tmp_path):
    (comp5329 / "data" / "0.jpg").unlink()
    content = (comp5329 / "data" / "1.jpg").read_bytes()
    (comp5329 / "data" / "1.jpg").write_bytes(content[: len(content) // 2])
    summary = import_table("comp5329", str(comp5329), tmp_path / "out")
    assert summary.left_out == {"picture missing": ["0.jpg"], "picture broken": ["1.jpg"]}
    assert sum(summary.rows.values()) == 18
    assert "picture missing: 1 (0.jpg)" in str(summary)


def test_pictures_with_a_damaged_header_or_of_an_insane_size_are_broken(comp5329, tmp_path, monkeypatch):
    for name in ("0.jpg", "1.jpg"):
        save_picture(comp5329 / "data" / name.replace("jpg", "png"))
    content = bytearray((comp5329 / "data" / "0.png").read_bytes())
    content[8:12] = (5).to_bytes(4, "big")  # the length of the header
    (comp5329 / "data" / "0.jpg").write_bytes(content)
    save_picture(comp5329 / "data" / "1.jpg", size=(40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    summary = import_table("comp5329", str(comp5329), tmp_path / "out")
    assert summary.left_out == {"picture broken": ["0.jpg", "1.jpg"]}


def test_strict_makes_a_missing_picture_fatal_and_leaves_nothing(comp5329, tmp_path):
    (comp5329 / "data" / "0.jpg").unlink()
    with pytest.raises(BadInputError, match=r"(?s)--strict.*picture missing: 1 \(0\.jpg\)"):
        import_table("comp5329", str(comp5329), tmp_path / "new" / "out", strict=True)
    assert list((tmp_path / "new").iterdir()) == []


def test_pictures_can_be_referenced_instead_of_embedded(comp5329, tmp_path):
    import_table("comp5329", str(comp5329), tmp_path / "out", embed=False)
    data = load(tmp_path / "out", tmp_path / "cache")["train"].cast_column("image", ImageFeature(decode=False))
    assert data[0]["image"] == {"bytes": None, "path": str(comp5329 / "data" / "0.jpg")}


def test_a_filled_folder_is_not_overwritten(comp5329, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(BadInputError, match="exists and is not empty"):
        import_table("comp5329", str(comp5329), tmp_path / "out")


def test_an_import_that_is_repeated_is_finished_and_another_is_refused(comp5329, tmp_path, capsys):
    out = tmp_path / "out"
    summary = import_table("comp5329", str(comp5329), out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert import_table("comp5329", str(comp5329), out) == summary
    assert "holds this import already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(BadInputError, match="holds another import"):
        import_table("comp5329", str(comp5329), out, embed=False)
    # What a kill between the record and the data leaves.
    shutil.rmtree(out / "data")
    assert import_table("comp5329", str(comp5329), out) == summary
    save_picture(comp5329 / "data" / "0.jpg", size=(33, 44))
    with pytest.raises(BadInputError, match="holds another import"):
        import_table("comp5329", str(comp5329), out)


def test_command_line_reports_a_missing_folder_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["import", "comp5329", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("flavour-sd import: error:")
    assert error.count("\n") == 1
    assert "train.csv is missing" in error


@pytest.fixture
def flickr8k(tmp_path):
    folder = tmp_path / "flickr8k"
    names = ["a.jpg", "b.jpg", "c.jpg"]
    for name in names:
        save_picture(folder / "Flicker8k_Dataset" / name)
    lines = [f"{name}#{number}\tA dog {number} runs ." for name in [*names, "d.jpg.1"] for number in range(5)]
    (folder / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    for official, name in (("train", "a.jpg"), ("dev", "b.jpg"), ("test", "c.jpg")):
        (folder / f"Flickr_8k.{official}Images.txt").write_text(name + "\n")
    return folder


def test_flickr8k_keeps_the_captions_of_a_picture_together_in_the_official_splits(flickr8k, tmp_path):
    summary = import_table("flickr8k", str(flickr8k), tmp_path / "out")
    data = load(tmp_path / "out", tmp_path / "cache")
    assert {split: data[split]["id"][:] for split in data} == {
        "train": ["a.jpg"],
        "validation": ["b.jpg"],
        "test": ["c.jpg"],
    }
    assert data["train"][0]["captions"] == [f"A dog {number} runs." for number in range(5)]
    assert summary.left_out == {"in no split list": ["d.jpg.1"]}


def test_flickr8k_reads_the_comma_table_too(flickr8k, tmp_path):
    (flickr8k / "Flickr8k.token.txt").unlink()
    (flickr8k / "captions.txt").write_text('image,caption\na.jpg,"One, two ."\nb.jpg,Three .\nc.jpg,Four .\n')
    import_table("flickr8k", str(flickr8k), tmp_path / "out")
    assert load(tmp_path / "out", tmp_path / "cache")["train"][0]["captions"] == ["One, two."]


def test_flickr8k_skips_no_first_caption_where_there_is_no_header(flickr8k, tmp_path):
    (flickr8k / "Flickr8k.token.txt").unlink()
    captions = flickr8k / "captions.txt"
    captions.write_text("a.jpg,One .\na.jpg,Two \u2028 three .\nb.jpg,Three .\nc.jpg,Four .\n", encoding="utf-8")
    import_table("flickr8k", str(flickr8k), tmp_path / "out")
    assert load(tmp_path / "out", tmp_path / "cache")["train"][0]["captions"] == ["One.", "Two three."]
    captions.write_text("picture,text\na.jpg,One .\n")
    with pytest.raises(BadInputError, match=r"captions\.txt begins with `picture,text`, which names no picture"):
        import_table("flickr8k", str(flickr8k), tmp_path / "other")
    captions.write_bytes("a.jpg,Pâté .\n".encode("latin-1"))
    with pytest.raises(BadInputError, match=r"captions\.txt is not in UTF-8: .*; save it in UTF-8"):
        import_table("flickr8k", str(flickr8k), tmp_path / "other")


def test_flickr8k_refuses_a_picture_in_two_splits(flickr8k, tmp_path):
    (flickr8k / "Flickr_8k.testImages.txt").write_text("a.jpg\n")
    with pytest.raises(BadInputError, match=r"a\.jpg stands in the lists of train and of test"):
        import_table("flickr8k", str(flickr8k), tmp_path / "out")


@pytest.fixture
def coco(tmp_path):
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    for part, count in (("train2017", 40), ("val2017", 2)):
        images = [{"id": 100 + number, "file_name": f"{number:03d}.jpg"} for number in range(count)]
        for image in images:
            save_picture(folder / part / image["file_name"])
        captions = [{"image_id": image["id"], "caption": f"Picture\n{image['id']}."} for image in images]
        instances = [{"image_id": image["id"], "category_id": 90} for image in images for _ in range(2)]
        categories = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}]
        for kind, content in (
            ("captions", {"images": images, "annotations": captions}),
            ("instances", {"annotations": instances, "categories": categories}),
        ):
            (folder / "annotations" / f"{kind}_{part}.json").write_text(json.dumps(content))
    return folder


def test_coco_joins_captions_and_categories(coco, tmp_path):
    import_table("coco", str(coco), tmp_path / "out")
    data = load(tmp_path / "out", tmp_path / "cache")
    assert {split: len(data[split]) for split in data} == {"train": 38, "validation": 2, "test": 2}
    assert data["test"][0]["captions"] == ["Picture 100."]
    assert data["test"].features["labels"].feature.names == ["person", "toothbrush"]
    assert data["test"][0]["labels"] == [1]


def change_coco(folder, kind, change):
    path = folder / "annotations" / f"{kind}_val2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_coco_counts_captions_without_picture_and_pictures_without_caption(coco, tmp_path):
    change_coco(coco, "captions", lambda content: content["annotations"][0].update(image_id=7))
    change_coco(coco, "instances", lambda content: content["annotations"][2].update(image_id=8))
    summary = import_table("coco", str(coco), tmp_path / "out")
    assert summary.rows == {"train": 38, "validation": 2, "test": 1}
    assert summary.left_out == {
        "captions of an image_id that is not listed": ["7"],
        "picture without caption": ["000.jpg"],
        "instances of an image_id that is not listed": ["8"],
    }


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("captions", lambda content: content["annotations"][1].pop("caption"), "entry 2 with image_id, caption has no"),
        ("captions", lambda content: content["images"][0].pop("id"), "entry 1 with id, file_name has no id; mend it"),
        (
            "captions",
            lambda content: content["annotations"][0].update(caption=None),
            "entry 1 with .* has no caption; mend",
        ),
        ("captions", lambda content: content["images"][1].update(id=100), "000.jpg and 001.jpg have one id, 100; give"),
        (
            "instances",
            lambda content: content["annotations"][0].update(category_id=7),
            "the category_id 7 of image_id 100 is not among the categories",
        ),
    ],
)
def test_coco_names_what_is_wrong_with_an_annotation(coco, tmp_path, kind, change, message):
    change_coco(coco, kind, change)
    with pytest.raises(BadInputError, match=f"{kind}_val2017.json: {message}"):
        import_table("coco", str(coco), tmp_path / "out")


def upmc_food101(folder, header, texts="."):
    (folder / texts).mkdir(parents=True)
    for part, count in (("train", 8), ("test", 2)):
        lines = [header] * bool(header)
        for food in ("apple_pie", "sushi"):
            for number in range(count):
                name = f"{food}_{part}_{number}.jpg"
                save_picture(folder / "images" / part / food / name)
                lines.append(f'{name},"{food} | 10 Best, Ever!",{food}')
        (folder / texts / f"{part}_titles.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(("header", "texts"), [("image_path,text,food", "."), ("", "texts")])
def test_upmc_food101_cleans_titles_and_splits_by_class(tmp_path, header, texts):
    import_table("upmc-food101", str(upmc_food101(tmp_path / "upmc", header, texts)), tmp_path / "out")
    data = load(tmp_path / "out", tmp_path / "cache")
    assert {split: len(data[split]) for split in data} == {"train": 14, "validation": 2, "test": 4}
    assert sorted(data["validation"]["label"][:]) == [0, 1]
    assert data["test"][0]["title"] == "apple pie Best Ever"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("image,text,food", "lacks the columns image_path; expected image_path,text,food"),
        ("image_path,text,food\na.jpg,x", "`a.jpg,x` has not 3 fields"),
    ],
)
def test_upmc_food101_names_what_is_wrong_with_a_table(tmp_path, header, message):
    with pytest.raises(BadInputError, match=message):
        import_table("upmc-food101", str(upmc_food101(tmp_path / "upmc", header)), tmp_path / "out")


def test_upmc_food101_names_a_table_in_another_encoding_or_with_an_open_quote(tmp_path):
    folder = upmc_food101(tmp_path / "upmc", "image_path,text,food")
    table = folder / "train_titles.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:2], lines[2].replace(' Ever!"', ""), *lines[3:]]))
    with pytest.raises(BadInputError, match=r"train_titles\.csv, up to line 4: no CSV .*; close the quotes"):
        import_table("upmc-food101", str(folder), tmp_path / "out")
    table.write_bytes("image_path,text,food\na.jpg,Pâté,pate\n".encode("latin-1"))
    with pytest.raises(BadInputError, match=r"train_titles\.csv is not in UTF-8"):
        import_table("upmc-food101", str(folder), tmp_path / "out")


def test_what_a_killed_import_left_is_thrown_away_and_a_running_one_is_not(comp5329, tmp_path):
    (tmp_path / ".out.unfinished" / "data").mkdir(parents=True)
    (tmp_path / ".out.unfinished" / "data" / "train-00000.part").write_text("half")
    import_table("comp5329", str(comp5329), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comp5329", "out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "import.json"]
    assert load(tmp_path / "out", tmp_path / "cache")["test"].num_rows == 4
    (tmp_path / ".two.unfinished").mkdir()
    hold = "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); input()"
    command = [sys.executable, "-c", hold, str(tmp_path / ".two.unfinished" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(BadInputError, match=r"another import into .*two is running"):
            import_table("comp5329", str(comp5329), tmp_path / "two")
        other.communicate(b"\n")


def test_titles_are_cut_at_forty_words():
    assert clean_title("Crème brûlée 2.0 " + "word " * 60).split()[:4] == ["Cr", "me", "br", "l"]
    assert len(clean_title("word " * 60).split()) == 40


def test_comp5329_sample(shared_data, tmp_path):
    summary = import_table("comp5329", str(shared_data / "comp5329_sample"), tmp_path / "out")
    assert sum(summary.rows[split] for split in columns.SPLITS) == 1267
    assert summary.rows["unlabelled"] == 100
    assert summary.left_out == {}


def test_flickr8k_sample(shared_data, tmp_path):
    summary = import_table("flickr8k", str(shared_data / "flickr8k_sample"), tmp_path / "out")
    assert sum(summary.rows.values()) == 100
    assert summary.left_out == {"in no split list": ["2258277193_586949ec62.jpg.1"]}
