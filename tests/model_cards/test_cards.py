"""Cards say what the files of a run say, and nothing else; their example runs."""

import ast
import json
import re

import huggingface_hub
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, hf_hub_download

from dataset_builder.errors import BadInputError
from dataset_builder.publishing.release import publish_model
from model_cards.cards import (
    check_own,
    check_written,
    data_card,
    fill,
    join_card,
    model_card,
    read_template,
    split_card,
    write_model_card,
)
from model_cards.errors import CardError
from modeling_flavour.modeling_flavour import FlavourForClassification
from tests.dataset_builder.tiny_build import picture
from tests.model_cards.tiny_run import COMPARISON, METRICS, make_processor, make_run
from tests.modeling_flavour.family import FAMILY

REPO = "org/flavour-fusion"
NAMES = {"repo": REPO, "revision": "v1.0.0"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", comparison=COMPARISON)


# In a block of code, a table and a line of prose.
ODD_LABELS = ['say "hi"', "it's", "a|b", "back\\slash\\", "née ☕ {{ x }}"]


def usage(card):
    return re.search("```python\n(.*?)```", card, re.DOTALL)[1]


def test_figures_come_from_the_files_of_the_run(run):
    card = model_card(run, **NAMES)
    data = ModelCard(card).data
    found = {(one.dataset_split, one.metric_type): one.metric_value for one in data.eval_results}
    assert found == {("validation", "accuracy"): 0.75, ("validation", "macro_f1"): 0.7, ("test", "accuracy"): 0.78}
    assert (data.license, data.datasets, data.library_name) == ("apache-2.0", ["org/flavour-sd"], "transformers")
    for line in (
        "| accuracy | 0.7500 | share of rows \\|whose\\| label is most probable |",
        "| accuracy | 0.7800 (0.7400 to 0.8200) | share of rows \\|whose\\| label is most probable |",
        "20 rows that chose the checkpoint, so the figures are a little too good.",
        "500 rows that took no part in training or in the choice of the checkpoint.",
        "| majority | none | 0.300 [0.280, 0.330] |",
        "| text blanked | 0.500 |",
        "- run is better than title: +0.050 accuracy [+0.010, +0.090]",
        "| parameters | 12,345 |",
        "learning_rate: 0.001",
    ):
        assert line in card
    assert "something else" not in card, "a verdict on another model"
    assert "/somewhere" not in card
    assert "text_encoder: minilm" in card


def test_the_language_is_known_of_the_catalogue_alone(tmp_path):
    found = {}
    for name, recipes in (("catalogue", None), ("own", "recipes.csv")):
        manifest = tmp_path / name / "manifest.json"
        manifest.parent.mkdir()
        manifest.write_text(json.dumps({"settings": {"recipes": recipes}}))
        run = make_run(tmp_path / f"run-{name}", metrics={**METRICS, "dataset": str(manifest.parent)})
        found[name] = ModelCard(model_card(run, **NAMES)).data.language
    assert found == {"catalogue": ["en"], "own": None}


def test_a_section_without_figures_is_absent(tmp_path):
    card = model_card(make_run(tmp_path / "bare", metrics=None, recipe=None), **NAMES)
    headings = re.findall("^## (.*)$", card, re.MULTILINE)
    assert headings == ["How to use it", "What it is", "Intended use", "Limits", "Licence"]
    assert "model-index" not in card


def test_scores_of_splits_scored_since_are_found(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "test").mkdir()
    scored = {"split": "test", "rows": 7, "metrics": {"accuracy": {"value": 0.5, "interval": [0.4, 0.6]}, "nan": None}}
    (run / "test" / "metrics.json").write_text(json.dumps(scored))
    assert "| accuracy | 0.5000 (0.4000 to 0.6000) |" in model_card(run)
    (run / "test" / "metrics.json").write_text(json.dumps({**scored, "split": "train"}))
    assert "7 rows that the model was trained on" in model_card(run)


def test_scores_on_other_data_are_told_apart_from_those_on_the_runs_own(tmp_path):
    run = make_run(tmp_path / "run", comparison=COMPARISON)
    scored = {"split": "test", "rows": 7, "metrics": {"accuracy": 0.5}}
    for name, dataset in (("own", "outputs/flavour-sd"), ("other", "kitchen/soups")):
        (run / "scores" / name).mkdir(parents=True)
        (run / "scores" / name / "metrics.json").write_text(json.dumps({**scored, "dataset": dataset}))
    card = model_card(run, **NAMES)
    data = {(one.dataset_type, one.dataset_split, one.dataset_revision): one.metric_value for one in
            ModelCard(card).data.eval_results if one.metric_type == "accuracy"}  # fmt: skip
    assert data == {
        ("org/flavour-sd", "validation", "v1.0.0"): 0.75,
        ("org/flavour-sd", "test", "v1.0.0"): 0.78,  # of the comparison, in place of 0.5
        ("kitchen/soups", "test", None): 0.5,
    }
    assert "## Scores on test\n\n500 rows that took no part" in card
    assert "## Scores on test of kitchen/soups\n\n7 rows of other data than the model was trained on." in card


def test_a_comparison_on_other_data_does_not_pass_for_one_on_the_runs_own(tmp_path):
    card = model_card(make_run(tmp_path / "run", comparison={**COMPARISON, "dataset": "kitchen/soups"}), **NAMES)
    assert "## Scores on test of kitchen/soups\n" in card
    assert "500 rows of 90 groups, split test of kitchen/soups;" in card


def test_scores_of_another_model_below_the_folder_are_not_this_models(tmp_path):
    run = make_run(tmp_path / "run")
    for name in ("onnx-int8", "seed-1"):
        below = run / name / "scores" / "test"
        below.mkdir(parents=True)
        (run / name / "config.json").write_text("{}")
        (below / "metrics.json").write_text(json.dumps({"split": "test", "rows": 7, "metrics": {"accuracy": 0.5}}))
    assert "Scores on test" not in model_card(run)


def test_it_says_that_pictures_were_simulated(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    run = make_run(tmp_path / "run", {**METRICS, "dataset": str(data)})
    assert "simulated" not in model_card(run)
    assert ModelCard(model_card(run)).data.eval_results[0].dataset_type == "data"
    (data / "manifest.json").write_text('{"simulator": true}')
    card = model_card(run, dataset="org/flavour-sd")
    assert "**Trained on simulated pictures.**" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"text_config": {"model_type": "bert"}}, ["reads the title of", 'text="Greek', "softmax"]),
        ({"vision_config": {"model_type": "resnet"}}, ["reads a picture of", "images=Image.open", "dish.jpg"]),
        (
            {"vision_config": {}, "word_vocab_size": 9, "problem_type": "multi_label_classification"},
            ["which of 2 labels apply:", "sigmoid()", "word embeddings"],
        ),
        (
            {"architectures": ["FlavourForMergeCaptioning"]},
            ["writes a sentence", "AutoModelForImageTextToText", "generate", "image-to-text"],
        ),
        (
            {"architectures": ["FlavourForSegmentation"]},
            ["each pixel", "argmax(0)", "image-segmentation", "post_process"],
        ),
    ],
)
def test_every_kind_of_model_has_its_card(tmp_path, config, words):
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "sweet", "1": "sour"}, **config}))
    card = model_card(tmp_path, **NAMES)
    assert [word for word in words if word not in card] == []
    assert 'revision="v1.0.0", trust_remote_code=True' in card
    if "vision_config" not in config and "text_config" in config:
        assert "Image" not in usage(card)
    compile(usage(card), "card", "exec")


KINDS = {
    "fusion-early": "classification",
    "text": "multilabel",
    "image": "classification",
    "captioner-transformer": "captioning",
    "captioner-merge": "captioning",
    "segmenter": "segmentation",
    "segmenter-multitask": "segmentation",
    "ingredients": "ingredients",
}


def test_every_block_of_every_kind_of_card_runs_from_the_hub_alone(connected_hub, run, tmp_path):
    said = publish_model(run, REPO, "1.0.0", comparison=run / "comparison.json")
    assert said.startswith("published org/flavour-fusion 1.0.0: v1.0.0 is commit ")
    card = ModelCard.load(hf_hub_download(REPO, "README.md", revision="v1.0.0"))
    # Earlier clients ask the public Hub, whatever their endpoint is; publishing asked the Hub here.
    if int(huggingface_hub.__version__.split(".")[0]) >= 2:
        card.validate()
    picture(3).save(tmp_path / "dish.jpg")
    script = [f"import os; os.chdir({str(tmp_path)!r})", usage(card.text)]
    for name, task in KINDS.items():
        folder = tmp_path / name
        FAMILY[name].build().save_pretrained(folder)
        FAMILY[name].processor().save_pretrained(folder)
        (folder / "metrics.json").write_text(json.dumps({**METRICS, "task": task, "definitions": {}}))
        (folder / "configuration.yaml").write_text("seed: 1\n")
        if name == "image":
            config = json.loads((folder / "config.json").read_text())
            config["id2label"] = dict(enumerate(ODD_LABELS))
            (folder / "config.json").write_text(json.dumps(config))
        publish_model(folder, f"org/{name}", "1.0.0")
        card = ModelCard.load(hf_hub_download(f"org/{name}", "README.md", revision="v1.0.0")).text
        blocks = re.findall("```python\n(.*?)```", card, re.DOTALL)
        assert len(blocks) == 2
        script += [f'print("begin", "{name}", {number})\n{block}' for number, block in enumerate(blocks)]
    printed = connected_hub.run_python("\n".join(script))
    inputs = make_processor()(images=str(tmp_path / "dish.jpg"), text="Greek salad with olives")
    with torch.no_grad():
        model = FlavourForClassification.from_pretrained(run).eval()
        expected = model(**inputs).logits[0].softmax(-1).tolist()
    lines = [f"{name}: {share:.3f}" for name, share in zip(model.config.id2label.values(), expected, strict=True)]
    assert printed.split("begin")[0].strip().splitlines()[-5:] == lines
    for name in KINDS:
        for number in (0, 1):
            answer = printed.split(f"begin {name} {number}\n", 1)[1].split("begin")[0].strip()
            # A segmenter may find nothing but background above the least area.
            assert answer or (name.startswith("segmenter") and number == 1), f"{name}, block {number}"


def test_an_adapters_card_names_any_label_and_any_base(tmp_path):
    facts = {"rank": 2, "alpha": 4, "layers": 1, "base": "org/base", "merged": False, "new_labels": True}
    adapter = {"base_model_name_or_path": 'the "base"', "revision": "v1"}
    for name, content in (
        ("config", {"id2label": dict(enumerate(ODD_LABELS))}),
        ("metrics", {**METRICS, "adapters": facts}),
        ("adapter_config", adapter),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    block = usage(model_card(tmp_path, **NAMES))
    literals = [node.value for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)]
    assert [label for label in ODD_LABELS if label not in literals] == []
    assert {'the "base"', "v1", REPO, "v1.0.0"} <= set(literals)


def test_a_model_of_other_things_is_not_said_to_read_dishes(tmp_path):
    parts = {"text_config": {"model_type": "bert"}, "vision_config": {"model_type": "resnet"}}
    multi = {**parts, "problem_type": "multi_label_classification", "id2label": {"0": "person", "1": "dog"}}
    captioner = {**parts, "architectures": ["FlavourForMergeCaptioning"]}
    for task, config in (("multilabel", multi), ("captioning", captioner), ("text_to_image", {"image_size": 64})):
        (tmp_path / "config.json").write_text(json.dumps(config))
        for dishes in (False, True):
            metrics = {**METRICS, "task": task, "dataset": "org/streets", "dishes": dishes}
            (tmp_path / "metrics.json").write_text(json.dumps(metrics))
            card = model_card(tmp_path, **NAMES)
            words = set(re.findall("food|taste|diet|kitchens|Greek", card.replace("flavour", "")))
            tags = {"food", "recipes"} & set(ModelCard(card).data.tags or [])
            title = {"Greek"} if task != "captioning" else set()
            assert words == ({"food", "diet", "kitchens"} | title if dishes else set()), (task, dishes)
            assert tags == ({"food", "recipes"} if dishes else set())


@pytest.mark.parametrize(
    ("settings", "bases"),
    [
        ({"model_name_or_path": "org/flavour-fusion", "text_encoder": "org/words"}, "org/flavour-fusion"),
        ({"text_encoder": "org/words", "image_encoder": "org/pictures"}, ["org/words", "org/pictures"]),
        ({"text_encoder": "package:all-minilm-l6-v2", "image_encoder": "/somewhere/pictures"}, None),
        ({"model_name_or_path": "/somewhere/fusion"}, None),
        ({"teacher": "org/teacher"}, None),
    ],
)
def test_the_models_whose_weights_a_run_began_with_are_named(tmp_path, settings, bases):
    card = model_card(make_run(tmp_path / "run", recipe=settings), **NAMES)
    assert ModelCard(card).data.base_model == bases
    started = re.search(r"\| starts from \| (.*) \|", card)
    assert (started and started[1]) == {None: None, "org/flavour-fusion": "org/flavour-fusion"}.get(
        settings.get("model_name_or_path"), "fusion"
    )
    assert "/somewhere" not in card


def test_a_backbone_that_the_model_lacks_is_none_that_it_began_with(tmp_path):
    run = make_run(tmp_path / "run", recipe={"text_encoder": "org/words", "image_encoder": "org/pictures"})
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"vision_config": None}))
    assert ModelCard(model_card(run, **NAMES)).data.base_model == "org/words"


def test_publishing_a_model_is_whole_or_not_at_all(connected_hub, run):
    connected_hub.inject("tag", "error")
    with pytest.raises(BadInputError, match="carries no tag, repeat the command"):
        publish_model(run, REPO, "1.0.0")
    publish_model(run, REPO, "1.0.0", dataset="org/flavour-sd")
    files = {one.rfilename for one in HfApi().model_info(REPO, revision="v1.0.0").siblings}
    assert {"README.md", "config.json", "model.safetensors", "modeling_flavour.py", "configuration.yaml"} < files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    with open(hf_hub_download(REPO, "configuration.yaml")) as recipe:
        assert recipe.read() == "learning_rate: 0.001\nmodality: fusion\ntext_encoder: minilm\n"
    with pytest.raises(BadInputError, match=r"has v1\.0\.0 already"):
        publish_model(run, REPO, "1.0.0")


def test_a_model_of_another_kind_is_left_alone(connected_hub, run):
    def put(name):
        HfApi().upload_file(path_or_fileobj=b"{}", path_in_repo=name, repo_id=REPO)

    HfApi().create_repo(REPO)
    put("config.json")
    with pytest.raises(BadInputError, match=r"holds config\.json, which no release of this package wrote"):
        publish_model(run, REPO, "1.0.0")
    HfApi().delete_repo(REPO)
    publish_model(run, REPO, "1.0.0")
    put("onnx/model.onnx")
    put("tokenizer/words.json")
    put("old.json")
    publish_model(run, REPO, "1.1.0")
    files = {one.rfilename for one in HfApi().model_info(REPO).siblings}
    assert {"onnx/model.onnx", "tokenizer/words.json"} <= files
    assert "old.json" not in files, "what looks like a file of the model belongs to its version"


def test_an_unfinished_run_is_not_published(tmp_path):
    run = make_run(tmp_path / "run", metrics=None)
    with pytest.raises(BadInputError, match=r"lacks metrics\.json; finish the training run first"):
        publish_model(run, REPO, "1.0.0")
    (run / "export.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"holds an export; publish the model .*: hf upload org/flavour-fusion "):
        publish_model(run, REPO, "1.0.0")
    with pytest.raises(CardError, match=r"has no config\.json"):
        model_card(tmp_path / "none")
    (run / "metrics.json").write_text("{")
    with pytest.raises(CardError, match="is not JSON"):
        model_card(run)


def test_the_card_lies_beside_the_model(run):
    assert write_model_card(run) == run / "README.md"
    _, body = split_card((run / "README.md").read_text())
    assert 'from_pretrained("run", trust_remote_code=True)' in body


@pytest.mark.parametrize("left", ["[More Information Needed]", "TODO", "todo: say more", "(TBD)", "<!-- say more -->"])
def test_placeholders_are_seen(left):
    with pytest.raises(CardError, match="has placeholders left"):
        check_written("word " * 50 + left, "the card")


@pytest.mark.parametrize("word", ["org/todo-recipes", "method", "my-todo list", "a todo list", "TODO-2024", "mastodon"])
def test_words_that_only_look_like_placeholders_are_none(word):
    check_written("word " * 50 + word, "the card")


def test_facts_may_hold_any_word(run):
    assert "# todo" in model_card(run, **{**NAMES, "repo": "org/todo"})


def test_a_template_can_neither_miss_a_fact_nor_reach_beyond_its_facts():
    with pytest.raises(CardError, match="'nothing' is undefined"):
        fill("{{ nothing }}", {}, "the card")
    with pytest.raises(CardError, match="cannot be filled"):
        fill("{{ ''.__class__.__mro__ }}", {}, "the card")


def test_card_metadata_round_trip():
    metadata = {"license": "mit", "tags": ["a", "é"]}
    assert split_card(join_card(metadata, "body\n")) == (metadata, "\nbody\n")


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10 ** 10 }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{% for a in rows recursive %}{{ loop(rows) }}{% endfor %}",
        "{% for a in flavours %}{% for b in flavours %}{% for c in flavours %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in (1, 2, 3) %}{% endfor %}",
        "{{ '%999999999d' | format(1) }}",
        "{{ 'a' | center(999999999) }}",
        "{% include 'data_card.md' %}",
        "{{ rows.__class__ }}",
        "{{ rows / 0 }}",
        "{{ rows | join }}",
        "{% for a in rows %}{% endfor %}",
        "{{ " + "(" * 5000 + "rows" + ")" * 5000 + " }}",
        "{% extends 'nothing.md' %}",
        "{{ rows",
    ],
)
def test_a_publishers_card_only_fills_in_facts(template):
    values = {"rows": 60, "flavours": ["sweet", "sour"]}
    with pytest.raises(CardError, match=r"README\.md"):
        data_card({"license": "mit"}, values, template + " word" * 50)


def test_our_own_card_of_data_may_be_copied_and_changed(tmp_path):
    check_own(read_template("data_card.md"), "the card README.md")
    own = "---\nlanguage: de\n---\n{% if rows > 3 %}{{ rows | thousands }} Bilder{% endif %}" + " Wort" * 50
    card = data_card({"license": "mit"}, {"rows": 6000}, own)
    assert "6,000 Bilder" in card
    assert "language: de" in card
