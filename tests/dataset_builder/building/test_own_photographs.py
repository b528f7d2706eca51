"""Builds with photographs of one's own: each row keeps where its picture came from, what is missing is named."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dataset_builder.building.build import build
from dataset_builder.building.corrections import HEADER
from dataset_builder.building.finished_build import read_build
from dataset_builder.building.settings import BuildSettings
from dataset_builder.errors import BadInputError
from dataset_builder.files import write_csv
from dataset_builder.pictures.photographs import as_rgb
from dataset_builder.pictures.settings import GenerationSettings
from dataset_builder.publishing.publish import publish
from dataset_builder.publishing.review import review_rows

ROWS = [
    ("Honey cake", "honey; sugar", "a"),
    ("Miso soup", "miso; soy sauce", "photos/b.jpg"),
    ("Lemon salad", "lemon; vinegar", "file://{}/photos/c [1].png"),
    ("Sugar pie", "sugar; honey", "d.jpg"),
    ("Anchovy toast", "anchovy; salt", "none"),
    ("Ham plate", "ham; salt", "../private.jpg"),
    ("Coffee", "coffee; cocoa", ""),
    ("Maple bread", "maple syrup; sugar", "broken"),
]


@pytest.fixture
def table(tmp_path):
    folder = tmp_path / "set"
    (folder / "photos").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "b.jpg", "c [1].png", "d.jpg")):
        Image.new("RGB", (400, 200), (number * 60, 90, 40)).save(folder / "photos" / name)
    Image.new("RGB", (9, 9)).save(tmp_path / "private.jpg")
    (folder / "photos" / "broken.jpg").write_text("no picture")
    path = folder / "r.csv"
    lines = [f"{title},{ingredients},{name.format(folder)}" for title, ingredients, name in ROWS]
    path.write_text("\n".join(["title,ingredients,Image_Name", *lines]))
    return path


def rows_of(folder):
    return [row for path in sorted(folder.glob("data/*.parquet")) for row in pq.read_table(path).to_pylist()]


def make(table, out, **settings):
    manifest = build(BuildSettings(recipes=str(table), generation=GenerationSettings(size=64), **settings), out, 1)
    return manifest, rows_of(out)


def test_own_photographs_alone(table, tmp_path):
    manifest, rows = make(table, tmp_path / "out", pictures="own")
    assert {row["title"] for row in rows} == {"Honey cake", "Miso soup", "Lemon salad", "Sugar pie"}
    for row in rows:
        assert row["id"].endswith("-00-photograph")
        assert row["generation"]["pipeline"] == "photograph"
        assert row["mask"] is None
        picture = Image.open(io.BytesIO(row["image"]["bytes"]))
        assert picture.size == (64, 32) == (row["generation"]["width"], row["generation"]["height"])
    assert manifest["simulator"] is False
    assert {reason: entry["names"] for reason, entry in manifest["skipped_recipes"].items()} == {
        "photograph missing": ["Anchovy toast"],
        "photograph outside its folder": ["Ham plate"],
        "without photograph": ["Coffee"],
    }
    assert manifest["given_up"] == {"maple-bread-00-photograph": ["photograph broken"]}
    # The same folder, the same content: nothing is drawn again; another photograph is noticed.
    assert make(table, tmp_path / "out", pictures="own")[0] == manifest
    Image.new("RGB", (8, 8)).save(table.parent / "photos" / "a.jpg")
    with pytest.raises(BadInputError, match="the recipes, their labels or their splits changed"):
        make(table, tmp_path / "out", pictures="own")


def test_an_exclusion_is_refused_by_name_where_the_picture_changed_since(table, tmp_path):
    make(table, tmp_path / "v1", pictures="both")
    lines = {one.cells["id"]: one.cells for one in review_rows(read_build(tmp_path / "v1"))}
    photo, drawn = "honey-cake-00-photograph", "miso-soup-00-00"

    def corrections(*ids, **changed):
        path = tmp_path / "said.csv"
        rows = [{name: lines[one].get(name, "") for name in HEADER} | {"exclude": "yes"} | changed for one in ids]
        write_csv(path, HEADER, [[row[name] for name in HEADER] for row in rows])
        return (str(path),)

    def ids(number, **settings):
        return {row["id"] for row in make(table, tmp_path / f"v{number}", pictures="both", **settings)[1]}

    # A text that stays and pictures that stay: both rows are left out.
    assert not {photo, drawn} & ids(2, corrections=corrections(photo, drawn))
    with pytest.raises(
        BadInputError, match=r"1 exclusions .* picture changed .*: miso-soup-00-00 \(.*said\.csv, row 3\)"
    ):
        ids(3, corrections=corrections(photo, drawn), seed=1)
    assert drawn not in ids(4, corrections=corrections(drawn, picture_hash=""), seed=1)  # as before there was a hash
    Image.new("RGB", (400, 200), (0, 0, 250)).save(table.parent / "photos" / "a.jpg")
    with pytest.raises(BadInputError, match=r"1 exclusions .*: honey-cake-00-photograph"):
        ids(5, corrections=corrections(photo, drawn))


@pytest.mark.parametrize("pictures", ["own", "both"])
def test_the_card_of_photographs_says_what_they_are(table, tmp_path, pictures):
    make(table, tmp_path / "out", pictures=pictures)
    publish(tmp_path / "out", "org/photographs", "1.0.0", "cc-by-4.0", dry_run=tmp_path / "dry")
    card = (tmp_path / "dry" / "README.md").read_text()
    assert ("**The pictures are photographs**" in card) is (pictures == "own")
    assert ("**Some of the pictures are simulated.**" in card) is (pictures == "both")
    assert ('is "photograph" in 4 of the 12 rows' in card) is (pictures == "both")
    assert ("(a simulator)" in card, "- synthetic" in card) == (pictures == "both",) * 2
    assert "photograph (a simulator)" not in card
    assert "None" not in card
    if pictures == "own":
        assert not any(word in card for word in ("simulat", "text-to-image", "a generator made"))


def test_photographs_beside_drawn_pictures(table, tmp_path):
    manifest, rows = make(table, tmp_path / "out", pictures="both", allow_outside=True)
    kinds = {}
    for row in rows:
        kinds.setdefault(row["dish_id"], []).append(row["generation"]["pipeline"])
    assert sorted(kinds["honey-cake"]) == sorted(kinds["ham-plate"]) == ["photograph", "plating"]
    assert kinds["coffee"] == kinds["maple-bread"] == ["plating"]
    assert "recipes whose photograph is not used, missing: 1" in manifest["notes"]
    drawn = make(table, tmp_path / "drawn")[1]
    generated = {row["id"]: row["image"] for row in rows if row["generation"]["pipeline"] == "plating"}
    assert generated == {row["id"]: row["image"] for row in drawn}


def test_photographs_need_a_column_that_names_them(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("title,ingredients\nTea,water\n")
    with pytest.raises(BadInputError, match=r"r\.csv names no photographs: accepted columns are image_name"):
        make(path, tmp_path / "out", pictures="own")
    with pytest.raises(BadInputError, match="the catalogue has no photographs; name a table"):
        BuildSettings(pictures="own")


def test_pictures_of_any_depth_are_read_as_a_person_sees_them():
    deep = Image.fromarray(np.full((4, 4), 40000, np.uint16))
    assert as_rgb(deep).getpixel((0, 0)) == (156, 156, 156)
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert as_rgb(clear).getpixel((0, 0)) == (255, 255, 255)
