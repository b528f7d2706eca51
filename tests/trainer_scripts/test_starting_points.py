"""Where a model starts from: parts that do not fit or are absent are refused by name, and what a checkpoint keeps."""

import pytest

from dataset_builder.errors import BadInputError
from tests.trainer_scripts.test_train import SMALL
from trainer_scripts.arguments import parse_recipe
from trainer_scripts.training_data import load_training_data


def build(dataset, *arguments, recipe="flavour_fusion_tiny"):
    made = parse_recipe([recipe, "--dataset", str(dataset), *SMALL, *arguments])
    data = load_training_data(made)
    return data.task.build(made, data)


UNKNOWN_BACKBONE = '{"model_type": "timm_wrapper", "architecture": "resnet999"}'


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("flavour_fusion_tiny", ("--trainable_image_layers", "2"), "needs freeze_image=True"),
        ("flavour_fusion_tiny", ("--config", '{"dropout": 7}'), r"dropout must lie in \[0, 1\), got 7"),
        ("flavour_fusion_tiny", ("--config", '{"fusion": "early2"}'), "fusion"),
        ("flavour_fusion_tiny", ("--vision_config", UNKNOWN_BACKBONE), "resnet999"),
        ("captioner_resnet18_transformer_tiny", ("--config", '{"dropout": 7}'), r"dropout must lie in \[0, 1\)"),
        ("captioner_resnet18_transformer_tiny", ("--vision_config", UNKNOWN_BACKBONE), "resnet999"),
        ("segmentation_deeplabv3_tiny", ("--config", '{"dropout": 7}'), r"dropout must lie in \[0, 1\)"),
        ("segmentation_deeplabv3_tiny", ("--config", '{"head": "big"}'), "head"),
        ("segmentation_deeplabv3_tiny", ("--vision_config", UNKNOWN_BACKBONE), "resnet999"),
    ],
)
def test_parts_that_do_not_fit_are_bad_input(small_dataset, recipe, arguments, message):
    with pytest.raises(BadInputError, match=f"(?s)the model of this recipe cannot be built: .*{message}"):
        build(small_dataset, *arguments, recipe=recipe)


@pytest.mark.parametrize("option", ["model_name_or_path", "text_encoder", "image_encoder", "init_image_encoder"])
def test_a_start_that_is_not_there_is_named_with_its_option(small_dataset, option):
    with pytest.raises(BadInputError, match=f"^{option}: there is no folder '/nowhere/model'"):
        build(small_dataset, f"--{option}", "/nowhere/model")
    with pytest.raises(BadInputError, match=f"^{option}: nothing can be loaded from 'outputs/nothing'"):
        build(small_dataset, f"--{option}", "outputs/nothing")
