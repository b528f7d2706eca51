"""Publishes the demo's data set and model to the Hub that the environment names.

`python -m trainer_scripts.demos.publish DATA MODEL COMPARISON`; a version that is published already is left as it is.
"""

import sys
from pathlib import Path

from huggingface_hub import HfApi

from dataset_builder.messages import echo
from dataset_builder.publishing.publish import publish
from dataset_builder.publishing.release import publish_model
from dataset_builder.publishing.versions import published_versions

DATASET, MODEL, VERSION = "org/flavour-sd", "org/flavour-fusion", "1.0.0"


def main(data: str, model: str, comparison: str) -> None:
    """Publish a finished build and a finished run, and print their addresses."""
    api = HfApi()
    if VERSION not in published_versions(api, DATASET, "dataset"):
        echo(publish(Path(data), DATASET, VERSION, licence="cc-by-4.0"))
    if VERSION not in published_versions(api, MODEL, "model"):
        # The card names the exact data that the model was trained on.
        revision = f"v{VERSION}"
        echo(
            publish_model(
                Path(model), MODEL, VERSION, dataset=DATASET, dataset_revision=revision, comparison=Path(comparison)
            )
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
