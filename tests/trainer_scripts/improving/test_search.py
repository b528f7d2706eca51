"""`--search`: trials are trainings like any other, chosen on the selection split, and the best is a configuration."""

import importlib.util
import json
import shutil

import pytest
import yaml
from transformers import TrainerControl, TrainerState

from tests.trainer_scripts.conftest import refused, write_dataset
from tests.trainer_scripts.tiny_runs import SMALL, interrupted_after, run
from trainer_scripts import train
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.improving.search_space import Choices, Span, default_space, read_space, with_values
from trainer_scripts.settings.configurations import parse_configuration

pytest.importorskip("optuna")

TEXT = ("--modality", "text", "--num_train_epochs", "2")
SPACE = """
learning_rate: {low: 1e-7, high: 0.05, log: true}
weight_decay: [0, 0.1]
config.head_dense_sizes: {choices: [[8], [12]]}
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def searched(small_dataset, space, tmp_path_factory):
    """A search that was interrupted in its second trial and went on."""
    folder = tmp_path_factory.mktemp("search") / "search"
    words = (*TEXT, "--search", "3", "--search_space", str(space))
    with pytest.MonkeyPatch.context() as patch, interrupted_after(patch, 12):
        run(folder, small_dataset, *words)
    before = {path.name for path in folder.iterdir()}
    assert "best.yaml" not in before
    run(folder, small_dataset, *words)
    return folder


def results(folder):
    return json.loads((folder / "search.json").read_text())


def test_an_interrupted_search_has_the_trials_that_were_asked_for(searched, small_dataset, space, capsys):
    found = results(searched)
    assert len(found["trials"]) == 3
    # The first was finished before the interruption, and the second was tried again with its values.
    assert [each["number"] for each in found["trials"]] == [0, 2, 3]
    assert not list((searched / "trials").glob("*/checkpoint-*"))
    assert found["selection_split"] == "validation"
    # The same command trains nothing more; a higher number adds trials.
    run(searched, small_dataset, *TEXT, "--search", "3", "--search_space", str(space))
    assert results(searched) == found
    assert "3 trials" in capsys.readouterr().out


def test_the_best_trial_is_a_configuration_that_trains_to_its_score(searched, tmp_path):
    found = results(searched)
    completed = [each for each in found["trials"] if each["state"] == "complete"]
    assert found["best"] == max(completed, key=lambda each: each["accuracy"])["number"]
    best = next(each for each in found["trials"] if each["number"] == found["best"])
    settings = yaml.safe_load((searched / "best.yaml").read_text())
    assert settings["learning_rate"] == best["values"]["learning_rate"]
    assert settings["config"]["head_dense_sizes"] == best["values"]["config.head_dense_sizes"]
    assert "search" not in settings
    train.main([str(searched / "best.yaml"), "--output_dir", str(tmp_path / "best")])
    assert read_metrics(tmp_path / "best")["selection"]["accuracy"] == best["accuracy"]


def test_a_trial_below_the_median_is_stopped_early(small_dataset, tmp_path):
    import optuna

    from trainer_scripts.improving.search import ReportToTrial, open_study

    given, study = open_study(tmp_path, "maximize", 1)
    for _ in range(3):
        trial = study.ask()
        for evaluation in range(3):
            trial.report(0.8, evaluation)
        study.tell(trial, 0.8)
    # The study is opened by its file, as a search that goes on does; and trials that were running are failures.
    interrupted = study.ask()
    given, study = open_study(tmp_path, "maximize", 1)
    assert study.get_trials()[interrupted.number].state == optuna.trial.TrialState.FAIL
    study = optuna.create_study(direction="maximize", **given)
    state, control = TrainerState(), TrainerControl()
    report = ReportToTrial(study.ask(), "eval_accuracy")
    report.on_evaluate(None, state, control, {"eval_accuracy": 0.3})
    assert not control.should_training_stop, "the first evaluation says little"
    report.on_evaluate(None, state, control, {"eval_accuracy": 0.3})
    assert report.stopped
    assert control.should_training_stop


def test_the_test_split_is_never_read(small_rows, space, tmp_path, monkeypatch):
    from trainer_scripts.training import data

    made, original = [], data.make_table

    def watched(rows, columns, names, split, *rest):
        made.append(split)
        return original(rows, columns, names, split, *rest)

    monkeypatch.setattr(data, "make_table", watched)
    words = (*TEXT, "--search", "1", "--search_space", str(space))
    one = run(tmp_path / "one", write_dataset(tmp_path / "data", small_rows), *words)
    assert set(made) == {"train", "validation"}
    # Its absence makes no difference.
    shutil.rmtree(tmp_path / "data")
    rest = {split: rows for split, rows in small_rows.items() if split != "test"}
    two = run(tmp_path / "two", write_dataset(tmp_path / "data", rest), *words)
    assert results(one) == results(two)


def test_what_is_tried_without_a_file():
    arguments = ["multilabel_tiny", "--text_learning_rate", "1e-4"]
    found = default_space(parse_configuration(arguments))
    assert set(found) == {"learning_rate", "text_learning_rate", "weight_decay", "config.dropout"}
    assert found["text_learning_rate"] == Span(2e-5, 5e-4, log=True)


def test_values_of_the_config_go_into_its_mapping():
    settings = {"learning_rate": 1, "config": {"dropout": 0.5, "fusion": "early"}}
    found = with_values(settings, {"learning_rate": 2, "config.dropout": 0.1})
    assert found == {"learning_rate": 2, "config": {"dropout": 0.1, "fusion": "early"}}
    assert settings["config"]["dropout"] == 0.5


def test_a_space_is_read_with_numbers_as_people_write_them(space):
    found = read_space(space, parse_configuration(["default"]))
    assert found["learning_rate"] == Span(1e-7, 0.05, log=True)
    assert found["config.head_dense_sizes"] == Choices(("[8]", "[12]"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rat: [1, 2]", "learning_rat is no option of train.py"),
        ("learning_rate: 3", "learning_rate is 3"),
        ("learning_rate: {low: 2, high: 1}", "give lines such as"),
        ("learning_rate: {low: 0, high: 1, log: true}", "give lines such as"),
        ("test_split: [a, b]", "decides what trials are compared by"),
        ("seed: [1, 2]", "decides what trials are compared by"),
        ("dataset: [a, b]", "decides what trials are compared by"),
        ("- 3", "must hold a line per option"),
        # What an option does not take is found before any trial.
        ("learning_rate: {low: -1.0, high: 0.1}", "learning_rate cannot be -1.0 (learning_rate is -1; it must be"),
        ("per_device_train_batch_size: {low: 8.5, high: 20}", "per_device_train_batch_size cannot be 8.5"),
        ("lr_scheduler_type: [cosine, cosin]", "lr_scheduler_type cannot be 'cosin'"),
        ("learning_rate: [0.1, [1]]", "learning_rate cannot be [1] (an option: learning_rate holds [1] (list)"),
        ("weight_decay: [2020-01-01]", "a value that no option takes (Object of type date"),
        ("weight_decay: [.nan]", "a value that no option takes"),
        ("learning_rate: {low: 0.1, high: 1, log: maybe}", "give lines such as"),
        ("learning_rate: {low: true, high: 3}", "give lines such as"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(small_dataset, tmp_path, capsys, line, message):
    path = tmp_path / "space.yaml"
    path.write_text(line)
    words = ["flavour_fusion_tiny", "--dataset", small_dataset, "--output_dir", tmp_path / "run", *SMALL]
    assert message in refused(capsys, train, *words, "--search", "2", "--search_space", path)
    assert not (tmp_path / "run").exists()


def test_a_killed_trial_leaves_nothing_and_one_that_cannot_train_is_told_apart(small_dataset, tmp_path, monkeypatch):
    left = tmp_path / "run" / "trials" / "trial-0" / "checkpoint-4"
    path = tmp_path / "space.yaml"
    path.write_text("config.dropout: {low: 0, high: 1}\n")  # whole numbers: 0 or 1, and the model refuses 1
    words = ("--modality", "text", "--num_train_epochs", "1", "--search", "2", "--search_space", str(path))
    with monkeypatch.context() as patch, interrupted_after(patch, 0):
        run(tmp_path / "run", small_dataset, *words)
    left.mkdir(parents=True)
    run(tmp_path / "run", small_dataset, *words)
    assert not left.parent.exists()
    states = [each["state"] for each in results(tmp_path / "run")["trials"]]
    assert sorted(states) == ["complete", "left out"]
    refused_one = next(each for each in results(tmp_path / "run")["trials"] if each["state"] == "left out")
    assert "dropout" in refused_one["problem"]


def test_without_optuna_the_line_says_what_to_install(small_dataset, tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "optuna" else find(name, *rest)
    )
    words = ["flavour_fusion_tiny", "--dataset", small_dataset, *SMALL, "--search", "1", "--output_dir", tmp_path / "x"]
    assert 'search needs optuna: pip install "flavour-fusion[search]"' in refused(capsys, train, *words)


def test_any_task_without_a_named_score_is_searched(small_dataset, space, tmp_path):
    (tmp_path / "own.yaml").write_text("base: flavour_fusion_tiny\nmetric_for_best_model: null\n")
    words = (*TEXT, "--search", "1", "--search_space", str(space))
    folder = run(tmp_path / "run", small_dataset, *words, configuration=str(tmp_path / "own.yaml"))
    assert results(folder)["metric"] == "accuracy"


def test_a_damaged_database_is_one_line(searched, small_dataset, space, tmp_path, capsys):
    shutil.copytree(searched, tmp_path / "search")
    (tmp_path / "search" / "search.db").write_bytes(b"no database" * 99)
    words = ["flavour_fusion_tiny", "--dataset", small_dataset, *SMALL, *TEXT, "--search", "4"]
    message = refused(capsys, train, *words, "--search_space", space, "--output_dir", tmp_path / "search")
    assert "search.db cannot be used (file is not a database); put back a copy" in message


def test_what_a_search_cannot_do_is_refused(searched, small_dataset, tmp_path, capsys, space):
    words = ["flavour_fusion_tiny", "--dataset", small_dataset, *SMALL, *TEXT]
    inside = ["--output_dir", searched, "--search", "4"]
    assert "with other settings or another space" in refused(capsys, train, *words, *inside)
    assert "give --search N too" in refused(capsys, train, *words, "--search_space", space)
    seeds = ["--output_dir", tmp_path / "run", "--search", "2", "--seeds", "3"]
    assert "leave out seeds" in refused(capsys, train, *words, *seeds)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    other = ["--output_dir", tmp_path / "mine", "--search", "2"]
    assert "holds no search" in refused(capsys, train, *words, *other)
    # Values with which nothing can be trained are named, and one after another does not end the search.
    path = tmp_path / "space.yaml"
    path.write_text("config.head_dense_sizes: {choices: [[100000]]}\n")
    large = ["--output_dir", tmp_path / "large", "--search", "2", "--search_space", path, "--max_mb", "1"]
    message = refused(capsys, train, *words, *large)
    assert "no trial of the search could be finished; the last one: the model has" in message
