"""Training end to end on the small table: commands, resumption, frozen parts, warm-up, budget, refusals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from dataset_builder.errors import BadInputError
from modeling_flavour.modeling_flavour import FlavourForClassification
from tests.trainer_scripts.conftest import write_dataset
from tests.trainer_scripts.tiny_runs import assert_equal_weights, make_trainer, run, weights
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.common.trainer import AveragedWeights
from trainer_scripts.training.folder import inspect_run
from trainer_scripts.training.vocabulary_record import VOCABULARY_SOURCE


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_dataset) -> Path:
    return run(tmp_path_factory.mktemp("trained") / "fusion", small_dataset)


@pytest.fixture(scope="module")
def tagged(tmp_path_factory, small_dataset) -> Path:
    folder = tmp_path_factory.mktemp("tagged") / "tagging"
    whole = ("--class_crops", "false", "--crop_size", "none", "--crop_scale", "1", "--crop_scale_most", "1")
    return run(folder, small_dataset, *whole, configuration="plates_resnet18")


def test_a_run_leaves_checkpoint_code_configuration_metrics_and_no_pickle(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"model.safetensors", "config.json", "modeling_flavour.py", "processing_flavour.py"} <= names
    assert {"README.md", "configuration.yaml", "metrics.json", "tokenizer.json", VOCABULARY_SOURCE} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl")) or name.startswith("checkpoint-")]
    metrics = read_metrics(trained)
    assert metrics["selection_split"] == "validation"
    assert metrics["selection_metric"] == "accuracy"
    assert 0 <= metrics["selection"]["accuracy"] <= 1
    assert "test" not in json.dumps(metrics["history"])
    config = json.loads((trained / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_flavour.FlavourForClassification"


def test_the_configuration_is_printed_and_a_finished_run_is_not_trained_again(trained, small_dataset, capsys):
    before = (trained / "model.safetensors").stat().st_mtime_ns
    run(trained, small_dataset)
    assert "is finished" in capsys.readouterr().out
    assert (trained / "model.safetensors").stat().st_mtime_ns == before


def test_another_configuration_in_the_same_folder_is_refused(trained, small_dataset, capsys):
    with pytest.raises(SystemExit) as ended:
        run(trained, small_dataset, "--learning_rate", "0.5")
    assert ended.value.code == 2
    assert "holds a run by another configuration (learning_rate differ)" in capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(BadInputError, match="is not empty and holds no run"):
        inspect_run(parse_configuration(["default", "--output_dir", str(tmp_path)]))


def test_accumulated_small_batches_equal_one_large_batch(tmp_path, small_dataset):
    plain = ("--num_train_epochs", "1", "--optim", "sgd", "--modality", "text", "--tokenizer", "wordpiece")
    steady = ("--config", '{"text_dense_sizes": [8], "head_dense_sizes": [8], "dropout": 0.0}')
    no_dropout = '{"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, '
    no_dropout += '"intermediate_size": 16, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}'
    plain = (*plain, "--text_config", no_dropout)
    one = run(tmp_path / "one", small_dataset, *plain, *steady, "--per_device_train_batch_size", "20")
    four = ("--per_device_train_batch_size", "5", "--gradient_accumulation_steps", "4")
    four = run(tmp_path / "four", small_dataset, *plain, *steady, *four)
    for name, value in weights(one).items():
        assert torch.allclose(value, weights(four)[name], atol=1e-5), name


def test_every_training_row_is_seen_once_per_epoch(small_dataset, tmp_path):
    trainer = make_trainer(small_dataset, tmp_path)
    seen = []
    for batch in trainer.get_train_dataloader():
        seen += batch["pixel_values"].flatten(1).double().sum(1).tolist()
    assert len(seen) == 60
    assert len(set(seen)) == 60


def test_a_last_batch_is_left_out_of_training_alone(small_dataset, tmp_path):
    size = ("--per_device_train_batch_size", "16", "--per_device_eval_batch_size", "16")
    trainer = make_trainer(small_dataset, tmp_path, "--modality", "text", "--dataloader_drop_last", "true", *size)
    assert [len(batch["labels"]) for batch in trainer.get_train_dataloader()] == [16, 16, 16]
    assert [len(batch["labels"]) for batch in trainer.get_eval_dataloader()] == [16, 14]


def test_convolutions_lie_channels_last_and_evaluation_runs_in_the_precision_of_training(small_dataset, tmp_path):
    trainer = make_trainer(small_dataset, tmp_path, "--precision", "bf16")
    kernels = [value for value in trainer.model.parameters() if value.ndim == 4 and min(value.shape[1:]) > 1]
    assert kernels
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in kernels)
    precisions = []
    loop = trainer.evaluation_loop

    def watched(*args, **kwargs):
        precisions.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
        return loop(*args, **kwargs)

    trainer.evaluation_loop = watched
    trainer.evaluate()
    assert precisions == [(True, torch.bfloat16)]


def test_learning_rates_differ_by_part_and_biases_do_not_decay(small_dataset, tmp_path):
    rates = ("--text_learning_rate", "0.1", "--image_learning_rate", "0.2", "--learning_rate", "0.3")
    trainer = make_trainer(small_dataset, tmp_path, *rates, "--weight_decay", "0.5")
    rate_of = {}
    for group in trainer.create_optimizer().param_groups:
        for parameter in group["params"]:
            rate_of[id(parameter)] = (group["lr"], group["weight_decay"])
    for name, parameter in trainer.model.named_parameters():
        rate, decay = rate_of[id(parameter)]
        assert rate == {"text_encoder": 0.1, "image_encoder": 0.2}.get(name.split(".")[0], 0.3)
        assert decay == 0 or not name.endswith("bias")


def test_frozen_parts_do_not_move_nor_their_statistics(tmp_path, small_dataset, tagged):
    warm = ("--init_image_encoder", str(tagged), "--freeze_image", "true")
    folder = run(tmp_path / "frozen", small_dataset, *warm, "--modality", "image", "--num_train_epochs", "1")
    before, after = weights(tagged), weights(folder)
    names = [name for name in before if name.startswith("image_encoder.")]
    assert any("running_mean" in name for name in names)
    for name in names:
        assert torch.equal(before[name], after[name]), name
    assert read_metrics(folder)["trainable_parameters"] < read_metrics(folder)["parameters"]


def test_warm_up_starts_the_image_encoder_from_tagging(small_dataset, tmp_path, tagged):
    trainer = make_trainer(small_dataset, tmp_path, "--init_image_encoder", str(tagged))
    own, donor = trainer.model.image_encoder.state_dict(), weights(tagged)
    assert all(torch.equal(value, donor[f"image_encoder.{name}"]) for name, value in own.items())
    assert read_metrics(tagged)["task"] == "multilabel"
    assert FlavourForClassification.from_pretrained(tagged).config.problem_type == "multi_label_classification"


def test_a_model_over_budget_is_refused_before_training(small_dataset, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "large", small_dataset, "--max_mb", "0.01")
    assert ended.value.code == 2
    assert "over --max_mb 0.01" in capsys.readouterr().err
    assert not (tmp_path / "large").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mixup_alpha", "0.2"), "does nothing in modality fusion, it is for image"),
        (("--metric_for_best_model", "beauty"), "has no score 'beauty'; choose one of accuracy, macro_f1"),
        (("--selection_split", "test"), "must not choose the checkpoint"),
        (("--text_config", '{"model_type": "bart"}'), "cannot be built"),
        (("--dataset", "nowhere"), "there is no data set at 'nowhere'"),
        (("--report_to", "wandb"), "report_to names 'wandb', which is not installed"),
        (("--dataloader_persistent_workers", "true", "--dataloader_num_workers", "1"), "not updated at the next epoch"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(small_dataset, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "refused", small_dataset, *arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_rate_falls_on_a_plateau_of_the_selection_score(small_dataset, tmp_path):
    plateau = ("--lr_scheduler_type", "reduce_lr_on_plateau", "--lr_scheduler_kwargs", '{"patience": 0, "factor": 0.5}')
    still = ("--learning_rate", "1e-6", "--num_train_epochs", "3", "--modality", "text")
    folder = run(tmp_path / "plateau", small_dataset, *plateau, *still)
    rates = [entry["learning_rate"] for entry in read_metrics(folder)["history"] if "learning_rate" in entry]
    assert rates[-1] == pytest.approx(rates[0] / 2)


@pytest.mark.parametrize(("metric", "better", "worse"), [("accuracy", 0.4, 0.3), ("nll", 0.3, 0.4)])
def test_the_rate_stays_while_the_selection_score_gets_better(small_dataset, tmp_path, metric, better, worse):
    plateau = ("--lr_scheduler_type", "reduce_lr_on_plateau", "--lr_scheduler_kwargs", '{"patience": 0, "factor": 0.5}')
    trainer = make_trainer(small_dataset, tmp_path, *plateau, "--metric_for_best_model", metric)
    trainer.create_optimizer_and_scheduler(4)
    for value in (worse, better):
        trainer.lr_scheduler.step(value)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(trainer.args.learning_rate)
    trainer.lr_scheduler.step(worse)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(trainer.args.learning_rate / 2)


MANY = ("--task", "multilabel", "--label_column", "flavours", "--metric_for_best_model", "map")


@pytest.mark.parametrize("task", [(), MANY], ids=["one", "many"])
def test_mixup_mixes_what_is_trained_on_and_nothing_that_is_judged(small_dataset, tmp_path, task):
    mixed = ("--modality", "image", "--mixup_alpha", "0.4", *task)
    trainer = make_trainer(small_dataset, tmp_path / "looked", *mixed)
    plain = make_trainer(small_dataset, tmp_path / "plain", "--modality", "image", *task)
    batch = next(iter(trainer.get_train_dataloader()))
    assert ((batch["labels"] > 0) & (batch["labels"] < 1)).any()
    judged, known = (next(iter(each.get_eval_dataloader())) for each in (trainer, plain))
    assert torch.equal(judged["labels"], known["labels"])
    assert torch.equal(judged["pixel_values"], known["pixel_values"])
    metrics = read_metrics(run(tmp_path / "run", small_dataset, *mixed))
    assert 0 <= metrics["selection"][metrics["selection_metric"]] <= 1


def test_unsure_labels_and_soft_targets_teach_less(small_dataset, tmp_path):
    trainer = make_trainer(small_dataset, tmp_path, "--confidence_column", "taste", "--target_column", "taste")
    weights = trainer.train_dataset.table.weights
    assert weights.mean() == pytest.approx(1)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(3)])
    assert torch.allclose(batch["sample_weights"], torch.as_tensor(weights[:3]))
    # Half of the target is on the label, half is the taste: .6 on the label, .1 elsewhere.
    assert torch.allclose(batch["labels"].sort(dim=1).values, torch.tensor([0.05, 0.05, 0.05, 0.05, 0.8]))


@pytest.fixture(scope="module")
def uneven(small_rows, tmp_path_factory) -> Path:
    """Half of the rows of one class are missing."""
    kept = [row for row in small_rows["train"] if row["flavour"] != 3 or row["id"] < "train-03"]
    return write_dataset(tmp_path_factory.mktemp("uneven") / "data", {**small_rows, "train": kept})


def test_rare_classes_weigh_more_and_labels_are_smoothed(uneven, tmp_path):
    """Against the formulas: weights in inverse proportion to frequency, with mean 1 over the rows."""
    plain = make_trainer(uneven, tmp_path / "plain", "--modality", "text")
    asked = ("--class_weights", "true", "--label_smoothing_factor", "0.2")
    weighing = make_trainer(uneven, tmp_path / "weighing", "--modality", "text", *asked)
    labels = plain.train_dataset.table.labels
    counts = np.bincount(labels)
    assert counts[3] == 6 < counts[0]
    expected = torch.tensor(len(labels) / (5 * counts), dtype=torch.float32)
    assert weighing.model.config.class_weights == pytest.approx(expected.tolist())
    assert weighing.args.label_smoothing_factor == 0  # else the Trainer smooths once more
    batch = weighing.data_collator([weighing.train_dataset[index] for index in range(9)])
    with torch.inference_mode():
        outputs = weighing.model.eval()(**batch)
    smooth = 0.8 * torch.nn.functional.one_hot(batch["labels"], 5) + 0.2 / 5
    terms = expected * smooth * outputs.logits.log_softmax(1)
    assert float(outputs.loss) == pytest.approx(float(-terms.sum(1).mean()), abs=1e-5)


def test_balanced_sampling_draws_rare_classes_as_often(uneven, tmp_path):
    trainer = make_trainer(uneven, tmp_path, "--modality", "text", "--balanced_sampling", "true")
    loader, drawn = trainer.get_train_dataloader(), []
    for epoch in range(40):
        loader.set_epoch(epoch)
        drawn.append(np.concatenate([batch["labels"].numpy() for batch in loader]))
    # 40 x 54 draws: a fifth of them is 432, with a standard deviation of 19; the rare class would be drawn 240 times.
    assert (abs(np.bincount(np.concatenate(drawn)) - 432) < 80).all()
    assert not np.array_equal(drawn[0], drawn[1])


def test_averaged_weights_are_what_is_evaluated_and_saved(small_dataset, tmp_path, monkeypatch):
    """The average is followed by hand, step by step."""
    followed, evaluated = [], []
    step, loop = AveragedWeights.on_step_end, transformers.Trainer.evaluation_loop

    def watched_step(self, args, state, control, **kwargs):
        now = {name: value.detach().clone() for name, value in kwargs["model"].state_dict().items()}
        before = followed[-1] if followed else {name: value.clone() for name, value in self._average.items()}
        keep = min(0.9, (1 + state.global_step) / (10 + state.global_step))
        followed.append({name: keep * value + (1 - keep) * now[name] for name, value in before.items()})
        step(self, args, state, control, **kwargs)

    def watched_loop(self, *args, **kwargs):
        evaluated.append({name: value.clone() for name, value in self.model.state_dict().items()})
        return loop(self, *args, **kwargs)

    monkeypatch.setattr(AveragedWeights, "on_step_end", watched_step)
    monkeypatch.setattr(transformers.Trainer, "evaluation_loop", watched_loop)
    short = ("--modality", "text", "--num_train_epochs", "1", "--ema_decay", "0.9")
    folder = run(tmp_path / "averaged", small_dataset, *short)
    assert len(followed) == 4
    for found in (evaluated[0], weights(folder)):
        for name, value in followed[-1].items():
            assert torch.allclose(found[name], value, atol=1e-6), name


def test_a_tracker_logs_losses_and_scores(small_dataset, tmp_path, monkeypatch):
    """The real TensorBoard writes, and its own reader reads."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "logs"))
    folder = run(tmp_path / "run", small_dataset, "--modality", "text", "--report_to", "tensorboard")
    reader = accumulator.EventAccumulator(str(tmp_path / "logs"))
    reader.Reload()
    logged = {tag: [event.value for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
    history = read_metrics(folder)["history"]
    assert logged["train/loss"] == pytest.approx([entry["loss"] for entry in history if "loss" in entry])
    scores = [entry["eval_accuracy"] for entry in history if "eval_accuracy" in entry]
    assert logged["eval/accuracy"][:2] == pytest.approx(scores[:2])


def test_output_bias_starts_at_the_class_prior(small_dataset, tmp_path):
    many = ("--label_column", "flavours", "--task", "multilabel", "--metric_for_best_model", "samples_f1")
    trainer = make_trainer(small_dataset, tmp_path, *many)
    shares = trainer.train_dataset.table.labels.mean(axis=0)
    assert torch.allclose(trainer.model.classifier.bias.sigmoid(), torch.tensor(shares), atol=0.03)


def test_repeated_seeds_report_their_spread(small_dataset, tmp_path, capsys):
    arguments = ("--seeds", "2", "--modality", "image", "--num_train_epochs", "1")
    folder = run(tmp_path / "seeds", small_dataset, *arguments)
    spread = json.loads((folder / "seeds.json").read_text())
    assert spread["seeds"] == [17, 18]
    values = [read_metrics(path)["selection"]["nll"] for path in (folder, folder / "seed-1")]
    assert values[0] != values[1]
    mean, deviation = sum(values) / 2, abs(values[0] - values[1]) / 2**0.5
    assert spread["selection"]["nll"] == pytest.approx(
        {"mean": mean, "std": deviation, "min": min(values), "max": max(values)}
    )
    said = capsys.readouterr().out
    assert "2 seeds (17, 18) on validation: mean +- standard deviation [least, largest]" in said
    assert f"{mean:.4f} +- {deviation:.4f}  [{min(values):.4f}, {max(values):.4f}]" in said
    assert said.count("step 4/4 ") == 4  # a line with the loss and one with the scores, per seed
    assert "seeds 17, 18; this model is the first of them" in (folder / "README.md").read_text()
    # Killed before the spread was written, the repeated command writes it without training.
    (folder / "seeds.json").unlink()
    run(folder, small_dataset, *arguments)
    assert json.loads((folder / "seeds.json").read_text()) == spread
    assert "is finished" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_weights(trained, small_dataset, tmp_path):
    shutil.rmtree(tmp_path / "again", ignore_errors=True)
    assert_equal_weights(trained, run(tmp_path / "again", small_dataset))
