"""Training on all cores of a machine without GPUs, in one process per core.

Threads of one process share out single operations, which are short in small networks: two threads are far from twice as
fast as one there, two processes come near it.
"""

import os
import sys
from collections.abc import Sequence

import torch
from accelerate.utils import patch_environment
from accelerate.utils.other import get_free_port
from torch import multiprocessing

from trainer_scripts import train
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training.folder import inspect_run

# Batch normalisation, and the work per exchange of gradients, want that many rows in each process.
LEAST_ROWS = 8


def process_count(rows: int) -> int:
    """Return how many processes share a batch of so many rows evenly: 1 with GPUs, where one process knows them all.

    There are at most as many as torch would use threads, which is one per core where the environment does not say less.
    """
    if torch.cuda.is_available():
        return 1
    most = min(torch.get_num_threads(), rows // LEAST_ROWS)
    return max((count for count in range(2, most + 1) if rows % count == 0), default=1)


def train_on_all_cores(arguments: Sequence[str]) -> None:
    """Run `train.main` with the batch of the configuration divided among processes; the steps are the same.

    Processes end with the one that launched them, however that ends, so a repeated command finds nobody at work.

    Args:
        arguments: of the command line of `train.py`.

    Raises:
        SystemExit: a process ended with an error, which it has printed.
    """
    configuration = parse_configuration(arguments)
    rows = configuration.training.per_device_train_batch_size
    count = process_count(rows)
    if count == 1 or inspect_run(configuration).finished:
        train.main(arguments)
        return
    shared = [*arguments, "--per_device_train_batch_size", str(rows // count)]
    settings = {
        "world_size": count,
        "local_world_size": count,
        "master_addr": "127.0.0.1",
        "master_port": get_free_port(),
        "omp_num_threads": torch.get_num_threads() // count,
    }
    if sys.platform == "linux":
        settings["gloo_socket_ifname"] = "lo"  # a machine without a network cannot resolve its own name
    with patch_environment(**settings):
        try:
            multiprocessing.spawn(_train, (shared,), nprocs=count)
        except multiprocessing.ProcessExitedException as error:
            raise SystemExit(error.exit_code) from error


def _train(rank: int, arguments: Sequence[str]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    train.main(arguments)
