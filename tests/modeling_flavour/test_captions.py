"""Captions as users of transformers ask for them: labels of a tokenizer, scores of beams, beginnings, errors."""

import pytest
import torch
from PIL import Image
from transformers import Trainer, TrainingArguments

from modeling_flavour.captioning_pipeline_flavour import CaptioningPipeline, sequence_log_probabilities
from modeling_flavour.losses_flavour import shift_right, without_begin

from .contract import Samples
from .family import FAMILY
from .tiny import caption_batch, tiny_resnet, tiny_vit

CAPTIONERS = ["captioner-transformer", "captioner-merge"]


def with_begin(labels):
    """Captions as a tokenizer gives them, with the begin token in front; one row stays without."""
    begun = torch.cat([labels.new_full((len(labels), 1), 2), labels], dim=1)
    begun[-1] = torch.cat([labels[-1], labels.new_full((1,), -100)])
    return begun


@pytest.mark.parametrize("name", CAPTIONERS)
def test_a_begin_token_in_front_of_labels_is_not_learned(name):
    model, batch = FAMILY[name].build().eval(), caption_batch()
    begun = with_begin(batch["labels"])
    with torch.no_grad():
        expected = model(**batch)
        found = model(batch["pixel_values"], labels=begun)
        torch.testing.assert_close(found.loss, expected.loss)
        torch.testing.assert_close(found.logits[:, :-1], expected.logits)
        # Decoder inputs that a collator made of such labels, by the model's own function and by a plain shift.
        own = model.prepare_decoder_input_ids_from_labels(begun)
        plain = shift_right(begun, 2, 0)
        for ids in (own, plain):
            torch.testing.assert_close(
                model(batch["pixel_values"], labels=begun, decoder_input_ids=ids).loss, expected.loss
            )


@pytest.mark.parametrize("name", CAPTIONERS)
@torch.no_grad()
def test_labels_padded_on_the_left_teach_the_same_captions(name):
    model, batch = FAMILY[name].build().eval(), caption_batch()
    expected = model(**batch).loss
    for labels in (batch["labels"], with_begin(batch["labels"])):
        lengths = (labels != -100).sum(1)
        left = torch.stack([row.roll(len(row) - int(length)) for row, length in zip(labels, lengths, strict=True)])
        assert (left[:, 0] == -100).any()
        own = model.prepare_decoder_input_ids_from_labels(left)
        for more in ({}, {"decoder_input_ids": own}):
            torch.testing.assert_close(model(batch["pixel_values"], labels=left, **more).loss, expected)
    # Words in front that the decoder is given and that are not learned stay where they are.
    words = batch["labels"].clamp(min=0)
    masked = batch["labels"].clone()
    masked[:, :2] = -100
    output = model(batch["pixel_values"], labels=masked, decoder_input_ids=shift_right(words, 2, 0))
    torch.testing.assert_close(output.logits, model(batch["pixel_values"], labels=words).logits)


def test_an_empty_caption_is_no_begin_token():
    ids = torch.tensor([[3, -100, -100], [3, 7, 3]])
    assert without_begin(ids, 3, 3, -100).tolist() == [[3, -100, -100], [7, 3, -100]]


def log_probability(model, pixels, tokens):
    """The sum over a caption that stands alone."""
    with torch.no_grad():
        logits = model(pixels, decoder_input_ids=torch.tensor([[2, *tokens[:-1]]])).logits.log_softmax(-1)
    return sum(logits[0, place, token].item() for place, token in enumerate(tokens))


@pytest.mark.parametrize("name", CAPTIONERS)
def test_the_score_is_that_of_the_captions_own_tokens_whatever_stands_beside_it(name, tmp_path):
    """Beams are filled up with end tokens where the padding id is 0."""
    model, processor = FAMILY[name].build().eval(), FAMILY[name].processor()
    model.config.eos_token_id = model.generation_config.eos_token_id = 3
    pixels = caption_batch(1)["pixel_values"]
    beams = model.generate(pixels, num_beams=4, num_return_sequences=4, max_new_tokens=9, length_penalty=0.0)
    sums, numbers = sequence_log_probabilities(model, pixels, beams)
    for row, total, number in zip(beams, sums, numbers, strict=True):
        own = row[1:].tolist()
        own = own[: own.index(3) + 1] if 3 in own else own
        assert total.item() == pytest.approx(log_probability(model, pixels, own), abs=1e-4)
        assert number == len(own)
        ended = [token for token in own if token != 3] + [3]
        for padding in ([3] * 4, [0] * 4):
            again, count = sequence_log_probabilities(model, pixels, torch.tensor([[2, *ended, *padding]]))
            assert again.item() == pytest.approx(log_probability(model, pixels, ended), abs=1e-4)
            assert count.item() == len(ended)
    pipe = CaptioningPipeline(model, processor=processor)
    answer = pipe(Image.new("RGB", (32, 32)), top_k=2, max_new_tokens=6)
    assert {"generated_text", "score", "log_probability"} == answer[0].keys()
    assert all(0 < each["score"] <= 1 and each["log_probability"] <= 0 for each in answer)


@pytest.mark.parametrize("name", CAPTIONERS)
@pytest.mark.parametrize("beams", [1, 3])
def test_captions_go_on_from_a_beginning(name, beams):
    model, processor = FAMILY[name].build().eval(), FAMILY[name].processor()
    model.generation_config.suppress_tokens = [0, 1, 2]
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green")]
    inputs = processor(images=pictures, text=["a plate of"] * 2)
    written = model.generate(**inputs, num_beams=beams, max_new_tokens=5)
    begun = processor.tokenizer("a plate of", add_special_tokens=False)["input_ids"]
    assert written[:, : len(begun) + 1].tolist() == [[2, *begun]] * 2
    assert written.shape[1] > len(begun) + 1
    # As without a cache, word by word.
    plain = model.generate(**inputs, num_beams=beams, max_new_tokens=5, use_cache=False)
    assert torch.equal(written, plain)
    # The usual length leaves room for the beginning.
    model.generation_config.max_new_tokens = 31
    assert model.generate(**inputs).shape[1] <= 36


def test_beginnings_may_differ_in_length_for_a_transformer_and_not_for_an_lstm():
    processor = FAMILY["captioner-transformer"].processor()
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green")]
    inputs = processor(images=pictures, text=["a plate of rice", None])
    model = FAMILY["captioner-transformer"].build().eval()
    written = model.generate(**inputs, max_new_tokens=4)
    alone = model.generate(**processor(images=pictures[1]), max_new_tokens=4)
    assert written[1, -alone.shape[1] :].tolist() == alone[0].tolist()
    with pytest.raises(ValueError, match="an LSTM knows no padding before them"):
        FAMILY["captioner-merge"].build().generate(**inputs)


@pytest.mark.parametrize("name", CAPTIONERS)
def test_what_cannot_be_captioned_is_said_in_one_line(name, tmp_path):
    model, batch = FAMILY[name].build(), caption_batch()
    with pytest.raises(ValueError, match="a caption is written to a picture"):
        model.generate(max_new_tokens=3)
    settings = TrainingArguments(
        str(tmp_path), use_cpu=True, label_smoothing_factor=0.1, max_steps=1, disable_tqdm=True, report_to=[],
        remove_unused_columns=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="A Trainer with label_smoothing_factor takes the labels away"):
        Trainer(model, settings, train_dataset=Samples(batch)).train()
    smoothed = {**batch, "decoder_input_ids": model.prepare_decoder_input_ids_from_labels(batch["labels"])}
    Trainer(model, settings, train_dataset=Samples(smoothed)).train()


@pytest.mark.parametrize("name", CAPTIONERS)
@pytest.mark.parametrize("vision", [tiny_vit(), tiny_resnet()], ids=["vit", "resnet"])
def test_generation_takes_output_attentions(name, vision):
    model, pixels = FAMILY[name].build(vision_config=vision).eval(), caption_batch(2)["pixel_values"]
    for beams in (1, 2):
        output = model.generate(
            pixels, output_attentions=True, return_dict_in_generate=True, max_new_tokens=3, num_beams=beams
        )
        assert output.sequences.shape[0] == 2
