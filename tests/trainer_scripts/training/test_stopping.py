"""A time limit, checkpoints that are models of their own, means of the best checkpoints, and the lines of training."""

import json
import logging
import re
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModel, AutoProcessor, TrainerState, get_scheduler

from tests.trainer_scripts.tiny_runs import assert_equal_weights, interrupted_after, run, weights
from trainer_scripts import score
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.training import callbacks, time_budget
from trainer_scripts.training.averaging import FOLDER
from trainer_scripts.training.time_budget import TimeBudget

TEXT = ("--modality", "text", "--learning_rate", "0.01")
EVERY_STEP = ("--eval_strategy", "steps", "--save_strategy", "steps", "--eval_steps", "2", "--save_steps", "2")


class Clock:
    """Each look at the clock is a second later."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("strategy", [(), EVERY_STEP], ids=["epochs", "steps"])
def test_training_stops_in_time_with_the_best_model_so_far(tmp_path, small_dataset, monkeypatch, strategy):
    monkeypatch.setattr(time_budget, "time", Clock())
    # Without the limit there would be 200 steps.
    folder = run(
        tmp_path / "run",
        small_dataset,
        *TEXT,
        *strategy,
        "--num_train_epochs",
        "50",
        "--max_minutes",
        "0.5",
        "--logging_steps",
        "2",
    )
    metrics = read_metrics(folder)
    assert 1 <= metrics["steps"] < 30
    evaluated = {line["step"]: line["eval_accuracy"] for line in metrics["history"][:-1] if "eval_accuracy" in line}
    assert metrics["best_step"] in evaluated
    assert metrics["selection"]["accuracy"] == pytest.approx(max(evaluated.values()))
    # One evaluation per step at most, and the last step has one.
    steps = [line["step"] for line in metrics["history"] if "eval_accuracy" in line]
    assert len(steps[:-1]) == len(set(steps[:-1]))
    assert metrics["steps"] in steps
    rates = [line["learning_rate"] for line in metrics["history"] if "learning_rate" in line]
    assert rates == sorted(rates, reverse=True)
    score.main([str(folder), str(small_dataset)])


def test_the_schedule_ends_with_the_time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time_budget, "time", clock)
    budget = TimeBudget(minutes=1.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler("linear", optimizer, 0, 1000)
    budget.schedule(scheduler, 1000)
    rates = []
    for share in (0.25, 0.5, 1.0):
        budget.share = share
        optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    assert rates == pytest.approx([0.75, 0.5, 0.0])


def test_enough_time_changes_nothing(tmp_path, small_dataset):
    plain = run(tmp_path / "plain", small_dataset, *TEXT)
    timed = run(tmp_path / "timed", small_dataset, *TEXT, "--max_minutes", "500")
    assert_equal_weights(plain, timed)


def test_a_resumed_run_goes_on_with_the_time_that_is_left(tmp_path, small_dataset, monkeypatch):
    # 200 steps at three looks at the clock each would take 10 minutes.
    longer = (*TEXT, "--num_train_epochs", "50", "--max_minutes", "2", "--early_stopping_patience", "none")
    longer += ("--logging_steps", "4")
    with monkeypatch.context() as patch:
        patch.setattr(time_budget, "time", Clock())
        whole = read_metrics(run(tmp_path / "whole", small_dataset, *longer))
    with monkeypatch.context() as patch:
        patch.setattr(time_budget, "time", Clock())
        with interrupted_after(patch, 14):
            run(tmp_path / "run", small_dataset, *longer)
    spent = json.loads((tmp_path / "run" / "checkpoint-12" / time_budget.SPENT).read_text())["seconds"]
    assert 12 < spent < 120
    monkeypatch.setattr(time_budget, "time", Clock())
    again = read_metrics(run(tmp_path / "run", small_dataset, *longer))
    assert again["steps"] == pytest.approx(whole["steps"], abs=4)
    rates = [line["learning_rate"] for line in again["history"] if "learning_rate" in line]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("more", [(), ("--ema_decay", "0.5")], ids=["plain", "moving average"])
def test_the_checkpoint_of_a_stopped_run_is_a_model(tmp_path, small_dataset, monkeypatch, more):
    with monkeypatch.context() as patch, interrupted_after(patch, 6):
        run(tmp_path / "run", small_dataset, *TEXT, *more)
    checkpoint = tmp_path / "run" / "checkpoint-4"
    files = {path.name for path in checkpoint.iterdir()}
    assert {"README.md", "configuration.yaml", "metrics.json", "processor_config.json", "tokenizer.json"} <= files
    assert "modeling_flavour.py" in files
    score.main([str(checkpoint), str(small_dataset), "--split", "validation", "--out", str(tmp_path / "scores")])
    evaluated = read_metrics(checkpoint)
    found = json.loads((tmp_path / "scores" / "metrics.json").read_text())["metrics"]["accuracy"]["value"]
    assert found == pytest.approx(evaluated["selection"]["accuracy"])
    assert evaluated["steps"] == 4
    assert "accuracy" in (checkpoint / "README.md").read_text()
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
    model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True).eval()
    assert model(**processor(text=["lemon cake"], return_tensors="pt")).logits.shape == (1, 5)
    # What was written beside the weights does not keep the run from going on.
    plain = run(tmp_path / "plain", small_dataset, *TEXT, *more)
    assert_equal_weights(run(tmp_path / "run", small_dataset, *TEXT, *more), plain)


def test_a_mean_of_checkpoints_is_kept_only_where_it_scores_higher(tmp_path, small_dataset, capsys):
    more = (*TEXT, *EVERY_STEP, "--num_train_epochs", "5", "--metric_for_best_model", "nll")
    plain = run(tmp_path / "plain", small_dataset, *more)
    capsys.readouterr()
    averaged = run(tmp_path / "averaged", small_dataset, *more, "--average_best", "4")
    said, metrics = capsys.readouterr().out, read_metrics(averaged)
    before, after = (read_metrics(folder)["selection"]["nll"] for folder in (plain, averaged))
    if "averaged_steps" in metrics:
        assert after < before
        assert f"steps {', '.join(map(str, metrics['averaged_steps']))} is kept" in said
        assert len(metrics["averaged_steps"]) in (2, 3, 4)
    else:
        assert after == pytest.approx(before)
        assert "no mean of checkpoints scores higher" in said
        assert_equal_weights(plain, averaged)
    assert not (averaged / FOLDER).exists()


def test_the_mean_is_that_of_the_weights(tmp_path, small_dataset, monkeypatch):
    kept = {}
    from trainer_scripts.training import averaging

    score_of, finish = averaging.BestWeights._score, averaging.BestWeights.finish
    # Every further checkpoint seems to help.
    rising = iter(range(100))
    monkeypatch.setattr(
        averaging.BestWeights, "_score", lambda self, trainer: score_of(self, trainer) * 0 + next(rising)
    )

    def read(self):
        for path in Path(self._folder).glob("*.safetensors"):
            kept[int(path.stem.split("-")[1])] = averaging.load_file(path)
        finish(self)

    monkeypatch.setattr(averaging.BestWeights, "finish", read)
    folder = run(tmp_path / "run", small_dataset, *TEXT, *EVERY_STEP, "--average_best", "2")
    steps = read_metrics(folder)["averaged_steps"]
    assert len(steps) == 2
    for name, value in weights(folder).items():
        assert torch.allclose(value, (kept[steps[0]][name] + kept[steps[1]][name]) / 2, atol=1e-6), name


def test_the_time_left_is_that_of_the_budget_where_it_ends_before_the_last_step(monkeypatch, capsys):
    clock = Clock()
    for module in (time_budget, callbacks):
        monkeypatch.setattr(module, "time", clock)
    budget = time_budget.TimeBudget(2.0)
    lines = callbacks.TrainingLines("eval_accuracy", budget)
    state = TrainerState(max_steps=1000, is_world_process_zero=True)
    lines.on_train_begin(None, state, None)
    state.global_step = 2
    lines.on_log(None, state, None, {"loss": 1.0})
    left = capsys.readouterr().out.split(", ")[-1]
    assert re.fullmatch(r"1 min \d+ s left\n", left), left


def test_a_line_tells_loss_and_rate_at_every_so_many_steps(tmp_path, small_dataset, capsys, monkeypatch):
    # As a command sets it, before which the Trainer's own default would be to print nothing.
    monkeypatch.setattr(transformers.training_args.logger, "getEffectiveLevel", lambda: logging.ERROR)
    run(tmp_path / "run", small_dataset, *TEXT, "--logging_steps", "3")
    lines = capsys.readouterr().out.splitlines()
    steps = [int(found[1]) for line in lines if (found := re.match(r"step (\d+)/8 .*  loss [\d.]+  rate ", line))]
    assert steps == [3, 4, 6, 8]  # An epoch is 4 steps, and its end has a line too.
    assert re.search(r"rate \d\.\d\de[+-]\d\d  [\d.e+]+ steps/s, .+ left", "\n".join(lines))


def test_settings_are_printed_as_far_as_they_differ_from_the_defaults(tmp_path, small_dataset, capsys):
    run(tmp_path / "run", small_dataset, *TEXT)
    said = capsys.readouterr().out
    block = said[said.index("configuration flavour_fusion_tiny") : said.index("classification:")]
    assert len(block.splitlines()) < 16
    assert "modality text;" in block
    assert "do_eval" not in block
    assert "report_to" not in block
    assert "disable_tqdm" not in block
    assert "selection_split" not in block
    assert "selection_split" in (tmp_path / "run" / "configuration.yaml").read_text()
