"""Tiny parts that the tests of the model family share."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, PreTrainedTokenizerFast, TimmWrapperConfig, ViTConfig

from modeling_flavour import FlavourConfig, FlavourForClassification

WORDS = [
    "[PAD]",
    "[UNK]",
    "greek",
    "salad",
    "with",
    "feta",
    "lemon",
    "tart",
    "espresso",
    "mushroom",
    "broth",
    "chocolate",
    "soup",
    "olive",
    "and",
]


def tiny_bert() -> BertConfig:
    return BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=48,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def tiny_vit() -> ViTConfig:
    return ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=32, patch_size=8
    )


def tiny_resnet() -> TimmWrapperConfig:
    return TimmWrapperConfig(architecture="test_resnet")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")


def tiny_classifier(**fields) -> FlavourForClassification:
    """A fusion model of tiny BERT and tiny ViT without dropout."""
    defaults = {
        "text_config": tiny_bert(),
        "vision_config": tiny_vit(),
        "text_dense_sizes": [8],
        "image_dense_sizes": [12, 8],
        "head_dense_sizes": [8],
        "fusion_size": 8,
        "lstm_hidden_size": 6,
        "dropout": 0.0,
    }
    return FlavourForClassification(FlavourConfig(**{**defaults, **fields}))


def tiny_batch(size: int = 4, seed: int = 0, side: int = 32, labels: int = 5) -> dict[str, torch.Tensor]:
    """Texts of several lengths and pictures, with labels; every fourth sample lacks its text, the next its picture."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 9, (size, 1), generator=generator)
    lengths[0] = 8
    mask = (torch.arange(8)[None] < lengths).long()
    number = torch.arange(size)
    return {
        "input_ids": torch.randint(1, 50, (size, 8), generator=generator) * mask,
        "attention_mask": mask,
        "pixel_values": torch.randn(size, 3, side, side, generator=generator),
        "text_present": number % 4 != 2,
        "image_present": number % 4 != 3,
        "labels": torch.randint(0, labels, (size,), generator=generator),
    }
