"""A training step of `train.py` against a hand-written PyTorch loop: same model, batches, precision and optimizer.

Both read the same samples through the same collator, clip the gradient, follow a schedule and use fused AdamW; the loop
does nothing else. Whole runs of the Trainer are timed from its fifth step to its last.
"""

import tempfile
import time
from itertools import islice
from pathlib import Path

import torch
from measuring import CLOCKS, Row, arguments_of, milliseconds, ratios, report
from photographs import SMALL_MODEL, write_rows
from torch.utils.data import DataLoader
from transformers import TrainerCallback, get_scheduler

from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training import run as training_run

FIRST = 4
CONFIGURATIONS = {
    "title + picture at 64 px, batch 64": "flavour_fusion_tiny",
    "title, batch 64": "flavour_title_tiny",
}


class StepTimes(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self, now):
        self.now, self.ends = now, []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(self.now())


def trainer_step(configuration, data, now) -> float:
    """Seconds per step of the Trainer."""
    model, processor = data.task.build(configuration, data)
    trainer = training_run.make_trainer(configuration, data, model, processor)
    times = StepTimes(now)
    trainer.add_callback(times)
    trainer.train()
    return (times.ends[-1] - times.ends[FIRST - 1]) / (len(times.ends) - FIRST)


def loop_step(configuration, data, now) -> float:
    """Seconds per step of the hand-written loop."""
    torch.manual_seed(0)
    model, processor = data.task.build(configuration, data)
    arguments, task = configuration.training, data.task
    samples = task.training_samples(configuration, data, processor)
    collate = task.collator(processor, len(data.names), configuration)
    loader = DataLoader(samples, arguments.per_device_train_batch_size, shuffle=True, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    schedule = get_scheduler("cosine", optimizer, 0, arguments.max_steps)
    model.to(memory_format=torch.channels_last).train()
    ends = []
    while len(ends) < arguments.max_steps:
        for batch in islice(loader, arguments.max_steps - len(ends)):
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            ends.append(now())
    return (ends[-1] - ends[FIRST - 1]) / (len(ends) - FIRST)


def measure(name: str, what: str, dataset: Path, given) -> Row:
    settings = ["--dataset", str(dataset), *SMALL_MODEL, "--max_steps", str(FIRST + given.steps), "--seed", "0"]
    settings += ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
    now, found = CLOCKS[given.clock], {"trainer": [], "loop": []}
    with tempfile.TemporaryDirectory() as folder:
        configuration = parse_configuration([name, *settings, "--output_dir", folder, "--disable_tqdm", "true"])
        configuration.training.early_stopping_patience = None
        data = training_run.load_training_data(configuration)
        for number in range(given.rounds):
            ways = [("trainer", trainer_step), ("loop", loop_step)]
            for way, step in ways[:: 1 if number % 2 else -1]:
                found[way].append(step(configuration, data, now))
    precision = "bf16" if configuration.training.bf16 else "fp32"
    return Row(
        f"training step of {what}, {precision}: {milliseconds(found['trainer'])}",
        f"hand-written loop: {milliseconds(found['loop'])}",
        ratios(found["loop"], found["trainer"]),
        0.95,
    )


def main() -> None:
    steps = {"type": int, "default": 24, "help": "steps that are timed in each round (%(default)s)"}
    given = arguments_of(__doc__, steps=steps)
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_rows(Path(folder), 512)
        rows = [measure(name, what, dataset, given) for what, name in CONFIGURATIONS.items()]
    print(f"{torch.get_num_threads()} threads, rounds of {given.steps} steps, {time.time() - started:.0f} s")
    report(rows, given)


if __name__ == "__main__":
    main()
