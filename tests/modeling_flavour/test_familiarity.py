"""A fusion that knows its training rows answers without a part that is unlike them, and says so."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from PIL import Image

from modeling_flavour import FlavourForClassification
from modeling_flavour.familiarity_flavour import Familiarity
from modeling_flavour.pipelines_flavour import FlavourClassificationPipeline

from .family import FAMILY, fusion_processor

FUSIONS = ["fusion-early", "fusion-late", "fusion-gated", "fusion-cross_attention"]


def features_of(model, batch):
    with torch.no_grad():
        text = model.text_encoder(batch["input_ids"], batch["attention_mask"])
        return model.familiar_features(text, model.image_encoder(batch["pixel_values"]))


def knowing(name, **fields):
    """A model for which batches of `FAMILY` are familiar."""
    model = FAMILY[name].build(**fields).eval()
    rows = features_of(model, FAMILY[name].batch(64, 1))
    model.learn_familiarity(rows, rows, 1.0)
    return model


def complete(name, size=6):
    batch = {key: value for key, value in FAMILY[name].batch(size, 1).items() if key != "labels"}
    return batch | {"text_present": torch.ones(size).bool(), "image_present": torch.ones(size).bool()}


def test_distances_grow_away_from_the_training_rows_and_the_limit_keeps_its_share():
    torch.manual_seed(0)
    mixing = torch.randn(4, 40)
    rows, others = (torch.randn(number, 4) @ mixing + 0.1 * torch.randn(number, 40) for number in (500, 2000))
    known = Familiarity.fitted(rows, others[:1000], 0.95)
    assert known.familiar(others[1000:]).float().mean() == pytest.approx(0.95, abs=0.04)
    # Off in a direction that the rows do not have; the length of features says nothing.
    assert not known.familiar(others[:50] + 8 * torch.nn.functional.one_hot(torch.tensor(3), 40)).any()
    torch.testing.assert_close(known(others * 6), known(others), rtol=1e-3, atol=1e-3)
    assert known(others.half()).dtype == torch.float32
    # Few rows in many dimensions, and rows without any variance.
    assert Familiarity.fitted(torch.randn(16, 300), torch.randn(16, 300), 1.0)(torch.randn(3, 300)).isfinite().all()
    assert Familiarity.fitted(torch.ones(16, 8), torch.ones(16, 8), 0.99).familiar(torch.ones(2, 8)).all()


@pytest.mark.parametrize("name", FUSIONS)
@torch.no_grad()
def test_a_foreign_picture_counts_as_missing(name):
    model, batch = knowing(name), complete(name)
    plain = FAMILY[name].build().eval()
    torch.testing.assert_close(model(**batch).logits, plain(**batch).logits)
    batch["pixel_values"][:3] = 40 * torch.rand(3, 3, 32, 32)
    output = model(**batch)
    assert output.image_familiar.tolist() == [False] * 3 + [True] * 3
    assert output.text_familiar.all()
    left_out = batch | {"image_present": torch.tensor([False] * 3 + [True] * 3)}
    torch.testing.assert_close(output.logits, plain(**left_out).logits)
    # Where nothing is familiar, all is read: something must be.
    model.text_familiarity.limit.fill_(-1.0)
    torch.testing.assert_close(model(**batch).logits[:3], plain(**batch).logits[:3])
    # In training nothing is left out, and what is known can be forgotten.
    assert model.train().familiar_parts(None, None) == {}
    model.eval().forget_familiarity()
    torch.testing.assert_close(model(**batch).logits, plain(**batch).logits)
    assert model(**batch).image_familiar is None


@torch.no_grad()
def test_a_model_that_never_learned_to_do_without_only_reports(tmp_path):
    model, batch = knowing("fusion-early", modality_dropout=0.0), complete("fusion-early")
    plain = FAMILY["fusion-early"].build(modality_dropout=0.0).eval()
    batch["pixel_values"][:] = 40 * torch.rand(6, 3, 32, 32)
    output = model(**batch)
    assert not output.image_familiar.any()
    torch.testing.assert_close(output.logits, plain(**batch).logits)


@torch.no_grad()
def test_what_is_known_travels_with_the_weights(tmp_path):
    model, batch = knowing("fusion-early"), complete("fusion-early")
    batch["pixel_values"][:3] = 40 * torch.rand(3, 3, 32, 32)
    model.config.abstain_below = 0.3
    model.save_pretrained(tmp_path)
    loaded = FlavourForClassification.from_pretrained(tmp_path).eval()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert loaded.config.abstain_below == 0.3
    ours, theirs = model(**batch), loaded(**batch)
    torch.testing.assert_close(ours.logits, theirs.logits)
    assert ours.image_familiar.tolist() == theirs.image_familiar.tolist()
    with pytest.raises(
        StrictDataclassClassValidationError, match="familiarity gives each of text and image a positive number"
    ):
        type(model.config)(word_vocab_size=9, familiarity={"taste": 3})


def test_the_pipeline_shows_what_is_familiar_and_may_abstain():
    model, grey = knowing("fusion-early"), Image.new("RGB", (32, 32), "grey")
    model.image_familiarity.limit.fill_(torch.inf)
    model.text_familiarity.limit.fill_(torch.inf)
    classify = FlavourClassificationPipeline(model, processor=fusion_processor())
    sample = {"image": grey, "text": "tomato"}
    assert classify(sample)[0].items() >= {"familiar": True, "unfamiliar": []}.items()
    with pytest.raises(ValueError, match="does not know when to abstain"):
        classify(sample, abstain=True)
    model.config.abstain_below = 0.0
    assert classify(sample, abstain=True)[0]["label"] is not None
    model.image_familiarity.limit.fill_(-1.0)
    answers = classify(sample, abstain=True)
    assert len(answers) == 5
    assert (answers[0]["familiar"], answers[0]["unfamiliar"]) == (False, ["image"])
    assert classify({"image": grey}, abstain=True)[0]["label"] is None  # nothing of it is familiar
    assert classify({"text": "tomato"}, abstain=True)[0]["familiar"]
    model.config.abstain_below = 1.0
    assert [each["label"] for each in classify([sample, sample], abstain=True)[1]] == [None]
    model.forget_familiarity()
    assert set(classify(sample)[0]) == {"label", "score"}
