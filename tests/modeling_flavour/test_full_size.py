"""Every configuration of a neural architecture, built from its file: parameters by formula, then one training step.

Small ones run always; those of full size are `slow`: they are built for real, with fresh weights, on the CPU. The
formulas are written from the architectures' descriptions, the backbones' own counts come from timm and from BERT's
layout.
"""

from itertools import pairwise
from typing import Any

import pytest
import timm
import torch
from transformers import BertConfig

from modeling_flavour import FlavourForClassification, FlavourForSegmentation, FlavourProcessor
from trainer_scripts.settings.arguments import Configuration
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.captioning.training import ARCHITECTURES
from trainer_scripts.tasks.classification.training import input_size

WORDS, LABELS, MASK_CLASSES, PLACE_CLASSES = 2_000, 5, 104, 254

# What the systems that the configurations stand for say of themselves.
FULL_SIZE: dict[str, dict[str, Any]] = {
    "flavour_fusion": {
        "side": 299, "fusion": "early", "lstm_hidden_size": 64, "lstm_layers": 2, "text_dense_sizes": [256],
        "image_dense_sizes": [1024, 512], "head_dense_sizes": [128, 64], "dropout": 0.5, "freeze_text": True,
    },
    "flavour_fusion_late": {"side": 299, "fusion": "late"},
    "flavour_fusion_gated": {"side": 299, "fusion": "gated"},
    "flavour_fusion_cross_attention": {"side": 299, "fusion": "cross_attention"},
    "multilabel_efficientnet_b4_bilstm": {
        "word_embedding_size": 300, "text_pooling": "lstm", "lstm_hidden_size": 300, "lstm_layers": 1, "dropout": 0.5,
    },
    "captioner_resnet18_transformer": {"decoder_type": "transformer"},
    "captioner_xception_merge_lstm": {"decoder_type": "merge", "side": 299, "hidden_size": 256, "dropout": 0.5},
    "segmentation_deeplabv3_resnet50": {"head": "deeplabv3", "aspp_channels": 256, "output_stride": 8},
    "segmentation_deeplabv3plus_resnet50": {"head": "deeplabv3plus", "aspp_channels": 256},
    "multitask_deeplabv3_resnet50": {"head": "deeplabv3", "ingredient_head": True, "output_stride": 8},
    "ingredients_resnet50": {"head": "none", "ingredient_head": True},
}  # fmt: skip
TINY = (
    "flavour_fusion_tiny",
    "flavour_fusion_late_tiny",
    "flavour_fusion_gated_tiny",
    "flavour_fusion_cross_attention_tiny",
    "flavour_title_tiny",
    "flavour_picture_tiny",
    "multilabel_tiny",
    "captioner_resnet18_transformer_tiny",
    "captioner_xception_merge_lstm_tiny",
    "segmentation_deeplabv3_tiny",
    "multitask_deeplabv3_tiny",
    "ingredients_tiny",
)
BACKBONES = {
    "inception_resnet_v2": 54_306_464,
    "efficientnet_b4": 17_548_616,
    "resnet18": 11_176_512,
    "legacy_xception": 20_806_952,
    "resnet50": 23_508_032,
}
BERT_BASE = 108_891_648  # embeddings 23,837,184 and 12 layers of 7,087,872, without the pooler


def dense(*sizes: int) -> int:
    return sum(size_in * size_out + size_out for size_in, size_out in pairwise(sizes))


def convolution(size_in: int, size_out: int, side: int = 1) -> int:
    """Without a bias, and the two vectors of its batch normalisation."""
    return size_in * size_out * side * side + 2 * size_out


def bilstm(size: int, hidden: int, layers: int) -> int:
    """Two directions, each four gates of input weights, recurrent weights and torch's two biases."""
    inputs = [size] + [2 * hidden] * (layers - 1)
    return sum(2 * 4 * hidden * (one + hidden + 2) for one in inputs)


def bert(config) -> int:
    width, inner = config.hidden_size, config.intermediate_size
    embeddings = (config.vocab_size + config.max_position_embeddings + config.type_vocab_size) * width + 2 * width
    layer = 4 * dense(width, width) + dense(width, inner, width) + 2 * 2 * width
    return embeddings + config.num_hidden_layers * layer


def picture_part(configuration: Configuration) -> dict[str, Any]:
    """The backbone's config; of pretrained weights its architecture alone."""
    named = configuration.model.image_encoder
    if named is None:
        return dict(configuration.model.vision_config)
    return {"model_type": "timm_wrapper", "architecture": named.removeprefix("timm/").partition(".")[0]}


def reference_backbone(vision) -> tuple[int, int, list[int]]:
    """Parameters, width of the features and channels of the stages, from timm itself."""
    with torch.device("meta"):
        model = timm.create_model(vision.architecture, num_classes=0, **(vision.model_args or {}))
    parameters = sum(value.numel() for value in model.parameters())
    if not (vision.model_args or {}).get("channels") and vision.architecture in BACKBONES:
        assert parameters == BACKBONES[vision.architecture]
    return parameters, model.num_features, [stage["num_chs"] for stage in model.feature_info]


def build_classifier(configuration: Configuration) -> FlavourForClassification:
    arguments, fields = configuration.model, dict(configuration.model.config)
    text: Any = None
    if arguments.modality != "image":
        if "word_embedding_size" in fields:
            fields["word_vocab_size"] = WORDS
        elif arguments.text_encoder:
            assert arguments.text_encoder == "google-bert/bert-base-uncased"
            text = BertConfig()
        else:
            text = {**arguments.text_config, "vocab_size": WORDS}
    if arguments.modality != "text" and (fields.get("place_loss_weight") or "image_pooling" in fields):
        fields["num_place_labels"] = PLACE_CLASSES
    if arguments.modality == "text":
        fields.pop("image_pooling", None)
    frozen = ("freeze_text", "freeze_image", "trainable_image_layers")
    return FlavourForClassification.from_parts(
        text=text,
        image=picture_part(configuration) if arguments.modality != "text" else None,
        num_labels=LABELS,
        **{name: getattr(arguments, name) for name in frozen},
        **fields,
    )


def classifier_size(config) -> int:
    total = text_width = image_width = 0
    if config.has_text:
        text_width = config.word_embedding_size
        if config.text_config is not None:
            text_width = config.text_config.hidden_size
            total += bert(config.text_config)
            if config.text_config.num_hidden_layers == 12:
                assert bert(config.text_config) == BERT_BASE
        else:
            total += config.word_vocab_size * text_width
        if config.text_pooling == "lstm":
            total += bilstm(text_width, config.lstm_hidden_size, config.lstm_layers)
            text_width = 2 * config.lstm_hidden_size
        total += 2 * text_width * config.feature_norm + dense(text_width, *config.text_dense_sizes)
        text_width = [text_width, *config.text_dense_sizes][-1]
    if config.has_image:
        backbone, image_width, _ = reference_backbone(config.vision_config)
        if config.num_place_labels:
            backbone += dense(image_width, config.num_place_labels)
        if config.image_pooling == "places":
            image_width = 2 * config.num_place_labels
        total += backbone + 2 * image_width * config.feature_norm + dense(image_width, *config.image_dense_sizes)
        image_width = [image_width, *config.image_dense_sizes][-1]
    heads, size = config.head_dense_sizes, config.fusion_size
    if not (config.has_text and config.has_image):
        return total + dense(text_width + image_width, *heads, LABELS)
    if config.fusion == "late":
        parts = [dense(one, *heads) + [one, *heads][-1] * LABELS for one in (text_width, image_width)]
        return total + sum(parts) + LABELS
    if config.fusion == "early":
        return total + text_width + image_width + dense(text_width + image_width, *heads, LABELS)
    projections = dense(text_width, size) + dense(image_width, size)
    if config.fusion == "gated":
        stand_ins = text_width + image_width
        return total + stand_ins + projections + dense(text_width + image_width, size) + dense(size, *heads, LABELS)
    attention = 3 * 2 * size + 4 * dense(size, size) + dense(size, 2 * size, size)
    return total + 2 * size + projections + 2 * attention + dense(2 * size, *heads, LABELS)


def build_captioner(configuration: Configuration):
    fields = dict(configuration.model.config)
    places = PLACE_CLASSES if fields.get("place_loss_weight") else 0
    return ARCHITECTURES[fields["decoder_type"]].from_parts(
        image=picture_part(configuration), vocab_size=WORDS, num_place_labels=places, **fields
    )


def captioner_size(config) -> int:
    backbone, features, _ = reference_backbone(config.vision_config)
    width, places = config.hidden_size, config.num_place_labels
    words = config.vocab_size * width
    if places:
        backbone += dense(features, places) + places * config.vocab_size + dense(width, 2)
    if config.decoder_type == "merge":
        lstm = 4 * width * (2 * width + 2)
        return backbone + dense(features, width) + words + lstm + dense(width, width) + dense(width, config.vocab_size)
    layer = 2 * 4 * dense(width, width) + dense(width, config.intermediate_size, width) + 3 * 2 * width
    decoder = words + config.max_position_embeddings * width + config.num_hidden_layers * layer + 2 * width
    scores = 0 if config.tie_word_embeddings else words
    return backbone + dense(features, width) + 2 * width + decoder + scores


def build_segmenter(configuration: Configuration) -> FlavourForSegmentation:
    return FlavourForSegmentation.from_parts(
        image=picture_part(configuration), num_labels=MASK_CLASSES, **configuration.model.config
    )


def segmenter_size(config) -> int:
    backbone, features, stages = reference_backbone(config.vision_config)
    total, width = backbone, config.aspp_channels
    if config.ingredient_head:
        read = 2 * MASK_CLASSES if config.ingredients_from == "masks" else features
        total += dense(read, MASK_CLASSES - 1)
    if config.auxiliary_head:
        quarter = stages[-2] // 4
        total += convolution(stages[-2], quarter, 3) + dense(quarter, MASK_CLASSES)
    if config.head == "none":
        return total
    if config.place_scores:
        total += dense(features, MASK_CLASSES)
    rates = len(config.aspp_rates)
    total += 2 * convolution(features, width) + rates * convolution(features, width, 3)
    total += convolution((rates + 2) * width, width)
    joined = width
    if config.head == "deeplabv3plus":
        low_level = stages[1]  # of stride 4, after the stem
        total += convolution(low_level, config.low_level_channels) + convolution(width, width, 3)
        joined += config.low_level_channels
    return total + convolution(joined, width, 3) + dense(width, MASK_CLASSES)


def batch_for(model, side: int) -> dict[str, torch.Tensor]:
    config, size = model.config, 2
    batch: dict[str, torch.Tensor] = {}
    if config.has_image:
        batch["pixel_values"] = torch.randn(size, 3, side, side)
    if config.has_text:
        batch["input_ids"] = torch.randint(1, WORDS, (size, 40))
    if isinstance(model, FlavourForSegmentation):
        if config.head != "none":
            batch["labels"] = torch.randint(0, MASK_CLASSES, (size, side, side))
        if config.ingredient_head:
            batch["ingredient_targets"] = torch.randint(0, 2, (size, MASK_CLASSES - 1)).float()
    elif isinstance(model, FlavourForClassification):
        batch["labels"] = torch.randint(0, LABELS, (size,))
    else:
        batch["labels"] = torch.randint(4, WORDS, (size, 12))
    if getattr(config, "num_place_labels", 0) and getattr(config, "place_loss_weight", 0):
        batch["place_masks"] = torch.randint(0, PLACE_CLASSES, (size, side, side))
    return batch


def build(configuration: Configuration) -> tuple[Any, Any, int]:
    """The model of a configuration, the formula of its size, and the side of its pictures, 0 without any."""
    fields, side = configuration.model.config, 0
    if "decoder_type" in fields:
        model, count = build_captioner(configuration), captioner_size
    elif "head" in fields or "ingredient_head" in fields:
        model, count = build_segmenter(configuration), segmenter_size
    else:
        model, count = build_classifier(configuration), classifier_size
    if model.config.has_image:
        side = input_size(
            FlavourProcessor.from_parts(image=model.config.vision_config, size=configuration.model.image_size)
        )
    return model, count, side


def check(name: str) -> None:
    """Build a configuration's model, count its parameters, and train it one step."""
    configuration = parse_configuration([name])
    model, count, side = build(configuration)
    config = model.config
    assert model.num_parameters() == count(config)
    for field, value in FULL_SIZE.get(name, {}).items():
        if field == "side":
            assert side == value
        elif field == "output_stride":
            assert config.vision_config.model_args["output_stride"] == value
        else:
            assert getattr(config, field) == value, field
    if configuration.model.max_mb is not None:
        assert model.num_parameters() * 4 < configuration.model.max_mb * 1e6
    train_one_step(model, batch_for(model, side))


def train_one_step(model, batch: dict[str, torch.Tensor]) -> None:
    loss = model.train()(**batch).loss
    loss.backward()
    assert loss.isfinite()
    for parameter, value in model.named_parameters():
        assert (value.grad is not None) == value.requires_grad, parameter


def check_in_bf16(name: str, device: str) -> None:
    """Train a configuration's model one step as the Trainer does where bf16 gains: mixed precision, channels last."""
    model, _, side = build(parse_configuration([name]))
    model.to(device, memory_format=torch.channels_last)
    batch = {field: value.to(device) for field, value in batch_for(model, side).items()}
    with torch.autocast(device, torch.bfloat16):
        train_one_step(model, batch)


@pytest.mark.parametrize("name", TINY)
def test_small_recipe_has_the_size_of_its_formula_and_trains(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_recipe_has_the_size_of_its_formula_and_trains(name):
    check(name)


@pytest.mark.parametrize("name", ["flavour_fusion_tiny", "multitask_deeplabv3_tiny"])
def test_small_recipe_trains_in_bf16_and_channels_last(name):
    check_in_bf16(name, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_recipe_trains_on_a_gpu_in_bf16_and_channels_last(name):
    check_in_bf16(name, "cuda")
