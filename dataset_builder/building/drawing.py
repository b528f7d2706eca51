"""Shards as units of work: each is drawn by one worker, which reads its part of the plan and writes one file."""

from collections.abc import Callable, Sequence

import torch

from dataset_builder.building.plan import Plan
from dataset_builder.building.shards import BuildFolder, Shard, write_table
from dataset_builder.engines.work import Engine, Report
from dataset_builder.pictures.settings import PLATING
from dataset_builder.progress import Progress
from dataset_builder.storage.places import is_url


class Drawing:
    """The work of a build, see `engines.work.Work`: one unit draws one shard into the folder.

    Args:
        plan: of the build.
        folder: of the build.
        device: where models run; None takes a GPU where there is one.
    """

    def __init__(self, plan: Plan, folder: BuildFolder, device: torch.device | None = None):
        self._plan, self._device = plan, device
        # A worker gets the folder without its lock, which belongs to the main process.
        self._folder = BuildFolder(folder.root)
        # Plating uses no device and no thread pool: a fork shares what is loaded, a fresh process takes seconds.
        plating = plan.settings.generation.pipeline == PLATING
        self.uses_gpu = not plating
        # The clients of stores hold connections and threads, which no fork survives.
        self.forks = plating and not is_url(folder.root)

    def start(self, number: int, workers: int) -> Callable[[Shard, Report], None]:
        """Load the pipeline onto the device of this worker."""
        if workers > 1:
            torch.set_num_threads(1 if not self.uses_gpu else max(1, torch.get_num_threads() // workers))
        illustrator = self._plan.illustrator(self._device or _device_of(number))

        def draw(shard: Shard, report: Report) -> None:
            write_table(self._folder.data / shard.file_name, self._plan.draw_shard(shard, illustrator, report))

        return draw


def _device_of(number: int) -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", number % torch.cuda.device_count())
    return torch.device("cpu")


def draw_shards(
    plan: Plan,
    folder: BuildFolder,
    shards: Sequence[Shard],
    engine: Engine,
    device: torch.device | None = None,
    show_progress: bool = True,
) -> None:
    """Draw those of the shards that the folder does not have.

    Args:
        plan: of the build.
        folder: of the build.
        shards: all of the build, or the share of this process.
        engine: that runs the workers.
        device: see `Drawing`.
        show_progress: whether this process shows a progress bar.

    Raises:
        BadInputError: a worker met bad input.
        OSError: a worker could not write, or was lost.
    """
    finished = folder.finished()
    missing = [shard for shard in shards if shard.file_name not in finished]
    if not missing:
        return
    total = sum(plan.rows_in(shard) for shard in shards)
    done = total - sum(plan.rows_in(shard) for shard in missing)
    with Progress("drawing", total, "pictures", show_progress, initial=done) as bar:
        for _ in engine.run(Drawing(plan, folder, device), missing, bar.update):
            pass
