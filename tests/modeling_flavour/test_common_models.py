"""transformers' own common model tests, run for the classifier."""

import unittest

import torch
from transformers import BertConfig, ViTConfig

from modeling_flavour import FlavourConfig, FlavourForClassification

from .common_models import common_model_tests

common = common_model_tests()


class ClassifierTester:
    """Makes the tiny configuration and the inputs that the common tests ask for."""

    batch_size = 3
    seq_length = 7
    num_hidden_layers = 2
    hidden_size = 32
    num_attention_heads = 4
    image_size = 16
    is_training = True

    def __init__(self, parent):
        self.parent = parent

    def get_config(self) -> FlavourConfig:
        layers = {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "intermediate_size": 37,
        }
        return FlavourConfig(
            text_config=BertConfig(vocab_size=99, max_position_embeddings=32, **layers),
            vision_config=ViTConfig(image_size=self.image_size, patch_size=8, **layers),
            text_pooling="lstm",
            lstm_hidden_size=8,
            text_dense_sizes=[8],
            image_dense_sizes=[12, 8],
            head_dense_sizes=[8],
            modality_dropout=0.3,
        )

    def prepare_config_and_inputs_for_common(self):
        generator = torch.Generator().manual_seed(0)
        mask = torch.ones(self.batch_size, self.seq_length, dtype=torch.long)
        mask[1, 4:] = 0
        inputs = {
            "input_ids": torch.randint(1, 99, (self.batch_size, self.seq_length), generator=generator),
            "attention_mask": mask,
            "pixel_values": torch.randn(self.batch_size, 3, self.image_size, self.image_size, generator=generator),
        }
        return self.get_config(), inputs

    prepare_config_and_inputs = prepare_config_and_inputs_for_common


class FlavourForClassificationTest(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (FlavourForClassification,)
    _is_composite = True

    def setUp(self):
        self.model_tester = ClassifierTester(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels:
            inputs["labels"] = torch.zeros(self.model_tester.batch_size, dtype=torch.long)
        return inputs

    @unittest.skip("checkpoints keep the names that weights have in the model, so that a Trainer can resume from them")
    def test_reverse_loading_mapping(self):
        pass
