"""Peak memory of importing, checking and reading 7,118 generated pictures with masks in the form of FoodSeg103.

Photographs of FoodSeg103 are about 700 pixels on the longer side. Each step has a process and so a peak of its own: the
most that it ever held itself (resident, pages of mapped files counted), or together with its workers if that is more.
`make bench` takes a twentieth of the pictures; `--share 1` takes all.
"""

import contextlib
import io
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from measuring import Row, arguments_of, report
from PIL import Image
from tqdm import tqdm

CLASSES = 104
SPLITS = {"train": 4983, "test": 2135}
LIMIT_GB = 6
DRAWN = 24
SAMPLED_SECONDS = 0.5
CONFIGURATION = "segmentation_deeplabv3_resnet50"


def generate(folder: Path, share: float, width: int = 700, height: int = 525) -> None:
    """Write generated pictures and masks, blobs of classes on noise, in the layout of FoodSeg103.

    A few are drawn; a comment in each JPEG makes its bytes, and so its hash, its own.
    """
    draw = np.random.default_rng(0)
    drawn = [_draw(draw, width, height) for _ in range(DRAWN)]
    for split, number in SPLITS.items():
        pictures, masks = (folder / "Images" / kind / split for kind in ("img_dir", "ann_dir"))
        for path in (pictures, masks):
            path.mkdir(parents=True)
        for index in tqdm(range(max(20, round(number * share))), desc=split, disable=None):
            picture, mask = drawn[index % DRAWN]
            comment = f"{split} {index}".encode()
            comment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            (pictures / f"{index:08d}.jpg").write_bytes(picture[:2] + comment + picture[2:])
            (masks / f"{index:08d}.png").write_bytes(mask)
    lines = [f"{number}\t{'background' if number == 0 else f'class {number}'}" for number in range(CLASSES)]
    (folder / "category_id.txt").write_text("\n".join(lines) + "\n")


def _draw(draw: np.random.Generator, width: int, height: int) -> tuple[bytes, bytes]:
    mask = np.zeros((height, width), dtype=np.uint8)
    for label in draw.integers(1, CLASSES, 5):
        top, left = draw.integers(0, height - 150), draw.integers(0, width - 150)
        mask[top : top + 150, left : left + 150] = label
    shade = draw.integers(0, 200, (CLASSES, 3)).astype(np.uint8)
    noise = draw.integers(0, 40, (height, width, 3), dtype=np.uint8)
    files = []
    for array, kind in ((shade[mask] + noise, "JPEG"), (mask, "PNG")):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, format=kind)
        files.append(buffer.getvalue())
    return files[0], files[1]


def run_import(source: Path, out: Path) -> None:
    from dataset_builder.importers import import_table

    import_table("foodseg103", str(source), out)


def read_samples(source: Path, out: Path) -> None:
    """Make the training and selection samples of the full-size configuration and read each once, as an epoch does."""
    from torch.utils.data import DataLoader

    from trainer_scripts.settings.configurations import parse_configuration
    from trainer_scripts.tasks.segmentation.training import make_processor
    from trainer_scripts.training.data import load_training_data

    configuration = parse_configuration([CONFIGURATION, "--dataset", str(out), "--use_cpu", "true"])
    data = load_training_data(configuration)
    task, processor = data.task, make_processor(configuration)
    samples = task.training_samples(configuration, data, processor)
    selection = task.evaluation_samples(processor, data.selection)
    for kept in (samples.pictures, samples.masks, selection.pictures, selection.masks):
        kept.load()
    workers = configuration.training.dataloader_num_workers
    collate = task.collator(processor, len(data.names), configuration)
    batches = DataLoader(samples, 8, num_workers=workers, collate_fn=collate)
    pixels = sum(batch["labels"].numel() for batch in tqdm(batches, desc="training pictures", disable=None))
    pixels += sum(selection[row]["labels"].numel() for row in range(len(selection)))
    print(f"{pixels:,} pixels read by {workers} workers")


def train_and_score(source: Path, out: Path) -> None:
    """Train the full-size configuration with a small network for two steps, and score it on all test pictures."""
    from trainer_scripts import score, train

    model = out.parent / "model"
    vision = {"model_type": "timm_wrapper", "architecture": "resnet10t", "model_args": {"output_stride": 16}}
    head = {"head": "deeplabv3", "aspp_channels": 16, "aspp_rates": [2, 4]}
    small = ["--vision_config", json.dumps(vision), "--config", json.dumps(head), "--image_size", "64"]
    run = ["--max_steps", "2", "--dataloader_num_workers", "0", "--use_cpu", "true", "--output_dir", str(model)]
    train.main([CONFIGURATION, "--dataset", str(out), *small, *run])
    score.main([str(model), str(out), "--split", "test"])


def peak_of(step: Callable[[Path, Path], None], source: Path, out: Path) -> tuple[float, float]:
    """Run one step in a process of its own; return its peak memory in GB, its workers' included, and its seconds."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=_measured, args=(step, source, out, answers, multiprocessing.get_start_method()))
    started = time.perf_counter()
    child.start()
    most = 0.0
    while child.is_alive():
        most = max(most, _memory_of(child.pid))
        child.join(SAMPLED_SECONDS)
    if child.exitcode:
        raise SystemExit(f"{step.__name__} failed")
    return max(most, answers.get()), time.perf_counter() - started


def _memory_of(pid: int | None) -> float:
    """Return the memory of a process and its workers in GB, pages that they share counted once."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in (parent := psutil.Process(pid), *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory = process.memory_full_info()
                total += getattr(memory, "pss", memory.uss)
    return total / 1e9


def _measured(step: Callable[[Path, Path], None], source: Path, out: Path, answers: Any, method: str) -> None:
    """Run a step in its own process and send back the most memory that this process itself held."""
    multiprocessing.set_start_method(method, force=True)
    step(source, out)
    answers.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def main() -> None:
    share = {"type": float, "default": 0.05, "help": "share of the 7,118 pictures (%(default)s)"}
    given = arguments_of(__doc__, 1, share=share)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "data"
        generate(source, given.share)
        steps = ((run_import, "import"), (read_samples, "reading"), (train_and_score, "training and scoring"))
        for step, what in steps:
            peak, seconds = peak_of(step, source, out)
            rows.append(
                Row(
                    f"{what} of {given.share:.0%} of FoodSeg103: {peak:.2f} GB at most, {seconds:.0f} s",
                    f"limit of {LIMIT_GB} GB",
                    [LIMIT_GB / peak],
                    # A part of the pictures says nothing about the limit for all of them.
                    1 if given.share == 1 else None,
                )
            )
            if step is run_import:
                shutil.rmtree(source)
    report(rows, given)


if __name__ == "__main__":
    main()
