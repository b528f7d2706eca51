"""FoodSeg103: pictures with masks of ingredients, from its folders or from the columns of the Hub."""

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from dataset_builder import columns
from dataset_builder.errors import BadInputError
from dataset_builder.importers import import_table
from dataset_builder.importers.foodseg103 import read_categories
from tests.dataset_builder.importers.test_importers import load, save_picture


@pytest.fixture
def foodseg103(tmp_path):
    folder = tmp_path / "foodseg"
    for split, count in (("train", 20), ("test", 2)):
        for number in range(count):
            save_picture(folder / "Images" / "img_dir" / split / f"{number:02d}.jpg")
            mask = np.zeros((8, 12), np.uint8)
            mask[:4] = 1 + number % 2
            mask[7, 11] = columns.UNKNOWN
            path = folder / "Images" / "ann_dir" / split / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
    (folder / "category_id.txt").write_text("0\tbackground\n1\tcandy\n2\tegg tart\n")
    return folder


def test_foodseg103_carves_a_stratified_validation_split_out_of_train(foodseg103, tmp_path):
    import_table("foodseg103", str(foodseg103), tmp_path / "out")
    data = load(tmp_path / "out", tmp_path / "cache")
    assert {split: len(data[split]) for split in data} == {"train": 18, "validation": 2, "test": 2}
    assert sorted(data["validation"]["ingredient_labels"][:]) == [[1], [2]]
    assert set(np.unique(np.asarray(data["test"][0]["mask"]))) == {0, 1, columns.UNKNOWN}


def test_foodseg103_names_the_mask_with_an_id_outside_the_label_set(foodseg103, tmp_path):
    Image.fromarray(np.full((8, 12), 77, np.uint8)).save(foodseg103 / "Images" / "ann_dir" / "train" / "03.png")
    with pytest.raises(BadInputError, match=r"03\.png holds the ids \[77\], but the label set ends at 2"):
        import_table("foodseg103", str(foodseg103), tmp_path / "out")


def test_foodseg103_counts_masks_that_do_not_fit_their_picture(foodseg103, tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(foodseg103 / "Images" / "ann_dir" / "test" / "00.png")
    summary = import_table("foodseg103", str(foodseg103), tmp_path / "out")
    assert summary.left_out == {"mask of another size than its picture": ["test/00"]}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{folder}/mistyped", "is neither a folder nor a data set on the Hub"),
        ("nobody/nothing", "nobody/nothing cannot be read as a folder or as a data set on the Hub"),
        ("{folder}", r"foodseg/category_id\.txt is missing; .* and lies in the folder of the set, for a Hub id in the"),
    ],
)
def test_foodseg103_looks_for_the_source_before_the_class_names(foodseg103, tmp_path, source, message):
    (foodseg103 / "category_id.txt").unlink()
    with pytest.raises(BadInputError, match=message):
        import_table("foodseg103", source.format(folder=foodseg103), tmp_path / "out")


def test_foodseg103_reads_the_columns_of_the_hub(foodseg103, tmp_path):
    features = Features(
        {
            "image": ImageFeature(),
            "label": ImageFeature(),
            "classes_on_image": List(Value("int64")),
            "id": Value("int64"),
        }
    )
    hub = tmp_path / "hub"
    for split, source in (("train", "train"), ("validation", "test")):
        images = sorted((foodseg103 / "Images" / "img_dir" / source).iterdir())
        rows = [
            {
                "image": str(path),
                "label": str(foodseg103 / "Images" / "ann_dir" / source / f"{path.stem}.png"),
                "classes_on_image": [0, 1 + number % 2],
                "id": number,
            }
            for number, path in enumerate(images)
        ]
        (hub / "data").mkdir(parents=True, exist_ok=True)
        Dataset.from_list(rows, features=features).to_parquet(hub / "data" / f"{split}-00000-of-00001.parquet")
    (hub / "category_id.txt").write_text((foodseg103 / "category_id.txt").read_text())
    # These rows refer to their pictures by path, out of the folder.
    with pytest.raises(BadInputError, match="picture outside its folder; --allow-outside takes it: 22"):
        import_table("foodseg103", str(hub), tmp_path / "out")
    summary = import_table("foodseg103", str(hub), tmp_path / "out", allow_outside=True)
    assert summary.rows == {"train": 18, "validation": 2, "test": 2}


def test_categories_must_be_numbered_without_a_gap(tmp_path):
    (tmp_path / "category_id.txt").write_text("0\tbackground\n2\tcandy\n")
    with pytest.raises(BadInputError, match=r"line 2: .* where `1<TAB>name` is expected"):
        read_categories(tmp_path / "category_id.txt")


def test_foodseg_sample(shared_data, tmp_path):
    summary = import_table("foodseg103", str(shared_data / "foodseg_sample"), tmp_path / "out")
    assert sum(summary.rows.values()) == 32
