"""`--teacher`: a student learns the probabilities of a finished model, on training rows and on rows without labels."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.trainer_scripts.conftest import make_row, refused, write_dataset
from tests.trainer_scripts.tiny_runs import SMALL, assert_equal_weights, run, weights
from trainer_scripts import train
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.improving.teaching import teach
from trainer_scripts.scoring.saved_model import load_model, load_train
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training.data import load_training_data

SOME = 10


@pytest.fixture(scope="module")
def teacher(small_dataset, tmp_path_factory):
    """A model of both inputs."""
    return run(tmp_path_factory.mktemp("teacher") / "teacher", small_dataset, "--learning_rate", "0.01")


@pytest.fixture(scope="module")
def with_more(small_rows, tmp_path_factory):
    """The small table with ten dishes that lack a label, one of which is a dish of the test split."""
    more = [{**make_row("train", 100 + index), "flavour": 0} for index in range(SOME)]
    more.append({**small_rows["test"][0], "id": "again", "dish_id": "again"})
    rows = {**small_rows, "more": more}
    # A second column that could be learned.
    other = {
        split: [{**row, "label_source": ("agree", "title")[index % 2]} for index, row in enumerate(members)]
        for split, members in rows.items()
    }
    return write_dataset(tmp_path_factory.mktemp("more") / "flavour-sd", other)


def taught(dataset, *arguments):
    words = ["flavour_fusion_tiny", "--dataset", str(dataset), "--output_dir", "unused", *SMALL, *map(str, arguments)]
    configuration = parse_configuration(words)
    return teach(configuration, load_training_data(configuration))


def answers(folder, dataset):
    model = load_model(str(folder))
    table = load_train(model, str(dataset))
    return dict(zip(table.ids, model.task.answers(model, table, 16).probabilities, strict=True))


def test_a_student_of_texts_learns_what_a_teacher_of_both_thinks(small_dataset, teacher, tmp_path):
    alone = taught(small_dataset, "--modality", "text", "--teacher", teacher, "--teacher_share", "1").train
    expected = answers(teacher, small_dataset)
    np.testing.assert_allclose(alone.targets, [expected[row] for row in alone.ids], atol=1e-5)
    mixed = taught(small_dataset, "--modality", "text", "--teacher", teacher, "--teacher_share", "0.25").train
    own = np.eye(5)[mixed.labels]
    np.testing.assert_allclose(mixed.targets, 0.75 * own + 0.25 * alone.targets, atol=1e-6)
    both = ("--teacher", teacher, "--teacher_share", "0.25", "--target_column", "taste", "--target_share", "0.5")
    soft = taught(small_dataset, "--modality", "text", *both).train
    taste = np.array([row["taste"] for row in soft.rows.select_columns(["taste"])])
    np.testing.assert_allclose(soft.targets, 0.375 * own + 0.375 * taste + 0.25 * alone.targets, atol=1e-6)


def test_the_run_states_its_teacher_and_its_weight_matters(small_dataset, teacher, tmp_path):
    text = ("--modality", "text", "--num_train_epochs", "1")
    plain = run(tmp_path / "plain", small_dataset, *text)
    unheard = run(tmp_path / "unheard", small_dataset, *text, "--teacher", str(teacher), "--teacher_share", "0")
    assert_equal_weights(plain, unheard)
    student = run(tmp_path / "student", small_dataset, *text, "--teacher", str(teacher))
    assert any(not value.equal(weights(plain)[name]) for name, value in weights(student).items())
    assert read_metrics(student)["teacher"] == {"model": str(teacher), "share": 0.5, "unlabelled_rows": 0}
    assert f"| teacher | {teacher.name}, weight 0.5 on training rows |" in (student / "README.md").read_text()


@pytest.mark.parametrize("modality", ["fusion", "text", "image"])
def test_rows_without_labels_come_in_with_the_opinion_of_the_teacher(with_more, teacher, modality, capsys):
    arguments = ("--modality", modality, "--teacher", teacher, "--unlabelled", "more", "--shared_rows", "drop")
    data = taught(with_more, *arguments)
    assert "1 rows of" in capsys.readouterr().out, "the row of the test split is counted"
    assert len(data.train) == 60 + SOME
    assert data.unlabelled == SOME
    np.testing.assert_allclose(data.train.targets.sum(axis=1), 1, atol=1e-5)
    # The labels that the rows happen to have are not read.
    assert np.array_equal(data.train.labels[60:], data.train.targets[60:].argmax(axis=1))
    assert data.train.labels[60:].any()
    if modality != "text":
        assert len(list(data.train.cells())) == 60 + SOME
    if modality != "image":
        assert data.train.texts[60].endswith("number train 100")


def test_a_run_with_rows_of_a_plain_table_without_label_column(small_dataset, teacher, tmp_path):
    rows = [make_row("train", 200 + index) for index in range(SOME)]
    with (tmp_path / "more.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "title"])
        for number, row in enumerate(rows):
            Image.open(io.BytesIO(row["image"]["bytes"])).save(tmp_path / f"{number}.png")
            table.writerow([f"{number}.png", row["title"]])
    arguments = ("--teacher", str(teacher), "--unlabelled", str(tmp_path / "more.csv"), "--num_train_epochs", "1")
    folder = run(tmp_path / "run", small_dataset, *arguments)
    metrics = read_metrics(folder)
    assert metrics["teacher"]["unlabelled_rows"] == SOME
    assert metrics["rows"]["train"] == 60
    assert metrics["steps"] == (60 + SOME + 14) // 15
    assert "alone on 10 unlabelled rows" in (folder / "README.md").read_text()


def test_unlabelled_rows_may_lack_a_part_where_a_teacher_of_both_answers(small_dataset, teacher, tmp_path, capsys):
    for number in range(SOME):
        (tmp_path / f"{number}.png").write_bytes(make_row("train", 200 + number)["image"]["bytes"])
    rows = [[f"{number}.png" if number else "", f"dish {number}" if number != 1 else ""] for number in range(SOME)]
    with (tmp_path / "more.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "title"], *rows])
    learn = ("--unlabelled", tmp_path / "more.csv", "--missing_parts", "learn")
    data = taught(small_dataset, "--teacher", teacher, *learn)
    assert data.train.lacking() == (1, 1)
    np.testing.assert_allclose(data.train.targets[60:].sum(axis=1), 1, atol=1e-5)
    # A teacher of one input cannot speak of rows without it.
    reader = run(tmp_path / "reader", small_dataset, "--modality", "text", "--num_train_epochs", "1")
    given = ["flavour_fusion_tiny", "--dataset", small_dataset, "--output_dir", tmp_path / "x", *SMALL, "--teacher"]
    message = refused(capsys, train, *given, reader, *learn)
    assert "1 of 10 rows have no title, such as row 1, and the teacher reader reads nothing else" in message
    # A table of pictures alone, for a student of pictures.
    with (tmp_path / "plates.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image"], *([f"{number}.png"] for number in range(SOME))])
    eyes = run(tmp_path / "eyes", small_dataset, "--modality", "image", "--num_train_epochs", "1")
    alone = ("--modality", "image", "--teacher", eyes, "--unlabelled", tmp_path / "plates.csv")
    assert len(taught(small_dataset, *alone).train) == 60 + SOME
    for text, said in (("", "is empty"), ("image,title\n", "has no rows")):
        (tmp_path / "none.csv").write_text(text)
        assert said in refused(capsys, train, *given, teacher, "--unlabelled", tmp_path / "none.csv")


def test_several_labels_are_taught_too(small_dataset, tmp_path):
    several = ("--task", "multilabel", "--label_column", "flavours", "--metric_for_best_model", "samples_f1")
    folder = run(tmp_path / "run", small_dataset, *several, "--num_train_epochs", "1", "--modality", "text")
    train = taught(small_dataset, *several, "--teacher", folder, "--teacher_share", "0.5").train
    expected = answers(folder, small_dataset)
    teacher = np.array([expected[row] for row in train.ids])
    np.testing.assert_allclose(train.targets, 0.5 * train.labels + 0.5 * teacher, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--unlabelled", "more"), "give --teacher MODEL too"),
        (("--teacher_share", "0.3"), "give --teacher MODEL too"),
        (("--teacher", "TEACHER", "--unlabelled", "test"), "is the training, selection or test split"),
        (("--teacher", "TEACHER", "--unlabelled", "nowhere"), "is no split of"),
        (("--teacher", "TEACHER", "--unlabelled", "more"), "and in test (row test-000-00-00)"),
        (("--teacher", "TEACHER", "--label_column", "label_source"), "give a teacher of the same task and labels"),
        (("--teacher", "TEACHER", "--streaming", "true", "--max_steps", "2"), "leave out streaming"),
        (("--teacher", "no/such/model"), "there is no model at"),
    ],
)
def test_what_cannot_be_taught_is_refused(with_more, teacher, tmp_path, capsys, arguments, message):
    words = [str(teacher) if word == "TEACHER" else word for word in arguments]
    given = ["flavour_fusion_tiny", "--dataset", with_more, "--output_dir", tmp_path / "run", *SMALL, *words]
    assert message in refused(capsys, train, *given)
    assert not (tmp_path / "run").exists()


def test_a_published_student_names_no_folder_of_this_machine(small_dataset, teacher, tmp_path):
    from dataset_builder.publishing.release import _without_paths

    metrics = {"dataset": "org/data", "teacher": {"model": str(teacher), "share": 0.5, "unlabelled_rows": 0}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    published = json.loads(_without_paths(tmp_path, None)["metrics.json"])
    assert published["teacher"]["model"] == teacher.name
