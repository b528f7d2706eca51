"""transformers' own common model tests, run for both captioners."""

import unittest

import torch
from transformers import SiglipVisionConfig

from modeling_flavour.configuration_flavour_captioning import FlavourCaptionerConfig
from modeling_flavour.modeling_flavour_captioning import FlavourForMergeCaptioning, FlavourForTransformerCaptioning

from .common_models import common_model_tests

common = common_model_tests()


class CaptionerTester:
    """Makes the tiny configuration and the inputs that the common tests ask for."""

    batch_size = 3
    seq_length = decoder_seq_length = 7
    num_hidden_layers = 2
    hidden_size = 32
    num_attention_heads = 4
    image_size = 16
    encoder_seq_length = 4
    is_training = True

    def __init__(self, parent, decoder_type):
        self.parent = parent
        self.decoder_type = decoder_type

    def get_config(self) -> FlavourCaptionerConfig:
        layers = {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "intermediate_size": 37,
        }
        return FlavourCaptionerConfig(
            # No class token: the sequence that the common tests follow through the model is that of the places.
            vision_config=SiglipVisionConfig(image_size=self.image_size, patch_size=8, vision_use_head=False, **layers),
            decoder_type=self.decoder_type,
            vocab_size=99,
            **{**layers, "num_attention_heads": 2 if self.decoder_type == "merge" else 4},
        )

    def prepare_config_and_inputs_for_common(self):
        generator = torch.Generator().manual_seed(0)
        inputs = {
            "pixel_values": torch.randn(self.batch_size, 3, self.image_size, self.image_size, generator=generator),
            "decoder_input_ids": torch.randint(4, 99, (self.batch_size, self.seq_length), generator=generator),
        }
        return self.get_config(), inputs

    prepare_config_and_inputs = prepare_config_and_inputs_for_common


class CaptionerCommonTests:
    decoder_type = ""
    _is_composite = True
    is_encoder_decoder = True
    # Of the distribution, the mixin of generation tests is missing; decoding is tested in test_captioning.py.
    all_generative_model_classes = ()

    def setUp(self):
        self.model_tester = CaptionerTester(self, self.decoder_type)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels:
            inputs["labels"] = inputs["decoder_input_ids"].clone()
        return inputs

    @unittest.skip("reads input_ids; the words of these models are decoder_input_ids")
    def test_resize_tokens_embeddings(self):
        pass

    @unittest.skip("reads input_ids; the words of these models are decoder_input_ids")
    def test_resize_embeddings_untied(self):
        pass

    @unittest.skip("the encoder reads pictures: `inputs_embeds` is there for peft, which passes None")
    def test_inputs_embeds(self):
        pass

    @unittest.skip("checkpoints keep the names that weights have in the model, so that a Trainer can resume from them")
    def test_reverse_loading_mapping(self):
        pass


class FlavourForTransformerCaptioningTest(CaptionerCommonTests, common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (FlavourForTransformerCaptioning,)
    decoder_type = "transformer"

    @unittest.skip("expects a sub-config for the decoder; here the config itself describes it")
    def test_attn_implementation_composite_models(self):
        pass


class FlavourForMergeCaptioningTest(CaptionerCommonTests, common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (FlavourForMergeCaptioning,)
    decoder_type = "merge"
    has_attentions = False

    @unittest.skip("asks for attention weights; an LSTM has none")
    def test_capture_outputs_decorator(self):
        pass
