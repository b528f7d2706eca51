"""`--lora_rank`: adapters that are trained, saved beside the run, merged, resumed, published and read on their base."""

import csv
import json

import pytest
import torch
from torch.utils.data import DataLoader

from tests.trainer_scripts.conftest import make_row, refused
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
from trainer_scripts.training.adapters import adapted_backbones, target_layers, whole_parts

# A backbone with a part of the same name as one of the model: `head`.
CONVNEXT = """{"model_type": "timm_wrapper", "architecture": "convnext_atto",
"model_args": {"dims": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}}"""
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


@torch.no_grad()
def assert_peft_answers_as(folder, dataset, **fields):
    """An adapter answers on its base, put there by `PeftModel` or by `load_adapter`, as in our own loader."""
    ours = load_model(str(folder))
    table, kind = load_table(ours, str(dataset), "test"), type(ours.model)
    loader = DataLoader(
        ours.task.evaluation_samples(ours.processor, table),
        30,
        collate_fn=ours.task.collator(ours.processor, len(ours.names)),
    )
    batch = {name: value for name, value in next(iter(loader)).items() if name != "labels"}
    # Every second row is unlike those of training.
    batch["input_ids"][::2] = 7
    batch["pixel_values"][::2] = 3 * batch["pixel_values"][::2].flip(-1)
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    expected, config = ours.model(**batch), ours.model.config
    wrapped = PeftModel.from_pretrained(kind.from_pretrained(base, **fields), folder).eval()
    loaded = kind.from_pretrained(base, **fields)
    loaded.load_adapter(str(folder))
    for model in (wrapped, loaded.eval()):
        found = model(**batch)
        assert found.keys() == expected.keys()
        for name in ("logits", "text_familiar", "image_familiar"):
            torch.testing.assert_close(found.get(name), expected.get(name), rtol=1e-4, atol=1e-5, msg=name)
        assert model.abstain_below == config.abstain_below
    return wrapped.merge_and_unload(), expected


def test_the_folder_is_an_ordinary_model_and_its_adapter_gives_the_same_on_the_base(
    base, adapted, small_dataset, tmp_path
):
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
    by_peft, output = assert_peft_answers_as(adapted / "adapter", small_dataset)
    assert by_peft.state_dict().keys() == after.keys()
    for name, value in by_peft.state_dict().items():
        torch.testing.assert_close(value, after[name], msg=name)
    # What it knows of its inputs is its own, not that of the base, and is stated by what is merged and saved.
    assert not output.text_familiar.all()
    assert not torch.equal(after["image_familiarity.mean"], before["image_familiarity.mean"])
    by_peft.save_pretrained(tmp_path)
    own, stated = (json.loads((folder / "config.json").read_text()) for folder in (adapted, tmp_path))
    assert set(own["familiarity"]) == {"text", "image"}
    assert own["abstain_below"] > 0
    for name in ("familiarity", "abstain_below", "modality_dropout"):
        assert stated[name] == own[name]
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
        torch.testing.assert_close(value, weights(adapted)[name], msg=name)
    for one in (tmp_path / "adapter-merged", adapted):
        stated = json.loads((one / "config.json").read_text())
        assert (stated["abstain_below"], stated["familiarity"]) == (
            model.config.abstain_below,
            model.config.familiarity,
        )


def test_two_steps_resume_and_two_more_equal_four(small_dataset, tmp_path, monkeypatch):
    every_step = ("--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "1", "--eval_steps", "1")
    arguments = (*LORA, *every_step, "--load_best_model_at_end", "false", "--ema_decay", "0.9")
    arguments += ("--vision_config", CONVNEXT)
    whole = run(tmp_path / "whole", small_dataset, *arguments)
    broken = tmp_path / "broken"
    with monkeypatch.context() as patch, interrupted_after(patch, 2):
        run(broken, small_dataset, *arguments)
    # A checkpoint is a model too, adapters merged as it is read.
    names = set(load_model(str(broken / "checkpoint-2")).model.state_dict())
    run(broken, small_dataset, *arguments)
    assert_equal_weights(whole, broken)
    assert names == {name for name in weights(broken) if "familiarity" not in name}  # that is learned in the end
    one, two = (read_adapter(folder / "adapter")[2] for folder in (whole, broken))
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    # The model in `base/` knows nothing of its inputs, and the adapter brings what it knows.
    assert json.loads((whole / "base" / "config.json").read_text())["familiarity"] is None
    assert "image_familiarity.mean" in weights(whole)
    assert_peft_answers_as(whole / "adapter", small_dataset)


def test_a_run_from_parts_without_merging_is_read_through_its_base(small_dataset, tmp_path):
    folder = run(tmp_path / "run", small_dataset, *LORA, "--lora_merge", "false", "--modality", "text",
                 "--lora_targets", "query", "value")  # fmt: skip
    assert not (folder / "model.safetensors").exists()
    assert read_metrics(folder)["adapters"]["layers"] == 2
    expected = answers(folder, small_dataset)
    folder.rename(tmp_path / "moved")
    assert torch.equal(answers(tmp_path / "moved", small_dataset), expected)
    limits = [load_model(str(tmp_path / "moved" / part)).model.config.abstain_below for part in ("adapter", "base")]
    assert limits[0] > 0
    assert limits[1] is None
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
    assert 'problem_type="multi_label_classification"' in (folder / "adapter" / "README.md").read_text()
    # The base has a limit below which it abstains; labels that are chosen together have none.
    assert load_model(str(base)).model.config.abstain_below is not None
    merged_by_peft, _ = assert_peft_answers_as(
        folder / "adapter", small_dataset, problem_type=model.model.config.problem_type
    )
    assert merged_by_peft.abstain_below is None


def test_new_labels_on_rows_too_few_to_know_inputs_do_not_keep_what_the_base_knows(base, tmp_path, monkeypatch):
    numbers = {"train": 20, "validation": 10, "test": 10}
    with (tmp_path / "cuisines.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "title", "cuisine", "split"])
        for split, number in numbers.items():
            for index in range(number):
                row = make_row(split, index)
                (tmp_path / f"{row['id']}.png").write_bytes(row["image"]["bytes"])
                table.writerow([f"{row['id']}.png", row["title"], ("greek", "thai", "mexican")[index % 3], split])
    columns = ("--columns", '{"flavour": "cuisine"}', "--group_column", "none")
    dataset = tmp_path / "cuisines.csv"
    folder = run(tmp_path / "run", dataset, "--model_name_or_path", str(base), *LORA, *columns)
    names = {0: "greek", 1: "mexican", 2: "thai"}
    _, output = assert_peft_answers_as(folder / "adapter", dataset, id2label=names, ignore_mismatched_sizes=True)
    assert output.image_familiar is None
    assert load_model(str(base)).model.config.familiarity is not None
    torch.testing.assert_close(answers(folder / "adapter", dataset), answers(folder, dataset))
    # The card says how its base is loaded.
    monkeypatch.chdir(folder)
    block = (folder / "adapter" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    loaded: dict = {}
    exec(block, loaded)
    assert loaded["model"].config.id2label == names
    assert loaded["model"].abstain_below is None


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


def test_all_linear_means_what_it_means_in_peft():
    model = FAMILY["fusion-gated"].build()
    found = target_layers(model, ["all-linear"])
    # The linear layers of every backbone that trains, also of one that consists of convolutions.
    expected = {
        f"{place}.{name}"
        for place, backbone in adapted_backbones(model).items()
        for name, layer in backbone.named_modules()
        if type(layer) is torch.nn.Linear
    }
    assert set(found) == expected
    assert any(name.endswith("query") for name in found)


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
