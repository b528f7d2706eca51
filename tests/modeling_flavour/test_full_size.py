"""The classification recipes at full size: parameter counts by formula, and one training step, built for real."""

from itertools import pairwise

import pytest
import torch
from transformers import BertConfig, TimmWrapperConfig

from modeling_flavour import FlavourConfig, FlavourForClassification

from .tiny import tiny_bert, tiny_resnet

BERT_BASE = 108_891_648  # embeddings 23,837,184 and 12 layers of 7,087,872, without the pooler
INCEPTION_RESNET_V2 = 54_306_464  # timm's, without its classifier
EFFICIENTNET_B4 = 17_548_616


def dense(*sizes: int) -> int:
    return sum(size_in * size_out + size_out for size_in, size_out in pairwise(sizes))


def bilstm(size: int, hidden: int, layers: int) -> int:
    """Two directions, each four gates of input weights, recurrent weights and torch's two biases."""
    inputs = [size] + [2 * hidden] * (layers - 1)
    return sum(2 * 4 * hidden * (one + hidden + 2) for one in inputs)


def flavour_fusion(text, vision, **sizes) -> FlavourConfig:
    """System 0: frozen text model, two BiLSTM layers of 64, early fusion with a pooled picture."""
    return FlavourConfig(
        text_config=text,
        vision_config=vision,
        text_pooling="lstm",
        lstm_hidden_size=64,
        lstm_layers=2,
        text_dense_sizes=[256],
        image_dense_sizes=[1024, 512],
        head_dense_sizes=[128, 64],
        fusion="early",
        dropout=0.5,
        freeze_text=True,
        freeze_image=True,
        trainable_image_layers=4,
    )


def multi_label(vision, words: int) -> FlavourConfig:
    """System 1: word vectors with one BiLSTM of 300, backbone with dropout and a linear layer, scores combined."""
    return FlavourConfig(
        word_vocab_size=words,
        word_embedding_size=300,
        vision_config=vision,
        text_pooling="lstm",
        lstm_hidden_size=300,
        lstm_layers=1,
        text_dense_sizes=[],
        image_dense_sizes=[],
        head_dense_sizes=[],
        fusion="late",
        dropout=0.5,
        num_labels=18,
        problem_type="multi_label_classification",
    )


def train_one_step(model, side: int, words: int, labels) -> None:
    model.train()
    batch = {"input_ids": torch.randint(1, words, (2, 40)), "pixel_values": torch.randn(2, 3, side, side)}
    loss = model(**batch, labels=labels).loss
    loss.backward()
    assert loss.isfinite()
    for name, value in model.named_parameters():
        assert (value.grad is not None) == value.requires_grad, name


def flavour_fusion_size(text: int, hidden: int, vision: int, features: int) -> int:
    stand_ins = 256 + 512
    head = dense(256 + 512, 128, 64, 5)
    return text + bilstm(hidden, 64, 2) + dense(128, 256) + vision + dense(features, 1024, 512) + stand_ins + head


def multi_label_size(words: int, vision: int, features: int) -> int:
    return words * 300 + bilstm(300, 300, 1) + vision + (600 + features) * 18 + 18


def test_flavour_fusion_in_small():
    model = FlavourForClassification(flavour_fusion(tiny_bert(), tiny_resnet()))
    text, vision = model.text_encoder.model.num_parameters(), model.image_encoder.model.num_parameters()
    expected = flavour_fusion_size(text, 16, vision, model.image_encoder.pooled_size)
    assert model.num_parameters() == expected
    train_one_step(model, 32, 50, torch.tensor([0, 4]))


def test_multi_label_in_small():
    model = FlavourForClassification(multi_label(tiny_resnet(), 50))
    vision = model.image_encoder.model.num_parameters()
    assert model.num_parameters() == multi_label_size(50, vision, model.image_encoder.pooled_size)
    train_one_step(model, 32, 50, torch.randint(0, 2, (2, 18)).float())


@pytest.mark.slow
def test_flavour_fusion_at_full_size():
    model = FlavourForClassification(
        flavour_fusion(BertConfig(), TimmWrapperConfig(architecture="inception_resnet_v2"))
    )
    assert model.num_parameters() == flavour_fusion_size(BERT_BASE, 768, INCEPTION_RESNET_V2, 1536)
    train_one_step(model, 299, 30_000, torch.tensor([0, 4]))


@pytest.mark.slow
def test_multi_label_at_full_size():
    model = FlavourForClassification(multi_label(TimmWrapperConfig(architecture="efficientnet_b4"), 9_000))
    assert model.num_parameters() == multi_label_size(9_000, EFFICIENTNET_B4, 1792)
    # The limit that this recipe's task sets; weights in half precision are half as large.
    assert model.num_parameters() * 4 < 100e6
    train_one_step(model, 380, 9_000, torch.randint(0, 2, (2, 18)).float())
