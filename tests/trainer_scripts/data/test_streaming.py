"""Training rows that stream: checked as they pass, shared out, resumed where they stopped."""

import io
import json
from itertools import islice

import PIL.Image
import pytest
from datasets import load_dataset

from dataset_builder.errors import BadInputError
from tests.trainer_scripts.conftest import make_row, refused, write_dataset
from tests.trainer_scripts.tiny_runs import SMALL, assert_equal_weights, interrupted_after, run
from trainer_scripts import train
from trainer_scripts.data.streaming import StreamSamples
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training.data import load_training_data

STREAM = ("--streaming", "true", "--stream_block", "16", "--max_steps", "6", "--modality", "text")
STREAM += ("--word_dropout", "0", "--tokenizer", "wordpiece")  # so that no two titles have the same tokens


def configuration_of(dataset, folder, *more):
    given = ["--dataset", str(dataset), "--output_dir", str(folder), *SMALL, *STREAM, *more]
    return parse_configuration(["flavour_fusion_tiny", *given])


def stream_data(dataset, folder, *more):
    return load_training_data(configuration_of(dataset, folder, *more))


def stream_of(dataset, folder, rank=0, processes=1, *more):
    configuration = configuration_of(dataset, folder, *more)
    data = load_training_data(configuration)
    _, processor = data.task.build(configuration, data)
    return StreamSamples(configuration, data, processor, rank, processes)


def tokens(samples):
    return [tuple(sample["input_ids"]) for sample in samples]


def test_a_round_gives_every_row_once_and_the_next_one_in_another_order(small_dataset, tmp_path):
    rows = tokens(islice(iter(stream_of(small_dataset, tmp_path)), 120))
    assert len(set(rows[:60])) == 60
    assert set(rows[:60]) == set(rows[60:])
    assert rows[:60] != rows[60:]


def test_processes_share_the_rows_out(small_dataset, tmp_path):
    halves = [tokens(islice(iter(stream_of(small_dataset, tmp_path, rank, 2)), 30)) for rank in range(2)]
    assert len(set(halves[0]) | set(halves[1])) == 60
    assert not set(halves[0]) & set(halves[1])


def photograph(row: dict) -> dict:
    """The row with its picture as a JPEG, which every new compression changes."""
    buffer = io.BytesIO()
    PIL.Image.open(io.BytesIO(row["image"]["bytes"])).save(buffer, format="JPEG", quality=40)
    return {**row, "image": {"bytes": buffer.getvalue(), "path": None}}


@pytest.mark.parametrize("columns", ["{}", '{"heading": "title"}'])
def test_streamed_pictures_are_those_of_the_files(small_rows, tmp_path, columns):
    rows = {split: [photograph(row) for row in members[:10]] for split, members in small_rows.items()}
    dataset = write_dataset(tmp_path / "photographs", rows)
    column = "heading" if "heading" in columns else "title"
    data = stream_data(dataset, tmp_path, "--columns", columns, "--text_column", column, "--modality", "fusion")
    given = {row["id"]: row["image"]["bytes"] for members in rows.values() for row in members}
    for table in (data.train, data.selection):
        assert [cell["bytes"] for cell in table.cells()] == [given[row_id] for row_id in table.ids]
    for row in data.stream.rows:
        assert row["image"]["bytes"] == given[row["id"]]


def test_a_broken_picture_of_a_stream_is_named(small_rows, tmp_path, capsys):
    rows = {split: [photograph(row) for row in members[:10]] for split, members in small_rows.items()}
    rows["train"][4]["image"]["bytes"] = rows["train"][4]["image"]["bytes"][:200]
    dataset = write_dataset(tmp_path / "broken", rows)
    given = ("--dataset", dataset, "--output_dir", tmp_path / "run", *SMALL, *STREAM, "--modality", "fusion")
    message = refused(capsys, train, "flavour_fusion_tiny", *given)
    assert "row train-004-00-00: the given picture cannot be read" in message


def test_columns_of_other_names_stream_as_ours_do(small_dataset, tmp_path):
    (tmp_path / "other" / "data").mkdir(parents=True)
    for split, rows in load_dataset(str(small_dataset)).items():
        other = rows.rename_columns({"title": "name", "flavour": "kind"})
        other.to_parquet(tmp_path / "other" / "data" / f"{split}-00000-of-00001.parquet")
    mapped = ("--columns", '{"title": "name", "flavour": "kind"}')
    plain, renamed = stream_of(small_dataset, tmp_path), stream_of(tmp_path / "other", tmp_path, 0, 1, *mapped)
    ours, theirs = (list(islice(iter(stream), 60)) for stream in (plain, renamed))
    assert tokens(ours) == tokens(theirs)
    assert [sample["labels"] for sample in ours] == [sample["labels"] for sample in theirs]
    with pytest.raises(BadInputError, match="has no column 'label' that `columns` maps; it has id, dish_id"):
        stream_of(tmp_path / "other", tmp_path, 0, 1, "--columns", '{"flavour": "label"}')


@pytest.mark.parametrize("stop", [0, 7, 16, 59, 60, 75])
def test_a_position_is_gone_on_from_exactly(small_dataset, tmp_path, stop):
    whole = tokens(islice(iter(stream_of(small_dataset, tmp_path)), 100))
    first = stream_of(small_dataset, tmp_path)
    assert tokens(islice(iter(first), stop)) == whole[:stop]
    position = json.loads(json.dumps(first.state_dict()))
    second = stream_of(small_dataset, tmp_path)
    second.load_state_dict(position)
    assert tokens(islice(iter(second), 100 - stop)) == whole[stop:]


def test_an_interrupted_streaming_run_ends_with_the_same_weights(small_dataset, tmp_path, monkeypatch):
    steps = ("--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "2", "--eval_steps", "2")
    steps += ("--load_best_model_at_end", "false")  # the best checkpoint may be older than the interruption
    whole = run(tmp_path / "whole", small_dataset, *STREAM, *steps)
    assert read_metrics(whole)["rows"]["train"] == 6 * 15
    with monkeypatch.context() as patch, interrupted_after(patch, 3):
        run(tmp_path / "broken", small_dataset, *STREAM, *steps)
    run(tmp_path / "broken", small_dataset, *STREAM, *steps)
    assert_equal_weights(whole, tmp_path / "broken")


def test_rows_of_another_side_and_unknown_labels_stop_the_stream(small_rows, tmp_path):
    rows = {split: list(members) for split, members in small_rows.items()}
    rows["train"] = [*rows["train"], {**make_row("train", 99), "dish_id": rows["test"][0]["dish_id"]}]
    folder = write_dataset(tmp_path / "leaky", rows)
    with pytest.raises(BadInputError, match="the same group"):
        stream_of(folder, tmp_path)
    kept = stream_of(folder, tmp_path, 0, 1, "--shared_rows", "drop")
    assert len(set(tokens(islice(iter(kept), 60)))) == 60


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--max_steps", "-1"), "give --max_steps"),
        (("--balanced_sampling", "true"), "draws from all rows at once"),
        (("--selection_split", "dev"), "has no split 'dev'"),
        (("--text_column", "name"), "has no column 'name'"),
    ],
)
def test_what_a_stream_cannot_do_is_refused(small_dataset, tmp_path, more, message):
    with pytest.raises(BadInputError, match=message):
        stream_of(small_dataset, tmp_path, 0, 1, *more)
