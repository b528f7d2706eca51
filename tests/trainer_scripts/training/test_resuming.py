"""An interrupted run goes on from its last whole checkpoint, and ends as one that was never interrupted."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.trainer_scripts.tiny_runs import SMALL, assert_equal_weights, interrupted_after, run
from trainer_scripts import score
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.scoring.saved_model import saved_configuration
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training.checkpoints import newest_checkpoint
from trainer_scripts.training.folder import inspect_run, start_run


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("--ema_decay", "0.9", "--balanced_sampling", "true"),
        ("--lr_scheduler_type", "reduce_lr_on_plateau", "--lr_scheduler_kwargs", '{"patience": 0}'),
    ],
    ids=["plain", "ema", "plateau"],
)
def test_two_steps_resume_and_two_more_equal_four(tmp_path, small_dataset, monkeypatch, extra):
    every_step = (
        "--num_train_epochs",
        "1",
        "--save_strategy",
        "steps",
        "--eval_strategy",
        "steps",
        "--save_steps",
        "1",
    )
    # The best checkpoint may be older than the interruption; the last one is not.
    arguments = (*every_step, "--eval_steps", "1", "--load_best_model_at_end", "false", *extra)
    whole = run(tmp_path / "whole", small_dataset, *arguments)
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch, interrupted_after(patch, 2):
        run(broken, small_dataset, *arguments)
    assert newest_checkpoint(broken).name == "checkpoint-2"
    assert not (broken / "metrics.json").exists()
    run(broken, small_dataset, *arguments)
    assert_equal_weights(whole, broken)


def test_a_run_of_an_earlier_version_is_resumed_scored_and_described(small_dataset, tmp_path, monkeypatch):
    """Earlier versions saved the configuration as recipe.yaml, without the options that came since."""
    every_epoch = ("--modality", "text", "--num_train_epochs", "2")
    with monkeypatch.context() as patch, interrupted_after(patch, 5):
        run(tmp_path, small_dataset, *every_epoch)
    settings = yaml.safe_load((tmp_path / "configuration.yaml").read_text())
    assert settings.pop("crop_scale_most") == 1.0
    (tmp_path / "configuration.yaml").unlink()
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(SystemExit):
        run(tmp_path, small_dataset, *every_epoch, "--learning_rate", "0.5")
    run(tmp_path, small_dataset, *every_epoch)
    assert not (tmp_path / "recipe.yaml").exists()
    card = (tmp_path / "README.md").read_text()

    (tmp_path / "configuration.yaml").rename(tmp_path / "recipe.yaml")
    (tmp_path / "README.md").unlink()
    assert saved_configuration(str(tmp_path))["num_train_epochs"] == 2
    score.main([str(tmp_path), str(small_dataset)])
    rewritten = (tmp_path / "README.md").read_text()
    assert "## Scores on test" in rewritten
    settings = card.split("```yaml")[1].split("```")[0]
    assert "num_train_epochs: 2" in settings
    assert settings in rewritten


def test_a_half_written_checkpoint_is_not_resumed(tmp_path):
    for step, state in ((2, '{"global_step": 2}'), (4, '{"glob')):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-6").mkdir()
    assert newest_checkpoint(tmp_path).name == "checkpoint-2"


@pytest.mark.parametrize(
    ("more", "last"),
    [((), None), (("--ema_decay", "0.9"), "averaged.safetensors"), (("--streaming", "true"), "stream-0.json")],
)
def test_a_checkpoint_without_what_is_written_last_is_not_resumed(tmp_path, more, last):
    configuration = parse_configuration(["default", "--output_dir", str(tmp_path), *more])
    start_run(configuration)
    for step in (2, 4):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "trainer_state.json").write_text('{"global_step": 1}')
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.save({}, checkpoint / name)
        save_file({"a": torch.zeros(1)}, checkpoint / "model.safetensors")
    if last is not None:
        save_file({"a": torch.zeros(1)}, tmp_path / "checkpoint-2" / last)
    assert inspect_run(configuration).checkpoint.name == ("checkpoint-4" if last is None else "checkpoint-2")


def test_early_stopping_goes_on_counting_where_it_was(small_dataset, tmp_path, monkeypatch):
    still = ("--learning_rate", "1e-9", "--num_train_epochs", "9", "--modality", "text")
    still += ("--early_stopping_patience", "3")
    whole = run(tmp_path / "whole", small_dataset, *still)
    with monkeypatch.context() as patch, interrupted_after(patch, 11):
        run(tmp_path / "broken", small_dataset, *still)
    broken = run(tmp_path / "broken", small_dataset, *still)
    assert read_metrics(broken)["steps"] == read_metrics(whole)["steps"] == 4 * 4


def test_a_checkpoint_of_other_processes_is_not_gone_on_from(small_dataset, tmp_path, capsys):
    start_run(
        parse_configuration(
            ["flavour_fusion_tiny", "--dataset", str(small_dataset), "--output_dir", str(tmp_path), *SMALL]
        )
    )
    (tmp_path / "checkpoint-2").mkdir()
    (tmp_path / "checkpoint-2" / "trainer_state.json").write_text('{"global_step": 2}')
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "rng_state_1.pth"):
        torch.save({}, tmp_path / "checkpoint-2" / name)
    save_file({"a": torch.zeros(1)}, tmp_path / "checkpoint-2" / "model.safetensors")
    with pytest.raises(SystemExit):
        run(tmp_path, small_dataset)
    assert "was written by 2 processes and 1 would go on" in capsys.readouterr().err


STEPS = ("--num_train_epochs", "1", "--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "1")
EVERY_STEP = (*STEPS, "--eval_steps", "1", "--load_best_model_at_end", "false", "--modality", "text")


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


@pytest.fixture(scope="module")
def interrupted(small_dataset, tmp_path_factory):
    """A run that was interrupted behind its second checkpoint, and what it would have become."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch, interrupted_after(patch, 2):
        run(folder / "broken", small_dataset, *EVERY_STEP)
    return folder / "broken", run(folder / "whole", small_dataset, *EVERY_STEP)


@pytest.mark.parametrize("damage", [type(Path()).unlink, cut])
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors"])
def test_a_damaged_checkpoint_is_said_and_an_earlier_one_is_taken(
    interrupted, small_dataset, tmp_path, capsys, name, damage
):
    shutil.copytree(interrupted[0], tmp_path / "run")
    damage(tmp_path / "run" / "checkpoint-2" / name)
    run(tmp_path / "run", small_dataset, *EVERY_STEP)
    message = capsys.readouterr().err
    assert "checkpoint-2" in message
    assert "the run goes on from" in message
    assert_equal_weights(tmp_path / "run", interrupted[1])


def test_without_a_sound_checkpoint_a_run_is_refused_and_stays_as_it_is(interrupted, small_dataset, tmp_path, capsys):
    shutil.copytree(interrupted[0], tmp_path / "run")
    for step in (1, 2):
        (tmp_path / "run" / f"checkpoint-{step}" / "optimizer.pt").unlink()
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "run", small_dataset, *EVERY_STEP)
    assert ended.value.code == 2
    assert "would lead to other weights" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint-1").is_dir()
