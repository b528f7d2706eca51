"""Where a model starts from: parts that do not fit or are absent are refused by name, and what a checkpoint keeps."""

import json

import pytest
import torch

from dataset_builder.errors import BadInputError
from tests.trainer_scripts.tiny_runs import SMALL, run, weights
from trainer_scripts import score
from trainer_scripts.settings.configurations import CONFIGURATIONS, parse_configuration
from trainer_scripts.tasks.classification import training as classification
from trainer_scripts.training.data import load_training_data


def build(dataset, *arguments, configuration="flavour_fusion_tiny"):
    made = parse_configuration([configuration, "--dataset", str(dataset), *SMALL, *arguments])
    data = load_training_data(made)
    return data.task.build(made, data)


UNKNOWN_BACKBONE = '{"model_type": "timm_wrapper", "architecture": "resnet999"}'


@pytest.mark.parametrize(
    ("configuration", "arguments", "message"),
    [
        ("flavour_fusion_tiny", ("--trainable_image_layers", "2"), "needs freeze_image=True"),
        ("flavour_fusion_tiny", ("--config", '{"dropout": 7}'), r"dropout must lie in \[0, 1\), got 7"),
        ("flavour_fusion_tiny", ("--config", '{"fusion": "early2"}'), "fusion"),
        ("flavour_fusion_tiny", ("--vision_config", UNKNOWN_BACKBONE), "resnet999"),
        ("captioner_resnet18_transformer_tiny", ("--config", '{"dropout": 7}'), r"dropout must lie in \[0, 1\)"),
        ("captioner_resnet18_transformer_tiny", ("--vision_config", UNKNOWN_BACKBONE), "resnet999"),
        ("segmentation_deeplabv3_tiny", ("--config", '{"dropout": 7}'), r"dropout must lie in \[0, 1\)"),
        ("segmentation_deeplabv3_tiny", ("--config", '{"head": "big"}'), "head"),
        ("segmentation_deeplabv3_tiny", ("--vision_config", UNKNOWN_BACKBONE), "resnet999"),
    ],
)
def test_parts_that_do_not_fit_are_bad_input(small_dataset, configuration, arguments, message):
    with pytest.raises(BadInputError, match=f"(?s)the model of this configuration cannot be built: .*{message}"):
        build(small_dataset, *arguments, configuration=configuration)


@pytest.mark.parametrize("option", ["model_name_or_path", "text_encoder", "image_encoder", "init_image_encoder"])
def test_a_start_that_is_not_there_is_named_with_its_option(small_dataset, option):
    with pytest.raises(BadInputError, match=f"^{option}: there is no folder '/nowhere/model'"):
        build(small_dataset, f"--{option}", "/nowhere/model")
    with pytest.raises(BadInputError, match=f"^{option}: nothing can be loaded from 'org/nothing'"):
        build(small_dataset, f"--{option}", "org/nothing")


def test_a_warm_up_that_was_not_trained_yet_is_named_with_its_configuration(small_dataset, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match=r"train it first: `train\.py plates_resnet18`"):
        build(small_dataset, "--init_image_encoder", "outputs/plates_resnet18")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_dataset):
    return run(tmp_path_factory.mktemp("trained") / "fusion", small_dataset, "--num_train_epochs", "1")


def go_on(trained, dataset, *arguments, **configuration):
    return build(dataset, "--model_name_or_path", str(trained), *arguments, **configuration)


def test_a_checkpoint_takes_freezing_losses_and_dropout_of_the_configuration(small_dataset, trained):
    model, _ = go_on(trained, small_dataset)
    assert model.config.label_smoothing == 0.05
    assert model.config.class_weights is None
    settings = ("--class_weights", "true", "--label_smoothing_factor", "0.3", "--freeze_text", "true",
                "--freeze_image", "true", "--trainable_image_layers", "2", "--config", '{"dropout": 0.9}')  # fmt: skip
    model, _ = go_on(trained, small_dataset, *settings)
    config = model.config
    assert (config.label_smoothing, config.freeze_text, config.dropout) == (0.3, True, 0.9)
    assert config.class_weights == pytest.approx([1.0] * 5)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} >= {0.9}
    assert not any(parameter.requires_grad for parameter in model.text_encoder.model.parameters())
    moving = [each.requires_grad for each in model.image_encoder.model.parameters()]
    assert any(moving)
    assert not all(moving)
    for name, value in weights(trained).items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_checkpoint_takes_the_image_encoder_of_another(small_dataset, trained, tmp_path):
    other = run(tmp_path / "other", small_dataset, "--num_train_epochs", "1", "--seed", "3", "--modality", "image")
    model, _ = go_on(trained, small_dataset, "--init_image_encoder", str(other))
    donor = weights(other)
    for name, value in model.image_encoder.model.state_dict().items():
        assert torch.equal(value, donor[f"image_encoder.model.{name}"]), name


def test_a_text_model_has_no_image_encoder_to_start(small_dataset, trained):
    with pytest.raises(BadInputError, match="This model reads text only: it has no image encoder to start from"):
        build(small_dataset, "--modality", "text", "--init_image_encoder", str(trained))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--config", '{"fusion": "gated"}'), r"config.fusion 'gated' \(the checkpoint: 'early'\)"),
        (("--image_size", "48"), r"image_size 48 \(the checkpoint: 32\)"),
        (("--max_length", "9"), r"max_length 9 \(the checkpoint: 32\)"),
        (("--tokenizer", "wordpiece"), r"tokenizer 'wordpiece' \(the checkpoint: 'words'\)"),
        (("--vocabulary_size", "9"), r"vocabulary_size 9 \(the checkpoint: \d+\)"),
        (("--letters_only", "true"), r"letters_only True \(the checkpoint: False\)"),
        (("--prior_bias", "true"), r"prior_bias True \(the checkpoint: 'its own output bias'\)"),
        (("--text_config", '{"model_type": "bert", "hidden_size": 32}'), r"text_config.hidden_size 32"),
        (("--config", '{"droput": 0.1}'), "FlavourConfig has no field 'droput'"),
        (("--config", '{"dropout": 2}'), r"dropout must lie in \[0, 1\)"),
        (("--config", '{"place_loss_weight": 1}'), "place_loss_weight: the masks show 6 classes .* has no head for"),
        (("--modality", "text"), "modality 'text' does not fit .*; give --modality fusion"),
    ],
)
def test_what_a_checkpoint_cannot_follow_is_refused_by_name(small_dataset, trained, arguments, message):
    with pytest.raises(BadInputError, match=message):
        go_on(trained, small_dataset, *arguments)


def test_what_only_the_recipe_file_says_otherwise_is_kept_and_printed(small_dataset, trained, tmp_path, capsys):
    configuration = tmp_path / "mine.yaml"
    configuration.write_text(
        (CONFIGURATIONS / "flavour_fusion_tiny.yaml").read_text()
        .replace("fusion: early", "fusion: gated\n  dropout: 0.7", 1)
        .replace("dropout: 0.3\n  mod", "mod")
    )  # fmt: skip
    given = [str(configuration), "--dataset", str(small_dataset), "--model_name_or_path", str(trained)]
    made = parse_configuration([*given, "--use_cpu", "true", "--output_dir", str(tmp_path / "run")])
    model, _ = classification.build(made, load_training_data(made))
    assert (model.config.fusion, model.config.dropout) == ("early", 0.7)
    assert "kept as in the checkpoint, not as in the configuration: config." in (said := capsys.readouterr().out)
    assert "config.fusion 'gated' (the checkpoint: 'early')" in said


def test_a_checkpoint_needs_none_of_the_parts_that_its_configuration_started_from(small_dataset, trained):
    given = ["--dataset", str(small_dataset), "--model_name_or_path", str(trained), "--use_cpu", "true"]
    configuration = parse_configuration(["flavour_fusion", *given])
    assert configuration.model.image_encoder.startswith("timm/")
    model, _ = classification.build(configuration, load_training_data(configuration))
    assert model.config.freeze_text
    assert torch.equal(model.classifier.weight, weights(trained)["classifier.weight"])


def kept_but_for_the_head(model, start):
    """Whether all weights but those of the head are the checkpoint's."""
    heads, state = type(model).label_parameters, model.state_dict()
    assert state.keys() >= {name for name in weights(start) if not name.startswith(heads)}
    for name, value in weights(start).items():
        assert name.startswith(heads) or torch.equal(state[name], value), name
    return True


def test_other_labels_get_a_new_head_on_the_body_of_the_checkpoint(small_dataset, trained, capsys):
    many = ("--task", "multilabel", "--label_column", "flavours", "--metric_for_best_model", "samples_f1")
    tagger = trained.parent / "many"
    run(tagger, small_dataset, *many, "--num_train_epochs", "1", "--modality", "image")
    capsys.readouterr()
    asked = ("--task", "multilabel", "--label_column", "ingredient_labels", "--prior_bias", "true")
    model, _ = go_on(tagger, small_dataset, "--modality", "image", *asked)
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"{tagger} has 5 labels and the data 6 (only the data: background, tomato, cucumber, lemon; only the "
        "checkpoint: sweet, salty, sour, bitter): its body is kept, its head starts anew"
    ]
    assert kept_but_for_the_head(model, tagger)
    assert model.config.id2label[1] == "tomato"
    assert model.config.label2id["tomato"] == 1
    assert model.classifier.bias.tolist() == pytest.approx(model.prior_scores().tolist())
    assert model.prior_scores().abs().min() > 0
    # As many labels, one per row instead of several.
    model, _ = go_on(tagger, small_dataset, "--modality", "image")
    assert "was made for multi_label_classification, and the label column is for single_" in capsys.readouterr().out
    assert model.config.problem_type == "single_label_classification"
    assert kept_but_for_the_head(model, tagger)
    assert not torch.equal(model.classifier.weight, weights(tagger)["classifier.weight"])


def test_a_run_on_other_labels_goes_from_training_to_scores(small_dataset, trained, tmp_path):
    start = ("--model_name_or_path", str(trained), "--num_train_epochs", "1")
    many = ("--task", "multilabel", "--label_column", "ingredient_labels", "--metric_for_best_model", "samples_f1")
    folder = run(tmp_path / "run", small_dataset, *start, *many, "--class_weights", "true", "--config", "{}")
    saved = json.loads((folder / "config.json").read_text())
    assert list(saved["id2label"].values())[:2] == ["background", "tomato"]
    assert not {"class_prior", "class_weights", "label_smoothing"} & saved.keys()
    assert json.loads((folder / "metrics.json").read_text())["label_names"][1] == "tomato"
    score.main([str(folder), str(small_dataset), "--split", "test", "--out", str(tmp_path / "scores")])
    assert (tmp_path / "scores" / "metrics.json").is_file()


def test_a_checkpoint_of_another_task_is_refused(small_dataset, trained):
    with pytest.raises(BadInputError, match=r"holds a flavour_fusion, which cannot be .*--image_encoder"):
        go_on(trained, small_dataset, configuration="segmentation_deeplabv3_tiny")
    with pytest.raises(BadInputError, match="holds a flavour_fusion, which cannot be trained further in this task"):
        go_on(trained, small_dataset, configuration="captioner_resnet18_transformer_tiny")
