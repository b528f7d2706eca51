"""A table of picture paths, texts and labels is a data set as it is."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builder.errors import BadInputError
from tests.trainer_scripts.conftest import make_row
from tests.trainer_scripts.tiny_runs import run
from trainer_scripts import score
from trainer_scripts.data.plain_table import open_plain_table
from trainer_scripts.data.splits import open_dataset
from trainer_scripts.evaluation.predictions import read_metrics

NAMES = ("sweet", "salty", "sour", "bitter", "umami")
COLUMNS = json.dumps({"image": "photo", "title": "words", "flavour": "taste"})


def rows_of(folder, number=40, split=False, several=False):
    (folder / "photos").mkdir(parents=True)
    rows = []
    for index in range(number):
        made = make_row("train", index)
        (folder / "photos" / f"{index}.png").write_bytes(made["image"]["bytes"])
        label = NAMES[made["flavour"]]
        row = {"photo": f"photos/{index}.png", "words": made["title"], "taste": label}
        if several:
            row["taste"] = "|".join(NAMES[each] for each in made["flavours"])
        if split:
            row["split"] = ("train", "validation", "test")[0 if index < 20 else 1 + index % 2]
        rows.append(row)
    return rows


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["dishes.csv", "dishes.tsv", "dishes.jsonl", "dishes.parquet"])
def test_a_file_of_paths_is_read_with_its_pictures_and_splits(tmp_path, name):
    rows = rows_of(tmp_path, 30, split=True)
    splits = open_dataset(str(write(tmp_path / name, rows)))
    assert {split: len(each) for split, each in splits.items()} == {"train": 20, "validation": 5, "test": 5}
    assert splits["train"][3]["photo"].size == (32, 32)
    assert splits["train"]["words"][:] == [row["words"] for row in rows[:20]]


def test_a_model_is_trained_on_a_plain_table_and_scored_on_it(tmp_path):
    table = write(tmp_path / "dishes.csv", rows_of(tmp_path, split=True))
    folder = run(tmp_path / "run", table, "--columns", COLUMNS, "--group_column", "none")
    score.main([str(folder), str(table)])
    metrics = read_metrics(folder / "scores" / "test")
    assert metrics["rows"] == 10
    assert metrics["label_names"] == sorted(NAMES)


def test_without_splits_rows_are_held_out_and_without_a_group_column_the_remedy_is_named(tmp_path, capsys):
    table = write(tmp_path / "dishes.csv", rows_of(tmp_path))
    with pytest.raises(SystemExit):
        run(tmp_path / "run", table, "--columns", COLUMNS)
    assert "--group_column none" in capsys.readouterr().err
    run(tmp_path / "run", table, "--columns", COLUMNS, "--group_column", "none", "--modality", "image")
    assert "4 rows are taken out of train to choose the checkpoint" in capsys.readouterr().out


def test_several_labels_stand_in_one_cell(tmp_path):
    table = write(tmp_path / "dishes.csv", rows_of(tmp_path, split=True, several=True))
    folder = run(
        tmp_path / "run", table, "--columns", json.dumps({"image": "photo", "title": "words"}), "--group_column",
        "none", "--task", "multilabel", "--label_column", "taste", "--metric_for_best_model", "samples_f1",
    )  # fmt: skip
    score.main([str(folder), str(table)])
    assert read_metrics(folder / "scores" / "test")["label_names"] == sorted(NAMES)


def test_missing_pictures_are_counted_and_named(tmp_path):
    rows = rows_of(tmp_path, 5)
    (tmp_path / "photos" / "3.png").unlink()
    with pytest.raises(BadInputError, match=r"'photo': 1 of 5 pictures are missing \(photos/3.png\); paths are rel"):
        open_plain_table(write(tmp_path / "dishes.csv", rows))


def test_a_row_without_a_split_is_named(tmp_path):
    rows = rows_of(tmp_path, 3, split=True)
    rows[1]["split"] = None
    with pytest.raises(BadInputError, match="row 1 names no split"):
        open_plain_table(write(tmp_path / "dishes.parquet", rows))


def test_a_single_label_is_nothing_to_tell_apart(tmp_path, capsys):
    table = write(tmp_path / "dishes.csv", [row | {"taste": "sweet"} for row in rows_of(tmp_path, 6)])
    with pytest.raises(SystemExit):
        run(tmp_path / "run", table, "--columns", COLUMNS, "--group_column", "none")
    assert "every row has the label 'sweet' in 'flavour'; give rows of two labels" in capsys.readouterr().err
