"""Adapters by peft on every model of the family, used as on any model of transformers."""

import pytest
import torch
from torch import nn

from modeling_flavour.familiarity_flavour import CARRIED

from .family import FAMILY
from .test_familiarity import complete, features_of, knowing

pytest.importorskip("peft")
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model

SEGMENTERS = ("segmenter", "segmenter-multitask", "ingredients")


def settings_for(name, model):
    """The configuration that the pages of peft advise for a model of this kind."""
    if name in SEGMENTERS:  # convolutions alone; peft knows no dilation
        layers = model.image_encoder.model.named_modules()
        plain = [f"image_encoder.model.{each}" for each, layer in layers if isinstance(layer, nn.Conv2d)]
        return {"target_modules": [each for each in plain if model.get_submodule(each).dilation == (1, 1)]}
    return {
        "target_modules": "all-linear",
        "task_type": "SEQ_2_SEQ_LM" if name.startswith("captioner") else "SEQ_CLS",
    }


def adapted(name, **more):
    """A model, a copy of it under adapters that change its answers, and a batch; running statistics stay."""
    torch.manual_seed(0)
    base, model = FAMILY[name].build().eval(), FAMILY[name].build().eval()
    model.load_state_dict(base.state_dict())
    # Weights of adapters usually begin at no change at all.
    config = LoraConfig(r=2, init_lora_weights=False, **settings_for(name, model), **more)
    return base, get_peft_model(model, config).eval(), FAMILY[name].batch(3)


def answer(name, model, batch):
    with torch.no_grad():
        return getattr(model(**batch), FAMILY[name].answer)


def parts_to_save(name):
    """Parts that are trained whole beside adapters; in a classifier its head is one already."""
    if name == "fusion-late":  # peft saves no part of a saved part, and the classifiers lie in the fusion
        return ["text_head", "image_head"]
    model = FAMILY[name].build()
    children = {part: module for part, module in model.named_children() if not part.endswith(("_encoder", "_dense"))}
    return [part for part, module in children.items() if any(True for _ in module.parameters())]


SAVE_PARTS = ("fusion-late", "fusion-cross_attention", "captioner-merge", "segmenter-multitask")


@pytest.mark.parametrize(
    ("name", "whole"), [*((name, False) for name in FAMILY), *((name, True) for name in SAVE_PARTS)]
)
def test_adapters_learn_are_saved_loaded_and_merged(name, whole, tmp_path):
    heads = parts_to_save(name) if whole else None
    base, model, batch = adapted(name, **({"modules_to_save": list(heads)} if whole else {}))
    before, expected = answer(name, base, batch), answer(name, model, batch)
    assert not torch.allclose(before, expected, atol=1e-4)

    model(**batch).loss.backward()
    learning = {each: value for each, value in model.named_parameters() if value.requires_grad}
    # A head that saves parts whole learns too.
    for part in heads or ():
        assert any(f".{part}." in each for each in learning)
    for each, value in learning.items():
        assert value.grad is not None, each
        assert torch.isfinite(value.grad).all(), each

    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(answer(name, again, batch), expected)
    merged = again.merge_and_unload()
    torch.testing.assert_close(answer(name, merged, batch), expected, rtol=1e-3, atol=1e-4)
    # What was merged is an ordinary model.
    merged.save_pretrained(tmp_path / "merged")
    loaded = type(merged).from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(answer(name, loaded, batch), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["captioner-transformer", "captioner-merge"])
def test_a_captioner_under_adapters_writes_captions(name):
    base, model, batch = adapted(name)
    pictures = batch["pixel_values"]
    written = model.generate(pixel_values=pictures, max_new_tokens=5, num_beams=2)
    assert written.shape[0] == len(pictures)
    assert torch.equal(written, model.merge_and_unload().generate(pixel_values=pictures, max_new_tokens=5, num_beams=2))
    with pytest.raises(ValueError, match="give words as labels or decoder_input_ids"):
        base(pixel_values=pictures, input_ids=torch.ones(3, 2, dtype=torch.long))


@pytest.mark.parametrize("name", ["fusion-gated", "text"])
def test_prompts_are_learned_before_the_words(name, tmp_path):
    torch.manual_seed(0)
    base, batch = FAMILY[name].build().eval(), FAMILY[name].batch(3)
    # A table of word vectors has no layers and heads that peft could read from its config.
    sizes = {"num_layers": 1, "num_attention_heads": 1, "token_dim": base.config.word_embedding_size}
    settings = PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3, **(sizes if name == "text" else {}))
    model = get_peft_model(base, settings).eval()
    output = model(**batch)
    output.loss.backward()
    assert model.prompt_encoder["default"].embedding.weight.grad.abs().sum() > 0
    model.save_pretrained(tmp_path)
    torch.manual_seed(0)
    again = PeftModel.from_pretrained(FAMILY[name].build().eval(), tmp_path).eval()
    torch.testing.assert_close(again(**batch).logits, output.logits)


@pytest.mark.parametrize("name", ["text", "image", "captioner-transformer"])
def test_prompts_without_words_or_their_sizes_are_refused_in_one_line(name):
    kind = "SEQ_2_SEQ_LM" if name.startswith("captioner") else "SEQ_CLS"
    with pytest.raises(ValueError, match=r"Please specify `num_layers`|provide either input_ids or inputs_embeds"):
        get_peft_model(FAMILY[name].build(), PromptTuningConfig(task_type=kind, num_virtual_tokens=3))(
            **FAMILY[name].batch(2)
        )


def test_an_adapter_can_be_put_on_the_table_of_word_vectors():
    torch.manual_seed(0)
    model, batch = FAMILY["text"].build().eval(), FAMILY["text"].batch(3)
    before = answer("text", model, batch)
    wrapped = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, target_modules=["text_encoder.model"]))
    changed = answer("text", wrapped, batch)
    assert not torch.allclose(changed, before, atol=1e-4)
    torch.testing.assert_close(answer("text", wrapped.merge_and_unload(), batch), changed)


def test_the_adapters_of_transformers_itself_work(tmp_path):
    torch.manual_seed(0)
    FAMILY["fusion-gated"].build().save_pretrained(tmp_path / "base")
    kind, batch = type(FAMILY["fusion-gated"].build()), FAMILY["fusion-gated"].batch(3)
    model = kind.from_pretrained(tmp_path / "base").eval()
    model.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["query", "value"]))
    model.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    again = kind.from_pretrained(tmp_path / "base").eval()
    again.load_adapter(str(tmp_path / "adapter"))
    expected = answer("fusion-gated", model, batch)
    torch.testing.assert_close(answer("fusion-gated", again, batch), expected)


@pytest.mark.parametrize("known", [True, False], ids=["base-knows", "base-does-not"])
@torch.no_grad()
def test_an_adapter_brings_what_is_known_of_inputs_whatever_its_base_knows(known, tmp_path):
    name = "fusion-early"
    base = knowing(name) if known else FAMILY[name].build()
    base.config.abstain_below = 0.4 if known else None
    base.save_pretrained(tmp_path / "base")
    kind, batch = type(base), complete(name)
    batch["pixel_values"][:3] = 40 * torch.rand(3, 3, 32, 32)

    def fresh():
        return kind.from_pretrained(tmp_path / "base").eval()

    settings = LoraConfig(r=2, init_lora_weights=False, target_modules=["query", "value"], modules_to_save=[*CARRIED])
    for rows, limit, dropout in ((20, 0.7, 0.0), (None, None, 0.3)):
        # Another number of axes than in the base, or nothing.
        learned = fresh()
        learned.forget_familiarity()
        if rows:
            found = features_of(learned, FAMILY[name].batch(rows, 1))
            learned.learn_familiarity(found, found, 1.0)
        learned.config.abstain_below, learned.config.modality_dropout = limit, dropout
        model = get_peft_model(fresh(), settings).eval()
        for part, state in learned.carried_state().items():
            module = model.base_model.model.get_submodule(part.rpartition(".")[0])
            module.modules_to_save["default"].set_extra_state(state)
        model.save_pretrained(tmp_path / "adapter")
        expected = model(**batch)
        assert (expected.image_familiar is not None) == bool(rows)
        again, loaded = PeftModel.from_pretrained(fresh(), tmp_path / "adapter").eval(), fresh()
        loaded.load_adapter(str(tmp_path / "adapter"))
        for each in (again, loaded):
            output = each(**batch)
            torch.testing.assert_close(output.logits, expected.logits)
            torch.testing.assert_close(output.get("image_familiar"), expected.get("image_familiar"))
            assert (each.abstain_below, each.answers_without_a_part) == (limit, bool(dropout))
        with again.disable_adapter():
            assert again.abstain_below == base.config.abstain_below
            assert (again(**batch).image_familiar is not None) == known
        again.merge_and_unload().save_pretrained(tmp_path / "merged")
        merged, report = kind.from_pretrained(tmp_path / "merged", output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        torch.testing.assert_close(merged.eval()(**batch).logits, expected.logits, rtol=1e-3, atol=1e-4)
        assert (merged.config.familiarity is not None) == bool(rows)
        assert (merged.config.abstain_below, merged.config.modality_dropout) == (limit, dropout)


def test_what_an_adapter_brings_must_fit_the_model():
    model, other = knowing("fusion-early"), knowing("fusion-cross_attention")
    with pytest.raises(ValueError, match="no buffers of a Familiarity of features of length"):
        model.image_familiarity.load_state_dict(other.text_familiarity.state_dict())
