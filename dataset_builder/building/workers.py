"""Shards drawn by this process, or by several processes of this machine."""

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dataset_builder.building.plan import Plan
from dataset_builder.building.shards import BuildFolder, Shard, write_table
from dataset_builder.errors import BadInputError
from dataset_builder.pictures.settings import PLATING
from dataset_builder.progress import Progress

# Seconds after which the main process checks whether a worker was killed.
_LOOK = 1.0


def draw_here(
    plan: Plan, folder: BuildFolder, shards: Sequence[Shard], device: Any = None, show_progress: bool = True
) -> None:
    """Draw in this process those of the shards that the folder does not have.

    Args:
        plan: of the build.
        folder: of the build.
        shards: the share of this process.
        device: where models run; None takes a GPU when there is one.
        show_progress: whether this process shows a progress bar.
    """
    missing = [shard for shard in shards if not folder.has(shard)]
    if not missing:
        return
    illustrator = plan.illustrator(_default_device() if device is None else device)
    with _progress_bar(plan, shards, missing, show_progress) as bar:
        for shard in missing:
            write_table(folder.data / shard.file_name, plan.draw_shard(shard, illustrator, bar.update))


def draw_in_processes(plan: Plan, folder: BuildFolder, processes: int) -> None:
    """Draw all shards that the folder does not have in several processes of this machine.

    Each worker takes the next shard that no other has. It stops when the main process has ended.

    Raises:
        BadInputError: a worker met bad input.
        OSError: a worker could not write, or was killed.
    """
    shards = plan.shards()
    missing = [shard for shard in shards if not folder.has(shard)]
    processes = min(processes, len(missing))
    if processes <= 1:
        draw_here(plan, folder, shards)
        return
    # Plating uses no device and no thread pool: a fork shares what is loaded, where a fresh process takes seconds.
    plating = plan.settings.generation.pipeline == PLATING
    context: Any = multiprocessing.get_context("fork" if plating else "spawn")
    following, reports = context.Value("i", 0), context.Queue()
    threads = 1 if plating else max(1, torch.get_num_threads() // processes)
    # A worker gets the folder without its lock, which belongs to this process.
    arguments = (plan, BuildFolder(folder.root), missing, following, reports, threads, os.getpid())
    workers = [context.Process(target=_work, args=(*arguments, number), daemon=True) for number in range(processes)]
    try:
        for worker in workers:
            worker.start()
        with _progress_bar(plan, shards, missing, True) as bar:
            _listen(workers, reports, bar.update)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        folder.clear_leftovers()


def _listen(workers: list[Any], reports: Any, progress: Callable[[int], Any]) -> None:
    """Pass the numbers of drawn pictures to `progress` until each worker has reported its end with None."""
    waiting = len(workers)
    while waiting:
        try:
            report = reports.get(timeout=_LOOK)
        except queue.Empty:
            dead = [worker.exitcode for worker in workers if worker.exitcode]
            if dead:
                raise OSError(f"a worker process ended with status {dead[0]}; repeat the command to go on") from None
            continue
        if isinstance(report, BaseException):
            raise report
        if report is None:
            waiting -= 1
        else:
            progress(report)


def _work(
    plan: Plan,
    folder: BuildFolder,
    shards: Sequence[Shard],
    following: Any,
    reports: Any,
    threads: int,
    parent: int,
    number: int,
) -> None:
    # Ctrl-C reaches every process of the terminal; the main one answers it for all and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)

    def progress(pictures: int) -> None:
        if os.getppid() != parent:  # the main process was killed, so this shard has no use
            os._exit(1)
        reports.put(pictures)

    try:
        illustrator = plan.illustrator(_default_device(number))
        while True:
            # Each worker takes the next number; fast ones take more shards than slow ones.
            with following.get_lock():
                position = following.value
                following.value += 1
            if position >= len(shards):
                break
            shard = shards[position]
            write_table(folder.data / shard.file_name, plan.draw_shard(shard, illustrator, progress))
    except (BadInputError, OSError) as error:
        reports.put(error)
    else:
        reports.put(None)


def _default_device(number: int = 0) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", number % torch.cuda.device_count())
    return torch.device("cpu")


def _progress_bar(plan: Plan, shards: Sequence[Shard], missing: Sequence[Shard], show: bool) -> Progress:
    total = sum(plan.rows_in(shard) for shard in shards)
    done = total - sum(plan.rows_in(shard) for shard in missing)
    return Progress("drawing", total, "pictures", show, initial=done)
