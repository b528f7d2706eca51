"""Word heat maps become masks, and looking does not change the picture."""

import math

import numpy as np
import pytest
import torch

from dataset_builder.catalogue.ingredients import ingredient_id
from dataset_builder.columns import BACKGROUND, UNKNOWN
from dataset_builder.errors import BadInputError
from dataset_builder.pictures import attention_masks
from dataset_builder.pictures.attention_masks import AttentionMasks, ingredient_spans, mask_from_heat, token_positions
from dataset_builder.plating.pipeline import PlatingPipeline
from tests.tiny_pipelines import (
    tiny_flux,
    tiny_pixart,
    tiny_stable_diffusion,
    tiny_stable_diffusion_3,
    tiny_stable_diffusion_xl,
)

PROMPTS = ["Greek salad: cucumber, tomato", "plain rice", "nothing known"]
OPTIONS = {"PixArtAlphaPipeline": {"clean_caption": False, "use_resolution_binning": False}}


@pytest.fixture(
    scope="module",
    params=[tiny_stable_diffusion, tiny_stable_diffusion_xl, tiny_pixart, tiny_stable_diffusion_3, tiny_flux],
)
def pipeline(request):
    made = request.param()
    made.set_progress_bar_config(disable=True)
    return made


def draw(pipeline, guidance=4.0, prompts=PROMPTS):
    generators = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
    options = OPTIONS.get(type(pipeline).__name__, {})
    output = pipeline(
        prompts, num_inference_steps=2, guidance_scale=guidance, height=64, width=64, generator=generators, **options
    )
    return [np.asarray(image) for image in output.images]


@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_the_picture_is_unchanged_by_looking(pipeline, guidance):
    plain = draw(pipeline, guidance)
    masks = AttentionMasks(pipeline)
    with masks.recording(PROMPTS):
        watched = draw(pipeline, guidance)
    after = draw(pipeline, guidance)
    for one, other, third in zip(plain, watched, after, strict=True):
        assert np.array_equal(one, other)
        assert np.array_equal(one, third)


def test_masks_show_only_ingredients_that_the_prompt_names(pipeline):
    masks = AttentionMasks(pipeline)
    with masks.recording(PROMPTS):
        draw(pipeline)
    salad, rice, nothing = masks.masks(64, 64)
    assert salad.shape == (64, 64)
    assert salad.dtype == np.uint8
    assert set(np.unique(salad)) <= {BACKGROUND, UNKNOWN, ingredient_id("cucumber"), ingredient_id("tomato")}
    assert set(np.unique(rice)) <= {BACKGROUND, UNKNOWN, ingredient_id("rice")}
    assert set(np.unique(nothing)) == {UNKNOWN}
    assert UNKNOWN in salad


def test_masks_do_not_depend_on_the_batch(pipeline):
    masks = AttentionMasks(pipeline)
    with masks.recording(PROMPTS):
        draw(pipeline)
    together = masks.masks(64, 64)[0]
    with masks.recording(PROMPTS[:1]):
        draw(pipeline, prompts=PROMPTS[:1])
    assert (masks.masks(64, 64)[0] == together).mean() > 0.99


def test_heat_is_the_attention_of_the_layer_itself():
    layer = next(m for n, m in tiny_stable_diffusion().unet.named_modules() if n.endswith("attn2"))
    pixels, text = torch.randn(1, 64, layer.to_q.in_features), torch.randn(1, 7, layer.to_k.in_features)
    query, key = layer.head_to_batch_dim(layer.to_q(pixels)), layer.head_to_batch_dim(layer.to_k(text))
    expected = layer.get_attention_scores(query, key).mean(dim=0)
    assert torch.allclose(attention_masks._attention(layer, pixels, text, None), expected, atol=1e-6)


def test_heat_of_rotary_attention_is_that_of_the_layer_itself(monkeypatch):
    pipeline = tiny_flux()
    pipeline.set_progress_bar_config(disable=True)
    layer = pipeline.transformer.transformer_blocks[0].attn
    seen = {}

    def attended(query, key, value, **kwargs):
        # (batch, tokens, heads, width): what the layer's own processor multiplies, for its first call alone
        weights = torch.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(query.shape[-1])
        seen.setdefault("weights", weights.softmax(dim=-1).mean(dim=1)[0])
        return torch.nn.functional.scaled_dot_product_attention(
            *(each.transpose(1, 2) for each in (query, key, value))
        ).transpose(1, 2)

    def note(_, positional, named):
        seen.setdefault("inputs", named)

    monkeypatch.setattr("diffusers.models.transformers.transformer_flux.dispatch_attention_fn", attended)
    hook = layer.register_forward_pre_hook(note, with_kwargs=True)
    draw(pipeline, prompts=PROMPTS[:1])
    hook.remove()
    named = seen["inputs"]
    text = named["encoder_hidden_states"]
    with torch.no_grad():
        found = attention_masks._attention(layer, named["hidden_states"], text, None, named["image_rotary_emb"])
    assert torch.allclose(found, seen["weights"][text.shape[1] :, : text.shape[1]], atol=1e-5)


def test_masked_text_tokens_get_no_heat():
    layer = next(m for n, m in tiny_pixart().transformer.named_modules() if n.endswith("attn2"))
    pixels, text = torch.randn(1, 64, layer.to_q.in_features), torch.randn(1, 7, layer.to_k.in_features)
    bias = torch.zeros(1, 1, 7)
    bias[..., 5:] = -10000.0
    weights = attention_masks._attention(layer, pixels, text, bias)
    assert weights[:, 5:].max() == 0
    assert torch.allclose(weights.sum(dim=1), torch.ones(64))


def test_spans_know_plurals_and_negation():
    prompt = "Salad of cherry tomatoes without feta, two cucumbers"
    spans = ingredient_spans(prompt)
    found = {number: [prompt[start:end] for start, end in places] for number, places in spans.items()}
    assert found == {ingredient_id("cherry tomato"): ["cherry tomatoes"], ingredient_id("cucumber"): ["cucumbers"]}


def test_token_positions_cover_the_word_and_nothing_else():
    tokenizer = tiny_stable_diffusion().tokenizer
    prompt = "rice: Tomato, feta"
    positions = token_positions(tokenizer, prompt, [(6, 12)])
    ids = tokenizer(prompt)["input_ids"]
    assert tokenizer.decode([ids[position] for position in positions]).strip() == "tomato"


def bump(row: float, column: float) -> np.ndarray:
    y, x = np.mgrid[:16, :16] / 15.0
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 0.03).astype(np.float32) + 0.01


def test_each_word_gets_the_place_where_it_is_hottest():
    mask = mask_from_heat({7: bump(0.25, 0.25), 9: 100 * bump(0.75, 0.75)}, 64, 64)
    assert mask[16, 16] == 7
    assert mask[48, 48] == 9
    assert mask[60, 4] == BACKGROUND
    assert set(np.unique(mask)) == {BACKGROUND, 7, 9, UNKNOWN}


def test_where_two_words_are_equally_hot_the_pixel_is_unknown():
    assert mask_from_heat({7: bump(0.5, 0.5), 9: bump(0.5, 0.5)}, 32, 32)[16, 16] == UNKNOWN


def test_a_word_that_looks_everywhere_tells_nothing():
    even = np.full((16, 16), 0.2, np.float32)
    assert set(np.unique(mask_from_heat({7: even}, 32, 32))) == {UNKNOWN}
    assert set(np.unique(mask_from_heat({}, 32, 32))) == {UNKNOWN}
    assert 7 not in mask_from_heat({7: even, 9: bump(0.5, 0.5)}, 32, 32)


def test_a_pipeline_without_cross_attention_is_refused():
    with pytest.raises(BadInputError, match="PlatingPipeline has no cross-attention"):
        AttentionMasks(PlatingPipeline())


def test_pixels_that_form_no_square_are_refused():
    masks = AttentionMasks(tiny_stable_diffusion())
    with masks.recording(["rice"]), pytest.raises(BadInputError, match="square pictures"):
        masks._add(0, {1: [1]}, torch.ones(math.prod((4, 8)), 77))
