"""Steps of `make demo`: three classifiers of flavours, their comparison, and publication to a Hub on loopback."""

import shutil
import subprocess
import sys
from pathlib import Path

from dataset_builder.errors import BadInputError
from dataset_builder.local_hub.server import LocalHub
from trainer_scripts import compare, train
from trainer_scripts.demos import read_back

WARM_UP = "ingredient_tagging_tiny"
MODELS = {"title": "flavour_title_tiny", "picture": "flavour_picture_tiny_warm", "fusion": "flavour_fusion_tiny_warm"}
TOKEN = "hf_demo"


def train_models(data: Path, out: Path, epochs: float | None) -> None:
    """Train an image encoder on ingredients, then the three classifiers; finished runs are left as they are."""
    warm_up = out / "warm-up"
    common = ["--dataset", str(data), *(["--num_train_epochs", str(epochs)] if epochs else [])]
    train.main([WARM_UP, "--output_dir", str(warm_up), *common])
    for name, configuration in MODELS.items():
        start = [] if name == "title" else ["--init_image_encoder", str(warm_up)]
        train.main([configuration, "--output_dir", str(out / name), *start, *common])


def compare_models(data: Path, out: Path) -> None:
    """Compare fusion, title and picture models; print the table."""
    models = [str(out / name) for name in ("fusion", "title", "picture")]
    compare.main([*models, str(data), "--out", str(out / "comparison")])


def publish_and_read(data: Path, out: Path) -> None:
    """Publish data set and model to a Hub on loopback, and use both from a process without our packages."""
    versions = out / "hub"
    # The Hub of an earlier demo would refuse the same version with other content.
    shutil.rmtree(versions, ignore_errors=True)
    with LocalHub(versions, tokens={TOKEN: "org"}) as hub:
        # In a process of its own, because the client libraries read their endpoint when they are imported.
        comparison = out / "comparison" / "comparison.json"
        command = [sys.executable, "-m", "trainer_scripts.demos.publish"]
        command += [str(data), str(out / "fusion"), str(comparison)]
        if subprocess.run(command, env=hub.environment(TOKEN), check=False).returncode:
            raise BadInputError(f"publishing to {hub.url} failed; see the lines above, then repeat the command")
        print(hub.run_python(Path(read_back.__file__).read_text(encoding="utf-8")), end="")
