"""A model of the family as the start of another one: other labels, a new head, and the plain loss."""

import json

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModel, Trainer, TrainingArguments

from modeling_flavour import FlavourConfig
from modeling_flavour.fusion_flavour import ClassScores

from .contract import Samples
from .family import FAMILY
from .tiny import tiny_classifier, tiny_segmenter

LABELLED = [name for name in FAMILY if not name.startswith("captioner")]
NAMES = {0: "background", 1: "bread", 2: "soup"}
CLASSIFIER_RUN = {
    "class_prior": [0.1, 0.3, 0.2, 0.2, 0.2],
    "class_weights": [1.0, 2.0, 0.0, 1.0, 1],
    "label_smoothing": 0.05,
}
SEGMENTER_RUN = {
    "class_weights": [1.0, 2.0, 0.0, 1.0, 1],
    "ingredient_prior": [0.3, 0.2, 0.2, 0.2],
    "source_labels": list("abcdef"),
    "class_map": [0, 1, 2, 3, 4, 255],
}  # fmt: skip


def settings_of_a_run(name):
    """What a training run of the trainer puts into the config of this kind of model."""
    if name not in ("segmenter", "segmenter-multitask", "ingredients"):
        return CLASSIFIER_RUN
    # The prior is for ingredient scores that read features.
    return {key: value for key, value in SEGMENTER_RUN.items() if name == "ingredients" or key != "ingredient_prior"}


def saved(folder, name, old=False):
    """A model that a run has saved; the configs of former versions kept all settings of the run."""
    settings = settings_of_a_run(name)
    model = FAMILY[name].build(**settings)
    model.save_pretrained(folder)
    if old:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return model


def answers(model, name, labels=3):
    batch = {key: value for key, value in FAMILY[name].batch(2).items() if key not in ("labels", "ingredient_targets")}
    with torch.no_grad():
        output = model.eval()(**batch)
    width = labels - 1 if FAMILY[name].answer == "ingredient_logits" else labels
    assert output[FAMILY[name].answer].shape[1] == width
    return output


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", LABELLED)
def test_other_labels_get_a_new_head_on_the_same_body(name, old, tmp_path):
    model = saved(tmp_path / "model", name, old)
    for number, fields in enumerate(
        ({"num_labels": 3}, {"id2label": NAMES}, {"id2label": NAMES, "label2id": {v: k for k, v in NAMES.items()}})
    ):
        again, report = AutoModel.from_pretrained(
            tmp_path / "model", ignore_mismatched_sizes=True, output_loading_info=True, **fields
        )
        assert again.config.num_labels == 3
        assert again.config.label2id == {label: key for key, label in again.config.id2label.items()}
        mismatched = {key[0] for key in report["mismatched_keys"]}
        assert mismatched
        assert all(key.startswith(type(model).label_parameters) for key in mismatched)
        state = again.state_dict()
        for key, value in model.state_dict().items():
            assert key in mismatched or torch.equal(state[key], value), key
            assert state[key].isfinite().all(), key
        answers(again, name)
        again.save_pretrained(tmp_path / f"again-{number}")
        third = AutoModel.from_pretrained(tmp_path / f"again-{number}")
        assert third.config.id2label == again.config.id2label
        torch.testing.assert_close(answers(third, name)[0], answers(again, name)[0])


@pytest.mark.parametrize("name", LABELLED)
def test_an_edited_config_makes_a_model(name, tmp_path):
    model = saved(tmp_path, name)
    for config in (AutoConfig.from_pretrained(tmp_path), model.config):
        config.num_labels = 3
        config.id2label = NAMES
        answers(AutoModel.from_config(config), name)
        assert config.label2id["soup"] == 2
        config.save_pretrained(tmp_path / "edited")
        assert AutoConfig.from_pretrained(tmp_path / "edited").id2label == NAMES


def new_heads(model, labels):
    """Replace every layer that scores labels, as one does by hand."""
    for prefix in type(model).label_parameters:
        path, _, last = prefix.rstrip(".").rpartition(".")
        try:
            parent = model.get_submodule(path)
            layer = getattr(parent, last)
        except AttributeError:
            continue
        if isinstance(layer, torch.nn.Linear | ClassScores):
            inputs = 2 * labels if last == "ingredient_classifier" and model.reads_masks else layer.in_features
            width = labels - 1 if last == "ingredient_classifier" else labels
            setattr(parent, last, torch.nn.Linear(inputs, width, bias=layer.bias is not None))
        elif isinstance(layer, torch.nn.Conv2d):
            setattr(parent, last, torch.nn.Conv2d(layer.in_channels, labels, 1))
        elif isinstance(layer, torch.nn.Parameter):
            setattr(parent, last, torch.nn.Parameter(torch.zeros(labels)))


@pytest.mark.parametrize("name", LABELLED)
def test_a_head_by_hand_is_saved_and_loaded(name, tmp_path):
    model = FAMILY[name].build(**settings_of_a_run(name))
    new_heads(model, 3)
    model.config.num_labels = 3
    expected = answers(model, name)
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(answers(again, name)[FAMILY[name].answer], expected[FAMILY[name].answer])


def test_a_head_by_hand_learns_before_its_config_knows_it():
    model = tiny_classifier()
    model.classifier = torch.nn.Linear(model.classifier.in_features, 3)
    batch = FAMILY["fusion-early"].batch(4)
    output = model(**{**batch, "labels": torch.tensor([0, 1, 2, 2])})
    expected = functional.cross_entropy(output.logits, torch.tensor([0, 1, 2, 2]))
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", FAMILY)
def test_settings_of_a_run_do_not_travel(name, old, tmp_path):
    captioner = name.startswith("captioner")
    settings = {"label_smoothing": 0.3} if captioner else settings_of_a_run(name)
    model = FAMILY[name].build(**settings)
    model.save_pretrained(tmp_path)
    plain = FAMILY[name].build()
    plain.load_state_dict(model.state_dict())
    file = tmp_path / "config.json"
    written = json.loads(file.read_text())
    kept = {"source_labels", "class_map"}  # how the masks of its data are read
    assert not (settings.keys() - kept) & written.keys()
    if old:
        file.write_text(json.dumps({**written, **settings}))
    batch = FAMILY[name].batch(4)
    again = AutoModel.from_pretrained(tmp_path)
    with torch.no_grad():
        expected, weighted = plain.eval()(**batch).loss, model.eval()(**batch).loss
        torch.testing.assert_close(again.eval()(**batch).loss, expected)
    if name != "ingredients":  # its prior shapes no loss, and its weights are those of masks
        assert (weighted - expected).abs() > 1e-4


def test_a_sure_and_right_answer_costs_nothing_in_a_stock_trainer(tmp_path):
    saved(tmp_path / "model", "fusion-early", old=True)
    model = AutoModel.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(60 * functional.one_hot(torch.tensor(2), 5))
    batch = {**FAMILY["fusion-early"].batch(4), "labels": torch.full((4,), 2)}
    settings = TrainingArguments(str(tmp_path), use_cpu=True, disable_tqdm=True, remove_unused_columns=False)
    assert Trainer(model, settings).evaluate(Samples(batch))["eval_loss"] == pytest.approx(0, abs=1e-6)
    # The class that was absent from the run had the weight 0; it costs again.
    with torch.no_grad():
        model.classifier.bias.copy_(60 * functional.one_hot(torch.tensor(1), 5))
    assert Trainer(model, settings).evaluate(Samples(batch))["eval_loss"] > 50


def test_a_renamed_label_is_found_by_its_new_name():
    config = tiny_segmenter(**SEGMENTER_RUN, ingredient_head=True).config
    config.id2label = {0: "background", 1: "Ei", 2: "Reis", 3: "Blatt", 4: "Nuss"}
    assert config.label2id["Reis"] == 2
    assert config.class_map is None
    kept = FlavourConfig(class_weights=[1.0] * 5)
    kept.id2label = {str(key): label for key, label in kept.id2label.items()}  # as JSON writes it
    assert kept.class_weights == [1.0] * 5


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_any_number_of_labels_without_names_is_saved(labels, tmp_path):
    config = FlavourConfig(word_vocab_size=10, num_labels=labels)
    config.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).id2label == config.id2label
    assert AutoConfig.from_pretrained(tmp_path).num_labels == labels
