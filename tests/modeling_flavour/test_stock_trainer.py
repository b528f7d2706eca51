"""The Trainer of transformers as it is, without a setting of ours: it trains, evaluates and hands out predictions."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from modeling_flavour import modeling_flavour_segmentation

from .family import FAMILY

PREDICTIONS = {"segmenter-multitask": ["logits", "ingredient_logits"], "ingredients": ["ingredient_logits"]}


def rows_of(name):
    batch = FAMILY[name].batch(8)
    if name == "ingredients":  # as for any classifier of several labels
        batch = {"pixel_values": batch["pixel_values"], "labels": batch["ingredient_targets"]}
    return Dataset.from_dict({key: value.numpy() for key, value in batch.items()}).with_format("torch")


@pytest.mark.parametrize("name", ["segmenter", "segmenter-multitask"])
def test_a_stock_trainer_that_takes_the_labels_of_masks_away_has_its_cause_named(name, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(modeling_flavour_segmentation.logger, "warning_once", said.append)
    arguments = TrainingArguments(
        str(tmp_path), use_cpu=True, max_steps=1, save_strategy="no", disable_tqdm=True, label_smoothing_factor=0.1
    )
    with pytest.raises(RuntimeError):  # in the Trainer's own smoothing, whose message says nothing of it
        Trainer(FAMILY[name].build(), arguments, train_dataset=rows_of(name)).train()
    assert any("label_smoothing_factor takes the labels away" in line for line in said)
    said.clear()
    with torch.no_grad():  # an evaluation that asks for no loss
        FAMILY[name].build().train()(pixel_values=FAMILY[name].batch(2)["pixel_values"])
    assert not said


@pytest.mark.parametrize("name", FAMILY)
def test_evaluation_needs_no_setting(name, tmp_path):
    """It would give no loss without a word, if a `label` argument of `forward` were optional."""
    model, rows, seen = FAMILY[name].build().eval(), rows_of(name), {}

    def look(evaluation):
        seen.update(predictions=evaluation.predictions, labels=evaluation.label_ids)
        return {}

    arguments = TrainingArguments(
        str(tmp_path), use_cpu=True, max_steps=1, eval_strategy="steps", eval_steps=1, save_strategy="no",
        per_device_train_batch_size=4, per_device_eval_batch_size=8, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, compute_metrics=look)
    before = trainer.evaluate()["eval_loss"]
    with torch.no_grad():
        output = model(**rows[:])
    assert before == pytest.approx(output.loss.item(), rel=1e-3)
    assert seen["labels"].shape == rows[:]["labels"].shape
    found = seen["predictions"]
    if name.startswith("captioner"):  # as from every encoder-decoder, the picture's encoding comes with the logits
        found = found[0]
    names = PREDICTIONS.get(name, ["logits"])
    for key, value in zip(names, [found] if isinstance(found, np.ndarray) else found, strict=True):
        np.testing.assert_allclose(value, output[key].numpy(), rtol=1e-3, atol=1e-4)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] != before
