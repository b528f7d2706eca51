"""The captioners: the contract, shifted targets, decoding with and without a cache, the merge, the pipeline."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoModelForImageTextToText, BertConfig, pipeline

from modeling_flavour.captioning_encoder_flavour import VisualEncoding
from modeling_flavour.captioning_pipeline_flavour import CaptioningPipeline, as_sentence
from modeling_flavour.configuration_flavour_captioning import FlavourCaptionerConfig
from modeling_flavour.decoding_flavour import grid_positions
from modeling_flavour.modeling_flavour_captioning import (
    FlavourForMergeCaptioning,
    FlavourForTransformerCaptioning,
    captioning_loss,
    place_loss,
    shift_right,
)
from tests.modeling_flavour.contract import ModelContract, randomise
from tests.modeling_flavour.family import caption_processor as tiny_processor
from tests.modeling_flavour.tiny import caption_batch, tiny_captioner, tiny_resnet

CLASSES = (FlavourForTransformerCaptioning, FlavourForMergeCaptioning)


class CaptionerContract(ModelContract):
    head_weight = "lm_head.weight"
    wrong_fields = (
        ("vocab_size", 0),
        ("hidden_size", "16"),
        ("decoder_type", "rnn"),
        ("dropout", 1.0),
        ("eos_token_id", 400),
        ("trainable_image_layers", 1),
    )
    captioner = FlavourForTransformerCaptioning
    fields = {}
    overfit_steps = 100
    overfit_rate = 1e-2

    def build(self, **overrides):
        return tiny_captioner(self.captioner, **{**self.fields, **overrides})

    def batch(self, size=4, seed=0):
        return caption_batch(size, seed)

    def test_padding_changes_nothing(self):
        model = randomise(self.build()).eval()
        batch = self.batch(4)
        longer = torch.cat([batch["labels"], torch.full((4, 5), -100)], dim=1)
        short, long = model(**batch), model(**{**batch, "labels": longer})
        torch.testing.assert_close(long.loss, short.loss)
        torch.testing.assert_close(long.logits[:, :8], short.logits, rtol=1e-4, atol=1e-5)


class TestTransformerCaptioner(CaptionerContract):
    tests_attention = True


class TestFrozenTransformerCaptionerWithTiedWords(CaptionerContract):
    tests_attention = True
    fields = {"vision_config": tiny_resnet(), "freeze_image": True, "tie_word_embeddings": True}
    head_weight = "decoder.norm.weight"
    wrong_fields = ()


class TestMergeCaptioner(CaptionerContract):
    captioner = FlavourForMergeCaptioning


@pytest.fixture(params=CLASSES, ids=("transformer", "merge"))
def captioner(request):
    return randomise(tiny_captioner(request.param)).eval()


@pytest.fixture(scope="module")
def pictures():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def test_the_target_is_the_next_word_and_never_the_input():
    labels = torch.stack([torch.arange(number, number + 8) for number in (4, 14, 24)])
    labels[1, 6:] = -100
    read = shift_right(labels, start=2, padding=0)
    assert (read[:, 0] == 2).all()
    assert torch.equal(read[:, 1:], labels[:, :-1].masked_fill(labels[:, :-1] == -100, 0))
    assert not (read == labels)[labels != -100].any()


def test_a_word_does_not_see_the_words_after_it(captioner, pictures):
    words = torch.randint(4, 40, (3, 8), generator=torch.Generator().manual_seed(1))
    changed = words.clone()
    changed[:, 5:] = (changed[:, 5:] + 7) % 36 + 4
    with torch.no_grad():
        before = captioner(pictures, decoder_input_ids=words).logits
        after = captioner(pictures, decoder_input_ids=changed).logits
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert (after[:, 5:] - before[:, 5:]).abs().max() > 1e-3


def test_loss_leaves_padding_out_and_divides_by_the_words_of_the_step():
    logits, labels = torch.randn(2, 4, 9), torch.tensor([[1, 2, 3, -100], [4, -100, -100, -100]])
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten().clamp(min=0), reduction="none")
    real = each[labels.flatten() != -100]
    torch.testing.assert_close(captioning_loss(logits, labels, 0.0, None), real.mean())
    torch.testing.assert_close(captioning_loss(logits, labels, 0.0, 10), real.sum() / 10)


def test_masks_teach_what_lies_at_each_place():
    mask = torch.zeros(2, 16, 24, dtype=torch.long)
    mask[:, :8, 16:] = 5
    mask[:, 8:, :8] = -100
    logits = torch.zeros(2, 6, 9)
    logits[:, :, 0] = 50.0
    logits[:, 2] = 50.0 * torch.nn.functional.one_hot(torch.tensor(5), 9)
    assert place_loss(logits, mask) < 1e-6
    assert place_loss(logits.flip(1), mask) > 5


@pytest.mark.parametrize("captioner", [FlavourForTransformerCaptioning, FlavourForMergeCaptioning])
def test_what_the_masks_taught_makes_its_words_likelier(captioner):
    model = randomise(tiny_captioner(captioner, num_place_labels=9, vision_config=tiny_resnet()))
    batch = caption_batch()
    places = torch.randint(0, 9, (4, 32, 32), generator=torch.Generator().manual_seed(6))
    plain, both = model.eval()(**batch).loss, model(**batch, place_masks=places).loss
    assert both > plain
    count = int((batch["labels"] != -100).sum())
    shared = model(**batch, place_masks=places, num_items_in_batch=2 * count).loss
    torch.testing.assert_close(shared, both / 2)
    both.backward()
    assert model.image_encoder.place_head.weight.grad.abs().sum() > 0
    assert model.seen_words.words.weight.grad.abs().sum() > 0
    pictures = batch["pixel_values"]
    torch.testing.assert_close(
        model.generate(pictures, num_beams=3, max_new_tokens=6),
        model.generate(pictures, num_beams=3, max_new_tokens=6, use_cache=False),
    )
    model.seen_words.name([[], [5, 7], *[[]] * 7])
    seen = model.image_encoder(pictures)
    sure = VisualEncoding(seen.last_hidden_state, found=torch.zeros(4, 2, 9))
    words = torch.tensor([[2, 5, 9], [2, 9, 9], [2, 9, 7], [2, 7, 5]])
    before = model(encoder_outputs=sure, decoder_input_ids=words, use_cache=False).logits
    sure.found[:, 0, 1] = 1.0
    after = model(encoder_outputs=sure, decoder_input_ids=words, use_cache=False).logits
    raised = torch.zeros_like(before)
    raised[..., [5, 7]] = 1.0
    # What was said is not to be said again.
    raised[0, 1:, 5] = raised[2, 2, 7] = raised[3, 1:, 7] = raised[3, 2, 5] = 0.0
    torch.testing.assert_close(after - before, raised, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="pass on its output as it is"):
        model(encoder_outputs=(seen.last_hidden_state,), labels=batch["labels"])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_beams": 4},
        {"num_beams": 3, "length_penalty": 2.0, "no_repeat_ngram_size": 2, "min_length": 6},
        {"num_beams": 3, "num_return_sequences": 3, "length_penalty": -1.0},
    ],
)
def test_cached_decoding_equals_uncached(captioner, pictures, settings):
    cached, plain = (
        captioner.generate(pictures, max_new_tokens=12, use_cache=use_cache, **settings) for use_cache in (True, False)
    )
    assert torch.equal(cached, plain)
    assert (cached[:, 0] == captioner.config.bos_token_id).all()


def test_greedy_search_follows_the_teacher_forced_logits(captioner, pictures):
    found = captioner.generate(pictures, max_new_tokens=8, use_cache=True)
    with torch.no_grad():
        logits = captioner(pictures, decoder_input_ids=found[:, :-1]).logits
    ended = (found[:, :-1] == captioner.config.eos_token_id).cumsum(1) > 0
    assert torch.equal(logits.argmax(-1)[~ended], found[:, 1:][~ended])


def test_teacher_forced_logits_equal_step_by_step(captioner, pictures):
    words = torch.randint(4, 40, (3, 7), generator=torch.Generator().manual_seed(2))
    state, steps = None, []
    with torch.no_grad():
        whole = captioner(pictures, decoder_input_ids=words).logits
        for step in range(words.shape[1]):
            output = captioner(
                pictures, decoder_input_ids=words[:, step : step + 1], past_key_values=state, use_cache=True
            )
            state = output.past_key_values
            steps.append(output.logits)
    assert state.get_seq_length() == 7
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_sampling_varies_and_follows_its_seed(captioner, pictures):
    def draw(seed):
        torch.manual_seed(seed)
        return captioner.generate(pictures, do_sample=True, max_new_tokens=10, min_new_tokens=10)

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_one_encoding_serves_many_calls(captioner, pictures):
    with torch.no_grad():
        encoded = captioner.get_encoder()(pictures)
        words = torch.tensor([[2, 5], [2, 6], [2, 7]])
        once = captioner(encoder_outputs=encoded, decoder_input_ids=words).logits
        torch.testing.assert_close(once, captioner(pictures, decoder_input_ids=words).logits)
    assert torch.equal(
        captioner.generate(encoder_outputs=encoded.of(), max_new_tokens=6),
        captioner.generate(pictures, max_new_tokens=6),
    )


def test_the_language_side_of_the_merge_model_never_sees_the_picture(pictures):
    model = randomise(tiny_captioner(FlavourForMergeCaptioning)).eval()
    words = torch.randint(4, 40, (3, 6), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        one = model(pictures, decoder_input_ids=words, output_hidden_states=True)
        other = model(pictures.flip(0), decoder_input_ids=words, output_hidden_states=True)
    assert torch.equal(one.decoder_hidden_states[1], other.decoder_hidden_states[1])
    assert (one.logits - other.logits).abs().max() > 1e-3


def test_merge_model_equals_its_formula(pictures):
    model = randomise(tiny_captioner(FlavourForMergeCaptioning)).eval()
    words = torch.randint(4, 40, (3, 6), generator=torch.Generator().manual_seed(4))
    lstm = torch.nn.LSTM(16, 16, batch_first=True)
    ours = model.decoder.lstm
    lstm.load_state_dict({f"{name}_l0": value for name, value in ours.state_dict().items()})
    with torch.no_grad():
        pooled = model.image_encoder.model(pictures).last_hidden_state[:, 0]
        picture = model.image_encoder.projection(pooled).relu()
        language = lstm(model.decoder.words(words))[0]
        expected = model.lm_head(model.decoder.dense(picture[:, None] + language).relu())
        torch.testing.assert_close(model(pictures, decoder_input_ids=words).logits, expected)


def test_attention_weights_are_returned_and_change_nothing(pictures):
    model = randomise(tiny_captioner(FlavourForTransformerCaptioning)).eval()
    words = torch.randint(4, 40, (3, 6), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        plain = model(pictures, decoder_input_ids=words)
        output = model(pictures, decoder_input_ids=words, output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(output.logits, plain.logits, rtol=1e-4, atol=1e-5)
    places = output.encoder_last_hidden_state.shape[1]
    assert [tuple(each.shape) for each in output.cross_attentions] == [(3, 2, 6, places)] * 2
    torch.testing.assert_close(output.cross_attentions[0].sum(-1), torch.ones(3, 2, 6))
    assert output.decoder_attentions[0].triu(1).abs().max() == 0
    assert len(output.decoder_hidden_states) == 3


def test_places_tell_left_from_right_at_any_size():
    fine, coarse = (grid_positions(side, side, 16, torch.zeros(1)).unflatten(0, (side, side)) for side in (6, 3))
    assert (fine[0, 0] - fine[0, 5]).abs().max() > 0.1
    assert not torch.allclose(fine[0, 5], fine[5, 0])
    torch.testing.assert_close(coarse[1, 1], (grid_positions(1, 1, 16, torch.zeros(1)))[0])


def test_class_and_config_must_agree():
    config = FlavourCaptionerConfig(vision_config=tiny_resnet(), decoder_type="merge")
    with pytest.raises(ValueError, match="needs a config with decoder_type='transformer', got 'merge'"):
        FlavourForTransformerCaptioning(config)
    with pytest.raises(ValueError, match="needs a vision_config"):
        FlavourForMergeCaptioning(FlavourCaptionerConfig(decoder_type="merge"))
    with pytest.raises(Exception, match="pad_token_id and eos_token_id are both 3"):
        FlavourCaptionerConfig(pad_token_id=3)
    with pytest.raises(ValueError, match="an encoder-decoder"):
        FlavourForMergeCaptioning.from_parts(image=BertConfig(is_encoder_decoder=True))


def test_wrong_calls_are_named(captioner, pictures):
    with pytest.raises(ValueError, match="Give pixel_values, image_features, or encoder_outputs"):
        captioner(decoder_input_ids=torch.tensor([[2]]))
    with pytest.raises(ValueError, match="Give labels to learn from"):
        captioner(pictures)


def test_too_long_a_caption_is_named(pictures):
    model = tiny_captioner(FlavourForTransformerCaptioning, max_position_embeddings=4)
    with pytest.raises(ValueError, match="The caption has 5 tokens, but the model knows 4 positions"):
        model(pictures, decoder_input_ids=torch.ones(3, 5, dtype=torch.long))


def test_decodes_in_half_precision(captioner, pictures):
    found = captioner.to(torch.bfloat16).generate(pictures.bfloat16(), max_new_tokens=4, num_beams=2)
    assert found.shape[0] == 3


def test_auto_classes_find_the_class_of_a_checkpoint(captioner, tmp_path):
    captioner.save_pretrained(tmp_path)
    for auto_class in (AutoModel, AutoModelForImageTextToText):
        assert type(auto_class.from_pretrained(tmp_path)) is type(captioner)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["auto_map"]["AutoModelForImageTextToText"] == f"modeling_flavour_captioning.{type(captioner).__name__}"
    assert "flavour-captioning" in saved["custom_pipelines"]


@pytest.fixture(scope="module")
def saved_captioner(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioner")
    processor = tiny_processor()
    ids = {"vocab_size": len(processor.tokenizer), "eos_token_id": processor.tokenizer.eos_token_id}
    model = randomise(tiny_captioner(FlavourForTransformerCaptioning, **ids))
    model.generation_config.update(suppress_tokens=[0, 1, 2], max_new_tokens=10)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_pipeline_takes_any_picture_and_writes_sentences(saved_captioner, tmp_path):
    captioner = pipeline("flavour-captioning", model=str(saved_captioner), trust_remote_code=True)
    assert type(captioner).__name__ == CaptioningPipeline.__name__
    array = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    picture = Image.fromarray(array)
    picture.save(tmp_path / "plate.png")
    stream = io.BytesIO()
    picture.convert("L").save(stream, format="JPEG")
    one = captioner(str(tmp_path / "plate.png"))
    assert one == captioner(picture) == captioner(array)
    assert set(one[0]) == {"generated_text", "score", "log_probability"}
    assert 0 < one[0]["score"] <= 1
    text = one[0]["generated_text"]
    assert text == as_sentence(text)
    assert "[" not in text
    many = captioner([picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)], batch_size=2, top_k=3)
    assert [len(each) for each in many] == [3, 3]
    assert len({each["generated_text"] for each in many[0]}) == 3
    assert captioner(picture, num_beams=2, length_penalty=1.0, max_new_tokens=3)
    short = captioner(picture, max_new_tokens=3)
    assert short != one
    assert captioner(picture, generate_kwargs={"max_new_tokens": 3}, return_dict_in_generate=True) == short
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        captioner(picture, top_k=0)
