"""Inference of the classifier side by side: `python benchmarks/inference.py [--architecture NAME --size PIXELS]`.

Eager fp32, bf16 with channels_last, ONNX Runtime and static int8, at batch 1 and 32, on plated pictures with their
titles. The weights of the picture and text model (300-d words, one BiLSTM of 300) are fresh; their speed is that of
trained ones. The four take turns; the table has the median with quartiles and, per round, the ratio to eager fp32.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from dataset_builder import prompts
from dataset_builder.catalogue import catalogue_dishes
from dataset_builder.plating import PlatingPipeline
from modeling_flavour.modeling_flavour import FlavourForClassification
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.onnx_graphs import GRAPH, ClassifierGraph, OnnxModel, trace
from trainer_scripts.onnx_quantization import PLANS, quantize
from trainer_scripts.vocabulary import train_tokenizer

ROWS, BATCHES, CALIBRATION_BATCH = 32, (1, 32), 8


def real_rows(processor, dishes, size):
    """One batch of plated pictures with their titles, as the processor makes them."""
    pictures = PlatingPipeline()(
        [prompts.render("ingredients", dish.title, dish.ingredients) for dish in dishes],
        height=min(size, 512),
        width=min(size, 512),
        generator=[torch.Generator().manual_seed(number) for number in range(len(dishes))],
    ).images
    return dict(processor(images=pictures, text=[dish.title for dish in dishes]))


def make_model(architecture, size, dishes):
    """The classifier of the multi-label recipe on any timm backbone, and its processor."""
    torch.manual_seed(0)
    backbone = {"model_type": "timm_wrapper", "architecture": architecture}
    tokenizer = train_tokenizer([dish.title for dish in dishes], "words", 8000, 40)
    model = FlavourForClassification.from_parts(
        image=backbone,
        word_vocab_size=len(tokenizer),
        text_pooling="lstm",
        lstm_hidden_size=300,
        lstm_layers=1,
        text_dense_sizes=[],
        image_dense_sizes=[],
        head_dense_sizes=[],
    )
    return model.eval(), FlavourProcessor.from_parts(tokenizer, backbone, size)


def make_calls(model, rows, folder):
    """The four ways to answer a batch, by name."""
    plain, small = folder / "fp32" / GRAPH, folder / "int8" / GRAPH
    plain.parent.mkdir()
    small.parent.mkdir()
    trace(ClassifierGraph(model), rows, plain)
    starts = range(0, ROWS, CALIBRATION_BATCH)
    quantize(plain, small, PLANS[0], [{n: v[s : s + CALIBRATION_BATCH] for n, v in rows.items()} for s in starts])
    half = FlavourForClassification(model.config).eval().to(torch.bfloat16, memory_format=torch.channels_last)

    def in_half(batch):
        pixels = batch["pixel_values"].to(torch.bfloat16, memory_format=torch.channels_last)
        return half(**{**batch, "pixel_values": pixels})

    return {
        "eager fp32": lambda batch: model(**batch),
        "bf16 + channels_last": in_half,
        "ONNX Runtime fp32": OnnxModel(plain, model.config, ClassifierGraph).run,
        "ONNX Runtime int8": OnnxModel(small, model.config, ClassifierGraph).run,
    }


@torch.inference_mode()
def seconds_of(calls, batch, rounds):
    """Seconds per call of each way, taken in turns."""
    found = {name: [] for name in calls}
    for call in calls.values():
        call(batch)
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call(batch)
            found[name].append(time.perf_counter() - start)
    return found


def line(name, seconds, plain):
    """One line of the table."""
    low, median, high = statistics.quantiles(seconds, n=4)
    ratios = statistics.quantiles([ours / theirs for ours, theirs in zip(plain, seconds, strict=True)], n=4)
    return (
        f"  {name:<22}{median * 1000:9.1f} [{low * 1000:.1f}, {high * 1000:.1f}] ms   "
        f"{ratios[1]:5.2f} [{ratios[0]:.2f}, {ratios[2]:.2f}] times eager fp32"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="mobilenetv2_100", help="timm backbone (%(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of the picture in pixels (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="at least 2 (%(default)s)")
    given = parser.parse_args()
    dishes = catalogue_dishes()
    model, processor = make_model(given.architecture, given.size, dishes)
    rows = real_rows(processor, dishes[:ROWS], given.size)
    with tempfile.TemporaryDirectory() as folder:
        calls = make_calls(model, rows, Path(folder))
        print(f"classifier on {given.architecture} at {given.size} px, {torch.get_num_threads()} threads")
        for size in BATCHES:
            found = seconds_of(calls, {name: value[:size] for name, value in rows.items()}, given.rounds)
            print(f"batch {size}: median [quartiles] of {given.rounds} rounds")
            for name, seconds in found.items():
                print(line(name, seconds, found["eager fp32"]))


if __name__ == "__main__":
    main()
