"""Segmentation in the trainer: classes and masks, joint transforms, the road from masks to scores, what is refused."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dataset_builder.columns import UNKNOWN
from dataset_builder.errors import BadInputError
from modeling_flavour.modeling_flavour_segmentation import FlavourForSegmentation
from tests.trainer_scripts.conftest import INGREDIENTS, ROWS, make_row, png, refused
from tests.trainer_scripts.tasks.segmentation.conftest import HEADS, arguments, parts_of
from trainer_scripts import compare, predict, score, train
from trainer_scripts.scoring.saved_model import load_model, load_table
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.segmentation.answers import answer
from trainer_scripts.tasks.segmentation.classes import class_map
from trainer_scripts.tasks.segmentation.comparing import pictures_seen
from trainer_scripts.tasks.segmentation.scoring import samples_for
from trainer_scripts.tasks.segmentation.trainer import gradient_conflict
from trainer_scripts.training.data import load_training_data


@pytest.fixture(scope="module")
def runs(mask_data, tmp_path_factory):
    """The three models of the system, trained for a moment."""
    folder = tmp_path_factory.mktemp("runs")
    for kind in HEADS:
        start = ["--init_segmenter", str(folder / "segmentation")] if kind == "multitask" else []
        settings = ["--num_train_epochs", "6", *(["--gradient_log_steps", "5"] if start else [])]
        train.main(arguments(kind, mask_data, folder / kind, *start, *settings))
    return folder


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


@pytest.mark.parametrize("kind", list(HEADS))
def test_all_three_models_are_scored_by_one_rule(runs, mask_data, tmp_path, kind, capsys):
    score.main([str(runs / kind), str(mask_data), "--out", str(tmp_path)])
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert ("miou_food" in content["metrics"]) == (kind != "ingredients")
    assert (tmp_path / "panels.png").is_file() == (kind != "ingredients")
    rule = content["definitions"]["ingredient_samples_f1"]["definition"]
    assert "probability >= 0.5" in rule
    assert ("per_class" in content["details"]) == (kind != "ingredients")
    if kind != "ingredients":
        assert content["baselines"]["all background"]["miou_food"]["value"] == 0
    assert all((tmp_path / name).is_file() for name in content["files"])
    entry = content["metrics"]["ingredient_samples_f1"]
    assert entry["low"] <= entry["value"] <= entry["high"]
    assert "most frequent ingredients" in capsys.readouterr().out


def test_other_ids_are_not_scored_in_silence(runs, mask_data, tmp_path):
    saved = load_model(str(runs / "segmentation"))
    table = load_table(saved, str(mask_data), "test")
    saved.model.config.source_labels = ["background", "gold"]
    with pytest.raises(BadInputError, match="score it on data with the same ids"):
        samples_for(saved, table)


def test_figures_and_flavours_come_with_the_scores(runs, mask_data, tmp_path):
    score.main([str(runs / "multitask"), str(mask_data), "--out", str(tmp_path), "--scales", "0.75", "1", "--flip"])
    content = json.loads((tmp_path / "metrics.json").read_text())
    for name in ("panels.png", "class_bars.png", "confusion.png", "flavour_map.png"):
        assert Image.open(tmp_path / name).size[0] > 200, name
    assert content["details"]["testing"] == "the whole picture, scales 0.75, 1, mirrored too, probabilities averaged"
    assert content["details"]["flavour_map"]["classifier"] == "ingredient head"
    assert all(pair["true"] != pair["taken_for"] for pair in content["details"]["confusions"])
    rows = list(csv.DictReader((tmp_path / "flavours.csv").open()))
    assert len(rows) == ROWS["test"]
    agreement = sum(row["disagrees"] == "" for row in rows) / len(rows)
    assert content["details"]["flavour_map"]["agreement"] == pytest.approx(agreement)
    assert all((row["flavour"] == row["classifier"]) == (row["disagrees"] == "") for row in rows)
    assert {"accuracy", "agreement"} <= set(content["details"]["flavour_map"])


def test_windows_and_another_classifier(runs, mask_data, tmp_path, capsys):
    asked = ["--window", "16", "--stride", "8", "--classifier", str(runs / "ingredients")]
    score.main([str(runs / "segmentation"), str(mask_data), "--out", str(tmp_path), *asked])
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["details"]["testing"].startswith("windows of 16 px every 8 px")
    assert content["details"]["flavour_map"]["classifier"] == str(runs / "ingredients")
    with pytest.raises(SystemExit):
        score.main([str(runs / "segmentation"), str(mask_data), "--classifier", str(runs / "segmentation")])
    assert "knows neither flavours nor ingredients" in capsys.readouterr().err


def test_the_verdict_says_per_task_whether_sharing_helped(runs, mask_data, tmp_path, capsys):
    models = [str(runs / name) for name in ("multitask", "segmentation", "ingredients")]
    compare.main([*models, str(mask_data), "--out", str(tmp_path)])
    content = json.loads((tmp_path / "comparison.json").read_text())
    told = [text for text in content["verdicts"] if "sharing" in text]
    for task, single, score_name in (
        ("masks", "segmentation", "miou_food"),
        ("ingredients", "ingredients", "ingredient_samples_f1"),
    ):
        (line,) = [text for text in told if f"against {single}, " in text and f" {score_name} [" in text]
        assert line.startswith(f"- {task}: ")
        gain = content["differences"][single][score_name]
        helped, hurt = gain["low"] > 0 and gain["p"] < 0.05, gain["high"] < 0 and gain["p"] < 0.05
        words = "sharing HELPED" if helped else "sharing HURT" if hurt else "whether sharing helped CANNOT BE TOLD"
        assert words in line
    assert any("did not learn from equally many pictures" in text for text in content["verdicts"])
    assert any("mean cosine" in text for text in content["verdicts"])
    assert {"all background", "most frequent ingredients"} <= set(content["entries"])


def test_pictures_of_the_start_are_counted(runs):
    own = {kind: pictures_seen(runs / kind) for kind in HEADS}
    assert own["segmentation"] == own["ingredients"] == 6 * ROWS["train"]
    assert own["multitask"] == 12 * ROWS["train"]
    assert pictures_seen(runs / "nowhere") is None


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A table of two pictures of different sizes."""
    folder = tmp_path_factory.mktemp("photographs")
    for name, size in (("one.png", (40, 56)), ("two.png", (64, 48))):
        pixels = np.zeros((*size, 3), dtype=np.uint8)
        pixels[:, : size[1] // 2] = (230, 90, 120)
        (folder / name).write_bytes(png(pixels))
    (folder / "table.csv").write_text("ImageID\none.png\ntwo.png\n")
    return folder


def test_predict_writes_masks_of_the_pictures_own_size(runs, photographs, tmp_path):
    given = [str(runs / "multitask"), str(photographs / "table.csv"), "--images", str(photographs)]
    predict.main([*given, "--out", str(tmp_path / "out.csv")])
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["ImageID"] for row in rows] == ["one.png", "two.png"]
    plates = json.loads((tmp_path / "out.json").read_text())
    names = load_model(str(runs / "multitask")).names
    for row, plate, size in zip(rows, plates, ((56, 40), (48, 64)), strict=True):
        mask = Image.open(tmp_path / plate["mask"])
        assert (mask.size, mask.mode) == (size, "P")
        ids = np.asarray(mask)
        for name, share in plate["areas"].items():
            assert (ids == names.index(name)).mean() == pytest.approx(share, abs=1e-4)
        assert row["Labels"].split("|") == plate["labels"]
        assert len(plate["taste"]) == 5
        assert "agrees" in plate


@pytest.mark.parametrize("kind", ["segmentation", "multitask", "ingredients"])
def test_predict_writes_ingredient_probabilities_and_a_mask_per_id(runs, photographs, tmp_path, kind):
    for folder, name in (("a", "one.png"), ("b", "two.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes((photographs / name).read_bytes())
    (tmp_path / "table.csv").write_text("ImageID\na/x.png\nb/x\n")
    given = [str(tmp_path / "table.csv"), "--images", str(tmp_path), "--out", str(tmp_path / "out.csv")]
    predict.main([str(runs / kind), *given, "--probabilities"])
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert list(rows[0]) == ["ImageID", "Labels", *INGREDIENTS]
    plates = json.loads((tmp_path / "out.json").read_text())
    for row, plate, size in zip(rows, plates, ((56, 40), (48, 64)), strict=True):
        if kind != "ingredients":
            assert Image.open(tmp_path / plate["mask"]).size == size
        if kind != "segmentation":
            for name, value in plate["probabilities"].items():
                assert float(row[name]) == pytest.approx(value, abs=1e-4)
        else:
            # What covers most of a mask is the likeliest class somewhere.
            assert all(float(row[name]) > 0.1 for name in row["Labels"].split("|") if name)
        assert all(0 <= float(row[name]) <= 1 for name in INGREDIENTS)


def test_two_rows_of_one_id_would_share_a_mask(runs, small_dataset, tmp_path, capsys):
    rows = [{"id": "x", "image": make_row("test", number)["image"]} for number in range(2)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    message = refused(capsys, predict, runs / "segmentation", tmp_path / "t.parquet", "--out", tmp_path / "out.csv")
    assert "two rows have the id x, which names their masks" in message


def test_predict_knows_models_without_masks_and_names_broken_pictures(runs, photographs, tmp_path, capsys):
    (photographs / "three.png").write_text("no picture")
    (tmp_path / "table.csv").write_text("ImageID\nthree.png\n")
    given = [str(runs / "ingredients"), "--images", str(photographs), "--out", str(tmp_path / "out.csv")]
    predict.main([given[0], str(photographs / "table.csv"), *given[1:]])
    assert not (tmp_path / "out_masks").exists()
    assert all(row["Labels"] for row in csv.DictReader((tmp_path / "out.csv").open()))
    with pytest.raises(SystemExit) as stop:
        predict.main([given[0], str(tmp_path / "table.csv"), *given[1:]])
    assert stop.value.code == 2
    assert "three.png" in capsys.readouterr().err


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
