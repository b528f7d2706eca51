"""Tiny parts that the tests of the model family share."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional
from transformers import BertConfig, PreTrainedTokenizerFast, TimmWrapperConfig, ViTConfig

from modeling_flavour import (
    FlavourCaptionerConfig,
    FlavourConfig,
    FlavourForClassification,
    FlavourForSegmentation,
    FlavourSegmentationConfig,
)

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
MASK_CLASSES = 5
MASK_NAMES = dict(enumerate(("background", "egg", "rice", "leaf", "nut")))


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


def tiny_dilated_resnet() -> TimmWrapperConfig:
    return TimmWrapperConfig(architecture="test_resnet", model_args={"output_stride": 8})


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


def tiny_captioner(captioner, **fields):
    """A captioner of tiny parts without dropout."""
    defaults = {
        "decoder_type": captioner.decoder_type,
        "vision_config": tiny_vit(),
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 32,
        "dropout": 0.0,
    }
    return captioner(FlavourCaptionerConfig(**{**defaults, **fields}))


def caption_batch(size=4, seed=0, side=32):
    """Pictures and captions of several lengths, each ending with the end token."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 8, (size,), generator=generator)
    lengths[0] = 8
    labels = torch.randint(4, 40, (size, 8), generator=generator)
    steps = torch.arange(8)[None]
    labels = labels.masked_fill(steps == lengths[:, None] - 1, 3).masked_fill(steps >= lengths[:, None], -100)
    return {"pixel_values": torch.randn(size, 3, side, side, generator=generator), "labels": labels}


def tiny_segmenter(model_class=FlavourForSegmentation, **fields) -> FlavourForSegmentation:
    """A segmenter of tiny parts without dropout."""
    defaults = {
        "vision_config": tiny_dilated_resnet(),
        "id2label": MASK_NAMES,
        "aspp_channels": 8,
        "aspp_rates": [1, 2],
        "low_level_channels": 4,
        "dropout": 0.0,
    }
    return model_class(FlavourSegmentationConfig(**{**defaults, **fields}))


def mask_batch(size=4, seed=0, side=32, ingredients=True):
    """Pictures whose mask follows from their colours, some pixels unknown, and the ingredients of each."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, MASK_CLASSES, (size, 1, 2, 2), generator=generator).float()
    labels = functional.interpolate(coarse, (side, side), mode="nearest")[:, 0].long()
    colours = torch.randn(MASK_CLASSES, 3, generator=torch.Generator().manual_seed(9))
    pictures = colours[labels].permute(0, 3, 1, 2) + 0.1 * torch.randn(size, 3, side, side, generator=generator)
    present = functional.one_hot(labels.flatten(1), MASK_CLASSES).any(1)[:, 1:].float()
    labels[:, :3, :5] = 255
    batch = {"pixel_values": pictures.contiguous(), "labels": labels}
    return {**batch, "ingredient_targets": present} if ingredients else batch
