"""Export a model: `python trainer_scripts/export.py MODEL --format onnx [--quantize int8] [--dtype fp16] [--max-mb M]`.

Writes a folder with the ONNX graph, `preprocessor.json` (what to do with pictures and texts, in numbers), processor and
configuration, and `export.json` and `export.md`: parity with torch on real samples, size, accuracy, latency. The folder
is a model for `score.py` and `predict.py` too.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dataset_builder.errors import exit_on_bad_input
from trainer_scripts.settings.command_line import (
    ArgumentParser,
    add_columns,
    at_least,
    factor,
    from_zero,
    let_waiting_threads_sleep,
)

PROGRAM = "export.py"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = ArgumentParser(prog=PROGRAM, description="Write an ONNX graph that is checked against the model.")
    parser.add_argument("model", metavar="MODEL", help="folder or Hub id")
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="format (%(default)s)")
    parser.add_argument("--quantize", choices=("int8",), help="8-bit weights, and arithmetic where that is good")
    parser.add_argument("--dtype", choices=("fp16", "bf16"), help="store float weights so; the graph computes in fp32")
    parser.add_argument("--max-mb", type=factor, help="fail when the graph is larger (MB of 10^6 bytes)")
    parser.add_argument(
        "--max-loss",
        type=from_zero,
        default=0.5,
        help="points by which the main score may change on the selection split (%(default)s)",
    )
    parser.add_argument("--dataset", help="folder or Hub id of real samples (that of the model's configuration)")
    parser.add_argument("--dataset-revision", help="revision of a Hub data set")
    add_columns(parser)
    parser.add_argument("--revision", default="main", help="revision of a Hub model (%(default)s)")
    parser.add_argument("--out", type=Path, help="folder of the result (MODEL/onnx, -int8, -fp16, -bf16)")
    parser.add_argument("--calibration-rows", type=at_least(1), default=128, help="rows (%(default)s)")
    parser.add_argument(
        "--max-rows", type=at_least(2), default=1000, help="rows of each split that are scored (%(default)s)"
    )
    parser.add_argument("--batch-size", type=at_least(1), default=32, help="rows per batch (%(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Export one model."""
    given = build_parser().parse_args(arguments)
    with exit_on_bad_input(PROGRAM):
        let_waiting_threads_sleep()
        # Slow imports come last, so that --help and a mistyped argument are answered at once.
        from trainer_scripts.exporting.run import run

        run(given)


if __name__ == "__main__":
    main()
