"""Rows to predict: pictures in the table or named by it, ids without endings, probabilities of all classes."""

import csv
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from dataset_builder.errors import BadInputError
from modeling_flavour.pipelines_flavour import FlavourClassificationPipeline
from tests.trainer_scripts.conftest import make_row, png, refused
from tests.trainer_scripts.tiny_runs import run
from trainer_scripts import predict, score
from trainer_scripts.evaluation.predictions import Predictions
from trainer_scripts.scoring.predicted_rows import RowsWanted, picture_file, read_items
from trainer_scripts.scoring.saved_model import load_model

NAMES = ["sweet", "salty", "sour", "bitter", "umami"]


@pytest.fixture(scope="module")
def fusion(small_dataset, tmp_path_factory):
    return run(tmp_path_factory.mktemp("fusion") / "fusion", small_dataset, "--num_train_epochs", "1")


@pytest.fixture(scope="module")
def scored(fusion, small_dataset, tmp_path_factory):
    """The answers of scoring to the rows that every form of the table below holds."""
    out = tmp_path_factory.mktemp("scored")
    score.main([str(fusion), str(small_dataset), "--out", str(out)])
    return Predictions.load(out)


def predicted(fusion, table, out, *arguments):
    predict.main([str(fusion), str(table), "--probabilities", "--out", str(out), *map(str, arguments)])
    rows = list(csv.DictReader(out.open()))
    assert list(rows[0]) == ["ImageID", "Labels", *NAMES]
    probabilities = np.array([[float(row[name]) for name in NAMES] for row in rows])
    assert [row["Labels"] for row in rows] == [NAMES[best] for best in probabilities.argmax(1)]
    return [row["ImageID"] for row in rows], probabilities


def as_scored(scored, found, ids=None):
    assert found[0] == (ids or scored.ids)
    assert np.allclose(found[1], scored.probabilities, atol=1e-5)


def test_the_packages_own_format_is_read_as_it_is_in_a_file_a_folder_and_on_a_hub(
    fusion, scored, small_dataset, connected_hub, tmp_path
):
    shard = small_dataset / "data" / "test-00000-of-00001.parquet"
    as_scored(scored, predicted(fusion, shard, tmp_path / "file.csv"))
    as_scored(scored, predicted(fusion, small_dataset, tmp_path / "split.csv", "--split", "test"))
    whole, _ = predicted(fusion, small_dataset, tmp_path / "folder.csv")
    assert len(whole) == 120
    api = HfApi()
    api.create_repo("org/small", repo_type="dataset")
    api.upload_folder(repo_id="org/small", repo_type="dataset", folder_path=small_dataset)
    as_scored(scored, predicted(fusion, "org/small", tmp_path / "hub.csv", "--split", "test"))


@pytest.mark.parametrize("name", ["dishes.csv", "dishes.jsonl", "dishes.parquet"])
def test_a_column_of_paths_names_the_pictures_of_any_table(fusion, scored, small_rows, tmp_path, name):
    (tmp_path / "photos").mkdir()
    rows = []
    for number, row in enumerate(small_rows["test"]):
        (tmp_path / "photos" / f"{number}.png").write_bytes(row["image"]["bytes"])
        rows.append({"photo": f"photos/{number}.png", "words": row["title"]})
    table = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), table)
    elif name.endswith("jsonl"):
        table.write_text("\n".join(map(json.dumps, rows)))
    else:
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    given = ("--image_column", "photo", "--text_column", "words")
    # Without a column of ids, the name of the picture stands for the row.
    as_scored(scored, predicted(fusion, table, tmp_path / "out.csv", *given), [row["photo"] for row in rows])


def test_pictures_as_bytes_or_as_cells_without_types_are_read_too(fusion, scored, small_rows, tmp_path):
    for kind in ("bytes", "cells"):
        rows = [
            {
                "id": row["id"],
                "title": row["title"],
                "image": row["image"] if kind == "cells" else row["image"]["bytes"],
            }
            for row in small_rows["test"]
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{kind} [1].parquet")
        as_scored(scored, predicted(fusion, tmp_path / f"{kind} [1].parquet", tmp_path / f"{kind}.csv"))


def test_a_row_of_the_table_without_its_picture_is_named_or_predicted_from_its_text(fusion, tmp_path, capsys):
    rows = [
        {"id": str(i), "title": "cake", "image": None if i == 1 else make_row("test", i)["image"]} for i in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    out = ("--out", tmp_path / "out.csv")
    message = refused(capsys, predict, fusion, tmp_path / "t.parquet", *out)
    assert "row 1: there is no picture; mend it or remove the row, or give --missing_pictures text" in message
    ids, _ = predicted(fusion, tmp_path / "t.parquet", tmp_path / "out.csv", "--missing_pictures", "text")
    assert ids == ["0", "1", "2"]
    assert "1 pictures missing or broken, predicted from text alone: 1" in capsys.readouterr().err


def test_an_id_without_an_ending_finds_its_picture_and_two_that_fit_are_an_error(tmp_path):
    pixels = png(np.zeros((4, 4, 3), dtype=np.uint8))
    for name in ("a.png", "b.JPG", "c.png", "c.jpg", "d", "e.v2.png"):
        (tmp_path / name).write_bytes(pixels)
    found = [picture_file(tmp_path, name).name for name in ("a", "b", "d", "e.v2", "a.png", "none")]
    assert found == ["a.png", "b.JPG", "d", "e.v2.png", "a.png", "none"]
    with pytest.raises(BadInputError, match=r"the id c fits several pictures in .*: c.jpg, c.png; write it with its"):
        picture_file(tmp_path, "c")
    table = tmp_path / "table.csv"
    table.write_text("id,title\na,x\n")
    assert read_items(str(table), RowsWanted("fusion", tmp_path))[0].read_picture().size == (4, 4)


def test_pictures_that_a_table_names_outside_its_folder_stay_closed(tmp_path):
    pixels = png(np.zeros((4, 4, 3), dtype=np.uint8))
    (tmp_path / "private.png").write_bytes(pixels)
    (tmp_path / "set").mkdir()
    outside = str(tmp_path / "private.png")
    rows = [{"id": "1", "image": outside}, {"id": "2", "image": f"file://{outside}"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set" / "paths.parquet")
    (tmp_path / "set" / "cells.jsonl").write_text(json.dumps({"id": "1", "image": {"bytes": None, "path": outside}}))
    for name in ("paths.parquet", "cells.jsonl"):
        for item in read_items(str(tmp_path / "set" / name), RowsWanted("image")):
            with pytest.raises(ValueError, match="outside its folder; --allow_outside takes it"):
                item.read_picture()
        for item in read_items(str(tmp_path / "set" / name), RowsWanted("image", allow_outside=True)):
            assert item.read_picture().size == (4, 4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--id_column", "key", "--images", "."], "has no column 'key'; it has photo, Caption"),
        (["--images", "."], "has no column 'ImageID'; it has photo, Caption; name it with --id_column"),
        ([], "give the folder that holds them, or the column of pictures or of their paths (--image_column)"),
        (["--image_column", "photo", "--split", "test"], "--split is for data sets with splits"),
        (["--image_column", "photo", "--images", "nowhere"], "--images is nowhere; give the folder"),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(fusion, tmp_path, monkeypatch, capsys, given, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("photo,Caption\na.png,cake\n")
    assert message in refused(capsys, predict, fusion, "t.csv", *given)


def test_a_table_of_a_hub_names_no_files_of_this_machine(connected_hub, tmp_path):
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{"id": "1", "image": "a.png"}]), folder / "test-00000-of-00001.parquet")
    api = HfApi()
    api.create_repo("org/paths", repo_type="dataset")
    api.upload_folder(repo_id="org/paths", repo_type="dataset", folder_path=tmp_path / "set")
    with pytest.raises(BadInputError, match=r"row 1 names the picture a.png, which is not in the data set"):
        read_items("org/paths", RowsWanted("image"))


def test_a_trained_fusion_knows_foreign_pictures_and_may_abstain(fusion, small_rows, tmp_path, capsys):
    config = json.loads((fusion / "config.json").read_text())
    assert set(config["familiarity"]) == {"text", "image"}
    assert 0.2 < config["abstain_below"] < 1
    rows = [{"id": row["id"], "title": row["title"], "image": row["image"]} for row in small_rows["validation"]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    ids, found = predicted(fusion, tmp_path / "t.parquet", tmp_path / "all.csv")
    said = capsys.readouterr().err
    # Of the rows that chose the limit, the farthest lie beyond it.
    line = next(line for line in said.splitlines() if "rows whose image is unlike those of training" in line)
    strange = [number for number, item_id in enumerate(ids) if item_id in line]
    assert 0 < len(strange) < 4
    # They are answered as for the text alone.
    alone = [row | {"image": None} if number in strange else row for number, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(alone), tmp_path / "alone.parquet")
    _, text = predicted(fusion, tmp_path / "alone.parquet", tmp_path / "a.csv", "--missing_pictures", "text")
    assert np.allclose(found[strange], text[strange], atol=1e-4)
    predict.main([str(fusion), str(tmp_path / "t.parquet"), "--abstain", "--out", str(tmp_path / "some.csv")])
    labels = [row["Labels"] for row in csv.DictReader((tmp_path / "some.csv").open())]
    silent = [number for number, label in enumerate(labels) if not label]
    assert silent == [number for number in range(30) if found[number].max() < config["abstain_below"] - 1e-6]
    assert len(silent) <= 6
    assert (f"{len(silent)} rows without an answer" in capsys.readouterr().err) == bool(silent)


def test_a_model_of_titles_chooses_its_limit_on_the_rows_that_chose_its_checkpoint(small_dataset, tmp_path):
    titles = run(tmp_path / "titles", small_dataset, "--num_train_epochs", "1", "--modality", "text")
    config = json.loads((titles / "config.json").read_text())
    assert config["familiarity"] is None
    assert 0.2 < config["abstain_below"] < 1
    out = tmp_path / "out.csv"
    ids, found = predicted(titles, small_dataset, out, "--split", "validation")
    predict.main([str(titles), str(small_dataset), "--split", "validation", "--abstain", "--out", str(out)])
    silent = [row["ImageID"] for row in csv.DictReader(out.open()) if not row["Labels"]]
    assert silent == [name for name, shares in zip(ids, found, strict=True) if shares.max() < config["abstain_below"]]
    # Four fifths of thirty rows are answered; some may be exactly as sure as the limit.
    assert len(silent) <= 6
    classify = FlavourClassificationPipeline(load_model(str(titles)).model, processor=load_model(str(titles)).processor)
    classify.model.config.abstain_below = 0.0
    assert set(classify("soup", abstain=True)[0]) == {"label", "score"}
    classify.model.config.abstain_below = 1.0
    assert [each["label"] for each in classify("soup", abstain=True)] == [None]
    # A limit of another training is not taken over where nothing can be learned.
    more = ["--model_name_or_path", str(titles), "--num_train_epochs", "1", "--modality", "text"]
    again = run(tmp_path / "again", small_dataset, *more, "--familiar_share", "none")
    assert json.loads((again / "config.json").read_text())["abstain_below"] is None


def test_a_model_that_does_not_know_when_to_abstain_says_so(fusion, small_dataset, tmp_path, capsys):
    shutil.copytree(fusion, tmp_path / "old", ignore=shutil.ignore_patterns("checkpoint-*"))
    config = json.loads((fusion / "config.json").read_text()) | {"abstain_below": None}
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    message = refused(capsys, predict, tmp_path / "old", small_dataset, "--abstain", "--out", tmp_path / "out.csv")
    assert "--abstain: old does not know when" in message


def test_the_table_is_never_replaced_by_its_answers_and_only_csv_is_written(fusion, tmp_path, capsys, monkeypatch):
    table = tmp_path / "dishes.csv"
    table.write_text("id,title\n1,cake\n")
    arguments = (fusion, table, "--images", tmp_path)
    message = refused(capsys, predict, *arguments, "--out", tmp_path / "." / "dishes.csv")
    assert "dishes.csv is the table itself, which the result would replace" in message
    for ending in ("json", "jsonl", "parquet", "tsv"):
        assert "is the name of no CSV" in refused(capsys, predict, *arguments, "--out", tmp_path / f"out.{ending}")
    # Captioners and segmenters write a second file.
    (tmp_path / "rows.json").write_text('[{"id": "1", "title": "cake"}]')
    monkeypatch.setattr("trainer_scripts.tasks.classification.task.ClassificationTask.reads_masks", True)
    message = refused(capsys, predict, fusion, tmp_path / "rows.json", *arguments[2:], "--out", tmp_path / "rows.csv")
    assert "rows.json is the table itself" in message
    assert table.read_text() == "id,title\n1,cake\n"
