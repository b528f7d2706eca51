"""Segmentation in the trainer: classes and masks, joint transforms, training, what is refused."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from dataset_builder.columns import UNKNOWN
from dataset_builder.errors import BadInputError
from modeling_flavour.modeling_flavour_segmentation import FlavourForSegmentation
from tests.trainer_scripts.conftest import INGREDIENTS, ROWS, make_row, png, refused, write_dataset
from tests.trainer_scripts.tasks.segmentation.conftest import HEADS, arguments, parts_of
from trainer_scripts import train
from trainer_scripts.data.masks import Masks, nearest
from trainer_scripts.data.pictures import augmentation
from trainer_scripts.data.samples import varied
from trainer_scripts.data.splits import open_dataset
from trainer_scripts.scoring.saved_model import load_model, load_table
from trainer_scripts.settings.arguments import DataArguments
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.segmentation.answers import answer
from trainer_scripts.tasks.segmentation.classes import class_map, class_names, shown_classes
from trainer_scripts.tasks.segmentation.scoring import samples_for
from trainer_scripts.tasks.segmentation.trainer import gradient_conflict
from trainer_scripts.tasks.segmentation.training import (
    evaluation_samples,
    make_processor,
    pixel_weights,
    training_samples,
)
from trainer_scripts.training.data import load_training_data


def test_groups_and_filters_remap_ids_explicitly():
    source = ["background", "tomato", "feta", "mushroom"]
    assert class_map(source, ["background", "mushroom", "cheese", "vegetable"], "group") == [0, 3, 2, 1]
    assert class_map(source, ["background", "mushroom"], "ingredient") == [0, UNKNOWN, UNKNOWN, 1]
    shown = np.array([[0, 1, 0, 1], [0, 0, 1, 0]], dtype=np.float32)
    assert shown_classes(shown, [0, UNKNOWN, 1, 1], 2).tolist() == [[1], [1]]


def test_class_names_follow_level_and_filter(mask_data):
    rows = open_dataset(str(mask_data))["train"]
    assert class_names(rows, "mask", DataArguments()) == ["background", *INGREDIENTS]
    groups = class_names(rows, "mask", DataArguments(label_level="group"))
    assert groups[0] == "background"
    assert {"mushroom", "citrus"} <= set(groups)
    kept = class_names(rows, "mask", DataArguments(label_filter=["kale", "lemon"]))
    assert kept == ["background", "lemon", "kale"]
    with pytest.raises(BadInputError, match="label_filter names 'gold', which is no class"):
        class_names(rows, "mask", DataArguments(label_filter=["gold"]))


def test_a_mask_is_never_interpolated_and_moves_with_its_picture():
    mask = torch.zeros(40, 40, dtype=torch.uint8)
    mask[10:30, 10:30], mask[:3] = 7, UNKNOWN
    picture = mask.expand(3, -1, -1).clone()
    for rotation, class_crops in ((0, False), (20, False), (0, True)):
        given = DataArguments(crop_scale=0.3, crop_scale_most=0.9, flip=True, quarter_turns=True)
        augment = augmentation(replace(given, rotation=rotation, class_crops=class_crops), 24)
        for seed in range(10):
            seen, ids = varied((tv_tensors.Image(picture), tv_tensors.Mask(mask)), augment, seed)
            assert set(ids.unique().tolist()) <= {0, 7, UNKNOWN}
            # Away from edges, where the picture is interpolated, both show the same.
            other = torch.nn.functional.pad((ids != 7).float()[None], [3] * 4, value=1.0)
            inside = torch.nn.functional.max_pool2d(other, 7, 1)[0] == 0
            assert (seen[0][inside] == 7).all()
    assert set(nearest(mask, (13, 17)).unique().tolist()) <= {0, 7, UNKNOWN}


def test_crops_around_classes_show_rare_ones_as_often():
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[:40, :40], mask[60:, 60:], mask[50:, :5] = 1, 2, UNKNOWN
    crop = augmentation(DataArguments(crop_scale=0.05, crop_scale_most=0.1, class_crops=True), 16)
    seen = [varied((tv_tensors.Image(mask.expand(3, -1, -1)), tv_tensors.Mask(mask)), crop, i)[1] for i in range(200)]
    assert all(ids.shape == (16, 16) for ids in seen)
    shares = [sum(bool((ids == number).any()) for ids in seen) / len(seen) for number in (1, 2)]
    assert sum(shares) >= 1
    assert min(shares) > 0.4
    with pytest.raises(BadInputError, match="class_crops needs a crop_scale below 1"):
        augmentation(DataArguments(class_crops=True), 16)
    empty = torch.zeros(64, 64, dtype=torch.uint8)
    assert varied((tv_tensors.Image(empty.expand(3, -1, -1)), tv_tensors.Mask(empty)), crop, 1)[1].shape == (16, 16)


def test_ingredients_that_a_crop_cuts_off_are_not_labels(mask_data, tmp_path):
    given = ["--class_crops", "true", "--crop_size", "8", "--crop_scale", "0.05", "--crop_scale_most", "0.1"]
    configuration, data, _, processor = parts_of(mask_data, tmp_path, *given)
    samples = data.task.training_samples(configuration, data, processor)
    mask = torch.zeros(32, 32, dtype=torch.uint8)
    mask[:, :16], mask[:, 28:] = 1, 2
    samples.masks = {0: mask}
    samples.shown[0] = torch.tensor([1, 1, 0, 1, 0])
    for samples.epoch in range(20):
        sample = samples[0]
        seen = {number for number in (1, 2) if (sample["labels"] == number).any()}
        # The fourth is in no mask: nobody can say where it went.
        assert {i + 1 for i in sample["ingredient_labels"].nonzero()[:, 0].tolist()} == seen | {4}


def test_an_id_outside_the_names_is_named_with_its_row(mask_data, tmp_path):
    rows = {split: [make_row(split, index) for index in range(4)] for split in ROWS}
    rows["train"][2]["mask"] = {"bytes": png(np.full((8, 8), 77, np.uint8)), "path": None}
    folder = write_dataset(tmp_path / "data", rows)
    configuration = parse_configuration(arguments("segmentation", folder, tmp_path / "run"))
    masks = Masks(load_training_data(configuration).train)
    assert masks[0].shape == (32, 32)
    with pytest.raises(BadInputError, match=r"row train-002-00-00: the mask holds id 77, but ids go from 0 to 5"):
        masks[2]


def test_workers_and_copies_read_the_same_pictures_and_masks(mask_data):
    configuration = parse_configuration(arguments("segmentation", mask_data, "unused"))
    data = load_training_data(configuration)
    processor = make_processor(configuration)
    for samples in (training_samples(configuration, data, processor), evaluation_samples(processor, data.selection)):
        expected = [samples[index] for index in range(4)]
        samples.pictures.load()
        samples.masks.load()
        loader = DataLoader(samples, None, sampler=range(4), num_workers=2)
        for found in (loader, [pickle.loads(pickle.dumps(samples))[index] for index in range(4)]):
            for one, other in zip(found, expected, strict=True):
                assert one.keys() == other.keys()
                assert all(torch.equal(one[name], other[name]) for name in one)


def test_rare_classes_weigh_more_with_mean_one(mask_data, tmp_path):
    data = load_training_data(parse_configuration(arguments("segmentation", mask_data, tmp_path / "run")))
    masks = Masks(data.train)
    weights = pixel_weights(masks, 6)
    counts = np.bincount(torch.stack([masks[i] for i in range(len(masks))]).flatten().numpy(), minlength=256)[:6]
    assert min(weights[1:]) > weights[0]
    assert (counts * weights).sum() / counts.sum() == pytest.approx(1)


def test_checkpoint_is_chosen_by_the_whole_selection_split(runs, mask_data):
    metrics = json.loads((runs / "segmentation" / "metrics.json").read_text())
    assert (metrics["selection_split"], metrics["selection_metric"]) == ("validation", "miou_food")
    evaluations = [line["eval_miou_food"] for line in metrics["history"] if "eval_miou_food" in line]
    assert metrics["selection"]["miou_food"] == pytest.approx(max(evaluations))
    saved = load_model(str(runs / "segmentation"))
    samples = samples_for(saved, load_table(saved, str(mask_data), "validation"))
    small, large = (answer(saved.model, samples, size).scores(saved.names) for size in (7, 64))
    assert small == pytest.approx(large, abs=1e-6)
    assert large["miou_food"] == pytest.approx(metrics["selection"]["miou_food"], abs=1e-6)
    assert large["miou_food"] > 0.1


def test_config_says_what_the_ids_stand_for_and_multitask_keeps_it(runs):
    configs = [json.loads((runs / kind / "config.json").read_text()) for kind in HEADS]
    assert len({json.dumps([config["class_map"], config["source_labels"]]) for config in configs}) == 1
    assert configs[0]["source_labels"] == ["background", *INGREDIENTS]
    assert [config["ingredient_head"] for config in configs] == [False, True, True]
    assert FlavourForSegmentation.from_pretrained(runs / "multitask").head.low_level is not None


def test_small_crops_and_coarse_grids_train_what_is_scored_at_full_size(mask_data, tmp_path):
    more = ["--crop_size", "16", "--crop_scale", "0.3", "--crop_scale_most", "0.6", "--mask_stride", "4"]
    configuration, data, model, processor = parts_of(mask_data, tmp_path, *more)
    samples = data.task.training_samples(configuration, data, processor)
    batch = data.task.collator(processor, len(data.names), configuration)([samples[0], samples[1]])
    assert (batch["pixel_values"].shape[-2:], batch["labels"].shape[-2:]) == ((16, 16), (4, 4))
    assert model(**batch).logits.shape[-2:] == (4, 4)
    assert torch.equal(batch["labels"][0], samples[0]["labels"][2::4, 2::4])
    assert data.task.evaluation_samples(processor, data.selection)[0]["picture"].shape == (3, 32, 32)
    configuration.data.mask_stride = 3
    with pytest.raises(BadInputError, match="mask_stride 3 does not divide pictures of 16 pixels"):
        data.task.training_samples(configuration, data, processor)


def test_gradients_of_two_tasks_are_compared():
    encoder = torch.nn.Linear(2, 1, bias=False)
    inputs = torch.tensor([[1.0, 0.0]])
    one, two = (encoder(inputs) * 3).sum(), (encoder(torch.tensor([[-1.0, 1.0]]))).sum()
    found = gradient_conflict(one, two, encoder)
    assert found["gradient_cosine"] == pytest.approx(-(0.5**0.5))
    assert found["gradient_norm_segmentation"] == pytest.approx(3)
    encoder.requires_grad_(False)
    assert gradient_conflict(one, two, encoder) == {}


def test_the_log_of_a_multitask_run_shows_conflicts(runs, mask_data, tmp_path, capsys):
    history = json.loads((runs / "multitask" / "metrics.json").read_text())["history"]
    logged = [line for line in history if "gradient_cosine" in line]
    assert [line["step"] for line in logged] == sorted({line["step"] for line in logged})
    assert len(logged) >= 3
    assert all(-1 <= line["gradient_cosine"] <= 1 for line in logged)
    single = json.loads((runs / "segmentation" / "metrics.json").read_text())["history"]
    assert not any("gradient_cosine" in line for line in single)
    asked = arguments("segmentation", mask_data, tmp_path / "one", "--gradient_log_steps", "5")
    assert "gradient_log_steps compares the losses of two tasks" in refused(capsys, train, *asked)


def test_a_filter_is_remapped_in_the_config_and_in_the_scores(mask_data, tmp_path):
    out = tmp_path / "run"
    given = ["--label_level", "ingredient", "--label_filter", "lemon", "kale", "--num_train_epochs", "1"]
    train.main(arguments("segmentation", mask_data, out, *given))
    config = json.loads((out / "config.json").read_text())
    assert list(config["id2label"].values()) == ["background", "lemon", "kale"]
    assert config["class_map"] == [0, UNKNOWN, UNKNOWN, 1, 2, UNKNOWN]
    saved = load_model(str(out))
    found = answer(saved.model, samples_for(saved, load_table(saved, str(mask_data), "test")), 16)
    true = found.counts[:, 6:]
    labels = load_table(saved, str(mask_data), "test").labels
    # A picture of a class that was left out has no pixel to find but its background.
    assert ((true[:, 1] > 0) == (labels[:, 3] > 0)).all()
    assert ((true[:, 2] > 0) == (labels[:, 4] > 0)).all()


def test_a_segmenter_goes_on_with_the_settings_that_fit_it(runs, mask_data, tmp_path, capsys):
    def go_on(kind, start, *more):
        given = ["--model_name_or_path", str(runs / start), *more]
        configuration = parse_configuration(arguments(kind, mask_data, tmp_path / "run", *given))
        data = load_training_data(configuration)
        return data.task.build(configuration, data)

    fits = '{"head": "deeplabv3plus", "dropout": 0.3, "loss": "focal"}'
    settings = ("--config", fits, "--class_weights", "false", "--freeze_image", "true")
    model, _ = go_on("segmentation", "segmentation", *settings)
    config = model.config
    assert (config.dropout, config.loss, config.class_weights, config.freeze_image) == (0.3, "focal", None, True)
    assert not any(parameter.requires_grad for parameter in model.image_encoder.model.parameters())
    groups = ("--label_level", "group", "--config", HEADS["segmentation"])
    capsys.readouterr()
    model, _ = go_on("segmentation", "segmentation", *groups)
    assert "has 6 labels and the data" in (said := capsys.readouterr().out)
    assert said.endswith("its body is kept, its head starts anew\n")
    assert model.config.class_map == class_map(
        ["background", *INGREDIENTS], list(model.config.id2label.values()), "group"
    )
    saved = load_file(runs / "segmentation" / "model.safetensors")
    for name, value in model.state_dict().items():
        assert name.startswith("head.classifier.") or torch.equal(value, saved[name]), name
    assert model.head.classifier.out_channels == model.config.num_labels < 6
    for kind, start, more, message in (
        ("segmentation", "multitask", (), "no ingredient head, and .* has a mask head and an ingredient head"),
        ("segmentation", "ingredients", (), "has no mask head and an ingredient head"),
        (
            "segmentation",
            "segmentation",
            ("--config", '{"aspp_channels": 8}'),
            "config.aspp_channels 8 .the checkpoint",
        ),
    ):
        with pytest.raises(BadInputError, match=message):
            go_on(kind, start, *more)
