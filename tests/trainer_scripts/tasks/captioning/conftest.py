"""Pictures of one colour with captions that name it, and the settings of a tiny captioner."""

import pytest

from modeling_flavour.processing_flavour import FlavourProcessor, image_processor_for
from tests.modeling_flavour.tiny import tiny_resnet
from tests.trainer_scripts.conftest import ROWS, make_row, write_dataset
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.captioning import scoring
from trainer_scripts.tasks.captioning.text import train_caption_tokenizer
from trainer_scripts.training.data import load_training_data


@pytest.fixture
def with_java():
    """Named by the tests that want METEOR, whose program takes seconds to start."""


@pytest.fixture(autouse=True)
def without_java(request, monkeypatch):
    if "with_java" not in request.fixturenames:
        monkeypatch.setattr(scoring, "meteor_missing", lambda: "left out by these tests")


COLOURS = ("rose", "straw", "lime", "cocoa", "umber")
TINY = [
    "--vision_config", '{"model_type": "timm_wrapper", "architecture": "test_resnet"}',
    "--config", '{"decoder_type": "KIND", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, '
                '"intermediate_size": 32, "dropout": 0.0}',
    "--image_size", "32", "--crop_size", "32", "--per_device_train_batch_size", "10", "--use_cpu", "true",
    "--disable_tqdm", "true", "--vocabulary_size", "200", "--generation", '{"num_beams": 2}',
]  # fmt: skip


def tiny_arguments(kind, dataset, out, *more):
    configuration = "captioner_resnet18_transformer_tiny"
    settings = [word.replace("KIND", kind) for word in TINY]
    return [configuration, *settings, "--dataset", str(dataset), "--output_dir", str(out), *more]


@pytest.fixture(scope="module")
def caption_data(tmp_path_factory):
    """Pictures of one colour that their captions name; one word of the validation captions is never in training."""
    rows = {}
    for split, number in ROWS.items():
        rows[split] = []
        for index in range(number):
            row = make_row(split, index * 3 + 1)
            colour = COLOURS[row["flavour"]]
            row["captions"] = [f"A {colour} thing on the left.", f"The {colour} thing is 1 of 2 things."]
            if split == "validation":
                row["captions"].append("An unheardof sentence.")
            rows[split].append(row)
    return write_dataset(tmp_path_factory.mktemp("captions") / "data", rows)


@pytest.fixture(scope="module")
def table(caption_data, tmp_path_factory):
    configuration = parse_configuration(
        tiny_arguments("transformer", caption_data, tmp_path_factory.mktemp("none") / "run")
    )
    return load_training_data(configuration).train


def tiny_processor_of(table):
    captions = [caption for row in table.labels for caption in row] + ["on the right ."] * 5
    tokenizer = train_caption_tokenizer(captions, "words", 200, 20)
    return FlavourProcessor(image_processor_for(tiny_resnet(), size=32), tokenizer, max_length=20)
