"""What the classifier does beyond the shared contract: missing parts, freezing, losses."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from torch.nn import functional
from transformers import BertTokenizer, TextClassificationPipeline

from modeling_flavour import FlavourConfig, FlavourForClassification
from modeling_flavour.fusion_flavour import drop_modalities
from modeling_flavour.losses_flavour import classification_loss

from .contract import randomise
from .tiny import tiny_batch, tiny_classifier, tiny_resnet

FUSIONS = ["early", "late", "gated", "cross_attention"]


def parts(batch):
    return {name: batch[name] for name in ("input_ids", "attention_mask")}, {"pixel_values": batch["pixel_values"]}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_part_missing_from_the_batch_equals_part_missing_from_each_sample(fusion):
    model = randomise(tiny_classifier(fusion=fusion)).eval()
    texts, pictures = parts(tiny_batch(3))
    nobody = torch.zeros(3, dtype=torch.bool)
    complete = model(**texts, **pictures).logits
    for part, masks in ((texts, {"image_present": nobody}), (pictures, {"text_present": nobody})):
        alone = model(**part).logits
        torch.testing.assert_close(alone, model(**texts, **pictures, **masks).logits)
        assert not torch.allclose(alone, complete, atol=1e-3)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_stands_in_a_missing_part_is_not_seen(fusion):
    model = randomise(tiny_classifier(fusion=fusion, text_pooling="lstm")).eval()
    batch = tiny_batch(4)
    other = {**batch, "pixel_values": batch["pixel_values"].clone(), "input_ids": batch["input_ids"].clone()}
    other["pixel_values"][3], other["input_ids"][2] = 9.0, 7
    torch.testing.assert_close(model(**other).logits, model(**batch).logits, rtol=0, atol=0)


def test_text_of_padding_only_counts_as_missing():
    model = randomise(tiny_classifier()).eval()
    texts, pictures = parts(tiny_batch(2))
    empty = {**texts, "attention_mask": torch.zeros_like(texts["attention_mask"])}
    torch.testing.assert_close(model(**empty, **pictures).logits, model(**pictures).logits)


def test_wrong_inputs_are_refused():
    texts, pictures = parts(tiny_batch(2))
    with pytest.raises(ValueError, match="reads text only, but got pixel_values"):
        tiny_classifier(vision_config=None)(**texts, **pictures)
    with pytest.raises(ValueError, match="sees pictures only, but got input_ids"):
        tiny_classifier(text_config=None)(**texts, **pictures)
    with pytest.raises(ValueError, match="input_ids, pixel_values, or both"):
        tiny_classifier()()
    with pytest.raises(ValueError, match=r"text part .* or both"):
        FlavourForClassification(FlavourConfig())


def test_config_names_what_is_wrong():
    with pytest.raises(StrictDataclassClassValidationError, match="give one of them"):
        tiny_classifier(word_vocab_size=10)
    with pytest.raises(StrictDataclassFieldValidationError, match=r"expected one of .'early', 'late', 'gated'"):
        FlavourConfig(fusion="middle")
    with pytest.raises(TypeError, match=r"Did you mean fusion\? Fields: .*fusion_heads"):
        FlavourConfig(fusoin="late")
    assert FlavourConfig().id2label[4] == "umami"
    assert FlavourConfig(id2label={0: "hot", 1: "cold"}).label2id == {"hot": 0, "cold": 1}
    assert FlavourConfig().label2id["umami"] == 4
    assert FlavourConfig(num_labels=18).num_labels == 18
    assert FlavourConfig(num_labels=2).to_dict()["id2label"] == {0: "LABEL_0", 1: "LABEL_1"}


def test_normed_features_do_not_depend_on_the_size_of_a_backbones_numbers():
    batch = tiny_batch(3)
    for normed in (True, False):
        model = randomise(tiny_classifier(feature_norm=normed)).eval()
        text = model.text_encoder(batch["input_ids"], batch["attention_mask"])
        image = model.image_encoder(batch["pixel_values"])
        large = image._replace(pooled=1000 * image.pooled)
        before, after = (model.classify(text, seen)[2] for seen in (image._replace(pooled=10 * image.pooled), large))
        assert torch.allclose(before, after, atol=1e-3) == normed


def test_frozen_backbone_keeps_its_statistics_in_training():
    model = randomise(tiny_classifier(vision_config=tiny_resnet(), freeze_image=True, freeze_text=True)).train()
    before = {name: value.clone() for name, value in model.image_encoder.state_dict().items()}
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.1)
    for seed in range(3):
        model(**tiny_batch(4, seed)).loss.backward()
        optimizer.step()
    for name, value in model.image_encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model.training
    assert not model.image_encoder.model.training
    assert not model.text_encoder.model.training
    free = tiny_classifier(vision_config=tiny_resnet()).train()
    assert all(module.training for module in free.modules())


def test_last_layers_of_a_frozen_backbone_train():
    model = tiny_classifier(vision_config=tiny_resnet(), freeze_image=True, trainable_image_layers=3)
    trained = [name for name, value in model.image_encoder.named_parameters() if value.requires_grad]
    every = [name for name, _ in model.image_encoder.named_parameters()]
    assert trained == every[-len(trained) :]
    assert len({name.rsplit(".", 1)[0] for name in trained}) == 3
    with pytest.raises(ValueError, match="but the backbone has"):
        tiny_classifier(vision_config=tiny_resnet(), freeze_image=True, trainable_image_layers=999)


def test_modality_dropout_takes_one_part_of_complete_samples_at_its_rate():
    torch.manual_seed(0)
    every = torch.ones(20000, dtype=torch.bool)
    text, image = drop_modalities(every, every, 0.3)
    assert (text | image).all()
    assert (~text).float().mean() == pytest.approx(0.15, abs=0.01)
    assert (~image).float().mean() == pytest.approx(0.15, abs=0.01)
    text, image = drop_modalities(every, ~every, 0.9)
    assert text.all()


def test_modality_dropout_acts_in_training_only():
    model = randomise(tiny_classifier(modality_dropout=0.5))
    texts, pictures = parts(tiny_batch(8))
    torch.manual_seed(0)
    assert not torch.equal(model.train()(**texts, **pictures).logits, model(**texts, **pictures).logits)
    assert torch.equal(model.eval()(**texts, **pictures).logits, model(**texts, **pictures).logits)


@pytest.mark.parametrize("fusion", ["early", "cross_attention"])
def test_modality_dropout_teaches_the_stand_ins(fusion):
    texts, pictures = parts(tiny_batch(4))
    labels = torch.arange(4)
    one_part_missing = {}
    for rate in (0.0, 0.5):
        torch.manual_seed(0)
        model = randomise(tiny_classifier(fusion=fusion, modality_dropout=rate)).train()
        before = [value.clone() for value in stand_ins(model)]
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(80):
            model(**texts, **pictures, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        moved = [not torch.equal(old, new) for old, new in zip(before, stand_ins(model), strict=True)]
        assert moved == [rate > 0] * 2
        model.eval()
        one_part_missing[rate] = sum(model(**part, labels=labels).loss.item() for part in (texts, pictures))
    assert one_part_missing[0.5] < 0.75 * one_part_missing[0.0]


def stand_ins(model):
    return model.fusion.text_stand_in, model.fusion.image_stand_in


@pytest.mark.parametrize("fusion", ["early", "late"])
@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification"])
def test_output_starts_at_the_class_prior(fusion, problem_type):
    prior = [0.6, 0.2, 0.1, 0.05, 0.05]
    model = tiny_classifier(fusion=fusion, problem_type=problem_type, class_prior=prior).eval()
    texts, pictures = parts(tiny_batch(2))
    logits = model(**texts, **pictures).logits
    found = logits.sigmoid() if "multi" in problem_type else logits.softmax(-1)
    torch.testing.assert_close(found, torch.tensor([prior] * 2), rtol=0.2, atol=0.02)


def config_of(**fields):
    return FlavourConfig(num_labels=3, **fields)


def test_losses_equal_those_of_torch():
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    soft = torch.rand(6, 3).softmax(-1)
    several = torch.randint(0, 2, (6, 3)).float()
    weights = torch.tensor([0.5, 1.0, 3.0])
    cross_entropy, binary = functional.cross_entropy, functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(classification_loss(logits, labels, config_of()), cross_entropy(logits, labels))
    torch.testing.assert_close(classification_loss(logits, soft, config_of()), cross_entropy(logits, soft))
    smooth = config_of(label_smoothing=0.1)
    expected = cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(classification_loss(logits, labels, smooth), expected)
    weighted = config_of(class_weights=weights.tolist())
    expected = cross_entropy(logits, labels, weight=weights, reduction="none").mean()
    torch.testing.assert_close(classification_loss(logits, labels, weighted), expected)
    multi = config_of(problem_type="multi_label_classification")
    torch.testing.assert_close(classification_loss(logits, several, multi), binary(logits, several))
    weighted = config_of(problem_type="multi_label_classification", class_weights=weights.tolist())
    expected = binary(logits, several, weight=weights)
    torch.testing.assert_close(classification_loss(logits, several, weighted), expected)


def test_sample_weights_leave_samples_out():
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 2])
    loss = classification_loss(logits, labels, config_of(), torch.tensor([2.0, 2.0, 0.0, 0.0]))
    torch.testing.assert_close(loss, functional.cross_entropy(logits[:2], labels[:2]))


def test_labels_of_another_shape_are_refused():
    multi = config_of(problem_type="multi_label_classification")
    with pytest.raises(ValueError, match=r"multi_label_classification, labels must have shape \(4, 3\), got \(4,\)"):
        classification_loss(torch.randn(4, 3), torch.zeros(4), multi)
    with pytest.raises(ValueError, match=r"shape \(4,\) or \(4, 3\), got \(5,\)"):
        classification_loss(torch.randn(4, 3), torch.zeros(5, dtype=torch.long), config_of())


def test_tuple_answers():
    loss, logits, *_ = tiny_classifier()(**tiny_batch(2), return_dict=False)
    assert (loss.ndim, logits.shape) == (0, (2, 5))
    assert math.isfinite(loss.item())


def test_what_a_tokenizer_of_bert_gives_is_taken():
    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "greek", "salad", "soup")
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)})
    model = randomise(tiny_classifier(vision_config=None)).eval()
    inputs = tokenizer(["greek salad", "soup"], padding=True, return_tensors="pt")
    logits = model(**inputs).logits
    torch.testing.assert_close(model(inputs["input_ids"], inputs["attention_mask"]).logits, logits)
    other = model(**{**inputs, "token_type_ids": torch.ones_like(inputs["token_type_ids"])}).logits
    assert (other - logits).abs().max() > 1e-3
    answer = TextClassificationPipeline(model=model, tokenizer=tokenizer)(["greek salad", "soup"], batch_size=2)
    assert [model.config.label2id[entry["label"]] for entry in answer] == logits.argmax(-1).tolist()


def test_words_are_given_once():
    model = tiny_classifier(vision_config=None)
    ids = torch.tensor([[2, 3]])
    vectors = model.get_input_embeddings()(ids)
    torch.testing.assert_close(model(inputs_embeds=vectors).logits, model(ids).logits)
    with pytest.raises(ValueError, match="Got input_ids and inputs_embeds, which stand for the same input"):
        model(ids, inputs_embeds=vectors)


@pytest.mark.parametrize("words", [{}, {"text_config": None, "word_vocab_size": 50}])
def test_a_longer_vocabulary_is_said_in_the_config(words, tmp_path):
    model = tiny_classifier(vision_config=None, **words)
    model.resize_token_embeddings(60)
    model.save_pretrained(tmp_path)
    again = FlavourForClassification.from_pretrained(tmp_path)
    assert again.get_input_embeddings().weight.shape[0] == 60
    assert again.config.get_text_config().vocab_size == 60
    assert again.config.word_vocab_size == (60 if words else None)
    with pytest.raises(TypeError, match=r"no field 'vocab_size'\. Did you mean word_vocab_size"):
        FlavourConfig(vocab_size=60)
