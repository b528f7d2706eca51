import copy

import pytest
from datasets import Dataset, DatasetDict

from dataset_builder.errors import BadInputError
from dataset_builder.schema import table_features
from tests.trainer_scripts.conftest import INGREDIENTS, write_dataset
from trainer_scripts.data.split_guard import check_split_names
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training.data import load_training_data
from trainer_scripts.training.run import vocabulary_record
from trainer_scripts.training.vocabulary_record import check_vocabulary, record_vocabulary


def load(folder, *arguments):
    return load_training_data(parse_configuration(["flavour_fusion_tiny", "--dataset", str(folder), *arguments]))


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


@pytest.mark.parametrize(
    ("modality", "key", "kind"),
    [("image", "title", "text"), ("text", "image", "picture"), ("text", "dish_id", "group")],
)
@pytest.mark.parametrize("streams", [(), ("--streaming", "true", "--max_steps", "2")], ids=["table", "stream"])
def test_rows_are_compared_by_columns_that_the_model_does_not_read_too(rows, tmp_path, modality, key, kind, streams):
    rows["train"][0][key] = rows["test"][3][key]
    folder = write_dataset(tmp_path / "shared", rows)
    with pytest.raises(BadInputError, match=f"the same {kind} .* is in train .row train-000-00-00. and in test"):
        load(folder, "--modality", modality, *streams)


def test_titles_are_optional_for_pictures(rows, tmp_path):
    for row in rows["train"] + rows["test"]:
        row["title"] = " "
    assert len(load(write_dataset(tmp_path / "untitled", rows), "--modality", "image").train) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--test_split", "tests"), "test_split: .* has no split 'tests'; it has train, validation, test"),
        (("--selection_split", "validaton"), "selection_split: .* has no split 'validaton'; it has train, validation"),
    ],
)
def test_a_split_that_was_named_must_be_there(small_dataset, arguments, message):
    with pytest.raises(BadInputError, match=message):
        load(small_dataset, *arguments)


@pytest.mark.parametrize(
    ("old", "new", "option"), [("validation", "val", "selection_split"), ("test", "tests", "test_split")]
)
def test_a_split_under_another_name_is_not_overlooked(rows, tmp_path, monkeypatch, old, new, option):
    rows[new] = rows.pop(old)
    splits = {name: Dataset.from_list(members, features=table_features(INGREDIENTS)) for name, members in rows.items()}
    monkeypatch.setattr("trainer_scripts.training.data.open_dataset", lambda *_: DatasetDict(splits))
    with pytest.raises(BadInputError, match=f"{option}: .* has no split '{old}', but '{new}'"):
        load(tmp_path)
    assert len(load(tmp_path, f"--{option}", new).selection) == 10


def test_rows_that_are_carved_out_are_said_so(rows, tmp_path, capsys):
    del rows["validation"]
    load(write_dataset(tmp_path / "two", rows))
    assert "there is no split 'validation': 1 rows are taken out of train" in capsys.readouterr().out


def test_a_captioner_whose_vocabulary_saw_the_test_split_is_refused(rows, tmp_path):
    def captions(*arguments):
        configuration = parse_configuration(
            ["captioner_resnet18_transformer_tiny", "--dataset", str(folder), *arguments]
        )
        return configuration, load_training_data(configuration)

    for split, members in rows.items():
        for number, row in enumerate(members):
            # One pair of captions is in all splits by chance, which is no sign of anything.
            row["captions"] = ["A plate.", f"A plate of {split} {number}."] if number else ["A plate.", "Some food."]
    folder = write_dataset(tmp_path / "captions", rows)
    _, data = captions()
    leaked = vocabulary_record(*captions("--train_split", "test", "--test_split", "train"))
    with pytest.raises(BadInputError, match="vocabulary was made with 9 texts of the test split"):
        check_vocabulary(leaked, data.held_out_texts)
    check_vocabulary(vocabulary_record(*captions()), data.held_out_texts)


def test_data_without_groups_and_without_ids_can_be_used(rows, tmp_path, monkeypatch):
    splits = {name: Dataset.from_list(members, features=table_features(INGREDIENTS)) for name, members in rows.items()}
    plain = DatasetDict(splits).remove_columns(["dish_id", "id"])
    monkeypatch.setattr("trainer_scripts.training.data.open_dataset", lambda *_: plain)
    with pytest.raises(BadInputError, match="has no column 'dish_id'"):
        load(tmp_path)
    # Row numbers stand for ids, and are the same in each split.
    assert len(load(tmp_path, "--group_column", "none").train) == 10
