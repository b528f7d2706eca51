"""`--text_pieces`, `--text_layers`: a student begins with a part of a text encoder, which reads as before."""

import json
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from dataset_builder.errors import BadInputError
from tests.trainer_scripts.conftest import refused
from tests.trainer_scripts.tiny_runs import SMALL, run, weights
from trainer_scripts import train
from trainer_scripts.data.tokenizer import train_tokenizer
from trainer_scripts.scoring.saved_model import load_model, load_train
from trainer_scripts.settings.configurations import parse_configuration
from trainer_scripts.tasks.common.smaller_text import keep_pieces
from trainer_scripts.training.data import load_training_data

LAYERS = {"model_type": "bert", "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
# Without the sizes of a text encoder, which a model to go on from has itself.
WIDE = [word for place, word in enumerate(SMALL) if place not in (0, 1)]
DEEP = ("--text_config", json.dumps({**LAYERS, "num_hidden_layers": 4}), "--tokenizer", "wordpiece")
TEXT = ("--modality", "text", "--num_train_epochs", "1")


@pytest.fixture(scope="module")
def large(small_dataset, tmp_path_factory):
    """A model of texts with four layers and word pieces."""
    return run(tmp_path_factory.mktemp("large") / "large", small_dataset, *TEXT, *DEEP, "--learning_rate", "0.01")


def built(dataset, *arguments):
    words = ["flavour_fusion_tiny", "--dataset", str(dataset), "--output_dir", "unused", *WIDE, *map(str, arguments)]
    configuration = parse_configuration(words)
    data = load_training_data(configuration)
    return *data.task.build(configuration, data), data


def logits(model, processor, texts):
    with torch.no_grad():
        return model.eval()(**processor(text=list(texts), padding=True)).logits


def test_texts_of_kept_pieces_are_read_as_before_and_others_are_spelled(small_dataset, large):
    whole = load_model(str(large))
    vocabulary = whole.processor.tokenizer.get_vocab()
    number = len(vocabulary) - 20
    model, processor, data = built(small_dataset, *TEXT, "--model_name_or_path", large, "--text_pieces", number)
    assert len(processor.tokenizer) == model.config.text_config.vocab_size == number
    assert model.text_encoder.get_input_embeddings().weight.shape == (number, 16)
    texts, tokenize = data.train.texts, whole.processor.tokenizer.tokenize
    assert [processor.tokenizer.tokenize(text) for text in texts] == [tokenize(text) for text in texts]
    torch.testing.assert_close(logits(model, processor, texts), logits(whole.model, whole.processor, texts))
    gone = max(set(vocabulary) - set(processor.tokenizer.get_vocab()), key=len).removeprefix("##")
    assert "".join(piece.removeprefix("##") for piece in processor.tokenizer.tokenize(gone)) == gone
    assert processor.tokenizer("soup")["input_ids"][0] == processor.tokenizer.cls_token_id
    assert model.config.pad_token_id == processor.tokenizer.pad_token_id


def test_a_student_of_half_the_layers_is_trained_saved_and_read(small_dataset, large, tmp_path, capsys):
    given = ("--model_name_or_path", str(large), "--teacher", str(large), "--text_layers", "2", "--text_pieces", "140")
    student = tmp_path / "student"
    words = ("--dataset", str(small_dataset), "--output_dir", str(student), *WIDE, *TEXT, *given)
    train.main(["flavour_fusion_tiny", *words, "--learning_rate", "0"])
    assert "keeps 140 of" in (said := capsys.readouterr().out)
    assert "word pieces and layers 1, 3 of 4" in said
    before, after = weights(large), weights(student)
    for ours, theirs in ((0, 0), (1, 2)):
        place = "text_encoder.model.encoder.layer.{}.output.dense.weight"
        assert torch.equal(after[place.format(ours)], before[place.format(theirs)])
    assert not any("layer.2." in name for name in after)
    model = load_model(str(student))
    assert model.model.config.text_config.num_hidden_layers == 2
    answered = model.task.answers(model, load_train(model, str(small_dataset)), 16).probabilities
    assert answered.shape == (60, 5)


def test_a_text_encoder_that_is_named_is_made_smaller_too(small_dataset, tmp_path, capsys):
    tokenizer = train_tokenizer(["tomato soup with lemon cake and broth"] * 3, "wordpiece", 200, 16)
    tokenizer.save_pretrained(tmp_path / "words")
    config = BertConfig(vocab_size=len(tokenizer), num_hidden_layers=3, **{k: LAYERS[k] for k in list(LAYERS)[1:]})
    BertModel(config).save_pretrained(tmp_path / "words")
    named = ("--text_encoder", tmp_path / "words", "--tokenizer", "none", "--text_config", "{}", "--modality", "text")
    model, processor, _ = built(small_dataset, *named, "--text_layers", "1", "--text_pieces", len(tokenizer) - 3)
    assert model.config.text_config.num_hidden_layers == len(model.text_encoder.model.encoder.layer) == 1
    assert len(processor.tokenizer) == len(tokenizer) - 3


def test_pieces_that_are_made_of_each_other_are_refused():
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    processor = SimpleNamespace(tokenizer=PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    with pytest.raises(BadInputError, match="the tokenizer is a BPE, whose pieces are made of each other"):
        keep_pieces(None, processor, ["ab"], 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*TEXT, "--text_layers", "1"), "text_layers: this model has no pretrained text encoder"),
        (("--model_name_or_path", "LARGE", *TEXT, "--text_layers", "5"), "the text encoder has 4 layers"),
        (("--model_name_or_path", "LARGE", *TEXT, "--text_layers", "0"), "text_layers is 0"),
        (("--model_name_or_path", "LARGE", *TEXT, "--text_pieces", "5"), "special tokens, letters and signs; give a"),
        (("--model_name_or_path", "LARGE", *TEXT, "--text_pieces", "99999"), "text_pieces is 99999; the vocabulary"),
        (("--model_name_or_path", "LARGE", *TEXT, "--text_pieces", "99", "--lora_rank", "2"), "leave out lora_rank"),
        (("--modality", "image", "--text_layers", "1"), "text_layers"),
    ],
)
def test_what_cannot_be_made_smaller_is_refused(small_dataset, large, tmp_path, capsys, arguments, message):
    words = [str(large) if word == "LARGE" else word for word in arguments]
    given = ["flavour_fusion_tiny", "--dataset", small_dataset, "--output_dir", tmp_path / "run", *WIDE, *words]
    assert message in refused(capsys, train, *given)
    assert not (tmp_path / "run").exists()
