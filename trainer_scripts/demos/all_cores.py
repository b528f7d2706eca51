"""Training and scoring on all cores of a machine without GPUs, in one process per core.

Threads divide single operations, which are short in small networks: two threads are much less than twice as fast as
one there, and two processes are almost twice as fast.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate.utils import patch_environment
from accelerate.utils.other import get_free_port
from torch import multiprocessing

from dataset_builder.processes import end_with_parent
from trainer_scripts import score, train
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training.folder import inspect_run

# With fewer rows per process the statistics of batch normalisation are noisy and gradients are exchanged too often.
LEAST_ROWS = 8
# Other systems do not split a process safely once their libraries are loaded.
START = "forkserver" if sys.platform == "linux" else "spawn"
# `train.py` and `score.py` load these only when they run.
PRELOADED = ["trainer_scripts.training.run", "trainer_scripts.scoring.score_run"]


def process_count(rows: int) -> int:
    """Return the largest number of processes that divide a batch of `rows` evenly; 1 with GPUs, which one process uses.

    It is at most the number of threads of torch: one per core unless the environment limits it.
    """
    most = min(core_count(), rows // LEAST_ROWS)
    return max((count for count in range(2, most + 1) if rows % count == 0), default=1)


def core_count() -> int:
    """Return the number of processes that are worth starting side by side; 1 with GPUs, which one process uses."""
    return 1 if torch.cuda.is_available() else torch.get_num_threads()


def train_on_all_cores(arguments: Sequence[str]) -> None:
    """Run `train.main` with the batch of the configuration divided among processes; the steps are the same.

    The processes end together with the one that launched them, so a repeated command never runs beside them.

    Args:
        arguments: of the command line of `train.py`.

    Raises:
        SystemExit: a process ended with an error, which it has printed.
    """
    configuration = parse_configuration(arguments)
    rows = configuration.training.per_device_train_batch_size
    count = process_count(rows)
    # The batch of one process is what a finished run has saved.
    shared = [*arguments, "--per_device_train_batch_size", str(rows // count)] if count > 1 else list(arguments)
    if count == 1 or inspect_run(parse_configuration(shared)).finished:
        train.main(shared)
        return
    settings = {
        "world_size": count,
        "local_world_size": count,
        "master_addr": "127.0.0.1",
        "master_port": get_free_port(),
    }
    if sys.platform == "linux":
        settings["gloo_socket_ifname"] = "lo"  # a machine without a network cannot resolve its own name
    _side_by_side(_train, shared, count, settings)


def score_on_all_cores(commands: Sequence[Sequence[str]]) -> None:
    """Run `score.main` with each of some command lines, as many at a time as there are cores.

    Args:
        commands: their arguments; no command reads what another one writes.

    Raises:
        SystemExit: a process ended with an error, which it has printed.
    """
    count = min(core_count(), len(commands))
    if count > 1:
        _side_by_side(_score, [list(command) for command in commands], count, {"commands_at_once": count})
        return
    for command in commands:
        score.main(command)


def _side_by_side(work: Callable[..., None], arguments: Sequence[Any], count: int, settings: dict[str, Any]) -> None:
    """Run work in processes that share the cores and end together.

    Loading the libraries takes a process several seconds. Where a system allows it, they are loaded once, in a process
    that is split for each piece of work.
    """
    threads = max(1, torch.get_num_threads() // count)
    if START == "forkserver":
        multiprocessing.set_forkserver_preload(PRELOADED)
    with patch_environment(omp_num_threads=threads, **settings):
        # Split processes have the environment of the first time.
        given = (work, arguments, threads, dict(os.environ))
        try:
            multiprocessing.start_processes(_work, given, nprocs=count, start_method=START)
        except multiprocessing.ProcessExitedException as error:
            raise SystemExit(error.exit_code) from error


def _work(
    rank: int, work: Callable[..., None], arguments: Sequence[Any], threads: int, environment: dict[str, str]
) -> None:
    end_with_parent()
    os.environ.update(environment)
    torch.set_num_threads(threads)
    work(rank, arguments)


def _train(rank: int, arguments: Sequence[str]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    train.main(arguments)


def _score(rank: int, commands: Sequence[Sequence[str]]) -> None:
    for command in commands[rank :: int(os.environ["COMMANDS_AT_ONCE"])]:
        score.main(command)
