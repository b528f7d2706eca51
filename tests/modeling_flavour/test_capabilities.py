"""What every model of the family can do beside answering: half precision, checkpointing, placement, graphs, DDP."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, TimmWrapperConfig

from modeling_flavour import FlavourForTransformerCaptioning, base_flavour

from .family import FAMILY
from .tiny import tiny_captioner, tiny_classifier

CAPTIONERS = ("captioner-transformer", "captioner-merge")
WORDS = ("input_ids", "attention_mask", "decoder_input_ids")


def without_labels(batch):
    """Inputs alone; a captioner reads the words that it would learn to say."""
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "ingredient_targets")}
    if "input_ids" not in batch and batch["labels"].dtype == torch.long and batch["labels"].ndim == 2:
        inputs["decoder_input_ids"] = batch["labels"].clamp(min=0)
    return inputs


def inputs_of(name, size=3):
    return without_labels(FAMILY[name].batch(size))


def answer_of(name, model, inputs):
    with torch.no_grad():
        return getattr(model(**inputs), FAMILY[name].answer)


@pytest.mark.parametrize("name", FAMILY)
def test_half_precision_stays_near_and_its_loss_is_full(name):
    model, batch = FAMILY[name].build().eval(), FAMILY[name].batch(4)
    exact = answer_of(name, model, batch)
    half = {key: value.bfloat16() if key == "pixel_values" else value for key, value in batch.items()}
    model.to(torch.bfloat16)
    outputs = model(**half)
    rough = answer_of(name, model, half)
    assert rough.dtype == torch.bfloat16
    assert outputs.loss.dtype == torch.float32
    assert (rough.float() - exact).abs().mean() < 0.1 * exact.abs().mean()


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "text"])
def test_checkpointed_layers_give_the_same_gradients(name):
    plain, saving = (FAMILY[name].build(**({"modality_dropout": 0.0} if "fusion" in name else {})) for _ in range(2))
    saving.gradient_checkpointing_enable()
    timm_model = saving.image_encoder.model.timm_model
    assert timm_model.grad_checkpointing
    assert name != "captioner-transformer" or all(layer.gradient_checkpointing for layer in saving.decoder.layers)
    for model in (plain, saving):
        model.train()
        model(**FAMILY[name].batch(4)).loss.backward()
    for (parameter, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(
            other.grad, one.grad, rtol=1e-3, atol=1e-5, msg=lambda text, n=parameter: f"{n}: {text}"
        )
    saving.gradient_checkpointing_disable()
    assert not timm_model.grad_checkpointing


def test_what_cannot_be_checkpointed_is_said(monkeypatch):
    said = []
    monkeypatch.setattr(base_flavour.logger, "warning", said.append)
    xception = {"vision_config": TimmWrapperConfig(architecture="legacy_xception")}
    with torch.device("meta"):
        fusion, merge = FAMILY["fusion-early"].make(**xception), FAMILY["captioner-merge"].make(**xception)
    fusion.gradient_checkpointing_enable()
    assert fusion.text_encoder.model.encoder.layer[0].gradient_checkpointing
    assert said == ["legacy_xception of timm keeps its activations: it has no checkpointing."]
    for model in (merge, FAMILY["text"].build()):
        with pytest.raises(ValueError, match=f"No part of this {type(model).__name__} supports"):
            model.gradient_checkpointing_enable()


def all_on_disk_but_the_backbone(model):
    """A device map; timm's wrapper moves pictures to where its weights lie, so those have to lie somewhere."""
    places = {}
    for name, child in model.named_children():
        parts = child.named_children() if name == "image_encoder" else [("", child)]
        for part, _ in parts:
            places[f"{name}.{part}".rstrip(".")] = "cpu" if (name, part) == ("image_encoder", "model") else "disk"
    if "cpu" not in places.values():  # accelerate before 1.15 refuses a model that lies on the disk as a whole
        places[next(reversed(places))] = "cpu"
    return places


@pytest.mark.parametrize("name", FAMILY)
def test_parts_may_lie_anywhere(name, tmp_path):
    """`device_map="auto"` where all fits, and parts that lie on the disk and are fetched when they run."""
    member = FAMILY[name]
    model = member.build().eval()
    model.save_pretrained(tmp_path / "model")
    expected = answer_of(name, model, member.batch(3))
    for device_map in ("auto", all_on_disk_but_the_backbone(model)):
        placed = type(model).from_pretrained(
            tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
        )
        # Where all lies in one place, transformers keeps no map.
        assert device_map == "auto" or "disk" in placed.hf_device_map.values()
        torch.testing.assert_close(answer_of(name, placed, member.batch(3)), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", FAMILY)
def test_one_graph_without_breaks(name):
    model, inputs = FAMILY[name].build().eval(), inputs_of(name)
    if name in CAPTIONERS:
        inputs["use_cache"] = False
    torch.compiler.reset()  # graphs of other models count towards a limit
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        found = getattr(compiled(**inputs), FAMILY[name].answer)
    torch.testing.assert_close(found, answer_of(name, model, inputs), rtol=1e-4, atol=1e-5)


def exported(name, model, inputs, strict=False):
    """The program of a model whose batch size and text length are free."""
    settings = {"use_cache": False} if name in CAPTIONERS else {}
    batch, length = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("length", min=2, max=16)
    sizes = {key: {0: batch, 1: length} if key in WORDS else {0: batch} for key in inputs} | dict.fromkeys(settings)
    program = torch.export.export(model, (), {**inputs, **settings}, dynamic_shapes=sizes, strict=strict)
    return lambda **other: program.module()(**other, **settings)


@pytest.mark.parametrize("name", sorted(FAMILY))
def test_exported_program_answers_like_the_model_at_any_batch_size_and_text_length(name):
    """With LSTMs over the words, whose loop must not be written out for the length of the example."""
    build, inputs = FAMILY[name].build, inputs_of(name, 4)
    model = (build(lstm_layers=1) if "input_ids" in inputs else build()).eval()
    program = exported(name, model, inputs)
    for words in (3, 13):
        other = {key: value.repeat(1, 4)[:3, :words] if key in WORDS else value[:3] for key, value in inputs.items()}
        torch.testing.assert_close(
            getattr(program(**other), FAMILY[name].answer), answer_of(name, model, other), rtol=1e-4, atol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text", "captioner-merge"])
def test_strict_export_leaves_text_length_free_too(name):
    model, inputs = FAMILY[name].build().eval(), inputs_of(name, 4)
    other = {key: value.repeat(1, 2) if key in WORDS else value for key, value in inputs.items()}
    found = getattr(exported(name, model, inputs, strict=True)(**other), FAMILY[name].answer)
    torch.testing.assert_close(found, answer_of(name, model, other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [tiny_classifier, partial(tiny_captioner, FlavourForTransformerCaptioning)])
def test_every_attention_that_a_model_offers_is_offered_by_its_parts(make):
    """On backbones of transformers: those of timm know eager and sdpa alone, as transformers says when asked."""
    model = make()
    for part in (part for part in model.modules() if isinstance(part, PreTrainedModel)):
        assert part._supports_sdpa
        assert part._supports_flash_attn
        assert part._supports_flex_attn
    chosen = type(model)._from_config(model.config, attn_implementation="flex_attention")
    assert chosen.image_encoder.model.config._attn_implementation == "flex_attention"


DISTRIBUTED_SCRIPT = """
import os
import torch
import torch.distributed as distributed
from torch.nn.parallel import DistributedDataParallel
from tests.modeling_flavour.family import FAMILY
torch.set_num_threads(1)
distributed.init_process_group("gloo")
for name, member in FAMILY.items():
    model = DistributedDataParallel(member.build())
    for step in range(2):
        batch = {key: value[distributed.get_rank()::2] for key, value in member.batch(8, step).items()}
        try:
            model(**batch).loss.backward()
        except RuntimeError as error:
            raise RuntimeError(f"{name}: {error}") from error
    gradients = torch.stack([value.grad.sum() for value in model.parameters() if value.grad is not None])
    other = gradients.clone()
    distributed.broadcast(other, src=0)
    assert torch.allclose(gradients, other), f"{name}: the processes differ"
distributed.barrier()
distributed.destroy_process_group()
os._exit(0)  # how torch's threads end with the interpreter is not asked here: now and then they abort it
"""


def test_every_parameter_is_used_in_each_of_two_processes(tmp_path):
    """DDP without `find_unused_parameters` raises in its second step if any parameter had no part in the first."""
    script = tmp_path / "train.py"
    script.write_text(DISTRIBUTED_SCRIPT)
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
