"""A run is only removed when the one that replaces it has a checkpoint, and no advice loses work without saying so."""

import pytest

from tests.trainer_scripts.conftest import refused
from tests.trainer_scripts.tiny_runs import SMALL, assert_equal_weights, interrupted_after, run
from trainer_scripts import train
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training.folder import RunState, newest_checkpoint, replacing, start_run

SHORT = ("--modality", "text", "--num_train_epochs", "1")
AGAIN = (*SHORT, "--overwrite", "true")


def command(folder, dataset, *arguments):
    return ["flavour_fusion_tiny", "--dataset", str(dataset), "--output_dir", str(folder), *SMALL, *arguments]


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_dataset):
    return run(tmp_path_factory.mktemp("finished") / "run", small_dataset, *SHORT)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--dataset", "no/such/folder"),
        ("--label_column", "flavor"),
        ("--report_to", "wandb"),
        ("--text_config", '{"model_type": "bert", "hidden_size": 7}'),
        ("--metric_for_best_model", "accurracy"),
        ("--max_mb", "0.001"),
        ("--test_split", "tset"),
        ("--neftune_noise_alpha", "5", "--freeze_text", "true"),
        ("--model_name_or_path", "./nowhere"),
        ("--resume_from_checkpoint", "elsewhere/checkpoint-5"),
    ],
    ids=lambda words: words[0],
)
def test_a_mistake_beside_overwrite_costs_nothing(finished, small_dataset, capsys, wrong):
    before = files(finished)
    refused(capsys, train, *command(finished, small_dataset, *AGAIN, *wrong))
    assert files(finished) == before
    assert [path.name for path in finished.parent.iterdir()] == ["run"]


def test_a_run_that_fails_before_its_first_checkpoint_leaves_the_former_one(finished, small_dataset, monkeypatch):
    before = files(finished)
    with monkeypatch.context() as patch, interrupted_after(patch, 2):
        run(finished, small_dataset, *AGAIN)
    assert files(finished) == before
    assert [path.name for path in finished.parent.iterdir()] == ["run"]


def test_a_replaced_run_is_kept_until_the_new_one_has_a_checkpoint(small_dataset, tmp_path, monkeypatch, capsys):
    folder = run(tmp_path / "run", small_dataset, *SHORT)
    two = ("--modality", "text", "--num_train_epochs", "2", "--overwrite", "true")
    capsys.readouterr()
    with monkeypatch.context() as patch, interrupted_after(patch, 5):
        run(folder, small_dataset, *two)
    assert f"is kept in {folder}.replaced until the new one has a checkpoint" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert newest_checkpoint(folder).name == "checkpoint-4"
    assert not (folder / "metrics.json").exists()
    # The interrupted run goes on when its command is repeated, as any other.
    run(folder, small_dataset, *two)
    assert read_metrics(folder)["epochs"] == 2
    whole = run(tmp_path / "whole", small_dataset, *two[:-2])
    assert_equal_weights(folder, whole)


def interrupted_start(configuration, kept):
    assert (kept / "metrics.json").is_file()
    start_run(configuration)
    raise KeyboardInterrupt


def test_a_run_killed_before_its_first_checkpoint_leaves_the_former_one_aside(small_dataset, tmp_path):
    folder, kept = tmp_path / "run", tmp_path / "run.replaced"
    for place in (folder, kept):
        place.mkdir()
        (place / "configuration.yaml").write_text("seed: 1\n")
    (kept / "metrics.json").write_text("{}")
    configuration = parse_configuration(command(folder, small_dataset, *AGAIN))
    for state in (RunState(False, None, replaced=True), RunState(False, None)):
        with pytest.raises(KeyboardInterrupt), replacing(configuration, state):
            interrupted_start(configuration, kept)
        assert (folder / "metrics.json").is_file()
        folder.rename(kept)
        folder.mkdir()


@pytest.fixture
def broken(small_dataset, tmp_path, monkeypatch):
    two = ("--modality", "text", "--num_train_epochs", "2")
    with monkeypatch.context() as patch, interrupted_after(patch, 5):
        run(tmp_path / "broken", small_dataset, *two)
    return tmp_path / "broken", two


@pytest.mark.parametrize(
    "more",
    [
        ("--resume_from_checkpoint", "true"),
        ("--logging_strategy", "steps", "--logging_steps", "1", "--per_device_eval_batch_size", "3"),
        ("--report_to", "none", "--run_name", "again", "--gradient_checkpointing", "true", "--do_eval", "false",
         "--ddp_find_unused_parameters", "false", "--include_for_metrics", "loss"),
        ("--overwrite", "true"),
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_what_does_not_change_the_result_may_change_on_resume(broken, small_dataset, tmp_path, more, capsys):
    folder, two = broken
    capsys.readouterr()
    run(folder, small_dataset, *two, *more)
    assert read_metrics(folder)["steps"] == 8
    # Nothing was trained twice: the log of the first epoch is that of the checkpoint.
    assert "step 4/8" not in capsys.readouterr().out
    whole = run(tmp_path / "whole", small_dataset, *two)
    assert_equal_weights(folder, whole)


def test_a_refusal_says_what_its_remedies_cost(broken, small_dataset, capsys):
    folder, two = broken
    message = refused(capsys, train, *command(folder, small_dataset, *two, "--learning_rate", "0.5"))
    assert "holds a run by another configuration (learning_rate differ)" in message
    assert "leave these options as they were" in message
    assert "--overwrite true, which trains anew and removes that interrupted run and its checkpoint-4" in message
    assert newest_checkpoint(folder) is not None
