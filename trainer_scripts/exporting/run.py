"""The steps of `export.py`: trace, check, quantise, measure, choose, write."""

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from dataset_builder.errors import BadInputError
from dataset_builder.files import folder_beside, sole_writer, write_json
from dataset_builder.messages import echo
from model_cards.runs import CONFIGURATION
from modeling_flavour.processing_flavour import FlavourProcessor
from trainer_scripts.data.table import Table
from trainer_scripts.exporting.captioner import export_captioner
from trainer_scripts.exporting.measure import Measurement, latencies, points_lost, scores_of, table_of
from trainer_scripts.exporting.quantization import PLANS, Plan, quantize, store_weights
from trainer_scripts.exporting.tracing import check_parity, input_batches, parity, trace
from trainer_scripts.exporting.versions import finish_file, versions
from trainer_scripts.scoring.onnx_model import EXPORT_REPORT, GRAPH, OnnxModel, require_onnx
from trainer_scripts.scoring.results import weights_on_disk
from trainer_scripts.scoring.saved_model import load_model, load_selection, load_table
from trainer_scripts.tasks.common.graphs import ModelGraph
from trainer_scripts.tasks.common.task import SavedModel
from trainer_scripts.tasks.common.trainer import megabytes

PREPROCESSOR = "preprocessor.json"
TABLE = "export.md"
TORCH = "torch fp32"
PLAIN = "onnx fp32"
PARITY_ROWS = 32
CALIBRATION_BATCH = 8
# Interpolation by the number that Pillow and image processors give it.
INTERPOLATION = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


@dataclass
class Job:
    """One export in the making.

    Attributes:
        model: the trained model, on the CPU in fp32.
        graph: its wrapper.
        tables: split -> rows that are scored; the selection split first.
        folder: where files are written before the result is moved to its place.
        given: the command line.
    """

    model: SavedModel
    graph: ModelGraph
    tables: dict[str, Table]
    folder: Path
    given: argparse.Namespace

    @property
    def selection(self) -> str:
        """Name of the split that decides; the test split only reports."""
        return next(iter(self.tables))

    def batches(self, rows: int) -> list[dict]:
        """Return inputs made of the first rows of the selection split."""
        table, inputs = self.tables[self.selection], list(self.graph.inputs)
        return list(input_batches(self.model, table, inputs, rows, CALIBRATION_BATCH))

    def load(self, path: Path) -> OnnxModel:
        """Return a written graph."""
        return OnnxModel(path, self.model.model.config, type(self.graph))

    def measure(self, name: str, path: Path) -> Measurement:
        """Return size and scores of a written graph."""
        scores = scores_of(self.model, self.load(path), self.tables, self.given.batch_size, name)
        return Measurement(name, weights_on_disk(str(path.parent)) or 0.0, scores)


def run(given: argparse.Namespace) -> None:
    """Export one model, with the options of the command line.

    Raises:
        BadInputError: the model is exported already, the graph is larger than the budget, or the folder of the result
            holds anything but an earlier export.
    """
    require_onnx()
    if given.quantize is not None and given.dtype == given.quantize:
        raise BadInputError(f"--quantize {given.quantize} stores weights in 8 bits already; leave --dtype out")
    model = load_model(given.model, given.revision, given.columns)
    if isinstance(model.model, OnnxModel):
        raise BadInputError(f"{given.model} is exported already; give the folder it was exported from")
    # On the CPU in fp32, as the graph computes.
    model = replace(model, model=model.model.to("cpu", torch.float32).eval())
    out = given.out or default_folder(model, given)
    if out.exists() and any(out.iterdir()) and not (out / EXPORT_REPORT).is_file():
        raise BadInputError(f"{out} is not empty and holds no export; give another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(out), folder_beside(out) as work:
        if model.task.graph is None:
            run_captioner(model, given, work, out)
            echo(f"written to {out}")
            return
        job = Job(model, model.task.graph(model.model), read_tables(model, given), work, given)
        plain, report = export_plain(job)
        scores = scores_of(model, model.model, job.tables, given.batch_size, TORCH)
        tried = [Measurement(TORCH, megabytes(model.model), scores), job.measure(PLAIN, plain)]
        chosen, path = choose(job, plain, tried)
        table = finish_table(job, tried, chosen, path, report)
        echo(table)
        check_size(chosen, given)
        for name in (EXPORT_REPORT, TABLE):
            shutil.copy(job.folder / name, path.parent)
        outputs = {"task": model.task.name, "labels": model.names, **model.task.describe_outputs()}
        preprocessing = {"graph": GRAPH, "inputs": describe_preprocessing(model.processor), "outputs": outputs}
        write_json(path.parent / PREPROCESSOR, preprocessing)
        write_folder(model, path.parent, out, former=job.folder / "former")
    echo(f"written to {out}")


def run_captioner(model: SavedModel, given: argparse.Namespace, work: Path, out: Path) -> None:
    """Export a captioner, whose two graphs its own loop runs."""
    tables, folder = read_tables(model, given), work / "captioner"
    folder.mkdir()
    inputs = describe_preprocessing(model.processor)
    written, table, report = export_captioner(model, tables, folder, given, {"pixel_values": inputs["pixel_values"]})
    rows = ", ".join(f"{len(each)} rows of {split}" for split, each in tables.items())
    same = ", ".join(f"{way} {line['same_captions']} of {line['rows']}" for way, line in report["captions"].items())
    text = (
        f"{table}\n\n{rows}; milliseconds per caption: median [quartiles], {torch.get_num_threads()} threads.\n"
        f"Captions of the fp32 graphs that are word for word those of torch: {same}.\n"
    )
    echo(text)
    check_size(written, given)
    (folder / TABLE).write_text(text, encoding="utf-8")
    content = {"model": model.source, "task": model.task.name, "form": written.name, "megabytes": written.megabytes}
    content |= {"main_score": model.task.selection_metric, "selection_split": next(iter(tables))}
    content |= {"rows": {split: len(each) for split, each in tables.items()}, **report}
    write_json(folder / EXPORT_REPORT, content)
    model.model.generation_config.save_pretrained(folder)
    write_folder(model, folder, out, former=work / "former")


def check_size(chosen: Measurement, given: argparse.Namespace) -> None:
    """Raise BadInputError for a form that is larger than `--max-mb`."""
    if given.max_mb is not None and chosen.megabytes > given.max_mb:
        raise BadInputError(
            f"{chosen.name} has {chosen.megabytes:.2f} MB, over --max-mb {given.max_mb:g}; nothing was written. "
            "--quantize int8 and --dtype int8 make the smallest"
        )


def default_folder(model: SavedModel, given: argparse.Namespace) -> Path:
    """Return where the result goes: beside the model's weights, one folder per form."""
    stored = "int8-weights" if given.dtype == "int8" else given.dtype
    name = "-".join(part for part in (given.format, given.quantize, stored) if part)
    local = Path(model.source)
    return (local if local.is_dir() else Path("outputs/exports") / model.name) / name


def read_tables(model: SavedModel, given: argparse.Namespace) -> dict[str, Table]:
    """Return selection and test rows, as many as are scored.

    Raises:
        BadInputError: there is no such data set, or it has no test split.
    """
    arguments = model.arguments
    dataset, revision = given.dataset or arguments.dataset, given.dataset_revision or arguments.dataset_revision
    tables = load_selection(model, dataset, revision), load_table(model, dataset, arguments.test_split, revision)
    return {table.split: table.first(given.max_rows) for table in tables}


def export_plain(job: Job) -> tuple[Path, dict[str, Any]]:
    """Write the fp32 graph and return it with its parity on real samples.

    Raises:
        BadInputError: the graph cannot be made, or its outputs differ from those of torch.
    """
    path = job.folder / "fp32" / GRAPH
    path.parent.mkdir()
    batches = job.batches(PARITY_ROWS)
    if len(batches[0][next(iter(job.graph.inputs))]) < 2:
        raise BadInputError(f"split {job.selection} has one row; tracing needs at least two")
    trace(job.graph, batches[0], path, *versions(job.given))
    report = parity(job.graph, job.load(path), batches)
    check_parity(report)
    return path, report


def choose(job: Job, plain: Path, tried: list[Measurement]) -> tuple[Measurement, Path]:
    """Return the form that the options name; of the int8 plans, the fastest that keeps the score. `tried` grows.

    Raises:
        BadInputError: every form loses more than `--max-loss` on the selection split.
    """
    given, score = job.given, job.model.task.selection_metric
    if given.quantize is None and given.dtype is None:
        return tried[-1], plain
    for plan in PLANS if given.quantize else (None,):
        path = write_form(job, plain, plan)
        stored = PLANS[-1].name if given.dtype == "int8" else given.dtype  # the form is the same as that plan's
        name = f"onnx {plan.name if plan else stored}" + (f" + {given.dtype}" if plan and given.dtype else "")
        tried.append(job.measure(name, path))
        lost = points_lost(tried[0], tried[-1], job.selection, score)
        # A score that rises counts as a loss too: the answers have changed as much, and on other rows it may fall.
        if abs(lost) <= given.max_loss:
            return tried[-1], path
        echo(f"{name}: {score} changes by {-lost:+.2f} points on {job.selection}, over --max-loss {given.max_loss:g}")
    raise BadInputError(f"no form keeps {score} within --max-loss {given.max_loss:g} points; raise it, or leave fp32")


def write_form(job: Job, plain: Path, plan: Plan | None) -> Path:
    """Write one smaller form of the fp32 graph."""
    import onnx

    path = job.folder / (plan.name.replace(" ", "-") if plan else str(job.given.dtype)) / GRAPH
    path.parent.mkdir()
    if plan is not None:
        quantize(plain, path, plan, job.batches(job.given.calibration_rows))
    if job.given.dtype is not None:
        graph = onnx.load(plain if plan is None else path)
        store_weights(graph, job.given.dtype)
        onnx.save(graph, path)
    # The quantiser writes the format that it likes.
    finish_file(path, *versions(job.given))
    return path


def finish_table(job: Job, tried: list[Measurement], chosen: Measurement, path: Path, report: Mapping[str, Any]) -> str:
    """Add latencies, write report and table into the working folder, and return the table."""
    exported, score = job.load(path), job.model.task.selection_metric
    calls = {TORCH: lambda batch: job.graph(**batch), chosen.name: exported.run}
    if chosen.name != PLAIN:
        calls[PLAIN] = job.load(job.folder / "fp32" / GRAPH).run
    # All forms are timed together, so that a busy machine slows all alike.
    for name, taken in latencies(calls, job.batches(CALIBRATION_BATCH)[0]).items():
        next(line for line in tried if line.name == name).latencies = taken
    content = {
        "model": job.model.source,
        "task": job.model.task.name,
        "form": chosen.name,
        "megabytes": chosen.megabytes,
        "main_score": score,
        "selection_split": job.selection,
        "rows": {split: len(table) for split, table in job.tables.items()},
        "parity_of_fp32_with_torch": report,
        "parity_with_torch": parity(job.graph, exported, job.batches(PARITY_ROWS)),
        "threads": torch.get_num_threads(),
        "measurements": [asdict(line) for line in tried],
    }
    write_json(job.folder / EXPORT_REPORT, content)
    rows = ", ".join(f"{len(table)} rows of {split}" for split, table in job.tables.items())
    found = ", ".join(f"{name} {key} {value:.2g}" for name, line in report.items() for key, value in line.items())
    table = (
        f"{table_of(tried, score, chosen.name)}\n\n{rows}; milliseconds per call: median [quartiles], "
        f"{torch.get_num_threads()} threads.\nParity of the fp32 graph with torch on real samples: {found}.\n"
    )
    (job.folder / TABLE).write_text(table, encoding="utf-8")
    return table


def write_folder(model: SavedModel, folder: Path, out: Path, former: Path) -> None:
    """Put what a user of the graphs needs beside them, and move the folder to its place as a whole.

    Args:
        model: the exported model.
        folder: of the graphs, their description and report.
        out: its place.
        former: where an earlier export goes meanwhile.
    """
    model.model.config.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    if model.configuration:
        (folder / CONFIGURATION).write_text(
            yaml.safe_dump(dict(model.configuration), sort_keys=False, allow_unicode=True), "utf-8"
        )
    # `run` has checked that there is nothing but an earlier export, which goes when the new one has come.
    if out.exists():
        out.replace(former)
    try:
        folder.replace(out)
    except OSError:
        if former.exists():
            former.replace(out)
        raise


def describe_preprocessing(processor: FlavourProcessor) -> dict[str, Any]:
    """Return the steps from a picture and a text to the inputs, in plain words and numbers, in the order of the keys.

    Programs without transformers follow it.
    """
    content: dict[str, Any] = {}
    images, tokenizer = processor.image_processor, processor.tokenizer
    if images is not None:
        cropped = getattr(images, "do_center_crop", False) and images.crop_size
        content["pixel_values"] = {
            "colours": "RGB, 8 bits; turned upright as EXIF says, transparency over white",
            "resize": {name: value for name, value in dict(images.size).items() if value is not None},
            "interpolation": INTERPOLATION[int(images.resample)],
            "antialias": True,
            "center_crop": {"height": cropped["height"], "width": cropped["width"]} if cropped else None,
            "multiply": images.rescale_factor,
            "subtract_mean": list(images.image_mean),
            "divide_by_std": list(images.image_std),
            "layout": "float32 (batch, 3, height, width)",
        }
    if tokenizer is not None:
        content["input_ids"] = {
            "letters_only": processor.letters_only,
            "tokenizer": "tokenizer.json",
            "max_length": min(processor.max_length, tokenizer.model_max_length),
            "padding_id": tokenizer.pad_token_id,
            "padding_side": tokenizer.padding_side,
            "layout": "int64 (batch, length); short texts are filled up with padding_id",
        }
        content["attention_mask"] = "int64, 1 at tokens and 0 at padding; all 0 for a missing text"
    return content
