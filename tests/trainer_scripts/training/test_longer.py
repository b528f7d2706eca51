"""A finished run is made longer: it ends as one that was that long from the start, or says what must change."""

import json

import pytest

from tests.trainer_scripts.conftest import refused
from tests.trainer_scripts.tiny_runs import SMALL, assert_equal_weights, interrupted_after, run, weights
from trainer_scripts import train
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training.longer import is_raised, why_not_longer

TEXT = ("--modality", "text", "--learning_rate", "0.01", "--ema_decay", "0.8")
CONSTANT = (*TEXT, "--lr_scheduler_type", "constant_with_warmup", "--warmup_steps", "3")


def test_a_longer_run_ends_as_one_that_was_that_long_from_the_start(small_dataset, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", small_dataset, *CONSTANT, "--num_train_epochs", "3")
    longer = run(tmp_path / "run", small_dataset, *CONSTANT, "--num_train_epochs", "1")
    short = weights(longer)
    assert read_metrics(longer)["steps"] == 4
    # The model and the scores of the finished run stay until there are new ones.
    with monkeypatch.context() as patch, interrupted_after(patch, 2):
        run(longer, small_dataset, *CONSTANT, "--num_train_epochs", "3")
    assert read_metrics(longer)["steps"] == 4
    assert all(value.equal(short[name]) for name, value in weights(longer).items())
    run(longer, small_dataset, *CONSTANT, "--num_train_epochs", "3")
    assert_equal_weights(whole, longer)
    ours, theirs = (read_metrics(folder) for folder in (longer, whole))
    assert [ours[name] for name in ("steps", "selection", "best_step", "planned")] == [
        theirs[name] for name in ("steps", "selection", "best_step", "planned")
    ]


def test_a_finished_run_whose_schedule_ended_says_what_must_change(small_dataset, tmp_path, capsys):
    folder = run(tmp_path / "run", small_dataset, *TEXT, "--num_train_epochs", "1")
    assert not list(folder.glob("checkpoint-*"))
    before = weights(folder)
    words = ["flavour_fusion_tiny", "--dataset", small_dataset, "--output_dir", folder, *SMALL, *TEXT]
    message = refused(capsys, train, *words, "--num_train_epochs", "5")
    assert "lr_scheduler_type cosine spreads its rates over all steps" in message
    assert f"--model_name_or_path {folder} and another --output_dir" in message
    assert all(value.equal(before[name]) for name, value in weights(folder).items())
    # With other settings changed too, it is a run by another configuration.
    assert "another configuration" in refused(capsys, train, *words, "--num_train_epochs", "5", "--seed", "4")
    # A run of an earlier version has removed all its checkpoints.
    configuration = folder / "configuration.yaml"
    configuration.write_text(configuration.read_text().replace("cosine", "constant"))
    constant = ("--lr_scheduler_type", "constant")
    assert "its checkpoints are gone" in refused(capsys, train, *words, *constant, "--num_train_epochs", "5")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--lr_scheduler_type", "linear"), "linear spreads"),
        (("--lr_scheduler_type", "inverse_sqrt"), None),
        (("--lr_scheduler_type", "constant", "--warmup_steps", "0.1"), None),  # which it does not read
        (("--lr_scheduler_type", "reduce_lr_on_plateau", "--warmup_steps", "0.1"), None),
        (("--lr_scheduler_type", "inverse_sqrt", "--warmup_steps", "0.1"), "warmup_steps 0.1 is a share"),
        (("--lr_scheduler_type", "constant_with_warmup", "--warmup_steps", "0.1"), "warmup_steps 0.1 is a share"),
        (("--lr_scheduler_type", "constant", "--max_minutes", "3"), "max_minutes"),
        (("--lr_scheduler_type", "constant", "--average_best", "3"), "average_best"),
        (("--lr_scheduler_type", "constant", "--save_only_model", "true"), "no state of the optimizer"),
    ],
)
def test_what_a_run_needs_to_go_on(arguments, reason):
    found = why_not_longer(parse_configuration(["default", "--warmup_steps", "2", *arguments]))
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize(
    ("before", "now", "raised"),
    [
        ({"num_train_epochs": 2}, {"num_train_epochs": 5}, True),
        ({"num_train_epochs": 2}, {}, True),  # three, where nothing is given
        ({}, {"num_train_epochs": 2}, False),
        ({"max_steps": 5}, {"max_steps": 9}, True),
        ({}, {"max_steps": 9}, False),
        ({"num_train_epochs": 2, "seed": 1}, {"num_train_epochs": 5, "seed": 2}, False),
    ],
)
def test_longer_is_a_larger_number_of_epochs_or_steps_alone(before, now, raised):
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    assert is_raised(before, now, changed) is raised


def test_metrics_state_the_planned_length(small_dataset, tmp_path):
    folder = run(tmp_path, small_dataset, *CONSTANT, "--max_steps", "2", "--num_train_epochs", "1")
    assert json.loads((folder / "metrics.json").read_text())["planned"] == {"num_train_epochs": 1.0, "max_steps": 2}
    kept = [path.name for path in folder.glob("checkpoint-*")]
    assert kept == ["checkpoint-2"]
    run(folder, small_dataset, *CONSTANT, "--max_steps", "4", "--num_train_epochs", "1")
    assert read_metrics(folder)["steps"] == 4
