"""transformers' own common model tests, run for the segmenter."""

import unittest

import torch
from transformers import SiglipVisionConfig

from modeling_flavour import FlavourForSegmentation, FlavourSegmentationConfig

from .common_models import common_model_tests

common = common_model_tests()


class SegmenterTester:
    """Makes the tiny configuration and the inputs that the common tests ask for."""

    batch_size = 3
    num_labels = 5
    num_hidden_layers = 2
    hidden_size = 32
    num_attention_heads = 4
    image_size = 16
    encoder_seq_length = 4
    is_training = True

    def __init__(self, parent):
        self.parent = parent

    def get_config(self) -> FlavourSegmentationConfig:
        return FlavourSegmentationConfig(
            # No class token: the sequence that the common tests follow through the model is that of the places.
            vision_config=SiglipVisionConfig(
                image_size=self.image_size,
                patch_size=8,
                vision_use_head=False,
                hidden_size=self.hidden_size,
                num_hidden_layers=self.num_hidden_layers,
                num_attention_heads=self.num_attention_heads,
                intermediate_size=37,
            ),
            num_labels=self.num_labels,
            aspp_channels=8,
            aspp_rates=[1, 2],
            ingredient_head=True,
            loss_weighting="uncertainty",
        )

    def prepare_config_and_inputs_for_common(self):
        generator = torch.Generator().manual_seed(0)
        pictures = torch.randn(self.batch_size, 3, self.image_size, self.image_size, generator=generator)
        return self.get_config(), {"pixel_values": pictures}

    prepare_config_and_inputs = prepare_config_and_inputs_for_common


class FlavourForSegmentationTest(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (FlavourForSegmentation,)
    _is_composite = True

    def setUp(self):
        self.model_tester = SegmenterTester(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels:
            size, side = self.model_tester.batch_size, self.model_tester.image_size
            inputs["labels"] = torch.zeros(size, side, side, dtype=torch.long)
            inputs["ingredient_targets"] = torch.ones(size, self.model_tester.num_labels - 1)
        return inputs

    @unittest.skip("checkpoints keep the names that weights have in the model, so that a Trainer can resume from them")
    def test_reverse_loading_mapping(self):
        pass

    @unittest.skip("asks for the table of token vectors; a model of pictures has none")
    def test_model_get_set_embeddings(self):
        pass

    @unittest.skip("asks for the table of token vectors; a model of pictures has none")
    def test_resize_tokens_embeddings(self):
        pass
