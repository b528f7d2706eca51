"""Options of the HF Trainer and of accelerate: followed as their users expect, or refused in one line."""

from importlib.util import find_spec

import pytest

from dataset_builder.errors import BadInputError
from tests.trainer_scripts.conftest import refused
from tests.trainer_scripts.tiny_runs import SMALL, assert_equal_weights, interrupted_after, run
from trainer_scripts import train
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.settings.training_arguments import TrainingArguments

TEXT = ("--modality", "text")


@pytest.mark.parametrize("name", ["loss", "eval_loss"])
def test_the_loss_chooses_the_checkpoint_where_it_is_named(small_dataset, tmp_path, name, capsys):
    given = ("--metric_for_best_model", name, "--learning_rate", "0.1", "--num_train_epochs", "3", *TEXT)
    folder = run(tmp_path / "run", small_dataset, *given, "--seeds", "2")
    metrics = read_metrics(folder)
    losses = {line["step"]: line["eval_loss"] for line in metrics["history"] if "eval_loss" in line}
    assert metrics["selection_metric"] == "loss"
    assert metrics["best_step"] == min(losses, key=losses.__getitem__)
    assert metrics["selection"]["loss"] == pytest.approx(min(losses.values()), rel=1e-4)
    assert "| checkpoint chosen by | loss |" in (folder / "README.md").read_text()
    assert "\nloss " in capsys.readouterr().out  # in the spread over seeds


def test_a_saved_configuration_says_no_metric_where_none_was_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("task: multilabel\n")
    configuration = parse_configuration([str(tmp_path / "mine.yaml")])
    assert configuration.training.metric_for_best_model is None
    assert configuration.as_mapping().get("metric_for_best_model") is None


@pytest.mark.parametrize(
    ("launched", "gains", "asked", "used"),
    [
        ("no", False, {}, "no"),
        ("no", True, {}, "bf16"),
        ("fp16", True, {}, "fp16"),
        ("bf16", False, {}, "bf16"),
        ("bf16", True, {"precision": "fp32"}, "no"),
        ("fp16", False, {"precision": "fp32"}, "no"),
        ("no", False, {"precision": "fp16"}, "fp16"),
        ("bf16", True, {"precision": "fp32", "fp16": True}, "fp16"),
        ("fp16", False, {"precision": "fp32", "bf16": True}, "bf16"),
    ],
)
def test_precision_is_what_is_asked_for_then_the_launchers_then_the_devices(
    tmp_path, monkeypatch, launched, gains, asked, used
):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    monkeypatch.setattr("trainer_scripts.settings.training_arguments.bf16_gains", lambda cpu_only: gains)
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, **asked)
    assert arguments.mixed_precision == used
    assert (arguments.fp16, arguments.bf16) == (used == "fp16", used == "bf16")


def test_results_state_the_precision_that_was_computed_in(small_dataset, tmp_path):
    folder = run(tmp_path / "half", small_dataset, *TEXT, "--num_train_epochs", "1", "--precision", "fp16")
    assert read_metrics(folder)["precision"] == "fp16"


def test_two_precisions_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="fp16 and bf16 are two precisions"):
        TrainingArguments(str(tmp_path), fp16=True, bf16=True)


def test_a_run_that_keeps_no_optimizer_begins_anew(small_dataset, tmp_path, monkeypatch):
    given = (*TEXT, "--save_only_model", "true", "--load_best_model_at_end", "false")
    given += ("--early_stopping_patience", "none")
    whole = run(tmp_path / "whole", small_dataset, *given)
    with monkeypatch.context() as patch, interrupted_after(patch, 6):
        run(tmp_path / "broken", small_dataset, *given)
    assert_equal_weights(whole, run(tmp_path / "broken", small_dataset, *given))


DIVERGING = ("--learning_rate", "1e30", "--image_learning_rate", "1e30", "--max_grad_norm", "0")


@pytest.mark.parametrize(
    "configuration", ["flavour_picture_tiny", "captioner_resnet18_transformer_tiny", "segmentation_deeplabv3_tiny"]
)
def test_a_run_that_diverges_ends_in_one_line_and_leaves_no_model(small_dataset, tmp_path, capsys, configuration):
    small = ("--vision_config", '{"model_type": "timm_wrapper", "architecture": "test_resnet"}', "--image_size", "32")
    small += ("--crop_size", "32", "--use_cpu", "true", "--precision", "fp32", "--num_train_epochs", "1")
    small += ("--per_device_train_batch_size", "15", "--eval_strategy", "epoch", "--save_strategy", "epoch")
    if configuration.startswith("flavour"):
        small += ("--config", '{"head_dense_sizes": [8]}')
    given = (*small, "--dataset", str(small_dataset), "--output_dir", str(tmp_path / "run"), *DIVERGING)
    assert "training diverged" in refused(capsys, train, configuration, *given)
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--push_to_hub", "true"), "`hf upload ID FOLDER` publishes a finished run"),
        (("--bf16_full_eval", "true"), "would leave the saved weights in half precision"),
        (("--prediction_loss_only", "true"), "scores are computed for every checkpoint"),
        (("--do_predict", "true"), "score.py scores the test split"),
        (("--eval_steps=2",), "eval_steps does nothing without --eval_strategy steps"),
        (("--seed", "-1"), "seed is -1; it must lie in [0, 4.29497e+09]"),
        (("--batch_eval_metrics", "true"), "scores are of all rows together"),
        (("--train_sampling_strategy", "group_by_length"), "would prepare every picture"),
        (("--neftune_noise_alpha", "5", "--modality", "image"), "learns from no word vectors"),
        (("--neftune_noise_alpha", "5", "--freeze_text", "true"), "learns from no word vectors"),
        (("--feature_views", "2"), "and none is frozen (freeze_image)"),
        (("--accelerator_config", '{"beauty": true}'), "unexpected keyword argument 'beauty'"),
        (("--lr_scheduler_type", "cosine_with_min_lr"), "One of min_lr or min_lr_rate should be set"),
        (("--lr_scheduler_type", "warmup_stable_decay"), "missing 1 required positional argument: 'num_decay_steps'"),
    ],
)
def test_what_would_do_nothing_or_end_in_a_traceback_is_refused(small_dataset, tmp_path, capsys, arguments, message):
    given = ("--dataset", str(small_dataset), "--output_dir", str(tmp_path / "run"), *SMALL, *arguments)
    assert message in refused(capsys, train, "flavour_fusion_tiny", *given)


def test_an_optimizer_that_is_not_installed_is_named(small_dataset, tmp_path, capsys):
    if find_spec("bitsandbytes") is not None:
        pytest.skip("it is installed here")
    given = ("--dataset", str(small_dataset), "--output_dir", str(tmp_path / "run"), *SMALL, *TEXT)
    message = refused(capsys, train, "flavour_fusion_tiny", *given, "--optim", "adamw_bnb_8bit")
    assert "You need to install `bitsandbytes`" in message
