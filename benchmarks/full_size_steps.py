"""Pictures per second of full-size models in bf16 and channels-last, compiled against eager, and their share of peak.

Fresh weights and random batches, forward, backward and optimizer; needs no data. Meant for a GPU: without one nothing
is measured, unless `--device cpu` asks for it.

    python benchmarks/full_size_steps.py [--configurations flavour_fusion ...] [--device cuda] [--batch 32]
"""

import sys
import time
from pathlib import Path

import torch
from measuring import Row, arguments_of, ratios, report
from torch.utils.flop_counter import FlopCounterMode

from trainer_scripts.settings.configurations import parse_configuration

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.modeling_flavour.test_full_size import batch_for, build

CONFIGURATIONS = ["flavour_fusion", "segmentation_deeplabv3_resnet50"]
# Dense bf16 peak in TFLOP/s, as the makers state it.
PEAKS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L4": 121}


def seconds_per_step(model, batch, device: str, given) -> list[float]:
    """Seconds of each round's steps, after some that do not count."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    found = []
    for number in range(given.rounds + 1):
        started = time.perf_counter()
        for _ in range(given.steps):
            with torch.autocast(device, torch.bfloat16):
                loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        if number:
            found.append((time.perf_counter() - started) / given.steps)
    return found


def measure(name: str, device: str, given) -> Row:
    """Compare a configuration's compiled step with its eager one."""
    model, _, side = build(parse_configuration([name]))
    model.to(device, memory_format=torch.channels_last).train()
    batch = {
        field: value.to(device).repeat_interleave(given.batch // 2, 0)
        for field, value in batch_for(model, side).items()
    }
    with FlopCounterMode(display=False) as counted, torch.autocast(device, torch.bfloat16):
        model(**batch).loss.backward()
    model.zero_grad()
    eager = seconds_per_step(model, batch, device, given)
    compiled = seconds_per_step(torch.compile(model), batch, device, given)
    # The FLOP/s that the device is stated to reach in bf16; None where unknown.
    named = torch.cuda.get_device_name() if device == "cuda" else ""
    known, rates = next((peak * 1e12 for part, peak in PEAKS.items() if part in named), None), []
    for found in (compiled, eager):
        fastest = min(found)
        share = "" if known is None else f", {counted.get_total_flops() / fastest / known:.0%} of peak"
        rates.append(f"{given.batch / fastest:.1f} pictures/s{share}")
    return Row(
        f"{name} on {device}, batch {given.batch}, compiled: {rates[0]}", f"eager: {rates[1]}", ratios(eager, compiled)
    )


def main() -> None:
    given = arguments_of(
        __doc__,
        configurations={"nargs": "+", "default": CONFIGURATIONS, "help": "%(default)s"},
        device={"default": "cuda", "help": "cuda or cpu (%(default)s)"},
        batch={"type": int, "default": 32, "help": "pictures per step, even (%(default)s)"},
        steps={"type": int, "default": 10, "help": "steps per round (%(default)s)"},
    )
    if given.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing measured (--device cpu measures the CPU)")
        report([], given)
        return
    report([measure(name, given.device, given) for name in given.configurations], given)


if __name__ == "__main__":
    main()
