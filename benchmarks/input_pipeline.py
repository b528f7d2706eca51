"""The input pipeline against bare JPEG decoding and resizing of the same pictures, in one thread each.

Ours goes from the rows of a data set to a finished batch: pictures upright and in RGB, resized and cropped as the
backbone wants them, stacked and normalised, with tokens, padding, masks and labels. The bare way decodes each file and
resizes it to the same size with PIL, and throws it away.
"""

import io
import tempfile
from pathlib import Path

from measuring import Row, arguments_of, in_turns, per_second, ratios, report
from photographs import SMALL_MODEL, write_rows
from PIL import Image
from torch.utils.data import DataLoader

from trainer_scripts.data.pixel_cache import Budget
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.training import run as training_run

PICTURES, BATCH = 256, 32


def main() -> None:
    given = arguments_of(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_rows(Path(folder), PICTURES)
        settings = ["--dataset", str(dataset), *SMALL_MODEL, "--image_size", "224", "--crop_scale", "1"]
        settings += ["--flip", "false", "--color_jitter", "0", "--quarter_turns", "false"]
        settings += ["--output_dir", str(Path(folder) / "run")]
        configuration = parse_configuration(["flavour_fusion_tiny", *settings])
        data = training_run.load_training_data(configuration)
        _, processor = data.task.build(configuration, data)
        samples = data.task.training_samples(configuration, data, processor)
        samples.pictures._budget = Budget(0)  # as for pictures that do not fit into memory: decoded in every epoch
        loader = DataLoader(samples, BATCH, collate_fn=data.task.collator(processor, len(data.names), configuration))
        files = sorted((Path(folder) / "photographs").iterdir())[:PICTURES]
        encoded = [file.read_bytes() for file in files]
        size = (299, 224)  # the shorter side as the processor makes it

        def ours() -> None:
            for _ in loader:
                pass

        def bare() -> None:
            for data in encoded:
                Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.BICUBIC)

        found = in_turns({"bare": bare, "ours": ours}, given.rounds, given.clock)
    row = Row(
        f"rows to batches at 224 px: {per_second(found['ours'], PICTURES, 'pictures')}",
        f"JPEG decoding + resizing: {per_second(found['bare'], PICTURES, 'pictures')}",
        ratios(found["bare"], found["ours"]),
        0.85,
    )
    report([row], given)


if __name__ == "__main__":
    main()
