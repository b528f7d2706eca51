import copy

import pytest

from dataset_builder.errors import BadInputError
from tests.trainer_scripts.conftest import write_dataset
from trainer_scripts.arguments import parse_recipe
from trainer_scripts.split_guard import check_split_names, check_vocabulary, record_vocabulary
from trainer_scripts.training_data import load_training_data


def load(folder, *arguments):
    return load_training_data(parse_recipe(["flavour_fusion_tiny", "--dataset", str(folder), *arguments]))


@pytest.fixture
def rows(small_rows):
    return copy.deepcopy({split: members[:10] for split, members in small_rows.items()})


def test_clean_splits_pass(small_dataset):
    data = load(small_dataset)
    assert (len(data.train), len(data.selection), data.left_out) == (60, 30, 0)


def test_the_test_split_must_not_choose_the_checkpoint():
    with pytest.raises(BadInputError, match="must not choose the checkpoint"):
        check_split_names("train", "test", "test")
    with pytest.raises(BadInputError, match="train_split 'train' is also the selection split"):
        check_split_names("train", "train", "test")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            "dish_id",
            r"the same group \(test-003\) is in train \(row train-000-00-00\) and in test \(row test-003-00-00\)",
        ),
        ("title", r"the same text \(pickle number test 3\)|the same text"),
        ("image", "the same picture .sha256"),
    ],
)
def test_rows_shared_by_training_and_test_are_refused_by_name(rows, tmp_path, key, message):
    rows["train"][0][key] = rows["test"][3][key]
    with pytest.raises(BadInputError, match=message):
        load(write_dataset(tmp_path / "shared", rows))


def test_titles_that_differ_in_case_and_spaces_are_identical(rows, tmp_path):
    rows["validation"][0]["title"] = f"  {rows['test'][0]['title'].upper()} "
    with pytest.raises(BadInputError, match=r"is in validation .* and in test"):
        load(write_dataset(tmp_path / "shared", rows))


def test_shared_training_rows_are_dropped_and_counted_when_asked(rows, tmp_path):
    rows["train"][0]["title"] = rows["test"][3]["title"]
    data = load(write_dataset(tmp_path / "shared", rows), "--shared_rows", "drop")
    assert data.left_out == 1
    assert "train-000-00-00" not in data.train.ids


def test_selection_split_is_carved_by_group_where_there_is_none(rows, tmp_path):
    del rows["validation"]
    rows["train"][1]["dish_id"] = rows["train"][0]["dish_id"]
    data = load(write_dataset(tmp_path / "two", rows), "--selection_share", "0.3")
    assert not set(data.train.groups) & set(data.selection.groups)
    assert len(data.train) + len(data.selection) == 10


def test_a_vocabulary_that_saw_the_test_split_is_refused(small_dataset, small_rows):
    data = load(small_dataset)
    titles = [row["title"] for row in small_rows["train"] + small_rows["test"]]
    with pytest.raises(BadInputError, match="vocabulary was made with 30 texts of the test split"):
        check_vocabulary(record_vocabulary(titles, "train"), data.held_out_texts)
    check_vocabulary(record_vocabulary(data.train.texts, "train"), data.held_out_texts)
