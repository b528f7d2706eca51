"""Pictures of the same prompts and seeds during training, side by side: what the denoiser has learned, and when."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dataset_builder.files import write_whole
from dataset_builder.pictures.pipelines import errors_only
from trainer_scripts.tasks.common.trainer import AveragedWeights
from trainer_scripts.tasks.text_to_image.model import TrainedDenoiser

GRID, SHEET = "grid", "grid.png"
FIRST_SEED = 0


def draw(model: TrainedDenoiser, prompts: Sequence[str], steps: int, guidance: float, seed: int) -> list[Image.Image]:
    """Return a picture of each prompt, drawn by the pipeline itself; the seeds are `seed`, `seed + 1`, ..."""
    pipeline = model.conditions.pipeline
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed + number) for number in range(len(prompts))]
    sizes = {"height": model.size, "width": model.size}
    settings = {"num_inference_steps": steps, "guidance_scale": guidance, **sizes}
    with errors_only(), torch.no_grad():
        return list(pipeline(list(prompts), generator=generators, **settings).images)


class PictureGrid(TrainerCallback):
    """Draws after each evaluation, writes one row of pictures per step into `grid/`, and all rows as one sheet.

    Args:
        model: in training.
        prompts: one per column.
        folder: of the run.
        steps: of drawing.
        guidance: of drawing.
        averaged: the moving average of the weights, which draws where there is one.
    """

    def __init__(
        self,
        model: TrainedDenoiser,
        prompts: Sequence[str],
        folder: Path,
        steps: int,
        guidance: float,
        averaged: AveragedWeights | None,
    ):
        self._model = model
        self._prompts = prompts
        self._folder = folder
        self._drawing = steps, guidance
        self._averaged = averaged

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Draw with the weights as they are evaluated."""
        row = self._folder / GRID / f"step-{state.global_step:07d}.png"
        if not state.is_world_process_zero or row.is_file():
            return
        was_training = self._model.training
        self._model.eval()
        if self._averaged is None:
            pictures = draw(self._model, self._prompts, *self._drawing, FIRST_SEED)
        else:
            with self._averaged.in_place(self._model):
                pictures = draw(self._model, self._prompts, *self._drawing, FIRST_SEED)
        self._model.train(was_training)
        row.parent.mkdir(parents=True, exist_ok=True)
        write_whole(row, lambda partial: side_by_side(pictures).save(partial, "png"))
        rows = [Image.open(path) for path in sorted(row.parent.glob("step-*.png"))]
        write_whole(self._folder / SHEET, lambda partial: stacked_rows(rows).save(partial, "png"))


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return pictures of one size as a row."""
    width, height = pictures[0].size
    row = Image.new("RGB", (width * len(pictures), height))
    for place, picture in enumerate(pictures):
        row.paste(picture, (place * width, 0))
    return row


def stacked_rows(rows: Sequence[Image.Image]) -> Image.Image:
    """Return rows of one size below each other."""
    width, height = rows[0].size
    sheet = Image.new("RGB", (width, height * len(rows)))
    for place, row in enumerate(rows):
        sheet.paste(row, (0, place * height))
    return sheet
