"""What the classifier does beyond the shared contract: missing parts, freezing, losses, graphs, several processes."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from torch.nn import functional

from modeling_flavour import FlavourConfig, FlavourForClassification
from modeling_flavour.losses_flavour import classification_loss
from modeling_flavour.modeling_flavour import drop_modalities

from .contract import randomise
from .tiny import tiny_batch, tiny_classifier, tiny_resnet

FUSIONS = ["early", "late", "gated", "cross_attention"]


def parts(batch):
    return {name: batch[name] for name in ("input_ids", "attention_mask")}, {"pixel_values": batch["pixel_values"]}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_part_missing_from_the_batch_equals_part_missing_from_each_sample(fusion):
    model = randomise(tiny_classifier(fusion=fusion)).eval()
    texts, pictures = parts(tiny_batch(3))
    nobody = torch.zeros(3, dtype=torch.bool)
    complete = model(**texts, **pictures).logits
    for part, masks in ((texts, {"image_present": nobody}), (pictures, {"text_present": nobody})):
        alone = model(**part).logits
        torch.testing.assert_close(alone, model(**texts, **pictures, **masks).logits)
        assert not torch.allclose(alone, complete, atol=1e-3)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_stands_in_a_missing_part_is_not_seen(fusion):
    model = randomise(tiny_classifier(fusion=fusion, text_pooling="lstm")).eval()
    batch = tiny_batch(4)
    other = {**batch, "pixel_values": batch["pixel_values"].clone(), "input_ids": batch["input_ids"].clone()}
    other["pixel_values"][3], other["input_ids"][2] = 9.0, 7
    torch.testing.assert_close(model(**other).logits, model(**batch).logits, rtol=0, atol=0)


def test_text_of_padding_only_counts_as_missing():
    model = randomise(tiny_classifier()).eval()
    texts, pictures = parts(tiny_batch(2))
    empty = {**texts, "attention_mask": torch.zeros_like(texts["attention_mask"])}
    torch.testing.assert_close(model(**empty, **pictures).logits, model(**pictures).logits)


def test_wrong_inputs_are_refused():
    texts, pictures = parts(tiny_batch(2))
    with pytest.raises(ValueError, match="reads text only, but got pixel_values"):
        tiny_classifier(vision_config=None)(**texts, **pictures)
    with pytest.raises(ValueError, match="sees pictures only, but got input_ids"):
        tiny_classifier(text_config=None)(**texts, **pictures)
    with pytest.raises(ValueError, match="input_ids, pixel_values, or both"):
        tiny_classifier()()
    with pytest.raises(ValueError, match=r"text part .* or both"):
        FlavourForClassification(FlavourConfig())


def test_config_names_what_is_wrong():
    with pytest.raises(StrictDataclassClassValidationError, match="give one of them"):
        tiny_classifier(word_vocab_size=10)
    with pytest.raises(StrictDataclassFieldValidationError, match=r"expected one of .'early', 'late', 'gated'"):
        FlavourConfig(fusion="middle")
    with pytest.raises(TypeError, match=r"Did you mean fusion\? Fields: .*fusion_heads"):
        FlavourConfig(fusoin="late")
    assert FlavourConfig().id2label[4] == "umami"
    assert FlavourConfig(id2label={0: "hot", 1: "cold"}).label2id == {"hot": 0, "cold": 1}
    assert FlavourConfig().label2id["umami"] == 4
    assert FlavourConfig(num_labels=18).num_labels == 18
    assert FlavourConfig(num_labels=2).to_dict()["id2label"] == {0: "LABEL_0", 1: "LABEL_1"}


def test_frozen_backbone_keeps_its_statistics_in_training():
    model = randomise(tiny_classifier(vision_config=tiny_resnet(), freeze_image=True, freeze_text=True)).train()
    before = {name: value.clone() for name, value in model.image_encoder.state_dict().items()}
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    for seed in range(3):
        model(**tiny_batch(4, seed)).loss.backward()
        optimizer.step()
    for name, value in model.image_encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model.training
    assert not model.image_encoder.model.training
    assert not model.text_encoder.model.training
    free = tiny_classifier(vision_config=tiny_resnet()).train()
    assert all(module.training for module in free.modules())


def test_last_layers_of_a_frozen_backbone_train():
    model = tiny_classifier(vision_config=tiny_resnet(), freeze_image=True, trainable_image_layers=3)
    trained = [name for name, value in model.image_encoder.named_parameters() if value.requires_grad]
    every = [name for name, _ in model.image_encoder.named_parameters()]
    assert trained == every[-len(trained) :]
    assert len({name.rsplit(".", 1)[0] for name in trained}) == 3
    with pytest.raises(ValueError, match="but the backbone has"):
        tiny_classifier(vision_config=tiny_resnet(), freeze_image=True, trainable_image_layers=999)


def test_modality_dropout_takes_one_part_of_complete_samples_at_its_rate():
    torch.manual_seed(0)
    every = torch.ones(20000, dtype=torch.bool)
    text, image = drop_modalities(every, every, 0.3)
    assert (text | image).all()
    assert (~text).float().mean() == pytest.approx(0.15, abs=0.01)
    assert (~image).float().mean() == pytest.approx(0.15, abs=0.01)
    text, image = drop_modalities(every, ~every, 0.9)
    assert text.all()


def test_modality_dropout_acts_in_training_only():
    model = randomise(tiny_classifier(modality_dropout=0.5))
    texts, pictures = parts(tiny_batch(8))
    torch.manual_seed(0)
    assert not torch.equal(model.train()(**texts, **pictures).logits, model(**texts, **pictures).logits)
    assert torch.equal(model.eval()(**texts, **pictures).logits, model(**texts, **pictures).logits)


@pytest.mark.parametrize("fusion", ["early", "late"])
@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification"])
def test_output_starts_at_the_class_prior(fusion, problem_type):
    prior = [0.6, 0.2, 0.1, 0.05, 0.05]
    model = tiny_classifier(fusion=fusion, problem_type=problem_type, class_prior=prior).eval()
    texts, pictures = parts(tiny_batch(2))
    logits = model(**texts, **pictures).logits
    found = logits.sigmoid() if "multi" in problem_type else logits.softmax(-1)
    torch.testing.assert_close(found, torch.tensor([prior] * 2), rtol=0.2, atol=0.02)


def config_of(**fields):
    return FlavourConfig(num_labels=3, **fields)


def test_losses_equal_those_of_torch():
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    soft = torch.rand(6, 3).softmax(-1)
    several = torch.randint(0, 2, (6, 3)).float()
    weights = torch.tensor([0.5, 1.0, 3.0])
    cross_entropy, binary = functional.cross_entropy, functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(classification_loss(logits, labels, config_of()), cross_entropy(logits, labels))
    torch.testing.assert_close(classification_loss(logits, soft, config_of()), cross_entropy(logits, soft))
    smooth = config_of(label_smoothing=0.1)
    expected = cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(classification_loss(logits, labels, smooth), expected)
    weighted = config_of(class_weights=weights.tolist())
    expected = cross_entropy(logits, labels, weight=weights, reduction="none").mean()
    torch.testing.assert_close(classification_loss(logits, labels, weighted), expected)
    multi = config_of(problem_type="multi_label_classification")
    torch.testing.assert_close(classification_loss(logits, several, multi), binary(logits, several))
    weighted = config_of(problem_type="multi_label_classification", class_weights=weights.tolist())
    expected = binary(logits, several, weight=weights)
    torch.testing.assert_close(classification_loss(logits, several, weighted), expected)


def test_sample_weights_leave_samples_out():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 2])
    loss = classification_loss(logits, labels, config_of(), torch.tensor([2.0, 2.0, 0.0, 0.0]))
    torch.testing.assert_close(loss, functional.cross_entropy(logits[:2], labels[:2]))


def test_labels_of_another_shape_are_refused():
    multi = config_of(problem_type="multi_label_classification")
    with pytest.raises(ValueError, match=r"multi_label_classification, labels must have shape \(4, 3\), got \(4,\)"):
        classification_loss(torch.randn(4, 3), torch.zeros(4), multi)
    with pytest.raises(ValueError, match=r"shape \(4,\) or \(4, 3\), got \(5,\)"):
        classification_loss(torch.randn(4, 3), torch.zeros(5, dtype=torch.long), config_of())


@pytest.mark.parametrize("vision", ["resnet", "vit"])
def test_checkpointed_layers_give_the_same_gradients(vision):
    fields = {"vision_config": tiny_resnet(), "freeze_image": True} if vision == "resnet" else {}
    plain, saving = (randomise(tiny_classifier(**fields)).train() for _ in range(2))
    saving.activation_checkpointing_enable({"use_reentrant": False})
    assert saving.text_encoder.model.encoder.layer[0].gradient_checkpointing
    for model in (plain, saving):
        model(**tiny_batch(4)).loss.backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(other.grad, one.grad, msg=lambda text, n=name: f"{n}: {text}")
    saving.activation_checkpointing_disable()
    assert not saving.text_encoder.model.encoder.layer[0].gradient_checkpointing
    with pytest.raises(ValueError, match="No part of this"):
        tiny_classifier(text_config=None, vision_config=None, word_vocab_size=9).activation_checkpointing_enable()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_half_precision_stays_near(fusion):
    model = randomise(tiny_classifier(fusion=fusion, text_pooling="lstm")).eval()
    batch = tiny_batch(4)
    full = model(**batch).logits
    half = model.to(torch.bfloat16)
    outputs = half(**{**batch, "pixel_values": batch["pixel_values"].bfloat16()})
    assert outputs.logits.dtype == torch.bfloat16
    assert outputs.loss.dtype == torch.float32
    torch.testing.assert_close(outputs.logits.float(), full, rtol=0.1, atol=0.1)


def test_device_map_auto(tmp_path):
    model = randomise(
        tiny_classifier(text_pooling="lstm", fusion="cross_attention", vision_config=tiny_resnet())
    ).eval()
    model.save_pretrained(tmp_path)
    placed = FlavourForClassification.from_pretrained(tmp_path, device_map="auto")
    assert {"BidirectionalLSTM", "CrossAttentionLayer", "TimmWrapperModel"} <= set(placed._no_split_modules)
    torch.testing.assert_close(placed(**tiny_batch(3)).logits, model(**tiny_batch(3)).logits)


@pytest.mark.parametrize("fusion", ["early", "cross_attention"])
def test_compiled_without_graph_breaks(fusion):
    model = randomise(tiny_classifier(fusion=fusion, text_pooling="lstm", vision_config=tiny_resnet())).eval()
    texts, pictures = parts(tiny_batch(3))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        expected = model(**texts, **pictures).logits
        torch.testing.assert_close(compiled(**texts, **pictures).logits, expected, rtol=1e-4, atol=1e-5)


def test_exported_graph_answers_like_the_model_at_any_batch_size():
    model = randomise(tiny_classifier(text_pooling="lstm", vision_config=tiny_resnet())).eval()
    texts, pictures = parts(tiny_batch(4))
    inputs = {**texts, **pictures}
    sizes = {name: {0: torch.export.Dim("batch", min=2, max=64)} for name in inputs}
    program = torch.export.export(model, (), inputs, dynamic_shapes=sizes, strict=False)
    fewer = {name: value[:3] for name, value in inputs.items()}
    torch.testing.assert_close(program.module()(**fewer).logits, model(**fewer).logits, rtol=1e-4, atol=1e-5)


DISTRIBUTED_SCRIPT = """
import sys
import torch
import torch.distributed as distributed
from torch.nn.parallel import DistributedDataParallel
from tests.modeling_flavour.contract import randomise
from tests.modeling_flavour.tiny import tiny_batch, tiny_classifier
torch.set_num_threads(1)
distributed.init_process_group("gloo")
for fusion in ("early", "late", "gated", "cross_attention"):
    model = randomise(tiny_classifier(fusion=fusion, text_pooling="lstm", modality_dropout=0.3))
    model = DistributedDataParallel(model)
    for step in range(2):
        batch = {name: value[distributed.get_rank()::2] for name, value in tiny_batch(8, step).items()}
        model(**batch).loss.backward()
distributed.destroy_process_group()
"""


def test_every_parameter_is_used_in_each_of_two_processes(tmp_path):
    """DDP without `find_unused_parameters` raises in its second step if any parameter had no part in the first."""
    script = tmp_path / "train.py"
    script.write_text(DISTRIBUTED_SCRIPT)
    root = Path(__file__).resolve().parents[2]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
    ]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


def test_tuple_answers():
    loss, logits, *_ = tiny_classifier()(**tiny_batch(2), return_dict=False)
    assert (loss.ndim, logits.shape) == (0, (2, 5))
    assert math.isfinite(loss.item())
