"""Two processes learn what one learns, and go on where they were interrupted."""

import os
import subprocess
import sys

import pytest
import torch
from accelerate.utils.other import get_free_port

from tests.trainer_scripts.tiny_runs import INTERRUPTED, SMALL, assert_equal_weights, run_on_two, weights
from trainer_scripts import train
from trainer_scripts.demos import all_cores
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.training.checkpoints import newest_checkpoint


def test_two_processes_learn_what_one_learns_with_the_same_global_batch(monkeypatch, small_dataset, tmp_path):
    """60 rows are no whole number of 16: the last batch is left out, as each side would fill it up in its own way."""
    steady = '{"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, '
    steady += '"intermediate_size": 16, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}'
    head = '{"text_dense_sizes": [8], "head_dense_sizes": [8], "dropout": 0.0}'
    common = ["flavour_title_tiny", "--dataset", str(small_dataset), *SMALL, "--text_config", steady, "--config", head]
    common += ["--optim", "sgd", "--learning_rate", "0.1", "--num_train_epochs", "2", "--modality", "text"]
    common += ["--dataloader_drop_last", "true"]
    common += ["--per_device_train_batch_size", "16"]
    train.main([*common, "--output_dir", str(tmp_path / "one")])
    # The batch is divided: each process takes eight rows at a step.
    monkeypatch.setattr(all_cores, "process_count", lambda rows: 2)
    before = dict(os.environ)
    all_cores.train_on_all_cores([*common, "--output_dir", str(tmp_path / "two")])
    assert dict(os.environ) == before
    for name, value in weights(tmp_path / "one").items():
        assert torch.allclose(value, weights(tmp_path / "two")[name], atol=1e-5), name
    curves = [
        [(entry["step"], entry["loss"]) for entry in read_metrics(tmp_path / name)["history"] if "loss" in entry]
        for name in ("one", "two")
    ]
    assert [step for step, _ in curves[0]] == [3, 6]
    for (step, loss), (other_step, other) in zip(*curves, strict=True):
        assert step == other_step
        assert loss == pytest.approx(other, abs=1e-5)


@pytest.mark.slow
def test_two_interrupted_processes_end_with_the_weights_of_whole_ones(small_dataset, tmp_path):
    common = ["flavour_title_tiny", "--dataset", str(small_dataset), *SMALL, "--modality", "text"]
    common += ["--num_train_epochs", "1", "--save_strategy", "steps", "--eval_strategy", "steps"]
    common += ["--save_steps", "1", "--eval_steps", "1", "--load_best_model_at_end", "false"]
    whole, broken = ([*common, "--output_dir", str(tmp_path / name)] for name in ("whole", "broken"))
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    assert run_on_two(train.__file__, *whole).returncode == 0
    assert run_on_two(script, *broken).returncode != 0
    assert newest_checkpoint(tmp_path / "broken").name == "checkpoint-1"
    ended = run_on_two(train.__file__, *broken)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert_equal_weights(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.slow
def test_two_machines_with_folders_of_their_own_learn_what_one_with_two_processes_learns(small_dataset, tmp_path):
    common = ["flavour_title_tiny", "--dataset", str(small_dataset), *SMALL, "--modality", "text"]
    assert run_on_two(train.__file__, *common, "--output_dir", str(tmp_path / "one")).returncode == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    launch += ["--master_addr", "127.0.0.1", "--master_port", str(get_free_port())]
    running = []
    for rank in range(2):
        (tmp_path / f"machine-{rank}").mkdir()
        run = [*launch, "--node_rank", str(rank), train.__file__, *common, "--output_dir", "run"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
        running.append(subprocess.Popen(run, cwd=tmp_path / f"machine-{rank}", env=environment))
    assert [each.wait(timeout=400) for each in running] == [0, 0]
    assert_equal_weights(tmp_path / "one", tmp_path / "machine-0" / "run")
