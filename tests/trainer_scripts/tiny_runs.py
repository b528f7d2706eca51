"""Runs on the small table: their arguments, their weights, and ways to interrupt them or to launch two processes."""

import os
import pickle
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from dataset_builder.engines.local import LocalEngine
from trainer_scripts import score, train
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training import run as training_run
from trainer_scripts.training.data import load_training_data

SMALL = [
    "--text_config",
    '{"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, '
    '"intermediate_size": 16}',
    "--vision_config",
    '{"model_type": "timm_wrapper", "architecture": "resnet10t", '
    '"model_args": {"stem_width": 8, "channels": [8, 8, 8, 8]}}',
    "--config",
    '{"text_pooling": "lstm", "lstm_hidden_size": 8, "lstm_layers": 1, "text_dense_sizes": [16], '
    '"image_dense_sizes": [16], "head_dense_sizes": [8], "dropout": 0.1}',
    "--image_size",
    "32",
    "--use_cpu",
    "true",
    "--precision",
    "fp32",
    "--num_train_epochs",
    "2",
    "--per_device_train_batch_size",
    "15",
    "--warmup_steps",
    "0",
]


def run(folder: Path, dataset: Path, *arguments: str, configuration: str = "flavour_fusion_tiny") -> Path:
    train.main([configuration, "--dataset", str(dataset), "--output_dir", str(folder), *SMALL, *arguments])
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_equal_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@contextmanager
def interrupted_after(patch, steps: int):
    """Ctrl-C in the step after so many; the command must end as an interrupted one."""
    step, taken = transformers.Trainer.training_step, []

    def interrupted(self, *args, **kwargs):
        if len(taken) == steps:
            raise KeyboardInterrupt
        taken.append(1)
        return step(self, *args, **kwargs)

    patch.setattr(transformers.Trainer, "training_step", interrupted)
    with pytest.raises(SystemExit) as ended:
        yield
    assert ended.value.code == 130


def make_trainer(dataset, folder, *arguments):
    configuration = parse_configuration(
        ["flavour_fusion_tiny", "--dataset", str(dataset), "--output_dir", str(folder), *SMALL, *arguments]
    )
    data = load_training_data(configuration)
    model, processor = data.task.build(configuration, data)
    return training_run.make_trainer(configuration, data, model, processor)


def run_on_two(script, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=400, env=environment)


def assert_spread_scores_equal(model: Path, dataset: Path, folder: Path, patch, *arguments: str) -> None:
    """Score a model in this process, and by units of four rows as workers do it: the same answers and scores."""
    arguments = ("--batch_size", "4", *arguments)
    score.main([str(model), str(dataset), "--out", str(folder / "alone"), *arguments])
    units: list[range] = []

    class Watched(LocalEngine):
        def run(self, work, each, report=None):
            units.extend(each)
            return super().run(pickle.loads(pickle.dumps(work)), each, report)

    with patch.context() as during:
        during.setattr("trainer_scripts.scoring.spread.BATCHES_PER_UNIT", 1)
        during.setattr("trainer_scripts.scoring.score_run.engine_for", lambda *asked: Watched(1))
        # The main process does not answer the rows once more.
        score.main([str(model), str(dataset), "--out", str(folder / "spread"), *arguments])
    assert len(units) > 2
    alone, spread = (folder / name for name in ("alone", "spread"))
    assert (spread / "predictions.parquet").read_bytes() == (alone / "predictions.parquet").read_bytes()
    assert (spread / "metrics.json").read_text() == (alone / "metrics.json").read_text()


INTERRUPTED = """
import sys
from transformers import Trainer
from trainer_scripts import train

step, taken = Trainer.training_step, []

def interrupted(self, *args, **kwargs):
    if len(taken) == 1:
        raise KeyboardInterrupt
    taken.append(1)
    return step(self, *args, **kwargs)

Trainer.training_step = interrupted
train.main(sys.argv[1:])
"""
