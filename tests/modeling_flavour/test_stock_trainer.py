"""The Trainer of transformers as it is, without a setting of ours: it trains, evaluates and hands out predictions."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from .family import FAMILY

PREDICTIONS = {"segmenter-multitask": ["logits", "ingredient_logits"], "ingredients": ["ingredient_logits"]}


def rows_of(name):
    batch = FAMILY[name].batch(8)
    if name == "ingredients":  # as for any classifier of several labels
        batch = {"pixel_values": batch["pixel_values"], "labels": batch["ingredient_targets"]}
    return Dataset.from_dict({key: value.numpy() for key, value in batch.items()}).with_format("torch")


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
