"""Training of a text-to-image pipeline: a step against a plain diffusers loop, and what stored latents save.

Both ways train the denoiser of one small Stable Diffusion pipeline with fresh weights (96 px, latents of 24 x 24)
in the same precision with fused AdamW, clipping and a schedule. The loop is that of the fine-tuning scripts of
diffusers: noise by a DDPM scheduler, the prediction of the UNet, the mean squared error. Epochs on stored latents
and text states stand beside epochs that encode each picture and text anew, evaluations and saving left out.
"""

import tempfile
import time
from itertools import islice
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from measuring import CLOCKS, Row, arguments_of, milliseconds, ratios, report
from photographs import write_rows
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import TrainerCallback, get_scheduler

from trainer_scripts.settings.arguments import ModelArguments
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.text_to_image.scratch import fresh_pipeline
from trainer_scripts.training import run as training_run

FIRST = 2
BATCH = 32


class Times(TrainerCallback):
    """Notes when each step and each epoch ends."""

    def __init__(self, now):
        self.now, self.steps, self.epochs = now, [], []

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append(self.now())

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.epochs.append(self.now())


def write_pipeline(folder: Path) -> str:
    """Write a small pipeline with fresh weights around the autoencoder of the package."""
    torch.manual_seed(0)
    pipeline = fresh_pipeline(ModelArguments(vae="package:plates-autoencoder", vocabulary_size=1500, max_length=48))
    pipeline.save_pretrained(folder / "pipeline")
    return str(folder / "pipeline")


def configuration_of(dataset: Path, pipeline: str, folder: Path, *more: str):
    """A run of the denoiser alone, without evaluations."""
    settings = ["--dataset", str(dataset), "--pipeline", pipeline, "--output_dir", str(folder / "run"), "--seed", "0"]
    settings += ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false", "--use_cpu"]
    settings += ["true", "--features_dir", str(folder / "features"), "--per_device_train_batch_size", str(BATCH)]
    settings += ["--lora_rank", "0", "--gradient_checkpointing", "false", "--ema_decay", "none", "--image_size", "96"]
    settings += ["--prompt_template", "none", "--min_snr_gamma", "none", "--noise_offset", "0", "--precision", "auto"]
    settings += ["--sample_pictures", "0", "--text_dropout", "0", "--disable_tqdm", "true"]
    return parse_configuration(["text_to_image_stable_diffusion", *settings, *more])


def prepared(configuration, data):
    """The Trainer of a run, and its times."""
    model, processor = data.task.build(configuration, data)
    return training_run.make_trainer(configuration, data, model, processor)


def trainer_step(configuration, data, now) -> float:
    """Seconds per step of the Trainer."""
    trainer, times = prepared(configuration, data), Times(now)
    trainer.add_callback(times)
    with data.task.keep_features(configuration, trainer):
        trainer.train()
    return (times.steps[-1] - times.steps[FIRST - 1]) / (len(times.steps) - FIRST)


def loop_step(configuration, data, now) -> float:
    """Seconds per step of the plain loop, on the same stored latents and text states."""
    trainer = prepared(configuration, data)
    model, arguments = trainer.model, configuration.training
    pipeline = model.conditions.pipeline
    schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
    unet, (shift, factor) = pipeline.unet.to(memory_format=torch.channels_last).train(), model.scale
    with data.task.keep_features(configuration, trainer):
        loader = DataLoader(trainer.train_dataset, BATCH, shuffle=True, collate_fn=trainer.data_collator)
        optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
        rates = get_scheduler("cosine", optimizer, 0, arguments.max_steps)
        ends: list[float] = []
        while len(ends) < arguments.max_steps:
            for batch in islice(loader, arguments.max_steps - len(ends)):
                mean, deviation = batch["moments"].unbind(dim=1)
                latents = (mean + deviation * torch.randn_like(mean) - shift) * factor
                noise = torch.randn_like(latents)
                steps = torch.randint(schedule.config.num_train_timesteps, (len(latents),))
                noisy = schedule.add_noise(latents, noise, steps)
                target = schedule.get_velocity(latents, noise, steps)
                with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
                    predicted = unet(noisy, steps, batch["text"][0]).sample
                functional.mse_loss(predicted.float(), target).backward()
                torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
                optimizer.step()
                rates.step()
                optimizer.zero_grad()
                ends.append(now())
    return (ends[-1] - ends[FIRST - 1]) / (len(ends) - FIRST)


def epoch(configuration, data, now) -> float:
    """Seconds of the second epoch: the first one decodes the pictures."""
    trainer, times = prepared(configuration, data), Times(now)
    trainer.add_callback(times)
    with data.task.keep_features(configuration, trainer):
        trainer.train()
    return times.steps[-1] - times.epochs[1]


def main() -> None:
    steps = {"type": int, "default": 10, "help": "steps that are timed in each round (%(default)s)"}
    given = arguments_of(__doc__, rounds=3, steps=steps)
    now, started = CLOCKS[given.clock], time.time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset, pipeline = write_rows(folder, 128), write_pipeline(folder)
        found: dict[str, list[float]] = {way: [] for way in ("trainer", "loop", "stored", "encoded")}
        one = configuration_of(dataset, pipeline, folder, "--max_steps", str(FIRST + given.steps))
        twice = {
            way: configuration_of(dataset, pipeline, folder, "--num_train_epochs", "2", "--frozen_features", kind)
            for way, kind in (("stored", "store"), ("encoded", "recompute"))
        }
        data = training_run.load_training_data(one)
        for number in range(given.rounds):
            ways = [("trainer", trainer_step, one), ("loop", loop_step, one)]
            ways += [(way, epoch, configuration) for way, configuration in twice.items()]
            for way, measure, configuration in ways[:: 1 if number % 2 else -1]:
                found[way].append(measure(configuration, data, now))
        precision = "bf16" if one.training.bf16 else "fp32"
    print(f"{torch.get_num_threads()} threads, rounds of {given.steps} steps, {time.time() - started:.0f} s")
    rows = [
        Row(
            f"training step of a denoiser, batch {BATCH}, {precision}: {milliseconds(found['trainer'])}",
            f"plain diffusers loop: {milliseconds(found['loop'])}",
            ratios(found["loop"], found["trainer"]),
            0.95,
        ),
        Row(
            f"later epoch on stored latents and texts, 128 rows: {milliseconds(found['stored'])}",
            f"encoded anew: {milliseconds(found['encoded'])}",
            ratios(found["encoded"], found["stored"]),
            5.0,
        ),
    ]
    report(rows, given)


if __name__ == "__main__":
    main()
