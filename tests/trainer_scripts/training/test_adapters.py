"""`--lora_rank`: adapters that are trained, saved beside the run, merged, resumed, published and read on their base."""

import json

import pytest
import torch

from tests.trainer_scripts.conftest import refused
from tests.trainer_scripts.tiny_runs import SMALL, assert_equal_weights, interrupted_after, run, weights
from trainer_scripts import score, train
from trainer_scripts.evaluation.predictions import read_metrics
from trainer_scripts.scoring.saved_model import load_model, load_table

pytest.importorskip("peft")
from huggingface_hub import HfApi
from peft import PeftModel

from dataset_builder.errors import BadInputError
from dataset_builder.publishing.release import publish_model
from tests.modeling_flavour.family import FAMILY
from trainer_scripts.tasks.common.adapters import merged, read_adapter
from trainer_scripts.training.adapters import adapted_backbones, whole_parts

LORA = ("--lora_rank", "2", "--learning_rate", "0.02", "--num_train_epochs", "1")


@pytest.fixture(scope="module")
def base(small_dataset, tmp_path_factory):
    """A model that adapters go on."""
    return run(tmp_path_factory.mktemp("base") / "base", small_dataset, "--num_train_epochs", "1")


@pytest.fixture(scope="module")
def adapted(base, small_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted") / "adapted"
    return run(folder, small_dataset, "--model_name_or_path", str(base), "--modality", "fusion", *LORA)


def answers(folder, dataset):
    model = load_model(str(folder))
    return torch.from_numpy(model.task.answers(model, load_table(model, str(dataset), "test"), 16).probabilities)


def test_the_folder_is_an_ordinary_model_and_its_adapter_gives_the_same_on_the_base(base, adapted, small_dataset):
    before, after = weights(base), weights(adapted)
    assert before.keys() == after.keys()
    # Backbones are changed by the adapters alone, so by a matrix of rank 2; all else but their norms is trained.
    for name, value in after.items():
        if name.startswith(("text_encoder.model.", "image_encoder.model.")) and value.ndim > 1:
            change = (value - before[name]).flatten(1)
            assert torch.linalg.matrix_rank(change, tol=1e-5) <= 2, name
        elif name.startswith(("text_encoder.model.", "image_encoder.model.")):
            assert torch.equal(value, before[name]), name
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])
    changed = [name for name in after if "encoder.model" in name and not torch.equal(after[name], before[name])]
    assert read_metrics(adapted)["adapters"]["layers"] == len(changed) > 10
    # peft puts the adapter on the base, and so do the verbs.
    expected = answers(adapted, small_dataset)
    torch.testing.assert_close(answers(adapted / "adapter", small_dataset), expected, rtol=1e-4, atol=1e-5)
    kind = type(load_model(str(base)).model)
    by_peft = PeftModel.from_pretrained(kind.from_pretrained(base), adapted / "adapter").merge_and_unload()
    for name, value in by_peft.state_dict().items():
        if "familiarity" in name:  # what the base knows of its inputs is no part of an adapter, and stays with the base
            continue
        torch.testing.assert_close(value, after[name], msg=name)
    score.main([str(adapted / "adapter"), str(small_dataset)])
    own = json.loads((adapted / "adapter" / "scores" / "test" / "metrics.json").read_text())["metrics"]
    score.main([str(adapted), str(small_dataset)])
    assert own == json.loads((adapted / "scores" / "test" / "metrics.json").read_text())["metrics"]


def test_cards_name_the_adapters(adapted, base):
    card = (adapted / "README.md").read_text()
    assert f"layers of {base.name}, merged into the weights" in card
    assert "LoRA of rank 2 (alpha 4)" in card
    card = (adapted / "adapter" / "README.md").read_text()
    assert "library_name: peft" in card
    assert "PeftModel.from_pretrained(base" in card


def test_an_adapter_repository_loads_on_its_published_base(connected_hub, base, adapted, tmp_path):
    publish_model(base, "org/base", "1.0.0")
    with pytest.raises(BadInputError, match="give its id as base"):
        publish_model(adapted / "adapter", "org/adapter", "1.0.0")
    publish_model(adapted / "adapter", "org/adapter", "1.0.0", base="org/base", base_revision="v1.0.0")
    info = HfApi().model_info("org/adapter")
    assert info.card_data.base_model == "org/base"
    assert "model.safetensors" not in {one.rfilename for one in info.siblings}
    # The verbs read it by its id, with the base at the revision that it names.
    model = load_model("org/adapter").model
    torch.testing.assert_close(model.state_dict()["classifier.weight"], weights(adapted)["classifier.weight"])
    # Each block of its card runs for a stranger.
    card = HfApi().hf_hub_download("org/adapter", "README.md")
    with open(card) as file:
        blocks = [part.split("```")[0] for part in file.read().split("```python\n")[1:]]
    assert len(blocks) == 2
    blocks.append("from peft import AutoPeftModel")
    blocks.append('print("auto", AutoPeftModel.from_pretrained("org/adapter", trust_remote_code=True).device)')
    printed = connected_hub.run_python(f"import os; os.chdir({str(tmp_path)!r})\n" + "\n".join(blocks))
    assert "FlavourForClassification" in printed
    assert "auto cpu" in printed
    for name, value in weights(tmp_path / "adapter-merged").items():
        if "familiarity" in name:
            continue
        torch.testing.assert_close(value, weights(adapted)[name], msg=name)


def test_two_steps_resume_and_two_more_equal_four(small_dataset, tmp_path, monkeypatch):
    every_step = ("--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "1", "--eval_steps", "1")
    arguments = (*LORA, *every_step, "--load_best_model_at_end", "false", "--ema_decay", "0.9")
    whole = run(tmp_path / "whole", small_dataset, *arguments)
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch, interrupted_after(patch, 2):
        run(broken, small_dataset, *arguments)
    # A checkpoint is a model too, adapters merged as it is read.
    names = set(load_model(str(broken / "checkpoint-2")).model.state_dict())
    run(broken, small_dataset, *arguments)
    assert_equal_weights(whole, broken)
    assert names == set(weights(broken))
    one, two = (read_adapter(folder / "adapter")[2] for folder in (whole, broken))
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_run_from_parts_without_merging_is_read_through_its_base(small_dataset, tmp_path):
    folder = run(tmp_path / "run", small_dataset, *LORA, "--lora_merge", "false", "--modality", "text",
                 "--lora_targets", "query", "value")  # fmt: skip
    assert not (folder / "model.safetensors").exists()
    assert read_metrics(folder)["adapters"]["layers"] == 2
    expected = answers(folder, small_dataset)
    folder.rename(tmp_path / "moved")
    assert torch.equal(answers(tmp_path / "moved", small_dataset), expected)
    started = answers(tmp_path / "moved" / "base", small_dataset)
    assert not torch.equal(started, expected)


def test_another_label_set_is_learned_by_an_adapter(base, small_dataset, tmp_path):
    folder = run(tmp_path / "run", small_dataset, "--model_name_or_path", str(base), *LORA, "--label_column",
                 "flavours", "--task", "multilabel", "--lora_merge", "false", "--metric_for_best_model",
                 "samples_f1")  # fmt: skip
    model = load_model(str(folder))
    assert model.task.name == "multilabel"
    kept = json.loads((folder / "adapter" / "metrics.json").read_text())["adapters"]
    assert kept["new_labels"] is False  # the same names, which are now chosen together


@pytest.mark.parametrize("name", FAMILY)
def test_every_trained_weight_is_an_adapters_or_in_a_part_that_is_saved(name):
    model = FAMILY[name].build()
    backbones = adapted_backbones(model)
    parts = tuple(f"{part}." for part in [*whole_parts(model, backbones), *backbones])
    assert [
        each for each, value in model.named_parameters() if value.requires_grad and not each.startswith(parts)
    ] == []


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_merging_is_the_sum_that_the_layer_computes(kind):
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 4) if kind == "linear" else torch.nn.Conv2d(6, 4, 3, stride=2, padding=1)
    given = torch.randn(2, 6) if kind == "linear" else torch.randn(2, 6, 8, 8)
    model = torch.nn.Sequential(layer)
    settings = LoraConfig(r=2, lora_alpha=4, target_modules=["0"], init_lora_weights=False)
    inject_adapter_in_model(settings, model)
    expected, state = model(given), merged(model.state_dict())
    plain = torch.nn.Sequential(type(layer)(6, 4, *(() if kind == "linear" else (3, 2, 1))))
    plain.load_state_dict(state)
    torch.testing.assert_close(plain(given), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lora_targets", "query"), "give --lora_rank too"),
        (("--lora_rank", "2", "--lora_targets", "quarry"), "is called 'quarry'; there are query, key, value"),
        (("--lora_rank", "2", "--freeze_text", "true", "--freeze_image", "true"), "they are frozen"),
        (("--lora_rank", "-1"), "lora_rank is -1"),
    ],
)
def test_what_cannot_be_adapted_is_refused(capsys, small_dataset, tmp_path, arguments, message):
    words = ["flavour_fusion_tiny", "--dataset", small_dataset, "--output_dir", tmp_path / "run", *SMALL, *arguments]
    assert message in refused(capsys, train, *words)
    assert not (tmp_path / "run").exists()
