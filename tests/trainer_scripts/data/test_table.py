import copy

import numpy as np
import pyarrow
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from PIL import Image

from dataset_builder.errors import BadInputError
from modeling_flavour.processing_flavour import FlavourProcessor, image_processor_for, open_picture
from tests.trainer_scripts.conftest import write_dataset
from trainer_scripts.data.pictures import Pictures, augmentation, evaluation_picture
from trainer_scripts.data.pixel_cache import Budget
from trainer_scripts.data.samples import sample_seed, varied
from trainer_scripts.data.splits import open_dataset
from trainer_scripts.data.table import Columns, detect_task, label_ids, label_names, make_table
from trainer_scripts.data.tokenizer import train_tokenizer
from trainer_scripts.settings.arguments import DataArguments
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.classification import training as classification
from trainer_scripts.training.data import load_training_data

VISION = {"model_type": "timm_wrapper", "architecture": "resnet10t"}


def load(folder, *arguments):
    return load_training_data(parse_configuration(["flavour_fusion_tiny", "--dataset", str(folder), *arguments]))


@pytest.fixture(scope="module")
def data(small_dataset):
    return load(small_dataset)


@pytest.fixture(scope="module")
def processor(data):
    tokenizer = train_tokenizer(data.train.texts, "wordpiece", 500, 16)
    return FlavourProcessor.from_parts(tokenizer, VISION, size=16, max_length=16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text_column", "name"], "no column 'name'; it has id, dish_id"),
        (["--label_column", "taste_class"], "no label column 'taste_class'"),
        (["--columns", '{"title": "Name"}'], "no column 'Name' that `columns` maps"),
        (["--image_column", "title"], "holds no images"),
        (["--train_split", "training"], "has no split 'training'; it has train"),
        (["--task", "classification", "--label_column", "flavours"], "task classification does not fit column"),
        (["--task", "guessing"], "no task 'guessing'"),
        (["--target_column", "flavours"], r"row train-000-00-00: flavours must hold 5 numbers, one per label, not \["),
        (["--confidence_column", "title"], "title must hold 5 numbers, one per label, not 'dish number train 0'"),
        (["--weight_column", "title"], "row train-000-00-00: title must hold a number, not 'dish number train 0'"),
        (["--weight_column", "taste"], "taste must hold a number, not"),
    ],
)
def test_faulty_columns_are_named_before_any_step(small_dataset, arguments, message):
    with pytest.raises(BadInputError, match=message):
        load(small_dataset, *arguments)


# Arrow before release 26 refuses to write a row without its list of fixed length, so there is nothing to read.
ABSENT = pytest.param(None, marks=pytest.mark.skipif(int(pyarrow.__version__.split(".")[0]) < 26, reason="old Arrow"))


@pytest.mark.parametrize("value", [ABSENT, [0.2, None, 0.2, 0.2, 0.2], [0.2, float("nan"), 0.4, 0.2, 0.2]])
def test_a_row_without_its_soft_target_is_named(small_rows, tmp_path, value):
    rows = copy.deepcopy({split: members[:10] for split, members in small_rows.items()})
    rows["train"][3]["taste"] = value
    with pytest.raises(BadInputError, match="row train-003-00-00: taste must hold 5 numbers"):
        load(write_dataset(tmp_path / "holes", rows), "--target_column", "taste")


def test_columns_are_mapped(small_rows, tmp_path):
    rows = copy.deepcopy({split: members[:10] for split, members in small_rows.items()})
    folder = write_dataset(tmp_path / "mapped", rows)
    found = load(folder, "--columns", '{"heading": "title"}', "--text_column", "heading")
    assert found.train.texts == [row["title"] for row in rows["train"]]


def test_a_label_outside_the_label_set_is_named():
    features = Features({"id": Value("string"), "flavour": Value("string")})
    rows = Dataset.from_list([{"id": "a", "flavour": "sweet"}, {"id": "b", "flavour": "hot"}], features=features)
    with pytest.raises(BadInputError, match="row b: flavour 'hot' is outside the label set"):
        make_table(rows, Columns("flavour", None, None, None), ["sweet", "sour"], "test", "the data set")


def test_class_labels_in_another_order_are_told_by_their_names():
    features = Features({"one": ClassLabel(names=["b", "c", "a"]), "many": List(ClassLabel(names=["b", "c", "a"]))})
    rows = Dataset.from_dict({"one": [0, 2, 1], "many": [[0], [1, 2], []]}, features=features)
    ids = ["x", "y", "z"]
    assert label_ids(rows, "one", ["a", "b", "c"], ids, "here").tolist() == [1, 0, 2]
    assert label_ids(rows, "many", ["a", "b", "c"], ids, "here").tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]
    with pytest.raises(BadInputError, match="row z: one 'c' is outside the label set"):
        label_ids(rows, "one", ["a", "b"], ids, "here")
    unknown = Dataset.from_dict({"one": [-1]}, features=Features({"one": features["one"]}))
    with pytest.raises(BadInputError, match="row x: one -1 is outside the label set"):
        label_ids(unknown, "one", ["a", "b", "c"], ids, "here")


def test_a_row_without_label_or_title_is_named(small_rows, tmp_path):
    for key, message in (("flavour", "flavour None is outside"), ("title", "title is empty")):
        rows = copy.deepcopy({split: members[:10] for split, members in small_rows.items()})
        rows["train"][4][key] = None
        with pytest.raises(BadInputError, match=f"row train-004-00-00: {message}"):
            load(write_dataset(tmp_path / key, rows))


def test_task_and_label_set_come_from_the_column(data, small_dataset):
    rows = data.train.rows
    assert detect_task(rows, "flavour") == "classification"
    assert detect_task(rows, "flavours") == "multilabel"
    assert label_names(rows, "flavour")[0] == "sweet"
    strings = Dataset.from_dict({"kind": ["b", "a", "b"]})
    assert label_names(strings, "kind") == ["a", "b"]


@pytest.mark.parametrize("cell", [{"bytes": b"no picture", "path": None}, {"bytes": None, "path": "gone.png"}])
def test_a_broken_or_missing_picture_is_named_and_never_black(small_rows, tmp_path, cell):
    rows = Dataset.from_list([small_rows["train"][0]], features=None)
    rows = rows.map(lambda row: {"image": cell})
    table = make_table_of_pictures(rows)
    with pytest.raises(BadInputError, match="row train-000-00-00"):
        Pictures(table, lambda picture: torch.zeros(3, 2, 2, dtype=torch.uint8)).load()


def make_table_of_pictures(rows):
    from trainer_scripts.data.table import Table

    return Table("train", rows["id"][:], rows["dish_id"][:], None, np.zeros(1, int), None, None, rows, "image")


def test_evaluation_pictures_equal_the_processors_own(data, processor):
    samples = classification.evaluation_samples(processor, data.selection)
    batch = classification.collator(processor, 5)([samples[index] for index in range(8)])
    cells = data.selection.rows["image"][:8]
    own = processor(images=[open_picture(cell) for cell in cells], text=data.selection.texts[:8])
    assert torch.allclose(batch["pixel_values"], own["pixel_values"], atol=1e-5)
    assert torch.equal(batch["input_ids"], own["input_ids"])
    assert torch.equal(batch["attention_mask"], own["attention_mask"])


def test_channels_stay_red_green_blue(data, processor):
    samples = classification.evaluation_samples(processor, data.train)
    salty = samples[1]["picture"].float().mean(dim=(1, 2))  # its colour is (220, 200, 90)
    assert salty[0] > salty[1] > salty[2]


def test_every_sample_has_its_own_title_and_picture(data, processor):
    samples = classification.evaluation_samples(processor, data.train)
    assert len({tuple(samples[index]["input_ids"]) for index in range(60)}) > 30
    assert len({samples[index]["picture"].numpy().tobytes() for index in range(60)}) == 60
    decoded = processor.tokenizer.decode(samples[7]["input_ids"], skip_special_tokens=True)
    assert decoded.split()[0] == data.train.texts[7].split()[0]


def test_evaluation_is_never_varied_and_training_varies_by_epoch_and_row_alone(data, processor):
    configuration = parse_configuration(["flavour_fusion_tiny", "--image_size", "16"])
    training = classification.training_samples(configuration, data, processor)
    evaluation = classification.evaluation_samples(processor, data.train)
    assert torch.equal(evaluation[0]["picture"], evaluation[0]["picture"])
    first = training[0]["picture"]
    torch.rand(7)
    assert torch.equal(first, training[0]["picture"])
    training.epoch = 1
    assert not torch.equal(first, training[0]["picture"])
    assert first.shape == (3, 16, 16)


def test_variation_leaves_the_global_random_state_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    augment = augmentation(DataArguments(crop_scale=0.5, flip=True, color_jitter=0.2), 4)
    varied(torch.zeros(3, 8, 8, dtype=torch.uint8), augment, sample_seed(1, 2, 3))
    assert torch.equal(before, torch.get_rng_state())


def test_pictures_are_decoded_when_asked_for_where_memory_is_short(data, processor):
    prepare = evaluation_picture(processor.image_processor)
    kept, lazy = Pictures(data.train, prepare), Pictures(data.train, prepare, Budget(0))
    assert torch.equal(kept[5], lazy[5])
    assert len(kept._kept) == len(data.train)
    assert not lazy._kept


def test_soft_targets_and_mixup_make_shares(data):
    collate = classification.ClassificationCollator(classes=5, target_share=0.5, mixup=0.4)
    generator = torch.Generator().manual_seed(0)
    samples = [
        {
            "labels": np.int64(label),
            "targets": np.full(5, 0.2, np.float32),
            "picture": torch.randint(0, 256, (3, 4, 4), generator=generator, dtype=torch.uint8),
            "draw": 11 + label,
        }
        for label in range(4)
    ]
    labels = collate(samples)["labels"]
    assert labels.shape == (4, 5)
    assert torch.allclose(labels.sum(dim=1), torch.ones(4))
    assert labels.max() < 1


def test_tokenizer_knows_only_what_it_was_trained_on():
    words = train_tokenizer(["a red cake", "a red pie"], "words", 100, 8)
    assert words.convert_tokens_to_ids("red") != words.unk_token_id
    assert words.convert_tokens_to_ids("cake") == words.unk_token_id


@pytest.mark.parametrize(
    "backbone",
    [
        {"model_type": "timm_wrapper", "architecture": "resnet18"},
        {"model_type": "timm_wrapper", "architecture": "inception_resnet_v2"},
        {"model_type": "mobilenet_v2"},
    ],
)
def test_pictures_are_resized_without_the_processors_checks_and_equal_to_it(backbone):
    image_processor = image_processor_for(backbone, 40)
    prepare = evaluation_picture(image_processor)
    assert prepare._direct is not None
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (75, 50, 3), dtype=np.uint8))
    assert torch.equal(prepare(picture), prepare._by_processor(picture))


def test_a_processor_that_does_something_else_is_taken_as_it_is():
    image_processor = image_processor_for({"model_type": "timm_wrapper", "architecture": "resnet18"}, 40)
    image_processor.do_pad, image_processor.pad_size = True, {"height": 64, "width": 64}
    prepare = evaluation_picture(image_processor)
    picture = Image.fromarray(np.zeros((75, 50, 3), dtype=np.uint8))
    expected = image_processor([picture], do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(prepare(picture), expected.to(torch.uint8))


def test_a_folder_in_a_store_has_no_revisions():
    with pytest.raises(BadInputError, match="is a folder in a store, which has no revision 'v1'"):
        open_dataset("memory://sets/one", revision="v1")
