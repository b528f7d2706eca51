"""Encoders against independent references: packed LSTMs, timm, transformers and a hand-written head."""

import pytest
import timm
import torch
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    CLIPVisionConfig,
    MobileNetV2Config,
    ResNetConfig,
    T5Config,
    TimmWrapperConfig,
)

from modeling_flavour import FlavourConfig, FlavourForClassification
from modeling_flavour.encoders_flavour import FlavourImageEncoder, grid_shape
from modeling_flavour.lstm_flavour import BidirectionalLSTM
from modeling_flavour.processing_flavour import FlavourProcessor, open_picture

from .contract import randomise
from .tiny import tiny_batch, tiny_bert, tiny_classifier, tiny_resnet, tiny_vit


def reference_lstm(ours: BidirectionalLSTM, size: int) -> nn.LSTM:
    """torch's own bidirectional LSTM with our weights."""
    hidden, layers = ours.forward_layers[0].hidden_size, len(ours.forward_layers)
    reference = nn.LSTM(size, hidden, layers, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for direction, suffix in ((ours.forward_layers, ""), (ours.backward_layers, "_reverse")):
            for number, layer in enumerate(direction):
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    getattr(reference, f"{name}_l{number}{suffix}").copy_(getattr(layer, name))
    return reference


def packed_states(reference: nn.LSTM, inputs, lengths):
    packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    outputs, (last, _) = reference(packed)
    return torch.cat([last[-2], last[-1]], dim=-1), nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)[0]


@pytest.mark.parametrize("left", [False, True])
def test_lstm_equals_torch_on_packed_sequences_wherever_the_padding_is(left):
    ours = BidirectionalLSTM(5, 4, num_layers=2, dropout=0.0)
    inputs, lengths = torch.randn(3, 7, 5), torch.tensor([7, 3, 1])
    mask = torch.arange(7)[None] < lengths[:, None]
    last, outputs = packed_states(reference_lstm(ours, 5), inputs, lengths)
    given = torch.where(mask[..., None], inputs, torch.tensor(1e3))  # padding that must not be seen
    if left:
        given, mask_given = given.flip(1), mask.flip(1)
        inputs_given = torch.stack([row.roll(int(n), 0) for row, n in zip(given.flip(1), 7 - lengths, strict=True)])
        given = inputs_given
    else:
        mask_given = mask
    pooled, states, states_mask = ours(given, mask_given)
    torch.testing.assert_close(pooled, last)
    assert torch.equal(states_mask, mask)
    torch.testing.assert_close(states[mask], outputs[mask])


def test_lstm_steps_of_a_captured_graph_equal_the_fused_kernel(monkeypatch):
    layer = BidirectionalLSTM(5, 4, num_layers=1, dropout=0.0)
    inputs, mask = torch.randn(3, 7, 5), torch.arange(7)[None] < torch.tensor([[7], [3], [1]])
    fused = layer(inputs, mask)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(layer(inputs, mask)[0], fused[0])


def test_early_fusion_equals_a_few_lines_of_torch():
    model = randomise(
        tiny_classifier(text_config=None, word_vocab_size=50, text_pooling="lstm", vision_config=tiny_resnet())
    ).eval()
    batch = tiny_batch(3)
    ids, mask, pixels = (batch[name] for name in ("input_ids", "attention_mask", "pixel_values"))
    vectors = nn.functional.embedding(ids, model.text_encoder.model.weight)
    text, _ = packed_states(reference_lstm(model.text_encoder.lstm, 300), vectors, mask.sum(1))
    image = model.image_encoder.model.timm_model(pixels)
    weights = dict(model.named_parameters())

    def dense(values, name, activation=True):
        values = values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
        return values.clamp_min(0) if activation else values

    text = dense(text, "text_dense.0")
    image = dense(dense(image, "image_dense.0"), "image_dense.3")
    expected = dense(dense(torch.cat([text, image], 1), "head.0"), "classifier", activation=False)
    logits = model(input_ids=ids, attention_mask=mask, pixel_values=pixels).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "vision",
    [
        tiny_resnet(),
        TimmWrapperConfig(architecture="test_vit"),
        TimmWrapperConfig(architecture="test_efficientnet"),
        tiny_vit(),
        MobileNetV2Config(depth_multiplier=0.35, image_size=64),
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        ),
    ],
    ids=lambda config: getattr(config, "architecture", None) or config.model_type,
)
def test_any_backbone_gives_pooled_features_and_places(vision):
    encoder = FlavourImageEncoder(FlavourConfig(vision_config=vision)).eval()
    side = 160 if getattr(vision, "architecture", "") == "test_vit" else getattr(vision, "image_size", None) or 64
    side = 64 if vision.model_type == "resnet" else side
    encoding = encoder(torch.randn(2, 3, side, side))
    assert encoding.pooled.shape == (2, encoder.pooled_size)
    assert encoding.tokens.shape[2] == encoder.token_size
    assert encoding.feature_map.flatten(2).shape[1:] == (encoder.token_size, encoding.tokens.shape[1])
    torch.testing.assert_close(encoding.feature_map.flatten(2).transpose(1, 2), encoding.tokens)


def test_timm_backbone_equals_timm():
    encoder = randomise(FlavourImageEncoder(FlavourConfig(vision_config=tiny_resnet()))).eval()
    reference = timm.create_model("test_resnet", num_classes=0).eval()
    reference.load_state_dict(encoder.model.timm_model.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder(pixels).pooled, reference(pixels))
    torch.testing.assert_close(encoder(pixels).feature_map, reference.forward_features(pixels))


def test_grid_of_places():
    assert grid_shape(12, (30, 40)) == (3, 4)
    with pytest.raises(ValueError, match="7 places form no grid"):
        grid_shape(7, (32, 32))


def test_encoder_decoder_is_refused():
    with pytest.raises(ValueError, match="encoder-decoder"):
        FlavourForClassification(FlavourConfig(text_config=T5Config(d_model=8, num_layers=1, num_heads=1, d_ff=8)))


def test_text_encoder_has_no_pooler_and_pretrained_weights_arrive(tmp_path):
    from transformers import BertModel

    pretrained = randomise(BertModel(tiny_bert()))
    pretrained.save_pretrained(tmp_path / "bert")
    model = FlavourForClassification.from_parts(text=str(tmp_path / "bert"), text_dense_sizes=[8])
    assert not any("pooler" in name for name, _ in model.named_parameters())
    for name, value in model.text_encoder.model.state_dict().items():
        assert torch.equal(value, pretrained.state_dict()[name]), name


def test_image_backbone_of_another_checkpoint_starts_this_one_or_says_what_is_wrong(tmp_path):
    donor = randomise(tiny_classifier(vision_config=tiny_resnet()))
    donor.save_pretrained(tmp_path / "donor")
    model = FlavourForClassification.from_parts(image=str(tmp_path / "donor"), image_dense_sizes=[8])
    for name, value in donor.image_encoder.state_dict().items():
        assert torch.equal(value, model.image_encoder.state_dict()[name]), name
    warm = tiny_classifier(vision_config=tiny_resnet())
    warm.load_image_encoder(str(tmp_path / "donor"))
    for name, value in donor.image_encoder.state_dict().items():
        assert torch.equal(value, warm.image_encoder.state_dict()[name]), name
    with pytest.raises(ValueError, match=r"do not fit this ViTModel\. missing: .*cls_token.*unexpected: timm_model"):
        tiny_classifier().load_image_encoder(str(tmp_path / "donor"))
    tiny_classifier(vision_config=None).save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match="has no image part"):
        warm.load_image_encoder(str(tmp_path / "text"))


def test_word_vectors_arrive():
    vectors = torch.randn(20, 6).numpy()
    model = FlavourForClassification.from_parts(word_vectors=vectors, text_pooling="lstm", freeze_text=True)
    assert torch.equal(model.text_encoder.model.weight, torch.as_tensor(vectors))
    assert not model.text_encoder.model.weight.requires_grad


def test_real_mobilenet_weights_see_what_they_saw(shared_models, shared_data):
    folder = shared_models / "mobilenet_v2_1.0_224"
    # "A big airplane flying in the big blue sky", says its caption.
    photograph = open_picture(shared_data / "comp5329_sample" / "data" / "6.jpg")
    reference = AutoModelForImageClassification.from_pretrained(folder).eval()
    expected_pixels = AutoImageProcessor.from_pretrained(folder)(images=photograph, return_tensors="pt")
    processor = FlavourProcessor.from_parts(image=str(folder))
    pixels = processor(images=photograph)
    torch.testing.assert_close(pixels["pixel_values"], expected_pixels["pixel_values"])
    model = FlavourForClassification.from_parts(
        image=str(folder),
        image_dense_sizes=[],
        head_dense_sizes=[],
        id2label=reference.config.id2label,
        label2id=reference.config.label2id,
    ).eval()
    model.classifier.load_state_dict(reference.classifier.state_dict())
    with torch.no_grad():
        expected, logits = reference(**expected_pixels).logits, model(**pixels).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert model.config.id2label[logits.argmax().item()] == "airliner"
