"""Rows without a picture or without a text: refused by name, or learned from, as prediction does."""

import json

import pytest
import torch
from transformers import AutoModel, AutoProcessor, pipeline

from tests.trainer_scripts.conftest import refused, write_dataset
from tests.trainer_scripts.tiny_runs import SMALL, make_trainer, run, weights
from trainer_scripts import score, train

LEARN = ("--missing_parts", "learn")


def lacking(rows):
    """Every fifth row without a picture, every fifth without a title."""
    rows = {split: [dict(row) for row in members] for split, members in rows.items()}
    for members in rows.values():
        for number, row in enumerate(members):
            if number % 5 == 2:
                row["image"] = None
            if number % 5 == 3:
                row["title"] = " " if number % 2 else ""
    return rows


@pytest.fixture(scope="module")
def partial(tmp_path_factory, small_rows):
    return write_dataset(tmp_path_factory.mktemp("partial") / "flavour-sd", lacking(small_rows))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, partial):
    return run(tmp_path_factory.mktemp("trained") / "run", partial, *LEARN, "--num_train_epochs", "1")


def test_rows_that_lack_a_part_are_refused_with_the_way_out(partial, tmp_path, capsys):
    command = ["flavour_fusion_tiny", "--dataset", str(partial), "--output_dir", str(tmp_path / "run"), *SMALL]
    assert "title is empty; remove the row, train on the picture alone, or" in refused(capsys, train, *command)
    message = refused(capsys, train, *command, "--modality", "image", *LEARN)
    assert "missing_parts 'learn' does nothing in modality image" in message
    assert "has no picture; give it one, remove the row, or let a fusion model" in refused(
        capsys, train, *command, "--modality", "image"
    )


def test_a_row_without_both_is_refused(tmp_path, small_rows, capsys):
    rows = lacking(small_rows)
    rows["train"][2]["title"] = None
    folder = write_dataset(tmp_path / "none", rows)
    message = refused(capsys, train, "flavour_fusion_tiny", "--dataset", folder, *SMALL, *LEARN)
    assert "row train-002-00-00 has neither a picture nor a text; remove the row" in message


def test_missing_parts_are_counted_and_shown_to_the_model(partial, tmp_path, capsys):
    trainer = make_trainer(partial, tmp_path, *LEARN)
    table = trainer.train_dataset.table
    assert table.lacking() == (12, 12)
    samples = [trainer.train_dataset[row] for row in range(4)]
    batch = trainer.data_collator(samples)
    assert batch["text_present"].tolist() == [True, True, True, False]
    assert batch["image_present"].tolist() == [True, True, False, True]
    model = trainer.model.eval()
    # What stands in the place of a missing picture or text changes nothing.
    other = {**batch, "pixel_values": batch["pixel_values"].clone(), "input_ids": batch["input_ids"].clone()}
    other["pixel_values"][2] = 3.0
    other["input_ids"][3] = 5
    with torch.no_grad():
        torch.testing.assert_close(model(**other).logits, model(**batch).logits)
    run(tmp_path / "run", partial, *LEARN, "--max_steps", "1")
    assert "18 rows lack their text and 18 their picture" in capsys.readouterr().out


def test_stand_ins_are_learned_and_rows_scored(partial, trained, tmp_path):
    stand_ins = weights(trained)
    assert stand_ins["fusion.text_stand_in"].abs().sum() > 0
    assert stand_ins["fusion.image_stand_in"].abs().sum() > 0
    score.main([str(trained), str(partial), "--split", "test", "--out", str(tmp_path / "scores")])
    assert (tmp_path / "scores" / "metrics.json").is_file()


def test_frozen_text_is_stored_and_pictures_that_are_missing_are_not(partial, tmp_path, capsys):
    frozen = ("--freeze_text", "true", "--freeze_image", "true", "--features_dir", str(tmp_path / "features"))
    frozen += ("--word_dropout", "0")
    run(tmp_path / "run", partial, *LEARN, *frozen, "--max_steps", "1")
    said = capsys.readouterr().out
    assert "the frozen image backbone is computed in every epoch: some rows lack their picture" in said
    assert "the frozen text backbone" not in said


def test_a_model_answers_rows_with_and_without_parts_as_in_training(partial, trained, small_rows):
    pipe = pipeline("flavour-classification", model=str(trained), trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(trained, trust_remote_code=True)
    model = AutoModel.from_pretrained(trained).eval()
    rows = lacking(small_rows)["test"][:5]
    for row in rows:
        answer = {entry["label"]: entry["score"] for entry in pipe(row)}
        given = {"images": row["image"], "text": row["title"]}
        with torch.no_grad():
            expected = model(**processor(**given)).logits.softmax(-1)[0]
        for number, name in model.config.id2label.items():
            assert answer[name] == pytest.approx(expected[number].item(), abs=1e-4)


def test_mapped_columns_are_known_to_the_pipeline(small_dataset, tmp_path):
    folder = run(tmp_path / "run", small_dataset, "--max_steps", "1", "--text_column", "instructions", "--columns",
                 '{"instructions": "title"}')  # fmt: skip
    saved = json.loads((folder / "processor_config.json").read_text())
    assert (saved["text_column"], saved["image_column"]) == ("title", "image")
