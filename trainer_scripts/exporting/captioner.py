"""The export of a captioner: a graph per picture, a graph per word, and the loop in numpy that writes with them."""

import argparse
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset_builder.errors import BadInputError
from dataset_builder.files import write_json
from dataset_builder.messages import echo
from dataset_builder.progress import progress
from modeling_flavour.captioning_pipeline_flavour import as_sentence
from trainer_scripts.data.table import Table
from trainer_scripts.exporting import caption
from trainer_scripts.exporting.measure import Latency, Measurement, points_lost, table_of
from trainer_scripts.exporting.quantization import store_weights
from trainer_scripts.exporting.tracing import check_parity, parity, trace
from trainer_scripts.exporting.versions import finish_file, versions
from trainer_scripts.scoring.onnx_model import DECODER, ENCODER, OnnxModel
from trainer_scripts.tasks.captioning.answers import captions_of, pixels_of, predictions_of, scores_of
from trainer_scripts.tasks.captioning.graphs import EncoderGraph, StepGraph
from trainer_scripts.tasks.common.task import SavedModel
from trainer_scripts.tasks.common.trainer import megabytes

TORCH, PLAIN = "torch fp32", "onnx fp32"
LOOP = "caption.py"
PARITY_ROWS, TIMED_ROWS = 32, 15
# Two captions of equal likelihood may change places with the order of additions.
DIFFERING_CAPTIONS = 0.05
# What the loop does, with the value of a setting that is not given.
SETTINGS = {
    "num_beams": 1,
    "length_penalty": 1.0,
    "early_stopping": False,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "min_length": 0,
    "suppress_tokens": (),
}
# Settings of `generate` that change captions and that the loop does not know.
UNKNOWN = (
    "bad_words_ids", "begin_suppress_tokens", "exponential_decay_length_penalty", "forced_bos_token_id",
    "forced_eos_token_id", "penalty_alpha", "sequence_bias", "watermarking_config",
)  # fmt: skip


def generation_settings(model: SavedModel) -> dict[str, Any]:
    """Return the settings of the loop, as the model's own `generate` has them.

    Raises:
        BadInputError: a setting that the loop does not know.
    """
    given, config = model.model.generation_config, model.model.config
    unknown = [name for name in UNKNOWN if getattr(given, name, None)]
    if unknown or not isinstance(given.eos_token_id, int | None):
        what = unknown[0] if unknown else "several end tokens"
        raise BadInputError(
            f"{model.name}: the generation setting {what} is more than greedy and beam search with "
            f"{', '.join(SETTINGS)}; remove it from generation_config.json"
        )
    found: dict[str, Any] = {name: getattr(given, name, None) for name in SETTINGS}
    found = {name: usual if found[name] is None else found[name] for name, usual in SETTINGS.items()}
    if getattr(given, "min_new_tokens", None):
        found["min_length"] = max(found["min_length"], given.min_new_tokens + 1)  # the start token counts there
    longest = config.max_position_embeddings - 1 if config.decoder_type == "transformer" else 100
    limit = given.max_new_tokens or (given.max_length - 1 if given.max_length else longest)
    return found | {
        "suppress_tokens": sorted({int(word) for word in found["suppress_tokens"]}),
        "max_new_tokens": limit,
        "decoder_start_token_id": config.decoder_start_token_id,
        "eos_token_id": given.eos_token_id if given.eos_token_id is not None else config.eos_token_id,
    }


def export_captioner(
    model: SavedModel,
    tables: Mapping[str, Table],
    folder: Path,
    given: argparse.Namespace,
    preprocessing: Mapping[str, Any],
) -> tuple[Measurement, str, dict[str, Any]]:
    """Write the graphs, the loop and `preprocessor.json` into a folder.

    Args:
        model: the captioner, on the CPU in fp32.
        tables: split -> rows that are scored; the selection split first.
        folder: an empty one.
        given: the command line of `export.py`.
        preprocessing: steps from a picture to `pixel_values`.

    Returns:
        The measurement of what was written, the table of sizes and scores as Markdown, and the report.

    Raises:
        BadInputError: the graphs cannot be made, write other captions than torch, or lose more than is allowed.
    """
    settings = generation_settings(model)
    selection = next(iter(tables))
    pixels = pixels_of_table(model, tables[selection].first(PARITY_ROWS))
    if len(pixels) < 2:
        raise BadInputError(f"split {selection} has one row; tracing needs at least two")
    report = write_graphs(model, pixels, folder, given, settings)
    content = {
        "graphs": [ENCODER, DECODER],
        "inputs": preprocessing,
        "decoder": {"cache": StepGraph(model.model).cache_shape, "loop": LOOP},
        "generation": settings,
        "outputs": {"task": model.task.name, "words": "tokenizer.json turns the ids into text"},
    }
    write_json(folder / "preprocessor.json", content)
    shutil.copy(caption.__file__, folder / LOOP)
    report["captions"] = check_captions(model, caption.Captioner(folder), pixels, settings)
    torch_captions = {
        split: captions_of(model, table, given.batch_size, f"{TORCH}, {split}")[1] for split, table in tables.items()
    }
    measured = [
        Measurement(TORCH, megabytes(model.model), _scores(tables, torch_captions)),
        measure(PLAIN, model, tables, folder),
    ]
    stored = given.dtype or given.quantize
    if stored is not None:
        for name in (ENCODER, DECODER):
            _store(folder / name, given)
        measured.append(measure(f"onnx {stored} weights", model, tables, folder))
        lost = points_lost(measured[0], measured[-1], selection, model.task.selection_metric)
        if abs(lost) > given.max_loss:
            raise BadInputError(
                f"{measured[-1].name}: {model.task.selection_metric} changes by {-lost:+.2f} points on {selection}, "
                f"over --max-loss {given.max_loss:g}; raise it, or leave fp32"
            )
    time_captions(model, caption.Captioner(folder), pixels, measured)
    table = table_of(measured, model.task.selection_metric, measured[-1].name)
    return measured[-1], table, report | {"measurements": [asdict(line) for line in measured]}


def write_graphs(
    model: SavedModel, pixels: torch.Tensor, folder: Path, given: argparse.Namespace, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Write both graphs and return their parity with torch on real pictures, along the words of their captions."""
    encoder, step = EncoderGraph(model.model), StepGraph(model.model)
    trace(encoder, {"pixel_values": pixels}, folder / ENCODER, *versions(given))
    found = parity(encoder, OnnxModel(folder / ENCODER, model.model.config, EncoderGraph), [{"pixel_values": pixels}])
    check_parity(found)
    steps = _steps(encoder, step, pixels, settings)
    # Traced where there are several words before, as an empty cache would fix its length.
    trace(step, steps[min(3, len(steps) - 1)], folder / DECODER, *versions(given))
    said = parity(step, OnnxModel(folder / DECODER, model.model.config, StepGraph), steps)
    check_parity({name: line for name, line in said.items() if np.isfinite(line["largest_value"])})
    return {"parity_of_fp32_with_torch": found | said}


@torch.inference_mode()
def _steps(
    encoder: EncoderGraph, step: StepGraph, pixels: torch.Tensor, settings: Mapping[str, Any]
) -> list[dict[str, torch.Tensor]]:
    """Return the inputs of the decoder's graph at each word of greedy captions."""
    pictures = dict(zip(encoder.outputs, encoder(pixels), strict=True))
    words = torch.full((len(pixels), 1), settings["decoder_start_token_id"])
    cache, steps = torch.zeros(len(pixels), *step.cache_shape), []
    for _ in range(max(4, min(settings["max_new_tokens"], 12))):
        steps.append({"input_ids": words, "cache": cache, **pictures})
        logits, cache = step(**steps[-1])
        words = torch.cat([words, logits.argmax(-1, keepdim=True)], dim=1)
    return steps


@torch.inference_mode()
def check_captions(
    model: SavedModel, captioner: caption.Captioner, pixels: torch.Tensor, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Compare the captions of the loop with those of `generate`, greedy and by beam search.

    Raises:
        BadInputError: more than a few differ.
    """
    end, found = settings["eos_token_id"], {}
    for beams in sorted({1, max(2, settings["num_beams"])}):
        rows = model.model.generate(pixels, num_beams=beams, do_sample=False)[:, 1:].tolist()
        theirs = [row[: row.index(end)] if end in row else row for row in rows]
        # Rows that end at the largest length have no end token, and no padding as others have.
        ours = captioner.generate(pixels.numpy(), num_beams=beams)
        same = sum(one == other for one, other in zip(ours, theirs, strict=True))
        found["greedy" if beams == 1 else f"{beams} beams"] = {"rows": len(rows), "same_captions": same}
        if same < (1 - DIFFERING_CAPTIONS) * len(rows):
            raise BadInputError(
                f"the exported graphs write other captions than torch: {len(rows) - same} of {len(rows)} real samples "
                f"with {beams} beams; nothing was written"
            )
    return found


def measure(name: str, model: SavedModel, tables: Mapping[str, Table], folder: Path) -> Measurement:
    """Return size and scores of the graphs in a folder, whose captions the loop writes."""
    captioner = caption.Captioner(folder)
    captions: dict[str, list[str]] = {}
    for split, table in tables.items():
        captions[split] = []
        for row in progress(range(len(table)), f"{name}, {split}", total=len(table)):
            words = captioner.generate(pixels_of_table(model, table.select([row])).numpy())[0]
            captions[split].append(as_sentence(model.processor.tokenizer.decode(words, skip_special_tokens=True)))
    size = sum((folder / each).stat().st_size for each in (ENCODER, DECODER)) / 1e6
    return Measurement(name, size, _scores(tables, captions))


def time_captions(
    model: SavedModel, captioner: caption.Captioner, pixels: torch.Tensor, measured: Sequence[Measurement]
) -> None:
    """Add the milliseconds of one caption, of torch and of the graphs in turn."""
    calls: dict[str, Callable[[torch.Tensor], Any]] = {
        TORCH: lambda picture: model.model.generate(picture, do_sample=False),
        measured[-1].name: lambda picture: captioner.generate(picture.numpy()),
    }
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for picture in pixels[:TIMED_ROWS].split(1):
        for name, call in calls.items():
            started = time.perf_counter()
            call(picture)
            taken[name].append(1000 * (time.perf_counter() - started))
    for line in measured:
        if line.name in taken:
            low, median, high = np.percentile(taken[line.name], (25, 50, 75))
            line.latencies = {1: Latency(float(median), float(low), float(high))}


def pixels_of_table(model: SavedModel, table: Table) -> torch.Tensor:
    """Return the prepared pictures of a table, `(rows, 3, height, width)`."""
    samples: Any = model.task.evaluation_samples(model.processor, table)
    return pixels_of(samples, range(len(table)), model.model)


def _scores(tables: Mapping[str, Table], captions: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    return {split: scores_of(predictions_of(table, captions[split])) for split, table in tables.items()}


def _store(path: Path, given: argparse.Namespace) -> None:
    import onnx

    graph = onnx.load(path)
    changed = sum(store_weights(graph, kind) for kind in (given.quantize, given.dtype) if kind)
    onnx.save(graph, path)
    finish_file(path, *versions(given))
    if not changed:
        echo(f"{path.name} has no weights that are large enough to store smaller")
