"""Export a model: `python trainer_scripts/export.py MODEL --format onnx [--quantize int8] [--dtype fp16] [--max-mb M]`.

Writes a folder with the ONNX graph, `preprocessor.json` (what to do with pictures and texts, in numbers), processor and
configuration, and `export.json` and `export.md`: parity with torch on real samples, size, accuracy, latency. The folder
is a model for `score.py` and `predict.py` too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainer_scripts.settings.command_line import ArgumentParser, DatasetOptions, ModelOptions, command
from trainer_scripts.settings.options import COUNT, NATURAL, POSITIVE, Range, option


@dataclass(kw_only=True)
class ExportArguments(ModelOptions, DatasetOptions):
    """Command line of `export.py`."""

    format: Literal["onnx"] = option("onnx", "format (%(default)s)")
    quantize: Literal["int8"] | None = option(None, "8-bit weights, and arithmetic where that is good")
    dtype: Literal["fp16", "bf16", "int8"] | None = option(
        None, "type in which float weights are stored; the graph computes in fp32"
    )
    opset: int | None = option(
        None,
        "ONNX operator set, 17 to 22; older runtimes (Triton, TensorRT) want older ones (20)",
        allowed=Range(17, 22),
    )
    ir_version: int | None = option(
        None, "format of the ONNX file (with --opset: the oldest that has it)", allowed=Range(8, 13)
    )
    max_mb: float | None = option(None, "fail when the graph is larger (MB of 10^6 bytes)", allowed=POSITIVE)
    max_loss: float = option(
        0.5, "points by which the main score may change on the selection split (%(default)s)", allowed=NATURAL
    )
    dataset: str | None = option(None, "folder or Hub id of real samples (that of the model's configuration)")
    out: Path | None = option(None, "folder of the result (MODEL/onnx, -int8, -fp16, -bf16, -int8-weights)")
    calibration_rows: int = option(128, "rows (%(default)s)", allowed=COUNT)
    max_rows: int = option(1000, "rows of each split that are scored (%(default)s)", allowed=Range(2))
    batch_size: int = option(32, "rows per batch (%(default)s)", allowed=COUNT)


PARSER = ArgumentParser(
    ExportArguments, "export.py", spelling="-", description="Write an ONNX graph that is checked against the model."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Export one model."""
    with command(PARSER, arguments) as given:
        # Imported here, so that --help and a mistyped argument do not wait for slow libraries.
        from trainer_scripts.exporting.run import run

        run(given)


if __name__ == "__main__":
    main()
