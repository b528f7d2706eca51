"""What users of generation models do with a captioner: prompts with padding, longer vocabularies, steps by hand."""

import pytest
import torch

from modeling_flavour import FlavourForMergeCaptioning, FlavourForTransformerCaptioning

from .contract import randomise
from .tiny import caption_batch, tiny_captioner

CLASSES = (FlavourForTransformerCaptioning, FlavourForMergeCaptioning)


@pytest.fixture(scope="module")
def pictures():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"use_cache": False}])
def test_padding_before_a_prompt_changes_no_caption(pictures, settings):
    model = randomise(tiny_captioner(FlavourForTransformerCaptioning)).eval()
    # `generate` puts a start token before prompts of which none begins with one.
    padded = torch.tensor([[2, 7, 8], [2, 7, 9], [0, 2, 7]])
    settings = {**settings, "max_new_tokens": 6, "min_new_tokens": 6}
    mask = (padded != 0).long()
    together = model.generate(pictures, decoder_input_ids=padded, decoder_attention_mask=mask, **settings)
    alone = model.generate(pictures[2:], decoder_input_ids=padded[2:, 1:], **settings)
    assert torch.equal(together[2:, 1:], alone)


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("tied", [False, True])
def test_a_longer_vocabulary_is_followed_by_all_that_knows_words(model_class, tied, pictures, tmp_path):
    model = randomise(tiny_captioner(model_class, num_place_labels=6, tie_word_embeddings=tied)).eval()
    batch = caption_batch(3)
    before = model(**batch).logits
    model.resize_token_embeddings(44, mean_resizing=False)
    torch.testing.assert_close(model(**batch).logits[..., :40], before, rtol=1e-4, atol=1e-5)
    model.seen_words.words.weight.data[43] = 9.0
    assert (model.lm_head.weight is model.decoder.words.weight) == tied
    model.save_pretrained(tmp_path)
    again = model_class.from_pretrained(tmp_path).eval()
    assert again.config.vocab_size == 44
    assert torch.equal(again.generate(pictures, max_new_tokens=4), model.generate(pictures, max_new_tokens=4))
    model.resize_token_embeddings(30)
    assert model(pictures, decoder_input_ids=torch.ones(3, 2, dtype=torch.long)).logits.shape == (3, 2, 30)


@pytest.mark.parametrize("model_class", CLASSES)
def test_steps_by_hand_equal_a_full_pass(model_class, pictures):
    """A captioner that names what it found once must be told what was said; without, its words would be wrong."""
    model = randomise(tiny_captioner(model_class, num_place_labels=6)).eval()
    words = torch.tensor([[2, 7, 8, 9]] * 3)
    with torch.no_grad():
        whole = model(pictures, decoder_input_ids=words, use_cache=False).logits[:, -1]
        first = model(pictures, decoder_input_ids=words[:, :3], use_cache=True)
        encoded = model.get_encoder()(pictures)
        step = {"encoder_outputs": encoded, "decoder_input_ids": words[:, 3:], "past_key_values": first.past_key_values}
        with pytest.raises(ValueError, match="needs said_ids, all words so far"):
            model(**step)
        torch.testing.assert_close(model(**step, said_ids=words).logits[:, -1], whole, rtol=1e-4, atol=1e-5)


def test_a_config_names_the_kind_of_captioner(tmp_path):
    """Auto classes pass the config on, and remember one class per config class."""
    model = tiny_captioner(FlavourForMergeCaptioning)
    model.save_pretrained(tmp_path)
    loaded = FlavourForTransformerCaptioning.from_pretrained(tmp_path, config=model.config)
    assert type(loaded) is FlavourForMergeCaptioning
