"""Inference of the classifier side by side: `python benchmarks/inference.py [--architecture NAME --size PIXELS]`.

Eager fp32, bf16 with channels_last, ONNX Runtime and static int8, at batch 1 and 32, on plated pictures with their
titles. The weights of the picture and text model (300-d words, one BiLSTM of 300) are fresh; their speed is that of
trained ones. The four take turns; the table has the ratio to eager fp32, round by round.
"""

import tempfile
from functools import partial
from pathlib import Path

import torch
from measuring import Row, arguments_of, in_turns, milliseconds, ratios, report

from dataset_builder.catalogue.ingredients import catalogue_dishes
from dataset_builder.pictures import prompts
from dataset_builder.plating.pipeline import PlatingPipeline
from modeling_flavour.modeling_flavour import FlavourForClassification
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.tokenizer import train_tokenizer
from trainer_scripts.exporting.quantization import PLANS, quantize
from trainer_scripts.exporting.tracing import trace
from trainer_scripts.scoring.onnx_model import GRAPH, OnnxModel
from trainer_scripts.tasks.common.graphs import ClassifierGraph

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
    """The classifier of the multi-label configuration on any timm backbone, and its processor."""
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


def main():
    architecture = {"default": "mobilenetv2_100", "help": "timm backbone (%(default)s)"}
    size = {"type": int, "default": 224, "help": "side of the picture in pixels (%(default)s)"}
    given = arguments_of(__doc__, 9, architecture=architecture, size=size)
    dishes, table = catalogue_dishes(), []
    model, processor = make_model(given.architecture, given.size, dishes)
    rows = real_rows(processor, dishes[:ROWS], given.size)
    with tempfile.TemporaryDirectory() as folder:
        calls = make_calls(model, rows, Path(folder))
        print(f"classifier on {given.architecture} at {given.size} px, {torch.get_num_threads()} threads")
        for number in BATCHES:
            batch = {name: value[:number] for name, value in rows.items()}
            ways = {name: partial(call, batch) for name, call in calls.items()}
            with torch.inference_mode():
                found = in_turns(ways, given.rounds, given.clock)
            plain = found.pop("eager fp32")
            table += [
                Row(
                    f"{name}, batch {number}: {milliseconds(seconds)}",
                    f"eager fp32: {milliseconds(plain)}",
                    ratios(plain, seconds),
                )
                for name, seconds in found.items()
            ]
    report(table, given)


if __name__ == "__main__":
    main()
