"""Features of the backbones as inputs: the same answers, losses and gradients as from pictures and texts."""

import pytest
import torch

from modeling_flavour import FlavourForMergeCaptioning, FlavourForTransformerCaptioning

from .contract import randomise
from .family import FAMILY
from .tiny import (
    MASK_CLASSES,
    caption_batch,
    mask_batch,
    tiny_batch,
    tiny_captioner,
    tiny_classifier,
    tiny_segmenter,
    tiny_vit,
)

PLACES = {"num_place_labels": MASK_CLASSES, "text_pooling": "mean"}
# Beside the family's main members, models that read their backbones in another way.
OTHERS = {
    "one vector each": (lambda: tiny_classifier(text_pooling="mean", fusion="gated"), tiny_batch),
    "first token": (lambda: tiny_classifier(text_pooling="cls", fusion="late"), tiny_batch),
    "pooled places": (lambda: tiny_classifier(**PLACES, image_pooling="places"), tiny_batch),
    "map and vector": (lambda: tiny_classifier(**PLACES), tiny_batch),
    "merge with places": (lambda: tiny_captioner(FlavourForMergeCaptioning, num_place_labels=9), caption_batch),
    "early stages": (
        lambda: tiny_segmenter(head="deeplabv3plus", auxiliary_head=True, ingredient_head=True),
        mask_batch,
    ),
}
MEMBERS = {**{name: (member.build, member.batch) for name, member in FAMILY.items()}, **OTHERS}


def with_features(model, batch):
    """The batch with features in place of pictures and texts."""
    batch = dict(batch)
    if "pixel_values" in batch:
        batch["image_features"] = model.encode_image(batch.pop("pixel_values"))
    if "input_ids" in batch:
        batch["text_features"] = model.encode_text(batch.pop("input_ids"), batch["attention_mask"])
    return batch


def head_gradients(model, batch):
    """The loss of a batch, and the gradients of all parameters outside the backbones."""
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    heads = {name: value for name, value in model.named_parameters() if "_encoder.model." not in name}
    return loss.detach(), {name: value.grad.clone() for name, value in heads.items() if value.grad is not None}


@pytest.mark.parametrize("name", MEMBERS)
def test_features_give_the_answers_losses_and_gradients_of_their_inputs(name):
    build, batch_of = MEMBERS[name]
    model, batch = randomise(build()).eval(), batch_of(4)
    with torch.no_grad():
        given = with_features(model, batch)
    assert not {"pixel_values", "input_ids"} & given.keys()
    loss, gradients = head_gradients(model, batch)
    loss_of_features, gradients_of_features = head_gradients(model, given)
    assert torch.equal(loss_of_features, loss)
    assert gradients.keys() == gradients_of_features.keys()
    assert any(value.abs().max() > 0 for value in gradients.values())
    for parameter, value in gradients.items():
        torch.testing.assert_close(gradients_of_features[parameter], value, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        expected, found = model(**batch), model(**given)
    for field in ("logits", "ingredient_logits"):
        if expected.get(field) is not None:
            assert torch.equal(found[field], expected[field])
    shuffled = {key: value.roll(1, 0) for key, value in batch.items() if key in ("pixel_values", "input_ids")}
    with torch.no_grad():
        other = model(**{**given, **with_features(model, {**batch, **shuffled})})
    assert not torch.equal(other.loss, expected.loss), "the features must matter"


@pytest.mark.parametrize(
    ("fields", "text", "image"),
    [
        ({"text_pooling": "mean"}, (4, 16), (4, 16)),
        ({"text_pooling": "lstm"}, (4, 8, 16), (4, 16)),
        ({"text_pooling": "mean", "fusion": "cross_attention"}, (4, 8, 16), (4, 16, 4, 4)),
    ],
)
def test_features_have_the_documented_shapes_and_dtype(fields, text, image):
    model, batch = tiny_classifier(**fields).eval(), tiny_batch()
    features = model.encode_text(batch["input_ids"], batch["attention_mask"]), model.encode_image(batch["pixel_values"])
    assert [each.shape for each in features] == [text, image]
    assert {each.dtype for each in features} == {torch.float32}


def test_a_model_that_reads_several_outputs_gets_all_of_them():
    model = tiny_segmenter(head="deeplabv3plus", auxiliary_head=True, ingredient_head=True)
    early, late, last, vector = model.encode_image(torch.randn(2, 3, 32, 32))
    assert early.shape[-2:] == (8, 8)
    assert last.shape == (2, model.image_encoder.token_size, 4, 4)
    assert late.shape[1] == model.stages[-2][0]
    assert vector.shape == (2, model.image_encoder.pooled_size)
    with pytest.raises(ValueError, match=r"image_features must have shape \(batch, channels, height, width\) and"):
        model(image_features=(early, last, vector))


def test_an_input_and_its_features_are_refused_together():
    model, batch = tiny_classifier(text_pooling="mean").eval(), tiny_batch()
    given = with_features(model, batch)
    with pytest.raises(ValueError, match="Got pixel_values and image_features, which stand for the same input"):
        model(**given, pixel_values=batch["pixel_values"])
    with pytest.raises(ValueError, match="Got input_ids and text_features, which stand for the same input"):
        model(**given, input_ids=batch["input_ids"])
    for other in (tiny_segmenter(), tiny_captioner(FlavourForTransformerCaptioning)):
        pictures, features = batch["pixel_values"], other.encode_image(batch["pixel_values"])
        with pytest.raises(ValueError, match="Got pixel_values and image_features"):
            other(pixel_values=pictures, image_features=features, labels=torch.zeros(4, 8, dtype=torch.long))
    with pytest.raises(ValueError, match="Got pixel_values and image_features"):
        other.generate(pixel_values=pictures, image_features=features)


def test_features_of_another_model_or_part_are_refused():
    model, batch = tiny_classifier(text_pooling="mean").eval(), tiny_batch()
    with pytest.raises(ValueError, match=r"image_features must have shape \(batch, 16\), got \(4, 7\): give what"):
        model(image_features=torch.zeros(4, 7))
    with pytest.raises(ValueError, match=r"image_features must have shape \(batch, 16\), got \(4, 3, 32, 32\)"):
        model(image_features=batch["pixel_values"])
    with pytest.raises(ValueError, match=r"text_features must have shape \(batch, 16\), got \(4, 7\): give what"):
        model(text_features=torch.zeros(4, 7))
    with pytest.raises(ValueError, match=r"text_features must have shape \(batch, length, 16\), got \(4, 16\)"):
        tiny_classifier(text_pooling="lstm")(text_features=torch.zeros(4, 16))
    text_only, image_only = tiny_classifier(vision_config=None), tiny_classifier(text_config=None)
    with pytest.raises(ValueError, match="reads text only, but got image_features"):
        text_only(image_features=torch.zeros(4, 16))
    with pytest.raises(ValueError, match="reads text only, so it cannot encode pictures: use encode_text"):
        text_only.encode_image(batch["pixel_values"])
    with pytest.raises(ValueError, match="sees pictures only, but got text_features"):
        image_only(text_features=torch.zeros(4, 16))
    with pytest.raises(ValueError, match="sees pictures only, so it cannot encode texts: use encode_image"):
        image_only.encode_text(batch["input_ids"])


@pytest.mark.parametrize("captioner", [FlavourForTransformerCaptioning, FlavourForMergeCaptioning])
@pytest.mark.parametrize("beams", [1, 3])
def test_captions_are_written_from_features(captioner, beams):
    model = randomise(tiny_captioner(captioner, num_place_labels=9)).eval()
    pictures = caption_batch()["pixel_values"]
    features, settings = model.encode_image(pictures), {"num_beams": beams, "max_new_tokens": 6}
    assert torch.equal(
        model.generate(image_features=features, **settings), model.generate(pixel_values=pictures, **settings)
    )


def test_masks_from_features_have_the_size_of_the_picture():
    model = randomise(tiny_segmenter()).eval()
    pictures = torch.randn(2, 3, 30, 42)
    with torch.no_grad():
        features = model.encode_image(pictures)
        # The backbone rounds up: without the size of the pictures, the masks cover the whole map.
        assert model(image_features=features).logits.shape[-2:] == (32, 48)
        found = model(image_features=features, picture_size=(30, 42)).logits
        assert torch.equal(found, model(pictures).logits)
    no_stages = tiny_segmenter(vision_config=tiny_vit())
    with pytest.raises(ValueError, match="stride of this backbone is unknown: give picture_size"):
        no_stages(image_features=no_stages.encode_image(torch.randn(1, 3, 32, 32)))


def test_the_merge_captioner_refuses_a_mask_that_its_lstm_would_ignore():
    model = tiny_captioner(FlavourForMergeCaptioning)
    with pytest.raises(ValueError, match="Got decoder_attention_mask, but an LSTM reads every word"):
        model(**caption_batch(), decoder_attention_mask=torch.ones(4, 8))
