"""Every model class of the family in its main shapes, for tests that must hold for all of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from modeling_flavour import FlavourForMergeCaptioning, FlavourForTransformerCaptioning, FlavourProcessor
from trainer_scripts.tasks.captioning.text import train_caption_tokenizer

from .contract import randomise
from .tiny import (
    caption_batch,
    mask_batch,
    tiny_batch,
    tiny_captioner,
    tiny_classifier,
    tiny_resnet,
    tiny_segmenter,
    tiny_tokenizer,
)

CAPTIONS = ("a plate of rice and 2 eggs .", "three olives in a bowl .", "the feta is to the left of the rice .")
CLASSIFIER = ("AutoModel", "AutoModelForImageClassification", "AutoModelForSequenceClassification")
CAPTIONER = ("AutoModel", "AutoModelForImageTextToText")
SEGMENTER = ("AutoModel", "AutoModelForSemanticSegmentation")


class Member(NamedTuple):
    """One model: how it is made, what it is fed with, and the Auto classes that must load it."""

    make: Callable[..., PreTrainedModel]
    batch: Callable[..., dict[str, torch.Tensor]]
    processor: Callable[[], FlavourProcessor]
    auto_classes: tuple[str, ...]
    answer: str = "logits"

    def build(self, **fields: Any) -> PreTrainedModel:
        """The tiny model with weights at which outputs depend on inputs."""
        return randomise(self.make(**fields))


def classifier(**fields) -> Callable[..., PreTrainedModel]:
    defaults = {"text_pooling": "lstm", "vision_config": tiny_resnet(), "modality_dropout": 0.3, **fields}
    return lambda **more: tiny_classifier(**{**defaults, **more})


def captioner(model_class) -> Callable[..., PreTrainedModel]:
    return lambda **more: tiny_captioner(model_class, **{"vision_config": tiny_resnet(), **more})


def segmenter(**fields) -> Callable[..., PreTrainedModel]:
    return lambda **more: tiny_segmenter(**{**fields, **more})


def part_of(*names: str) -> Callable[..., dict[str, torch.Tensor]]:
    return lambda *size: {name: tiny_batch(*size)[name] for name in (*names, "labels")}


def several_labels(*size: int) -> dict[str, torch.Tensor]:
    batch = part_of("input_ids", "attention_mask")(*size)
    return {**batch, "labels": functional.one_hot(batch["labels"], 5).float()}


def fusion_processor() -> FlavourProcessor:
    return FlavourProcessor.from_parts(text=tiny_tokenizer(), image=tiny_resnet(), size=32)


def caption_processor() -> FlavourProcessor:
    tokenizer = train_caption_tokenizer(CAPTIONS * 2, "words", 40, 16)
    return FlavourProcessor.from_parts(text=tokenizer, image=tiny_resnet(), size=32, max_length=16)


def whole_processor() -> FlavourProcessor:
    return FlavourProcessor.from_parts(image=tiny_resnet(), size=32, whole=True)


def masks_alone(*size: int) -> dict[str, torch.Tensor]:
    return mask_batch(*size, ingredients=False)


MULTITASK = {
    "head": "deeplabv3plus",
    "auxiliary_head": True,
    "ingredient_head": True,
    "ingredients_from": "masks",
    "loss_weighting": "uncertainty",
}
WORDS_ALONE = {"text_config": None, "vision_config": None, "word_vocab_size": 50, "modality_dropout": 0.0}

FAMILY = {
    **{
        f"fusion-{kind}": Member(classifier(fusion=kind), tiny_batch, fusion_processor, CLASSIFIER)
        for kind in ("early", "late", "gated", "cross_attention")
    },
    "text": Member(
        classifier(**WORDS_ALONE, problem_type="multi_label_classification"),
        several_labels,
        lambda: FlavourProcessor.from_parts(text=tiny_tokenizer()),
        CLASSIFIER,
    ),
    "image": Member(
        classifier(text_config=None),
        part_of("pixel_values"),
        lambda: FlavourProcessor.from_parts(image=tiny_resnet(), size=32),
        CLASSIFIER,
    ),
    "captioner-transformer": Member(
        captioner(FlavourForTransformerCaptioning), caption_batch, caption_processor, CAPTIONER
    ),
    "captioner-merge": Member(captioner(FlavourForMergeCaptioning), caption_batch, caption_processor, CAPTIONER),
    "segmenter": Member(segmenter(), masks_alone, whole_processor, SEGMENTER),
    "segmenter-multitask": Member(segmenter(**MULTITASK), mask_batch, whole_processor, SEGMENTER),
    "ingredients": Member(
        segmenter(head="none", ingredient_head=True), mask_batch, whole_processor, SEGMENTER, "ingredient_logits"
    ),
}
