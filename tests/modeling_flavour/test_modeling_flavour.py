"""The contract for the classifier in its main shapes."""

import torch
from torch.nn import functional

from .contract import ModelContract
from .tiny import MASK_CLASSES, tiny_batch, tiny_classifier, tiny_resnet


def pad_text(batch, left=2, right=3):
    padded = {name: functional.pad(batch[name], (left, right)) for name in ("input_ids", "attention_mask")}
    return {**batch, **padded}


class ClassifierContract(ModelContract):
    wrong_fields = (
        ("fusion", "middle"),
        ("text_pooling", 3),
        ("dropout", "much"),
        ("dropout", 1.5),
        ("lstm_layers", 0),
        ("class_prior", [0.5]),
        ("trainable_image_layers", 2),
    )
    fields: dict = {}

    def build(self, **overrides):
        return tiny_classifier(**{**self.fields, **overrides})

    def batch(self, size=4, seed=0):
        return tiny_batch(size, seed)


class TestEarlyFusionWithLSTM(ClassifierContract):
    """System 0 in small: LSTM over a frozen text model, a frozen timm backbone whose last layers train."""

    fields = {
        "text_pooling": "lstm",
        "vision_config": None,
        "freeze_text": True,
        "freeze_image": True,
        "trainable_image_layers": 1,
    }
    tests_attention = True
    wrong_fields = (*ClassifierContract.wrong_fields[:-1], ("trainable_image_layers", -1))

    def build(self, **overrides):
        return tiny_classifier(**{**self.fields, "vision_config": tiny_resnet(), **overrides})

    def pad(self, batch):
        # BERT's positions are absolute, so only padding at the end may leave its outputs alone.
        return pad_text(batch, left=0)


class TestLateFusion(ClassifierContract):
    fields = {"fusion": "late"}
    head_weight = "fusion.text_classifier.weight"


class TestGatedFusion(ClassifierContract):
    fields = {"fusion": "gated", "text_pooling": "cls", "feature_norm": True}


class TestCrossAttentionFusion(ClassifierContract):
    fields = {"fusion": "cross_attention"}
    tests_attention = True

    def pad(self, batch):
        return pad_text(batch, left=0)


class TestPlacesOfThePicture(ClassifierContract):
    """The picture's vector says what lies at its places, which masks teach beside the labels."""

    fields = {"image_pooling": "places", "num_place_labels": MASK_CLASSES}
    wrong_fields = (*ClassifierContract.wrong_fields, ("image_pooling", "max"), ("num_place_labels", 0))

    def batch(self, size=4, seed=0):
        batch = tiny_batch(size, seed)
        generator = torch.Generator().manual_seed(seed)
        # One label per place: what several samples of a place say at once no head can learn by heart.
        masks = torch.randint(0, MASK_CLASSES, (size, 4, 4), generator=generator)
        return {**batch, "place_masks": masks.repeat_interleave(8, 1).repeat_interleave(8, 2)}


class TestWordsAlone(ClassifierContract):
    """Word embeddings and a BiLSTM, as in system 1; padding may stand anywhere."""

    fields = {
        "text_config": None,
        "vision_config": None,
        "word_vocab_size": 50,
        "word_embedding_size": 12,
        "text_pooling": "lstm",
        "lstm_layers": 1,
        "problem_type": "multi_label_classification",
    }
    wrong_fields = ()

    def batch(self, size=4, seed=0):
        batch = {name: tiny_batch(size, seed)[name] for name in ("input_ids", "attention_mask", "labels")}
        return {**batch, "labels": functional.one_hot(batch["labels"], 5).float()}

    def pad(self, batch):
        return pad_text(batch)


class TestPicturesAlone(ClassifierContract):
    fields = {"text_config": None}
    wrong_fields = ()

    def batch(self, size=4, seed=0):
        return {name: tiny_batch(size, seed)[name] for name in ("pixel_values", "labels")}
